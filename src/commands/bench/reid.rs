//! `bench reid`: how well a track is re-identified by the frozen latents, and by a head learned from tracks.
//!
//! Tracks that begin before `--split` are used for learning (only their boxes before that moment). Tracks that begin
//! later are used for evaluation, so that no evaluated track was learned from. The first 40 % of each such track are
//! its gallery and the last 40 % its queries: how often does the nearest box in all galleries belong to the same track
//! (rank 1)?
use std::collections::BTreeMap;

use ndarray::Array2;
use serde_json::json;

use super::super::Output;
use super::super::boxes::{BoxDataset, TrackSample, bounded, collect, in_order, same_track};
use super::super::common::LoadedEncoder;
use crate::cli;
use crate::config::loader::load;
use crate::error::{Error, Result};
use crate::head::{EmbeddingKind, Head, HeadParams};
use crate::knn;
use crate::learner::Learner;
use crate::{signals, source};

/// Shares of a track: its gallery, and where its queries begin.
const GALLERY: f64 = 0.4;
const QUERIES: f64 = 0.6;
/// Tracks with fewer boxes are not evaluated.
const LEAST_BOXES: usize = 10;

/// Latents of the boxes used for evaluation.
struct ReidScores {
    gallery: Array2<f32>,
    gallery_tracks: Vec<usize>,
    queries: Array2<f32>,
    query_tracks: Vec<usize>,
    tracks: usize,
}

pub(super) fn run(args: &cli::BenchReidArgs) -> Result<Output> {
    let mut config = load(args.common.config.as_deref(), &args.common.set)?;
    same_track(&mut config);
    if !(args.split > 0.0 && args.split < 1.0) {
        return Err(Error::usage(format!("--split is {}; it must lie between 0 and 1", args.split)));
    }
    let stop = signals::stop_on_signals()?;
    let mut opened = LoadedEncoder::open(&args.encoder, &config)?;
    let mut boxed = BoxDataset::open(&args.boxes, &config, &opened, 1)?;
    let mut source = source::open(&args.source, &config.source)?;
    bounded(source.as_ref())?;
    let (seen, ended) = collect(&mut boxed, &mut opened, source.as_mut(), &stop, &config)?;
    if !ended {
        return Err(Error::runtime("stopped before all boxes were seen; nothing is measured"));
    }
    let last = seen.last().map_or(0, |seen| seen.stamp.0);
    let (learned, measured) = divide(seen, (last as f64 * args.split) as i64);
    let measured = ReidScores::new(&measured, boxed.origin.dim)?;
    let mut learner = Learner::new(&config.learner(), boxed.origin.clone(), None)?;
    let samples = in_order(learned);
    for sample in &samples {
        learner.learn(sample)?;
    }
    if let Some(last) = samples.last() {
        learner.finish(last.index)?;
    }
    let mut rows = vec![("frozen", measured.rank1(&Head::Identity { dim: boxed.origin.dim }))];
    if learner.exported().number > 0 {
        rows.push(("adapted (promoted)", measured.rank1(&learner.exported().head)));
    }
    let keep = config.head.dim.min(boxed.origin.dim);
    let fitted = learner.scatter().fit(keep, config.head.shrinkage);
    match fitted {
        Ok(fit) => {
            let (mean, slow) = (fit.mean.mapv(|x| x as f32), fit.directions.mapv(|x| x as f32));
            let head = Head::Learned(HeadParams { mean, slow, mlp: None, alpha: 0.0, form: EmbeddingKind::Single });
            rows.push(("adapted (slow head, whether promoted or not)", measured.rank1(&head)));
        }
        Err(why) => tracing::warn!("no slow head: {}", why.chain()),
    }
    let reason = learner.last().map_or("too few boxes for a fit (learn.first_fit_frames)", |d| d.reason.as_str());
    let learned_tracks = samples.last().map_or(0, |sample| sample.segment + 1);
    let figures: Vec<_> = rows.iter().map(|(name, rank1)| json!({ "embedding": name, "rank1": rank1 })).collect();
    let json = json!({
        "rank1": figures, "tracks": measured.tracks, "queries": measured.query_tracks.len(),
        "gallery": measured.gallery_tracks.len(), "learned_tracks": learned_tracks, "learned_boxes": samples.len(),
        "pairs": learner.pairs(), "gate": reason, "boxes": boxed.boxer.counts(),
    });
    let mut text = format!(
        "{}\nlearned    from {} boxes of {learned_tracks} tracks ({} pairs); gate: {reason}\n\
         measured   {} queries against {} boxes of {} tracks that begin later",
        boxed.told(),
        samples.len(),
        learner.pairs(),
        measured.query_tracks.len(),
        measured.gallery_tracks.len(),
        measured.tracks
    );
    for (name, rank1) in &rows {
        text += &format!("\nrank 1     {rank1:.3} {name}");
    }
    Ok(Output { text, json, as_json: args.common.json })
}

/// Splits the boxes: those before `moment` of tracks that begin before it, and all boxes of the other tracks.
fn divide(seen: Vec<TrackSample>, moment: i64) -> (Vec<TrackSample>, Vec<TrackSample>) {
    let mut begins = BTreeMap::new();
    for seen in &seen {
        begins.entry(seen.track).or_insert(seen.stamp.0);
    }
    let (early, late): (Vec<TrackSample>, Vec<TrackSample>) =
        seen.into_iter().partition(|seen| begins[&seen.track] < moment);
    (early.into_iter().filter(|seen| seen.stamp.0 < moment).collect(), late)
}

impl ReidScores {
    fn new(seen: &[TrackSample], dim: usize) -> Result<Self> {
        let mut tracks: BTreeMap<(i64, u64), Vec<&TrackSample>> = BTreeMap::new();
        for seen in seen {
            tracks.entry(seen.track).or_default().push(seen);
        }
        let tracks: Vec<Vec<&TrackSample>> = tracks.into_values().filter(|boxes| boxes.len() >= LEAST_BOXES).collect();
        if tracks.len() < 2 {
            return Err(Error::check_failed(format!(
                "{} tracks of {LEAST_BOXES} boxes begin after --split: at least 2 are needed to tell one from another; take a \
                 smaller --split or a longer clip",
                tracks.len()
            )));
        }
        let half = |queries: bool| -> (Array2<f32>, Vec<usize>) {
            let (mut latents, mut numbers) = (Vec::new(), Vec::new());
            for (number, boxes) in tracks.iter().enumerate() {
                let n = boxes.len() as f64;
                let range =
                    if queries { (n * QUERIES).ceil() as usize..boxes.len() } else { 0..(n * GALLERY) as usize };
                numbers.extend(range.clone().map(|_| number));
                latents.extend(boxes[range].iter().map(|seen| seen.latent.clone()));
            }
            (knn::rows(&latents, dim), numbers)
        };
        let ((gallery, gallery_tracks), (queries, query_tracks)) = (half(false), half(true));
        Ok(Self { gallery, gallery_tracks, queries, query_tracks, tracks: tracks.len() })
    }

    fn rank1(&self, head: &Head) -> f64 {
        let (gallery, queries) = (head.embed_rows(self.gallery.view()), head.embed_rows(self.queries.view()));
        knn::accuracy(gallery.view(), &self.gallery_tracks, queries.view(), &self.query_tracks, self.tracks, 1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::frame::Timestamp;

    fn seen(track: i64, stamp: i64) -> TrackSample {
        let latent = if track == 1 { vec![1.0, 0.0] } else { vec![0.0, 1.0] };
        TrackSample { track: (track, 0), stamp: Timestamp(stamp), latent }
    }

    #[test]
    fn nobody_measured_was_learned_from() {
        let all = (0..40).flat_map(|t| [1, 2, 3].into_iter().filter(move |k| t >= 10 * k).map(move |k| seen(k, t)));
        let (learned, measured) = divide(all.collect(), 25);
        assert_eq!(learned.len(), 15 + 5, "tracks 1 and 2 up to the moment");
        assert!(measured.len() == 10 && measured.iter().all(|seen| seen.track.0 == 3));
    }

    #[test]
    fn rank_one_is_of_the_same_track() {
        let boxes: Vec<TrackSample> =
            (0..10).flat_map(|t| [seen(1, t), seen(2, t)]).chain((0..9).map(|t| seen(3, t))).collect();
        let measured = ReidScores::new(&boxes, 2).unwrap();
        assert_eq!((measured.tracks, measured.gallery_tracks.len(), measured.query_tracks.len()), (2, 8, 8));
        assert!((measured.rank1(&Head::Identity { dim: 2 }) - 1.0).abs() < 1e-9);
        // If both look the same, the first in the gallery wins: half of the queries succeed.
        let slow = Array2::from_elem((2, 1), 1.0);
        let blind =
            HeadParams { mean: ndarray::Array1::zeros(2), slow, mlp: None, alpha: 0.0, form: EmbeddingKind::Single };
        assert!((measured.rank1(&Head::Learned(blind)) - 0.5).abs() < 1e-9);
        assert!(ReidScores::new(&boxes[..10], 2).is_err());
    }
}
