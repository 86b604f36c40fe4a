//! `pattern:`: synthetic frames from a seed. Each segment has a background and two or three moving shapes.
//!
//! A frame depends only on the seed and its position, so a source can start anywhere.
mod spec;
mod scene;

use std::time::{Duration, Instant};

use self::scene::Scene;
pub use self::spec::SyntheticSpec;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::{Pull, Source, SourceCounts, clock, stamp_at};

/// A synthetic source.
#[derive(Debug)]
pub struct SyntheticSource {
    recipe: SyntheticSpec,
    /// Position of the next frame.
    at: u64,
    /// The last scene, kept for the rest of its segment.
    scene: Scene,
    /// Segment of the last frame handed out: when live frames are dropped, their cut must not get lost.
    last_segment: Option<u64>,
    /// Live only: when position 0 was due, on the monotonic clock and as a timestamp.
    started: Option<Instant>,
    counts: SourceCounts,
}

impl SyntheticSource {
    /// Opens the source that `recipe` specifies.
    /// # Errors
    /// A usage error: a value out of range.
    pub fn open(recipe: SyntheticSpec) -> Result<Self> {
        let problems = recipe.check();
        if !problems.is_empty() {
            return Err(Error::usage(format!("cannot draw the pattern: {}", problems.join("; "))));
        }
        let scene = Scene::new(&recipe, 0);
        Ok(Self { recipe, at: 0, scene, last_segment: None, started: None, counts: SourceCounts::default() })
    }

    fn hand_out(&mut self, frame: &mut Frame, index: u64) {
        let segment = self.recipe.segment(index);
        if self.scene.segment() != segment {
            self.scene = Scene::new(&self.recipe, segment);
        }
        let first = self.recipe.first_of(segment);
        self.scene.draw(index, (index - first) as f64 / self.recipe.rate, frame);
        frame.index = index;
        frame.stamp = stamp_at(index, self.recipe.rate);
        frame.cut = if self.recipe.live { self.last_segment != Some(segment) } else { index == first };
        frame.arrived = None;
        self.last_segment = Some(segment);
        self.at = index + 1;
        self.counts.frames += 1;
    }

    /// The newest frame that is due; drops those due before it.
    fn next_live(&mut self, frame: &mut Frame, wait: Duration) -> Pull {
        let start = *self.started.get_or_insert_with(Instant::now);
        let due_secs = self.at as f64 / self.recipe.rate - start.elapsed().as_secs_f64();
        if due_secs > 0.0 {
            let due = Duration::try_from_secs_f64(due_secs).unwrap_or(wait);
            std::thread::sleep(due.min(wait));
            if due > wait {
                return Pull::Idle;
            }
        }
        let last = self.recipe.length().map_or(u64::MAX, |n| n.saturating_sub(1));
        let newest = ((start.elapsed().as_secs_f64() * self.recipe.rate) as u64).clamp(self.at, last);
        self.counts.dropped += newest - self.at;
        self.hand_out(frame, newest);
        let arrived = start.checked_add(Duration::from_secs_f64(newest as f64 / self.recipe.rate)).unwrap_or(start);
        (frame.stamp, frame.arrived) = (clock::stamp(arrived), Some(arrived));
        Pull::Frame
    }
}

impl Source for SyntheticSource {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        if self.recipe.length().is_some_and(|length| self.at >= length) {
            return Ok(Pull::End);
        }
        if self.recipe.live {
            return Ok(self.next_live(frame, wait));
        }
        self.hand_out(frame, self.at);
        Ok(Pull::Frame)
    }

    fn skip_to(&mut self, index: u64) -> Result<()> {
        if self.recipe.live {
            return Err(Error::usage("a live pattern cannot start in its middle; leave out `live=true`"));
        }
        if let Some(found) = self.recipe.length().filter(|length| index > *length) {
            return Err(Error::runtime(format!("the pattern has {found} frames, too few to go on at frame {index}")));
        }
        self.at = index;
        Ok(())
    }

    fn live(&self) -> bool {
        self.recipe.live
    }

    fn length(&self) -> Option<u64> {
        self.recipe.length()
    }

    fn marks_cuts(&self) -> bool {
        true
    }

    fn counts(&self) -> SourceCounts {
        self.counts.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::source::tests::all_frames;

    fn small() -> SyntheticSpec {
        SyntheticSpec {
            seed: 5,
            frames: Some(23),
            segments: Some(4),
            width: 48,
            height: 32,
            ..SyntheticSpec::default()
        }
    }

    #[test]
    fn same_seed_same_bits_and_segments_are_marked() {
        let a = all_frames(&mut SyntheticSource::open(small()).unwrap());
        let b = all_frames(&mut SyntheticSource::open(small()).unwrap());
        assert_eq!(a.len(), 23);
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert_eq!(a.pixels, b.pixels);
            assert_eq!((a.index, a.stamp.0, a.width, a.height), (i as u64, i as i64 * 100_000_000, 48, 32));
        }
        let cuts: Vec<u64> = a.iter().filter(|f| f.cut).map(|f| f.index).collect();
        assert_eq!(cuts, [0, 6, 12, 18]);
        let other = all_frames(&mut SyntheticSource::open(SyntheticSpec { seed: 6, ..small() }).unwrap());
        assert_ne!(a[0].pixels, other[0].pixels);
    }

    #[test]
    fn skip_to_equals_an_uninterrupted_run() {
        let whole = all_frames(&mut SyntheticSource::open(small()).unwrap());
        for start in [0, 1, 6, 7, 22, 23] {
            let mut source = SyntheticSource::open(small()).unwrap();
            source.skip_to(start).unwrap();
            let rest = all_frames(&mut source);
            assert_eq!(rest.len(), 23 - start as usize);
            for (a, b) in whole[start as usize..].iter().zip(&rest) {
                assert_eq!((a.index, a.stamp, a.cut, &a.pixels), (b.index, b.stamp, b.cut, &b.pixels));
            }
        }
        assert!(SyntheticSource::open(small()).unwrap().skip_to(24).unwrap_err().chain().contains("23 frames"));
    }

    #[test]
    fn neighbours_are_alike_and_segments_are_not() {
        let frames =
            all_frames(&mut SyntheticSource::open(SyntheticSpec { seed: 1, ..SyntheticSpec::default() }).unwrap());
        let distance = |a: &Frame, b: &Frame| {
            let sum: u64 = a.pixels.iter().zip(&b.pixels).map(|(x, y)| u64::from(x.abs_diff(*y))).sum();
            sum as f64 / a.pixels.len() as f64
        };
        let (mut within, mut across) = (Vec::new(), Vec::new());
        for pair in frames.windows(2) {
            if pair[1].cut { &mut across } else { &mut within }.push(distance(&pair[0], &pair[1]));
        }
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        assert_eq!(across.len(), 19);
        assert!(mean(&within) > 1.0, "frames must move: {}", mean(&within));
        assert!(mean(&across) > 3.0 * mean(&within), "{} {}", mean(&across), mean(&within));
    }

    #[test]
    fn live_keeps_the_rate_drops_old_frames_and_keeps_their_cut() {
        let recipe = SyntheticSpec { live: true, rate: 100.0, frames: Some(40), segments: Some(2), ..small() };
        let mut source = SyntheticSource::open(recipe).unwrap();
        assert!(source.live());
        let mut frame = Frame::default();
        assert_eq!(source.next(&mut frame, Duration::from_secs(1)).unwrap(), Pull::Frame);
        assert!(frame.index == 0 && frame.cut && frame.arrived.is_some());
        let first = frame.stamp;
        assert!(first.0 > 1_600_000_000_000_000_000, "wall clock");
        assert_eq!(source.next(&mut frame, Duration::ZERO).unwrap(), Pull::Idle);
        std::thread::sleep(Duration::from_millis(260));
        assert_eq!(source.next(&mut frame, Duration::ZERO).unwrap(), Pull::Frame);
        assert!(frame.index >= 26 && frame.cut, "the cut at 20 was dropped with its frame: {}", frame.index);
        assert_eq!(frame.stamp.0 - first.0, frame.index as i64 * 10_000_000);
        assert_eq!(source.counts().dropped, frame.index - 1);
        std::thread::sleep(Duration::from_millis(200));
        let rest = all_frames(&mut source);
        let counts = source.counts();
        assert_eq!(rest.last().unwrap().index, 39);
        assert_eq!(counts.frames + counts.dropped, 40);
        assert!(source.skip_to(0).is_err());
    }

    #[test]
    fn live_without_a_count_never_ends() {
        let mut source =
            SyntheticSource::open(SyntheticSpec { rate: 1000.0, live: true, ..SyntheticSpec::default() }).unwrap();
        assert_eq!(source.length(), None);
        let mut frame = Frame::default();
        assert_eq!(source.next(&mut frame, Duration::from_secs(1)).unwrap(), Pull::Frame);
        std::thread::sleep(Duration::from_millis(320));
        assert_eq!(source.next(&mut frame, Duration::from_secs(1)).unwrap(), Pull::Frame);
        assert!(frame.index >= 320, "past the 300 of a bounded pattern: {}", frame.index);
    }
}
