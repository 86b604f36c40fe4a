use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::Timestamp;
use crate::config::{Promotion, SamplingSettings, Training};
use crate::linalg::normalise;
use crate::linalg::random::uniform;
use crate::sampling::BlockBuilder;

const DIM: usize = 32;
const SECOND: i64 = 1_000_000_000;

/// Produces frame number `i`.
type Show = Box<dyn FnMut(usize, &mut ChaCha8Rng) -> Vec<f32>>;

/// A camera with 10 frames per second, and the random number generator.
struct Stream {
    blocks: BlockBuilder,
    next: u64,
    frame_ns: i64,
    segment: u64,
    dice: ChaCha8Rng,
}

impl Stream {
    fn new(seed: u64) -> Self {
        let blocks = BlockBuilder::new(&Training::default(), &Promotion::default());
        Self { blocks, next: 0, frame_ns: SECOND / 10, segment: 0, dice: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Whether the latent is kept.
    fn keeps(&mut self, mut latent: Vec<f32>) -> bool {
        normalise(&mut latent);
        let (index, stamp) = (self.next, Timestamp(self.next as i64 * self.frame_ns));
        self.next += 1;
        let kept = self.blocks.counts().kept;
        self.blocks.push(&Sample { index, stamp, segment: self.segment, latent, ..Sample::default() });
        self.blocks.counts().kept > kept
    }

    /// How many of `n` frames are kept; `show` produces the `i`th from the random numbers.
    fn kept(&mut self, n: usize, mut show: impl FnMut(usize, &mut ChaCha8Rng) -> Vec<f32>) -> usize {
        (0..n)
            .filter(|&i| {
                let latent = show(i, &mut self.dice);
                self.keeps(latent)
            })
            .count()
    }
}

fn normal(dice: &mut ChaCha8Rng) -> f32 {
    let (a, b) = (1.0 - uniform(dice), uniform(dice));
    ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}

/// A latent with the given weights along the given axes, and noise of length `level`.
fn seen(parts: &[(usize, f32)], level: f32, dice: &mut ChaCha8Rng) -> Vec<f32> {
    let mut x: Vec<f32> = (0..DIM).map(|_| level / (DIM as f32).sqrt() * normal(dice)).collect();
    parts.iter().for_each(|&(axis, weight)| x[axis] += weight);
    x
}

#[test]
fn noise_of_any_level_and_kind_is_still_after_a_short_time() {
    const FRAMES: usize = 20_000;
    for level in [0.01, 0.05, 0.2, 1.0] {
        // Along one axis: exposure that jumps, flickers from frame to frame, or flickers more slowly.
        let mut smooth = [0.0f32; DIM];
        let mut kinds: Vec<(&str, Show)> = vec![
            ("white", Box::new(move |_, dice| seen(&[(0, 1.0)], level, dice))),
            ("exposure", Box::new(move |_, dice| seen(&[(0, 1.0), (1, level * normal(dice))], 0.1 * level, dice))),
            ("alternating", Box::new(move |i, dice| seen(&[(0, 1.0), (1, level * (i % 2) as f32)], 0.1 * level, dice))),
            (
                "flicker",
                Box::new(move |i, dice| seen(&[(0, 1.0), (1, level * (0.785 * i as f32).sin())], 0.1 * level, dice)),
            ),
            (
                "smoothed over time",
                Box::new(move |_, dice| {
                    let fresh = seen(&[], level, dice);
                    smooth.iter_mut().zip(&fresh).for_each(|(s, x)| *s = 0.55 * *s + 0.83 * x);
                    smooth.iter().enumerate().map(|(axis, x)| x + f32::from(u8::from(axis == 0))).collect()
                }),
            ),
        ];
        for (kind, show) in &mut kinds {
            for seed in 0..3 {
                let mut stream = Stream::new(seed);
                let first = stream.kept(500, &mut *show);
                let kept = stream.kept(FRAMES, &mut *show);
                println!("{kind} {level} seed {seed}: {first} of 500, {kept} of {FRAMES}");
                assert!(first <= 200 && kept <= FRAMES / 50, "{kind} {level}, seed {seed}: {first}, then {kept} kept");
            }
        }
    }
}

/// Rotates from one axis towards the next.
fn turned(angle: f64) -> [(usize, f32); 2] {
    let quarter = std::f64::consts::FRAC_PI_2;
    let (axis, rest) = ((angle / quarter) as usize, (angle % quarter) as f32);
    [(axis % DIM, rest.cos()), ((axis + 1) % DIM, rest.sin())]
}

#[test]
fn slow_motion_under_noise_is_learned_from() {
    const NOISE: f64 = 0.1;
    // Radians per frame: a pan, something that creeps, dusk that falls for an hour. From frame to frame, noise hides
    // the last two. At least this many of their frames are kept, and at most this much of the way is missed.
    for (speed, frames, least, most_missed) in
        [(0.01, 1000, 990, 2.0 * NOISE), (5e-4, 20_000, 5000, 1.5 * NOISE), (1e-5, 36_000, 200, 1.5 * NOISE)]
    {
        for seed in 0..3 {
            let mut stream = Stream::new(seed);
            let (mut kept, mut last, mut missed) = (0, 0.0, 0.0f64);
            for i in 0..frames {
                let angle = speed * f64::from(i);
                let latent = seen(&turned(angle), NOISE as f32, &mut stream.dice);
                if stream.keeps(latent) {
                    (kept, missed, last) = (kept + 1, missed.max(angle - last), angle);
                }
            }
            println!("{speed} seed {seed}: {kept} of {frames}, {missed:.3} missed at the most");
            assert!(kept >= least && missed <= most_missed, "{speed}, seed {seed}: {kept} kept, {missed} missed");
        }
    }
}

#[test]
fn what_passes_is_learned_from_and_the_scene_behind_is_known_again() {
    for seed in 0..3 {
        let mut stream = Stream::new(seed);
        stream.kept(1000, |_, dice| seen(&[(0, 1.0)], 0.1, dice));
        for thing in 1..9 {
            let passing = stream.kept(8, |_, dice| seen(&[(0, 1.0), (thing, 0.3)], 0.1, dice));
            let empty = stream.kept(200, |_, dice| seen(&[(0, 1.0)], 0.1, dice));
            assert!(passing >= 7 && empty <= 2, "seed {seed}, thing {thing}: {passing} of 8, {empty} of 200");
        }
        // A lamp that is on and off for ten seconds each: both scenes are known once both have been seen.
        let lamp = |i: usize, dice: &mut ChaCha8Rng| seen(&[(0, 1.0), (20, (i / 100 % 2) as f32)], 0.1, dice);
        let first = stream.kept(400, lamp);
        let later = stream.kept(4000, lamp);
        assert!((50..=200).contains(&first) && later <= 80, "seed {seed}: {first} of 400, {later} of 4000");
    }
}

#[test]
fn short_segments_and_slow_cameras_are_not_judged() {
    let noise = |_: usize, dice: &mut ChaCha8Rng| seen(&[(0, 1.0)], 0.1, dice);
    let mut stream = Stream::new(1);
    for segment in 0..50 {
        stream.segment = segment;
        assert_eq!(stream.kept(60, noise), 60, "segment {segment}");
    }
    let mut slow = Stream { frame_ns: SECOND / 2, ..Stream::new(1) };
    assert_eq!(slow.kept(1000, noise), 1000);
    let sampling = SamplingSettings { still_frames: 0, ..SamplingSettings::default() };
    let learn = Training { sampling, ..Training::default() };
    let mut off = Stream { blocks: BlockBuilder::new(&learn, &Promotion::default()), ..Stream::new(1) };
    assert_eq!(off.kept(1000, noise), 1000);
}

#[test]
fn goes_on_from_a_saved_state_to_the_bit() {
    let show = |i: usize, dice: &mut ChaCha8Rng| {
        let thing = if i % 150 > 140 { 0.5 } else { 0.0 };
        seen(&[(0, 1.0), (1, thing), (2, (i / 250 % 2) as f32)], 0.1, dice)
    };
    for stop in [0, 1, 2, 40, 100, 400, 590] {
        let mut whole = Stream::new(3);
        whole.kept(stop, show);
        let (state, rows, views) = whole.blocks.save();
        let text = serde_json::to_string(&state).unwrap();
        let mut other = Stream { next: whole.next, dice: whole.dice.clone(), ..Stream::new(0) };
        other.blocks.restore(serde_json::from_str(&text).unwrap(), rows, views).unwrap();
        assert_eq!(whole.blocks.save(), other.blocks.save(), "at {stop}");
        for i in stop..1000 {
            let (a, b) = (show(i, &mut whole.dice), show(i, &mut other.dice));
            assert_eq!(whole.keeps(a), other.keeps(b), "frame {i} after {stop}");
        }
        assert_eq!(whole.blocks.save(), other.blocks.save(), "{stop}");
        assert!(stop == 0 || whole.blocks.counts().still > 500, "{:?}", whole.blocks.counts());
    }
    let broken = StaticSceneState { dim: 4, history: 1, ..StaticSceneState::default() };
    assert!(StaticSceneDetector::restore(broken, &mut vec![0.0; 3]).unwrap_err().to_string().contains("still scenes"));
}
