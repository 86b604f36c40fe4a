//! Closes and reopens a live source whenever it fails. See [`ReconnectingSource`].
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::{Pull, Source, SourceCounts, clock};
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;

/// Opens the source; runs on its own thread.
pub type Open = Box<dyn FnMut() -> Result<Box<dyn Source>> + Send>;

/// The first pause before a source is reopened; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// After a source has run this long, the pauses start over.
const WELL: Duration = Duration::from_secs(2);
/// Extra time beyond the source's own stall timeout, after which it counts as stalled whatever it reports.
const GRACE: Duration = Duration::from_secs(1);
/// Maximum number of events kept between two calls.
const MOST_EVENTS: usize = 64;

/// An event of a live source.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SourceEvent {
    /// Number of the camera in the run.
    pub camera: u16,
    /// Name of the source.
    pub source: String,
    /// `stalled`, `failed` or `reopened`.
    pub what: &'static str,
    /// The reason of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `reopened`: how long there were no frames, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_secs: Option<f64>,
    /// `reopened`: number of attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tries: Option<u64>,
    /// Time of the event, in nanoseconds since 1970.
    pub stamp_ns: i64,
}

/// A source, or the attempt to reopen it.
enum GuardState {
    Up(Box<dyn Source>),
    /// A thread closes the old source, waits and opens a new one; dropping `_cancel` ends it early.
    Down {
        _cancel: Sender<()>,
        opened: Receiver<(Open, Result<Box<dyn Source>>)>,
    },
    /// The source cannot be reopened any more.
    Over,
}

/// Keeps a live source running: after a stall, an error or an unplugged cable it closes and reopens the source, with
/// pauses that grow to `source.reopen_max_secs`, and never gives up. Everything that may block runs on a thread, at
/// most one at a time, so [`Source::next`] never waits longer than asked. Frame positions continue, and the first frame
/// after a gap begins a segment.
pub struct ReconnectingSource {
    name: String,
    state: GuardState,
    /// `None` while the thread has it.
    open: Option<Open>,
    stall: Duration,
    longest: Duration,
    pause: Duration,
    opened_at: Instant,
    last_frame: Instant,
    /// While down: since when, the attempts so far, and the last error.
    down: Option<(Instant, u64, String)>,
    /// Position in the stream of the source's frame 0, and of the next frame.
    first: u64,
    next: u64,
    cut: bool,
    /// Counts of the previous openings.
    counts: SourceCounts,
    events: Vec<SourceEvent>,
}

impl ReconnectingSource {
    /// Opens the source `name` (without any password) for the first time, on this thread.
    /// # Errors
    /// Those of `open`: a source that never worked is not retried.
    pub fn open(name: &str, mut open: Open, config: &config::Source) -> Result<Self> {
        let stall = super::stall_time(config)?;
        let source = open()?;
        let now = Instant::now();
        Ok(Self {
            name: name.to_owned(),
            state: GuardState::Up(source),
            open: Some(open),
            stall,
            longest: Duration::try_from_secs_f64(config.reopen_max_secs).unwrap_or(FIRST_PAUSE).max(FIRST_PAUSE),
            pause: FIRST_PAUSE,
            opened_at: now,
            last_frame: now,
            down: None,
            first: 0,
            next: 0,
            cut: false,
            counts: SourceCounts::default(),
            events: Vec::new(),
        })
    }

    fn event(&mut self, what: &'static str, reason: Option<String>, back: Option<(f64, u64)>) {
        if self.events.len() < MOST_EVENTS {
            let (down_secs, tries) = (back.map(|(secs, _)| secs), back.map(|(_, tries)| tries));
            let stamp_ns = clock::stamp(Instant::now()).0;
            self.events.push(SourceEvent {
                camera: 0,
                source: self.name.clone(),
                what,
                reason,
                down_secs,
                tries,
                stamp_ns,
            });
        }
    }

    /// Counts and reports the failure, and starts to reopen the source.
    fn broke(&mut self, error: &Error) -> Result<()> {
        let GuardState::Up(old) = std::mem::replace(&mut self.state, GuardState::Over) else { return Ok(()) };
        let counts = old.counts();
        self.counts.add(&counts);
        let stalled = error.kind() == ErrorKind::Stalled;
        if stalled {
            self.counts.stalls += 1;
        } else {
            self.counts.failures += 1;
        }
        let reason = error.chain();
        let pause = self.pause.as_secs_f64();
        tracing::warn!("{reason}. It is closed and opened again, first in {pause} s (source.reopen_max_secs)");
        self.event(if stalled { "stalled" } else { "failed" }, Some(reason.clone()), None);
        // Since the last frame, not since the failure was noticed.
        self.down = Some((self.last_frame, 0, reason));
        (self.first, self.cut) = (self.next, true);
        self.try_again(Some(old))
    }

    /// Starts the thread that closes `old`, waits and opens a new source.
    fn try_again(&mut self, old: Option<Box<dyn Source>>) -> Result<()> {
        let Some(mut open) = self.open.take() else {
            return Err(Error::runtime(format!(
                "{} cannot be opened again: the thread that did it is gone",
                self.name
            )));
        };
        let (cancel, cancelled) = bounded::<()>(0);
        let (send, opened) = bounded(1);
        let pause = self.pause;
        let work = move || {
            // Closing may panic in a library, but the camera must be reopened all the same.
            catch_unwind(AssertUnwindSafe(|| drop(old))).ok();
            if cancelled.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let outcome = catch_unwind(AssertUnwindSafe(&mut open));
            let outcome = outcome.unwrap_or_else(|_| Err(Error::runtime("opening it ended in a panic")));
            // If nobody waits for the source any more, it is closed here.
            drop(send.send((open, outcome)));
        };
        let thread = std::thread::Builder::new().name("reopen".into()).spawn(work);
        thread.map_err(|e| {
            Error::runtime(format!("cannot start the thread that opens {} again", self.name)).with_source(e)
        })?;
        self.pause = (self.pause * 2).min(self.longest);
        self.state = GuardState::Down { _cancel: cancel, opened };
        Ok(())
    }

    /// Handles the result of an attempt to reopen.
    fn reopened(&mut self, outcome: Result<Box<dyn Source>>) -> Result<()> {
        let (since, tries, said) = self.down.take().unwrap_or((self.last_frame, 0, String::new()));
        let tries = tries + 1;
        match outcome {
            Ok(source) => {
                let secs = since.elapsed().as_secs_f64();
                self.counts.reopens += 1;
                tracing::info!("{} is open again, after {secs:.1} s and {tries} tries", self.name);
                self.event("reopened", None, Some((secs, tries)));
                self.opened_at = Instant::now();
                self.last_frame = self.opened_at;
                self.state = GuardState::Up(source);
                Ok(())
            }
            Err(error) => {
                let reason = error.chain();
                // Log changes, and repeat the same error less and less often.
                if reason != said || tries.is_power_of_two() {
                    let secs = since.elapsed().as_secs_f64();
                    tracing::warn!("{} is not back after {secs:.1} s and {tries} tries: {reason}", self.name);
                }
                self.down = Some((since, tries, reason));
                self.try_again(None)
            }
        }
    }

    fn pull(&mut self, source: &mut dyn Source, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        let pull = source.next(frame, wait)?;
        if pull == Pull::Idle && self.last_frame.elapsed() > self.stall + GRACE {
            let secs = self.stall.as_secs_f64();
            return Err(Error::stalled(format!("{} gave no frame for {secs} s (source.stall_secs)", self.name)));
        }
        Ok(pull)
    }
}

impl Source for ReconnectingSource {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match std::mem::replace(&mut self.state, GuardState::Over) {
                GuardState::Up(mut source) => {
                    let pulled = self.pull(source.as_mut(), frame, left);
                    self.state = GuardState::Up(source);
                    match pulled {
                        Ok(Pull::Frame) => {
                            self.last_frame = Instant::now();
                            if self.opened_at.elapsed() >= WELL {
                                self.pause = FIRST_PAUSE;
                            }
                            frame.index += self.first;
                            frame.cut |= std::mem::take(&mut self.cut);
                            self.next = frame.index + 1;
                            return Ok(Pull::Frame);
                        }
                        Ok(pull) => return Ok(pull),
                        Err(error) => self.broke(&error)?,
                    }
                }
                GuardState::Down { _cancel, opened } => {
                    let outcome = if left.is_zero() {
                        opened.try_recv().map_err(|e| e == TryRecvError::Empty)
                    } else {
                        opened.recv_timeout(left).map_err(|e| e == RecvTimeoutError::Timeout)
                    };
                    match outcome {
                        Ok((open, outcome)) => {
                            self.open = Some(open);
                            self.reopened(outcome)?;
                        }
                        Err(true) => {
                            self.state = GuardState::Down { _cancel, opened };
                            return Ok(Pull::Idle);
                        }
                        Err(false) => self.try_again(None)?,
                    }
                }
                GuardState::Over => return Err(Error::runtime(format!("{} has ended for good", self.name))),
            }
        }
    }

    fn skip_to(&mut self, _: u64) -> Result<()> {
        Err(Error::usage(format!("{} is live and cannot go on in its middle", self.name)))
    }

    fn live(&self) -> bool {
        true
    }

    fn counts(&self) -> SourceCounts {
        let mut counts = self.counts.clone();
        if let GuardState::Up(source) = &self.state {
            counts.add(&source.counts());
        }
        counts
    }

    fn take_events(&mut self) -> Vec<SourceEvent> {
        std::mem::take(&mut self.events)
    }
}

#[cfg(test)]
mod tests;
