//! Frames in memory, played in a loop as a live scene: measures speed without a camera or a decoder.
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Pull, Source, SourceCounts};
use crate::error::{Error, Result};
use crate::frame::{Frame, Timestamp};

/// Maximum wait of one pull while reading the clip.
const WAIT: Duration = Duration::from_millis(50);
/// Display time of a clip with a single frame, in nanoseconds.
const ALONE_NS: i64 = 100_000_000;

/// The first frames of a source, kept in memory.
#[derive(Debug)]
pub struct Clip {
    frames: Vec<Frame>,
    /// Start time of each frame, in nanoseconds from the beginning of the clip.
    begins: Vec<i64>,
    /// Duration of one loop in nanoseconds; greater than zero.
    length: i64,
    marks_cuts: bool,
}

impl Clip {
    /// Reads at most `count` frames with at most `bytes` bytes in total (always at least one frame). Calls `go_on`
    /// before each frame, and stops when it returns false.
    ///
    /// # Errors
    /// The source fails, or ends (or `go_on` returns false) before its first frame.
    pub fn read(source: &mut dyn Source, count: usize, bytes: usize, go_on: impl Fn() -> bool) -> Result<Self> {
        let (mut frames, mut held, mut frame) = (Vec::<Frame>::new(), 0, Frame::default());
        while frames.len() < count && go_on() {
            match source.next(&mut frame, WAIT)? {
                Pull::Frame if !frames.is_empty() && held + frame.pixels.len() > bytes => break,
                Pull::Frame => {
                    held += frame.pixels.len();
                    frames.push(frame.clone());
                }
                Pull::Idle => {}
                Pull::End => break,
            }
        }
        Self::new(frames, source.marks_cuts())
    }

    fn new(frames: Vec<Frame>, marks_cuts: bool) -> Result<Self> {
        let Some(first) = frames.first().map(|frame| frame.stamp.0) else {
            return Err(Error::runtime("the source gave no frame; name one with frames"));
        };
        // Timestamps never go back, but every frame needs some display time.
        let begins: Vec<i64> = frames
            .iter()
            .scan(-1, |last, frame| {
                *last = frame.stamp.0.saturating_sub(first).max(*last + 1);
                Some(*last)
            })
            .collect();
        let span = begins.last().copied().unwrap_or_default();
        let gaps = begins.len() as i64 - 1;
        let length = span.saturating_add(if gaps > 0 { span / gaps } else { ALONE_NS }.max(1));
        Ok(Self { frames, begins, length, marks_cuts })
    }

    /// The frames of one loop.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Total size of the pixels in bytes.
    pub fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.pixels.capacity()).sum()
    }

    /// Start time of step `step` in nanoseconds. In a clip of `n` frames, step `n` shows the first frame for the second
    /// time.
    pub fn begins(&self, step: usize) -> i64 {
        let (round, place) = (step / self.frames.len(), step % self.frames.len());
        (round as i64).saturating_mul(self.length).saturating_add(self.begins[place])
    }

    /// True if a shot begins at step `step`: the source marked a cut, or the clip restarts.
    pub fn cut(&self, step: usize) -> bool {
        let place = step % self.frames.len();
        place == 0 || self.frames[place].cut
    }

    /// The step that is shown `nanos` after the start.
    fn at(&self, nanos: i64) -> usize {
        let (round, rest) = (nanos / self.length, nanos % self.length);
        let place = self.begins.partition_point(|begin| *begin <= rest).saturating_sub(1);
        round as usize * self.frames.len() + place
    }
}

/// A live source over a [`Clip`]. It always has a frame: the one that the clip shows at that moment of real time. This
/// saturates a pipeline, while the scene moves and the timestamps advance as with a camera.
#[derive(Debug)]
pub struct LoopedSource {
    clip: Arc<Clip>,
    /// Time of the first pull.
    started: Option<Instant>,
    first_index: u64,
    first_stamp: Timestamp,
    /// The last step that was handed out.
    step: usize,
    counts: SourceCounts,
}

impl LoopedSource {
    /// Plays `clip` from the first pull on; timestamps start at `first_stamp`, positions at `first_index`.
    pub fn new(clip: Arc<Clip>, first_index: u64, first_stamp: Timestamp) -> Self {
        Self { clip, started: None, first_index, first_stamp, step: 0, counts: SourceCounts::default() }
    }
}

impl Source for LoopedSource {
    fn next(&mut self, frame: &mut Frame, _: Duration) -> Result<Pull> {
        let now = Instant::now();
        let since = now.duration_since(*self.started.get_or_insert(now));
        let since = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        let step = self.clip.at(since);
        let shown = &self.clip.frames[step % self.clip.frames.len()];
        let first = self.counts.frames == 0;
        frame.pixels.clone_from(&shown.pixels);
        (frame.width, frame.height) = (shown.width, shown.height);
        // A cut on a skipped step becomes a cut before this one.
        frame.cut = first || (self.step + 1..=step).take(self.clip.frames.len()).any(|step| self.clip.cut(step));
        frame.index = self.first_index + self.counts.frames;
        frame.stamp = Timestamp(self.first_stamp.0.saturating_add(since));
        frame.arrived = Some(now);
        self.step = step;
        self.counts.frames += 1;
        Ok(Pull::Frame)
    }

    fn skip_to(&mut self, index: u64) -> Result<()> {
        Err(Error::usage(format!("frames played from memory are live and cannot go on at frame {index}")))
    }

    fn live(&self) -> bool {
        true
    }

    fn length(&self) -> Option<u64> {
        None
    }

    fn marks_cuts(&self) -> bool {
        self.clip.marks_cuts
    }

    fn counts(&self) -> SourceCounts {
        self.counts.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::source::synthetic::{SyntheticSource, SyntheticSpec};

    fn clip(count: usize, bytes: usize) -> Clip {
        let recipe = SyntheticSpec {
            frames: Some(12),
            segments: Some(3),
            rate: 100.0,
            width: 16,
            height: 16,
            ..SyntheticSpec::default()
        };
        Clip::read(&mut SyntheticSource::open(recipe).unwrap(), count, bytes, || true).unwrap()
    }

    #[test]
    fn holds_the_first_frames_that_fit() {
        assert_eq!(clip(99, usize::MAX).frames().len(), 12);
        assert_eq!(clip(5, usize::MAX).frames().len(), 5);
        assert_eq!(clip(99, 3 * 16 * 16 * 3).frames().len(), 3);
        assert_eq!(clip(99, 0).frames().len(), 1);
        assert_eq!(clip(99, 3 * 16 * 16 * 3).bytes(), 3 * 16 * 16 * 3);
        let mut source = SyntheticSource::open(SyntheticSpec::default()).unwrap();
        assert!(Clip::read(&mut source, 9, 9, || false).is_err());
    }

    #[test]
    fn goes_round_in_the_time_of_its_stamps() {
        let clip = clip(99, usize::MAX);
        assert_eq!((clip.begins(0), clip.begins(11), clip.begins(12)), (0, 110_000_000, 120_000_000));
        let cuts: Vec<usize> = (0..24).filter(|step| clip.cut(*step)).collect();
        assert_eq!(cuts, [0, 4, 8, 12, 16, 20]);
        for (nanos, step) in [(0, 0), (9_999_999, 0), (10_000_000, 1), (119_999_999, 11), (120_000_000, 12)] {
            assert_eq!(clip.at(nanos), step);
        }
    }

    #[test]
    fn frames_of_one_moment_still_go_round() {
        let still = Frame { width: 1, height: 1, pixels: vec![0; 3], ..Frame::default() };
        let clip = Clip::new(vec![still.clone(), still.clone()], false).unwrap();
        assert_eq!([0, 1, 2, 3].map(|nanos| clip.at(nanos)), [0, 1, 2, 3]);
        assert_eq!(Clip::new(vec![still], false).unwrap().begins(2), 2 * ALONE_NS);
    }

    #[test]
    fn plays_without_end_and_forgets_no_cut() {
        let mut playing = LoopedSource::new(Arc::new(clip(99, usize::MAX)), 7, Timestamp(1_000));
        let mut frame = Frame::default();
        let mut last = Timestamp(0);
        for i in 0..6 {
            assert_eq!(playing.next(&mut frame, WAIT).unwrap(), Pull::Frame);
            assert_eq!((frame.index, frame.pixels.len()), (7 + i, 16 * 16 * 3));
            assert!(frame.stamp > last && frame.stamp >= Timestamp(1_000) && frame.arrived.is_some());
            last = frame.stamp;
            // Longer than a segment: every frame follows a cut.
            assert!(frame.cut);
            std::thread::sleep(Duration::from_millis(45));
        }
        assert!(playing.live() && playing.marks_cuts() && playing.skip_to(3).is_err());
        assert_eq!(playing.counts().frames, 6);
    }
}
