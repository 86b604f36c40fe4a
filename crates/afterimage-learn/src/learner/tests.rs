use ndarray::Array1;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::ops::Range;
use std::time::Duration;

use super::*;
use crate::head::{EmbeddingKind, HeadParams};
use crate::linalg::normalise;
use crate::linalg::random::uniform;
use crate::sampling::Sample;

pub(super) const DIM: usize = 32;

/// A stream of scenes. The first eight entries identify the scene and stay constant; the others are new for every frame
/// and stronger.
pub(super) struct Stream {
    rng: ChaCha8Rng,
    scene: Vec<f32>,
    pub(super) index: u64,
    frames_per_scene: u64,
    /// Strength of the constant part and of the varying part.
    loudness: [f32; 2],
}

impl Stream {
    pub(super) fn new(seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { rng, scene: Vec::new(), index: 0, frames_per_scene: 20, loudness: [1.0, 1.2] }
    }

    fn noise(&mut self) -> f32 {
        2.0 * uniform(&mut self.rng) as f32 - 1.0
    }

    pub(super) fn next(&mut self) -> Sample {
        if self.index.is_multiple_of(self.frames_per_scene) {
            self.scene = (0..8).map(|_| self.noise()).collect();
        }
        let [stays, changes] = self.loudness;
        let mut latent: Vec<f32> = (0..DIM).map(|_| self.noise() * changes).collect();
        (0..8).for_each(|i| latent[i] = 0.3 * latent[i] + stays * self.scene[i]);
        normalise(&mut latent);
        let index = self.index;
        self.index += 1;
        Sample {
            index,
            stamp: Timestamp(index as i64 * 100_000_000),
            segment: index / self.frames_per_scene,
            latent,
            ..Sample::default()
        }
    }
}

pub(super) fn config(overrides: &[&str]) -> LearnerConfig {
    let small = [
        "learn.first_fit_frames=512",
        "head.dim=16",
        "head.hidden=32",
        "learn.optimizer.frames_per_step=2",
        "promotion.min_blocks=4",
    ];
    // TOML rejects a duplicate key; here the later one wins.
    let key = |text: &str| text.split('=').next().map(str::to_owned);
    let all = small.iter().filter(|text| !overrides.iter().any(|other| key(other) == key(text))).chain(overrides);
    toml::from_str(&all.copied().collect::<Vec<_>>().join("\n")).unwrap()
}

pub(super) fn origin() -> LatentSpec {
    LatentSpec { encoder_sha256: "e".into(), card_hash: "c".into(), dim: DIM, ..LatentSpec::default() }
}

pub(super) fn learner(overrides: &[&str]) -> Learner {
    Learner::new(&config(overrides), origin(), None).unwrap()
}

/// Learns from this many frames and returns the fit reports.
pub(super) fn run(learner: &mut Learner, stream: &mut Stream, frames: u64) -> Vec<FitReport> {
    (0..frames).filter_map(|_| learner.learn(&stream.next()).unwrap()).map(|outcome| outcome.report).collect()
}

#[test]
fn latents_too_long_to_be_learned_from_are_refused_before_anything_is_allocated() {
    for dim in [MAX_DIM + 1, 65_537, 1 << 40] {
        let refused = Learner::new(&config(&[]), LatentSpec { dim, ..origin() }, None).unwrap_err().chain();
        assert!(
            refused.contains(&format!("latents of {dim} numbers")) && refused.contains("encoder.taps"),
            "{refused}"
        );
    }
}

#[test]
fn a_provoked_collapse_is_rolled_back_and_what_is_exported_stays() {
    let hot = [
        "learn.objective.temperature=0.01",
        "learn.optimizer.learning_rate=0.02",
        "learn.refit_growth=100",
        "learn.optimizer.warmup_steps=0",
    ];
    let (mut learner, mut stream) = (learner(&hot), Stream::new(1));
    let fits = run(&mut learner, &mut stream, 600);
    assert_eq!(fits.len(), 1);
    let exported = learner.exported().clone();
    learner.take_events();
    let mut rolled_back = None;
    while learner.counts().steps < 300 && stream.index < 6000 {
        run(&mut learner, &mut stream, 1);
        for event in learner.take_events() {
            if let LearnerEvent::State { to: LearnerStatus::RolledBack, reason, rate, .. } = event {
                assert!(rate < 0.31 && !reason.is_empty());
                rolled_back.get_or_insert((learner.counts().steps, reason));
            }
        }
    }
    let (steps, reason) = rolled_back.unwrap();
    assert!(steps <= 300 && learner.counts().rollbacks > 0, "{reason}");
    // The exported head is bit-identical, and its numbers are finite in spite of everything.
    assert!(exported.number == 1 && **learner.exported() == *exported);
    assert!(learner.trained.residual.as_ref().unwrap().head().finite());
}

/// A head that keeps only the entries of a range.
pub(super) fn keeps(range: Range<usize>) -> Head {
    let slow = Array2::from_shape_fn((DIM, range.len()), |(i, j)| f32::from(u8::from(i == range.start + j)));
    Head::Learned(HeadParams { mean: Array1::zeros(DIM), slow, mlp: None, alpha: 1.0, form: EmbeddingKind::Single })
}

#[test]
fn a_harmful_head_gives_way_to_the_frozen_latents() {
    // The only candidate is one that is never built.
    let (mut learner, mut stream) =
        (learner(&["head.candidates=['slow+mlp']", "learn.optimizer.frames_per_step=0"]), Stream::new(2));
    learner.adopt(1, Arc::new(keeps(8..DIM)));
    let fits = run(&mut learner, &mut stream, 600);
    assert_eq!((fits[0].promoted, fits[0].exported), (Some(2), 2));
    assert!(
        fits[0].demotion.as_ref().unwrap().contains("significantly worse") && fits[0].gain.is_none(),
        "{:?}",
        fits[0]
    );
    assert!(fits[0].reason.starts_with("the frozen latents take the place of head 1, as head 2"), "{}", fits[0].reason);
    assert_eq!(*learner.exported().head, Head::Identity { dim: DIM });
    let frozen = Learner::new(&config(&[]), origin(), None).unwrap().exported().space.clone();
    assert_eq!(learner.exported().space, frozen, "its embeddings may be compared with those of the beginning");
    // A head that does no harm stays.
    let (mut learner, mut stream) =
        (self::learner(&["head.candidates=['slow+mlp']", "learn.optimizer.frames_per_step=0"]), Stream::new(2));
    learner.adopt(1, Arc::new(keeps(0..8)));
    let fits = run(&mut learner, &mut stream, 600);
    assert!(fits[0].promoted.is_none() && fits[0].demotion.is_none() && learner.exported().number == 1);
}

#[test]
fn promotions_keep_their_distance_in_stream_time() {
    let of = |secs: &str| {
        let growth = ["learn.refit_growth=1.2", "learn.optimizer.frames_per_step=0", "head.dim=8", secs];
        run(&mut learner(&growth), &mut Stream::new(3), 4000)
    };
    let (free, held) = (of("promotion.min_interval_secs=0"), of("promotion.min_interval_secs=100000"));
    let promoted: Vec<usize> = (0..free.len()).filter(|i| free[*i].promoted.is_some()).collect();
    assert!(promoted.len() > 1, "only one promotion: this shows nothing");
    assert_eq!(held.iter().filter(|fit| fit.promoted.is_some()).count(), 1);
    let second = &held[promoted[1]];
    assert!(second.waits_secs.is_some_and(|secs| secs > 99_000.0) && second.chosen.is_some());
    assert!(second.reason.contains("promotion.min_interval_secs"), "{}", second.reason);
}

/// Images of eight classes that differ in the entries of `range`.
fn probe(range: Range<usize>) -> Probe {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut noise = || 2.0 * uniform(&mut rng) as f32 - 1.0;
    let classes: Vec<Vec<f32>> = (0..8).map(|_| range.clone().map(|_| noise()).collect()).collect();
    let mut latents = Array2::from_shape_simple_fn((48, DIM), &mut noise);
    for (i, mut row) in latents.rows_mut().into_iter().enumerate() {
        range.clone().zip(&classes[i / 6]).for_each(|(at, x)| row[at] = *x + 0.5 * row[at]);
    }
    let names: Vec<String> = (0..8).map(|i| format!("class {i}")).collect();
    Probe::new(crate::linalg::unit_rows(&latents).0, (0..48).map(|i| i / 6).collect(), &names).unwrap()
}

#[test]
fn the_probe_forbids_and_chooses() {
    let two = ["head.candidates=['frozen+slow dim=16', 'slow dim=8']", "learn.optimizer.frames_per_step=0"];
    let of = |range: Range<usize>| {
        let mut learner = Learner::new(&config(&two), origin(), Some(probe(range))).unwrap();
        let fits = run(&mut learner, &mut Stream::new(4), 600);
        (fits[0].clone(), serde_json::to_value(&fits[0]).unwrap())
    };
    // With labels that follow what changes from frame to frame, the slow head is worse: they veto what the held-out
    // blocks would allow.
    let (fit, json) = of(8..DIM);
    let slow = &json["candidates"][1]["against_frozen"];
    assert!(fit.promoted.is_none() && slow["next_frame"]["lower_bound"].as_f64().unwrap() > 0.0, "{json}");
    assert!(slow["auc"]["lower_bound"].as_f64().unwrap() > 0.0 && slow["probe"]["passed"] == false, "{json}");
    // With labels that follow the scene, both pass; all are tried, and the better one on the probe wins.
    let (fit, json) = of(0..8);
    let on_probe = |i: usize| json["candidates"][i]["against_frozen"]["probe"]["rank"]["candidate"].as_f64().unwrap();
    assert!((0..2).all(|i| json["candidates"][i]["against_frozen"]["passed"] == true), "{json}");
    assert_eq!(fit.candidates.len(), 2, "all are tried");
    assert_eq!((fit.promoted, fit.chosen), (Some(1), Some(usize::from(on_probe(1) > on_probe(0)))), "{json}");
    // Without a probe, the first one that passes ends the trial.
    let mut learner = Learner::new(&config(&two), origin(), None).unwrap();
    let fits = run(&mut learner, &mut Stream::new(4), 600);
    assert_eq!((fits[0].candidates.len(), fits[0].chosen), (1, Some(0)));
}

#[test]
fn a_still_scene_holds_and_what_stirs_goes_on() {
    let (mut learner, mut stream) = (learner(&["learn.refit_growth=100"]), Stream::new(5));
    run(&mut learner, &mut stream, 900);
    assert!(learner.counts().steps > 100);
    learner.take_events();
    let still = stream.next();
    for i in 0..200u64 {
        let sample = Sample {
            index: still.index + i,
            stamp: Timestamp(still.stamp.0 + i as i64 * 100_000_000),
            ..still.clone()
        };
        learner.learn(&sample).unwrap();
    }
    let states = |learner: &mut Learner| {
        let events = learner.take_events().into_iter();
        events.filter_map(|e| if let LearnerEvent::State { to, .. } = e { Some(to) } else { None }).collect::<Vec<_>>()
    };
    assert_eq!(states(&mut learner), [LearnerStatus::Holding]);
    let steps = learner.counts().steps;
    stream.index += 400;
    run(&mut learner, &mut stream, 200);
    assert!(learner.counts().steps > steps && states(&mut learner).contains(&LearnerStatus::Learning));
}

#[test]
fn candidates_are_checked_against_the_parts_of_the_latents() {
    let refused = |text: &str| {
        Learner::new(&config(&[&format!("head.candidates=['{text}']")]), origin(), None).unwrap_err().chain()
    };
    assert!(refused("slow part=2").contains("have one part"));
    let parts =
        [("a:mean", 20), ("b:mean", 12)].map(|(name, len)| crate::FeatureSlice { name: name.into(), len }).to_vec();
    let config = config(&["head.candidates=['slow part=2 dim=4']"]);
    let mut learner = Learner::new(&config, LatentSpec { parts, ..origin() }, None).unwrap();
    let fits = run(&mut learner, &mut Stream::new(6), 600);
    let candidate = &fits[0].candidates[0];
    assert_eq!((candidate.dim, candidate.options.as_str()), (4, "part=2"));
}

#[test]
fn joined_learners_fit_as_one_that_has_seen_everything() {
    let plain = ["learn.optimizer.frames_per_step=0", "learn.first_fit_frames=100000"];
    let (mut whole, mut parts) = (learner(&plain), [learner(&plain), learner(&plain)]);
    let mut stream = Stream::new(7);
    for i in 0..1200 {
        let sample = stream.next();
        whole.learn(&sample).unwrap();
        parts[i / 600].learn(&sample).unwrap();
    }
    whole.finish(1199).unwrap();
    let mut joined = learner(&plain);
    for (part, last) in parts.iter_mut().zip([599, 1199]) {
        part.finish(last).unwrap();
        joined.join(part).unwrap();
    }
    assert_eq!(joined.counts().samples, 1200);
    assert_eq!(joined.data.replay.len(), parts[0].data.replay.len() + parts[1].data.replay.len());
    assert_eq!(
        joined.data.holdout.blocks().len(),
        parts[0].data.holdout.blocks().len() + parts[1].data.holdout.blocks().len()
    );
    // Different blocks are held out, so compare all blocks of both.
    let all = |learner: &Learner| {
        let mut all = learner.data.scatter.clone();
        all.merge(&learner.data.holdout_scatter).unwrap();
        (all.frames(), all.pairs(), all.fit(8, 0.2).unwrap())
    };
    let ((frames, pairs, fit), (n, p, right)) = (all(&joined), all(&whole));
    assert_eq!((frames, pairs), (n, p));
    let close = |a: &f64, b: &f64| (a - b).abs() <= 1e-9 * b.abs().max(1.0);
    assert!(fit.eigenvalues.iter().zip(&right.eigenvalues).all(|(a, b)| close(a, b)));
    assert!(fit.directions.iter().zip(&right.directions).all(|(a, b)| close(a, b)));
    // The merged learner fits and promotes.
    let outcome = joined.finish(1199).unwrap().unwrap();
    assert_eq!(outcome.report.promoted, Some(1), "{}", outcome.report.reason);
    let mut other = Learner::new(&config(&plain), LatentSpec { dim: 8, ..origin() }, None).unwrap();
    assert!(other.join(&joined).is_err() && other.counts().samples == 0);
}

/// A governor that asks to stop once the flag is set.
#[derive(Debug)]
struct Stopping(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl CpuGovernor for Stopping {
    fn used(&self) -> Duration {
        Duration::ZERO
    }
    fn rest(&self) {}
    fn stops(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn a_fit_in_the_way_of_a_stop_comes_later() {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let mut learner = Learner::new(&config(&[]), origin(), None).unwrap();
    learner.set_governor(Box::new(Stopping(stop.clone())));
    let mut stream = Stream::new(3);
    while learner.counts().samples < 600 {
        assert!(learner.learn(&stream.next()).unwrap().is_none());
    }
    assert_eq!((learner.counts().fits, learner.exported().number, learner.samples_to_fit()), (0, 0, 0));
    assert!(learner.last().is_none() && learner.state() == LearnerStatus::Warming);
    stop.store(false, std::sync::atomic::Ordering::Relaxed);
    let before = learner.counts().blocks;
    let outcome = std::iter::from_fn(|| Some(learner.learn(&stream.next()).unwrap())).flatten().next().unwrap();
    assert_eq!(learner.counts().blocks, before + 1, "it comes with the next block");
    assert_eq!((learner.counts().fits, outcome.report.samples), (1, learner.counts().samples));
}
