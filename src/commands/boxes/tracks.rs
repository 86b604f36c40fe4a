//! Tracks of boxes as training data: each track is a segment.
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::BoxDataset;
use crate::commands::common::{LoadedEncoder, Progress};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::frame::Timestamp;
use crate::sampling::Sample;
use crate::source::Source;

/// A box of a track.
pub(in crate::commands) struct TrackSample {
    /// Number of the track and of the shot.
    pub(in crate::commands) track: (i64, u64),
    pub(in crate::commands) stamp: Timestamp,
    pub(in crate::commands) latent: Vec<f32>,
}

/// Collects all usable boxes with a track, in stream order. Returns true if the source came to its end.
///
/// # Errors
/// The latents do not fit `boxes.memory_megabytes`, or any error of [`BoxDataset::walk`].
pub(in crate::commands) fn collect(
    boxed: &mut BoxDataset,
    opened: &mut LoadedEncoder,
    source: &mut dyn Source,
    stop: &AtomicBool,
    config: &Config,
) -> Result<(Vec<TrackSample>, bool)> {
    let (boxes, dim) = (boxed.detections.iter().filter(|x| x.track.is_some()).count(), boxed.origin.dim);
    if boxes == 0 {
        return Err(Error::usage(
            "no box has a track (its second number is below 0): there are no pairs to learn from",
        ));
    }
    let (needed, room) = (boxes as f64 * dim as f64 * 4e-6, config.boxes.memory_megabytes);
    if needed > room {
        return Err(Error::config(format!(
            "boxes.memory_megabytes = {room}: {boxes} boxes of {dim} numbers need {needed:.0}; raise it, or learn from fewer \
             boxes (every second frame of a file will do)"
        )));
    }
    let mut seen = Vec::with_capacity(boxes);
    let progress = Progress::new("boxes", source.length());
    let walked = boxed.walk(opened, source, stop, progress, |found| {
        if let Some(track) = found.detection.track {
            seen.push(TrackSample { track: (track, found.segment), stamp: found.stamp, latent: found.latent.to_vec() });
        }
        Ok(())
    })?;
    Ok((seen, walked.ended))
}

/// The boxes track by track, in the order in which the tracks begin. Pairs from one segment are then pairs from one
/// track, and boxes in the same frame belong to different segments.
pub(in crate::commands) fn in_order(seen: Vec<TrackSample>) -> Vec<Sample> {
    let mut numbers: HashMap<(i64, u64), u64> = HashMap::new();
    let mut samples: Vec<Sample> = seen
        .into_iter()
        .map(|TrackSample { track, stamp, latent }| {
            let next = numbers.len() as u64;
            Sample { stamp, segment: *numbers.entry(track).or_insert(next), latent, ..Sample::default() }
        })
        .collect();
    samples.sort_by_key(|sample| sample.segment);
    samples.iter_mut().zip(0..).for_each(|(sample, index)| sample.index = index);
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_follow_each_other_and_are_segments() {
        let seen = |track, shot, secs: i64| TrackSample {
            track: (track, shot),
            stamp: Timestamp(secs),
            latent: vec![secs as f32],
        };
        // Two people in the same frames, and a third later; number 7 is reused after a cut.
        let samples =
            in_order(vec![seen(9, 0, 1), seen(7, 0, 1), seen(7, 0, 2), seen(9, 0, 2), seen(7, 1, 3), seen(9, 0, 3)]);
        let told: Vec<_> = samples.iter().map(|s| (s.index, s.segment, s.stamp.0)).collect();
        assert_eq!(told, [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 1), (4, 1, 2), (5, 2, 3)]);
        assert_eq!(samples[5].latent, [3.0]);
    }
}
