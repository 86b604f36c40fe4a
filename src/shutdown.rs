//! The end of the process: one protocol for all its threads.
//!
//! Every thread has an owner, which asks it to end and waits for it until a deadline ([`join_by`]). The owner of the
//! pipeline says which part it waits for ([`Shutdown::waits_for`]), so that a watchdog can name the part that is late and,
//! when its time is over, end the process without it. What was saved until then stays.
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Sockets and brokers get so long for what waits in them.
pub const LAST_WORDS: Duration = Duration::from_millis(900);
/// A part that has nothing to save gets so long.
const CLOSING: Duration = Duration::from_millis(1500);
/// After so long a part that saves something is named in the log.
const LATE: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// What the end waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The encoder with the frame that it is busy with.
    HotPath,
    /// The thread that reads the source.
    Capture,
    /// The thread that writes exports, with the socket, the ring and the broker.
    Export,
    /// The thread that learns and saves the state.
    Learner,
    /// The thread that embeds boxes for detectors.
    Boxes,
    /// The sockets of detectors and of figures.
    Doors,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::HotPath => "encoder",
            Self::Capture => "capture thread (the source)",
            Self::Export => "export thread",
            Self::Learner => "learner thread",
            Self::Boxes => "thread that embeds boxes",
            Self::Doors => "sockets of detectors and figures",
        }
    }

    /// Something is lost where it is given up.
    fn saves(self) -> bool {
        matches!(self, Self::HotPath | Self::Export | Self::Learner)
    }
}

/// Where the end of a process stands; the default is watched by nobody.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(Option<Arc<Mutex<Progress>>>);

#[derive(Debug)]
struct Progress {
    part: Part,
    since: Instant,
    /// The source ended by itself, or the stop was noticed.
    begun: Option<Instant>,
    /// When a stop was asked for from outside: nothing may take longer than the limit then.
    stopped: Option<Instant>,
    told: Option<Part>,
}

/// What the watchdog does now.
#[derive(Debug, PartialEq, Eq)]
enum StopAction {
    Nothing,
    Name(Part),
    GiveUp(Part, Duration),
}

impl Shutdown {
    /// Watches over the end of this process, which begins when `stop` is set or [`Shutdown::begin`] is called. After a stop
    /// parts that save something get `limit`; after the end of a source they get as long as they take.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn watch(stop: Arc<AtomicBool>, limit: Duration) -> Result<Self> {
        let progress = Arc::new(Mutex::new(Progress::new(Instant::now())));
        let shared = progress.clone();
        let watch = move || {
            loop {
                std::thread::sleep(LOOK);
                let mut progress = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match progress.look(Instant::now(), stop.load(Ordering::Relaxed), limit) {
                    StopAction::Nothing => {}
                    StopAction::Name(part) => tracing::warn!("the end waits for the {}", part.name()),
                    StopAction::GiveUp(part, waited) => give_up(part, waited),
                }
            }
        };
        let thread = std::thread::Builder::new().name("shutdown".into()).spawn(watch);
        thread.map_err(|e| Error::runtime("cannot start the thread that watches over the end").with_source(e))?;
        Ok(Self(Some(progress)))
    }

    /// The end begins: the source is at its end, or a stop was noticed.
    pub fn begin(&self) {
        self.change(|progress, now| _ = progress.begun.get_or_insert(now));
    }

    /// From now on the end waits for `part`.
    pub fn waits_for(&self, part: Part) {
        self.change(|progress, now| (progress.part, progress.since) = (part, now));
    }

    fn change(&self, change: impl FnOnce(&mut Progress, Instant)) {
        if let Some(progress) = &self.0 {
            change(&mut progress.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        }
    }
}

impl Progress {
    fn new(now: Instant) -> Self {
        Self { part: Part::HotPath, since: now, begun: None, stopped: None, told: None }
    }

    fn look(&mut self, now: Instant, stop: bool, limit: Duration) -> StopAction {
        if stop {
            self.stopped.get_or_insert(now);
        }
        let Some(begun) = self.begun.or(self.stopped) else { return StopAction::Nothing };
        let waited = now.saturating_duration_since(self.since.max(begun));
        let over = if self.part.saves() {
            self.stopped.is_some_and(|stopped| now.saturating_duration_since(stopped.max(self.since)) >= limit)
        } else {
            waited >= CLOSING
        };
        if over {
            return StopAction::GiveUp(self.part, waited);
        }
        if waited >= LATE && self.told != Some(self.part) {
            self.told = Some(self.part);
            return StopAction::Name(self.part);
        }
        StopAction::Nothing
    }
}

fn give_up(part: Part, waited: Duration) -> ! {
    let saved = if part.saves() { "what was saved before stays" } else { "the state is saved" };
    // Nothing is left to do when standard error is closed.
    writeln!(
        std::io::stderr(),
        "afterimage: the {} did not end within {:.0} s; the program ends without it, {saved}",
        part.name(),
        waited.as_secs_f64()
    )
    .ok();
    signal_hook::low_level::exit(1);
}

/// Waits for a thread until `deadline`. One that is late goes on by itself until the process ends, and is named in the log.
pub fn join_by<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<std::thread::Result<T>> {
    // What ends in time does so within a few turns.
    let mut pause = Duration::from_micros(200);
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            let name = thread.thread().name().unwrap_or("nameless").to_owned();
            tracing::warn!("the {name} thread does not end; the program ends without it");
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Some(thread.join())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_late_part_is_named_once_and_given_up_when_its_time_is_over() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut progress = Progress::new(start);
        assert_eq!(progress.look(at(1000), false, LIMIT), StopAction::Nothing, "running is not ending");
        assert_eq!(progress.look(at(1000), true, LIMIT), StopAction::Nothing);
        assert_eq!(progress.look(at(1003), true, LIMIT), StopAction::Name(Part::HotPath));
        assert_eq!(progress.look(at(1004), true, LIMIT), StopAction::Nothing, "once");
        (progress.part, progress.since) = (Part::Learner, at(1005));
        assert_eq!(progress.look(at(1008), true, LIMIT), StopAction::Name(Part::Learner));
        assert_eq!(progress.look(at(1065), true, LIMIT), StopAction::GiveUp(Part::Learner, Duration::from_secs(60)));
        (progress.part, progress.since) = (Part::Capture, at(1066));
        assert_eq!(progress.look(at(1067), true, LIMIT), StopAction::Nothing);
        assert_eq!(progress.look(at(1068), true, LIMIT), StopAction::GiveUp(Part::Capture, Duration::from_secs(2)));
    }

    #[test]
    fn the_last_fit_of_a_source_that_ended_takes_its_time_unless_a_stop_comes() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut progress = Progress::new(start);
        progress.begun = Some(start);
        (progress.part, progress.since) = (Part::Learner, at(1));
        assert_eq!(progress.look(at(4), false, LIMIT), StopAction::Name(Part::Learner));
        assert_eq!(progress.look(at(4000), false, LIMIT), StopAction::Nothing);
        assert_eq!(progress.look(at(4001), true, LIMIT), StopAction::Nothing);
        assert!(matches!(progress.look(at(4061), true, LIMIT), StopAction::GiveUp(Part::Learner, _)));
    }

    #[test]
    fn a_thread_that_does_not_end_is_left() {
        let soon = || Instant::now() + Duration::from_millis(50);
        let (hold, held) = crossbeam_channel::bounded::<()>(0);
        let late = std::thread::spawn(move || held.recv().is_ok());
        assert!(join_by(late, soon()).is_none());
        drop(hold);
        let quick = std::thread::spawn(|| 7);
        assert!(join_by(quick, Instant::now() + LIMIT).is_some_and(|result| result.is_ok_and(|n| n == 7)));
    }
}
