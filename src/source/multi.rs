//! Several cameras as one source. See [`MultiSource`].
use std::time::{Duration, Instant};

use super::{Pull, Source, SourceCounts, SourceEvent};
use crate::error::{Error, Result};
use crate::frame::Frame;

/// How long to sleep when no live source has a frame.
const NAP: Duration = Duration::from_millis(2);

/// Joins the sources of several cameras into one stream. [`Frame::camera`] is the position of its source in the list,
/// and [`Frame::index`] is the position in the joined stream.
///
/// - *Bounded* sources are merged by capture time (for equal times, the first in the list goes first), so the stream is
///   reproducible.
/// - *Live* sources are polled in turn; the next frame is from whichever has one.
///
/// When a source fails, the failure is reported and the others continue. At their end (live: when all have failed), its
/// error becomes the error of the joined source.
pub struct MultiSource {
    inputs: Vec<Input>,
    live: bool,
    /// Live: the source to poll first.
    turn: usize,
    /// Position of the next frame.
    index: u64,
    /// Bounded: frames before this position are skipped.
    from: u64,
    broken: Option<Error>,
}

struct Input {
    source: Box<dyn Source>,
    /// Bounded: the next frame of this source has been read.
    waiting: bool,
    frame: Frame,
    ended: bool,
}

impl MultiSource {
    /// Joins `sources`; their order numbers the cameras.
    /// # Errors
    /// A usage error: a mix of live and bounded sources, or more than 65536 sources.
    pub fn new(sources: Vec<Box<dyn Source>>) -> Result<Self> {
        let live = sources.iter().filter(|s| s.live()).count();
        if live > 0 && live < sources.len() {
            return Err(Error::usage(format!(
                "{live} of {} sources are live and the others are not; join cameras with cameras and files with files",
                sources.len()
            )));
        }
        if sources.len() > usize::from(u16::MAX) + 1 {
            return Err(Error::usage(format!("{} sources are too many; at most 65536 are joined", sources.len())));
        }
        let input = |source| Input { source, waiting: false, frame: Frame::default(), ended: false };
        let inputs = sources.into_iter().map(input).collect();
        Ok(Self { inputs, live: live > 0, turn: 0, index: 0, from: 0, broken: None })
    }

    /// Handles the failure of source `at`.
    fn broke(&mut self, at: usize, error: Error) {
        tracing::error!("source {} of {} is left out from here on: {}", at + 1, self.inputs.len(), error.chain());
        self.inputs[at].ended = true;
        self.broken.get_or_insert(error);
    }

    /// All sources have ended: successfully, or with the error of the first that failed.
    fn end(&mut self) -> Result<Pull> {
        self.broken.take().map_or(Ok(Pull::End), Err)
    }

    fn next_live(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        let until = Instant::now() + wait;
        loop {
            for k in 0..self.inputs.len() {
                let at = (self.turn + k) % self.inputs.len();
                if self.inputs[at].ended {
                    continue;
                }
                match self.inputs[at].source.next(frame, Duration::ZERO) {
                    Ok(Pull::Frame) => {
                        self.turn = at + 1;
                        (frame.camera, frame.index) = (at as u16, self.index);
                        self.index += 1;
                        return Ok(Pull::Frame);
                    }
                    Ok(Pull::Idle) => {}
                    Ok(Pull::End) => self.inputs[at].ended = true,
                    Err(error) => self.broke(at, error),
                }
            }
            if self.inputs.iter().all(|input| input.ended) {
                return self.end();
            }
            if Instant::now() >= until {
                return Ok(Pull::Idle);
            }
            std::thread::sleep(NAP);
        }
    }

    fn next_bounded(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        loop {
            for at in 0..self.inputs.len() {
                let input = &mut self.inputs[at];
                if input.ended || input.waiting {
                    continue;
                }
                // The frame is swapped with the caller's, which may come from a source that sets file names.
                input.frame.file = None;
                match input.source.next(&mut input.frame, wait) {
                    Ok(Pull::Frame) => input.waiting = true,
                    Ok(Pull::Idle) => return Ok(Pull::Idle),
                    Ok(Pull::End) => input.ended = true,
                    Err(error) => self.broke(at, error),
                }
            }
            let waiting = self.inputs.iter_mut().enumerate().filter(|(_, input)| input.waiting);
            let Some((at, input)) = waiting.min_by_key(|(at, input)| (input.frame.stamp, *at)) else {
                return self.end();
            };
            input.waiting = false;
            let index = self.index;
            self.index += 1;
            if index >= self.from {
                std::mem::swap(frame, &mut input.frame);
                (frame.camera, frame.index) = (at as u16, index);
                return Ok(Pull::Frame);
            }
        }
    }
}

impl Source for MultiSource {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        if self.live { self.next_live(frame, wait) } else { self.next_bounded(frame, wait) }
    }

    /// Reads the frames before `index` again: the position of each source in the joined stream is not known in advance.
    fn skip_to(&mut self, index: u64) -> Result<()> {
        if self.live {
            return Err(Error::runtime("live sources cannot skip frames"));
        }
        self.from = index;
        Ok(())
    }

    fn live(&self) -> bool {
        self.live
    }

    fn length(&self) -> Option<u64> {
        self.inputs.iter().map(|input| input.source.length()).sum()
    }

    fn marks_cuts(&self) -> bool {
        self.inputs.iter().all(|input| input.source.marks_cuts())
    }

    fn marks_cuts_of(&self, camera: u16) -> bool {
        self.inputs.get(usize::from(camera)).is_some_and(|input| input.source.marks_cuts())
    }

    fn counts(&self) -> SourceCounts {
        let mut all = SourceCounts::default();
        for input in &self.inputs {
            let oldest = all.age_ms;
            all.add(&input.source.counts());
            all.age_ms = all.age_ms.max(oldest);
        }
        all
    }

    fn counts_of_each(&self) -> Vec<SourceCounts> {
        self.inputs.iter().map(|input| input.source.counts()).collect()
    }

    fn take_events(&mut self) -> Vec<SourceEvent> {
        let mut all = Vec::new();
        for (at, input) in self.inputs.iter_mut().enumerate() {
            all.extend(input.source.take_events().into_iter().map(|event| SourceEvent { camera: at as u16, ..event }));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config;
    use crate::source::{open, open_all, tests::all_frames};

    fn patterns(uris: &[&str]) -> Box<dyn Source> {
        let uris: Vec<_> = uris.iter().map(|uri| (*uri).into()).collect();
        open_all(&uris, &config::Source::default()).unwrap()
    }

    /// Camera, timestamp in milliseconds, position.
    fn told(frames: &[Frame]) -> Vec<(u16, i64, u64)> {
        frames.iter().map(|f| (f.camera, f.stamp.0 / 1_000_000, f.index)).collect()
    }

    const TWO: [&str; 2] = ["pattern://1?frames=4&segments=2&rate=10", "pattern://2?frames=2&segments=1&rate=5"];

    #[test]
    fn bounded_sources_are_joined_by_capture_time() {
        let mut joined = patterns(&TWO);
        assert_eq!((joined.length(), joined.live(), joined.marks_cuts()), (Some(6), false, true));
        let frames = all_frames(joined.as_mut());
        let right = [(0, 0, 0), (1, 0, 1), (0, 100, 2), (0, 200, 3), (1, 200, 4), (0, 300, 5)];
        assert_eq!(told(&frames), right);
        assert_eq!(joined.counts().frames, 6);
        // The pixels match those of each source alone.
        let mut alone = open(TWO[1], &config::Source::default()).unwrap();
        let alone = all_frames(alone.as_mut());
        assert_eq!(frames[4].pixels, alone[1].pixels);
        for index in 0..=6 {
            let mut later = patterns(&TWO);
            later.skip_to(index).unwrap();
            let rest = all_frames(later.as_mut());
            assert_eq!(told(&rest), right[index as usize..]);
            assert!(rest.iter().zip(&frames[index as usize..]).all(|(a, b)| a.pixels == b.pixels && a.cut == b.cut));
        }
    }

    #[test]
    fn live_sources_take_turns() {
        let live = ["pattern://1?live=true&rate=200", "pattern://2?live=true&rate=200"];
        let mut joined = patterns(&live);
        assert!(joined.live() && joined.skip_to(1).is_err());
        let (mut frame, mut seen) = (Frame::default(), [0; 2]);
        for index in 0..20 {
            while joined.next(&mut frame, Duration::from_secs(5)).unwrap() != Pull::Frame {}
            assert_eq!(frame.index, index);
            seen[usize::from(frame.camera)] += 1;
        }
        assert!(seen.iter().all(|&n| n > 0), "{seen:?}");
    }

    #[test]
    fn live_and_bounded_do_not_mix() {
        let uris = ["pattern://1?live=true".into(), TWO[0].into()];
        let Err(error) = open_all(&uris, &config::Source::default()) else { panic!("must be refused") };
        assert_eq!(error.exit_code(), 2);
        assert!(error.chain().contains("1 of 2 sources are live"), "{}", error.chain());
    }

    /// Returns two frames and fails.
    struct Breaks(u64);

    impl Source for Breaks {
        fn next(&mut self, frame: &mut Frame, _: Duration) -> Result<Pull> {
            self.0 += 1;
            (frame.index, frame.stamp) = (self.0, crate::frame::Timestamp(self.0 as i64));
            if self.0 > 2 { Err(Error::runtime("the cable is out")) } else { Ok(Pull::Frame) }
        }
        fn skip_to(&mut self, _: u64) -> Result<()> {
            Ok(())
        }
        fn live(&self) -> bool {
            false
        }
        fn length(&self) -> Option<u64> {
            None
        }
        fn marks_cuts(&self) -> bool {
            false
        }
        fn counts(&self) -> SourceCounts {
            SourceCounts::default()
        }
    }

    #[test]
    fn one_that_breaks_does_not_end_the_others() {
        let whole = open(TWO[0], &config::Source::default()).unwrap();
        let mut joined = MultiSource::new(vec![Box::new(Breaks(0)), whole]).unwrap();
        assert_eq!((joined.length(), joined.marks_cuts()), (None, false));
        assert_eq!((joined.marks_cuts_of(0), joined.marks_cuts_of(1)), (false, true));
        let (mut frame, mut cameras) = (Frame::default(), Vec::new());
        let error = loop {
            match joined.next(&mut frame, Duration::ZERO) {
                Ok(Pull::Frame) => cameras.push(frame.camera),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(cameras, [1, 0, 0, 1, 1, 1]);
        assert!(error.chain().contains("the cable is out"));
    }
}
