//! Sources that fail in every way, and come back.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;

/// What a fake source does after its frames.
#[derive(Clone, Copy)]
enum Then {
    Fails,
    Stalls,
    Ends,
    /// Returns nothing and reports nothing.
    Hangs,
}

/// Returns `frames` frames, drops 2 of each 3, and then fails.
struct Fake {
    frames: u64,
    then: Then,
    given: u64,
    alive: Arc<AtomicUsize>,
}

impl Source for Fake {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        if self.given < self.frames {
            (frame.index, frame.cut) = (3 * self.given, false);
            self.given += 1;
            return Ok(Pull::Frame);
        }
        match self.then {
            Then::Fails => Err(Error::runtime("the cable is out")),
            Then::Stalls => Err(Error::stalled("no frame for long")),
            Then::Ends => Ok(Pull::End),
            Then::Hangs => {
                std::thread::sleep(wait);
                Ok(Pull::Idle)
            }
        }
    }
    fn skip_to(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
    fn live(&self) -> bool {
        true
    }
    fn counts(&self) -> SourceCounts {
        SourceCounts { frames: self.given, dropped: 2 * self.given, ..SourceCounts::default() }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Opens the sources in `plan` (`None`: the opening fails), then the last one forever.
fn guard(plan: &[Option<(u64, Then)>], stall_secs: f64) -> (ReconnectingSource, Arc<AtomicUsize>, Arc<AtomicU64>) {
    let (alive, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let (plan, living, count) = (plan.to_vec(), alive.clone(), opened.clone());
    let open = move || -> Result<Box<dyn Source>> {
        let nth = count.fetch_add(1, Ordering::SeqCst) as usize;
        let (frames, then) = plan[nth.min(plan.len() - 1)].ok_or_else(|| Error::runtime("not there"))?;
        living.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Fake { frames, then, given: 0, alive: living.clone() }))
    };
    let config = config::Source { stall_secs, reopen_max_secs: 0.3, ..config::Source::default() };
    (ReconnectingSource::open("v4l2:test", Box::new(open), &config).unwrap(), alive, opened)
}

/// Index and cut of the next frame; `None` at the end.
fn frame(guard: &mut ReconnectingSource) -> Option<(u64, bool)> {
    let mut frame = Frame::default();
    loop {
        match guard.next(&mut frame, Duration::from_millis(50)).unwrap() {
            Pull::Frame => return Some((frame.index, frame.cut)),
            Pull::Idle => {}
            Pull::End => return None,
        }
    }
}

#[test]
fn what_fails_stalls_or_does_not_open_comes_back_and_is_counted() {
    let plan = [Some((2, Then::Fails)), None, None, Some((1, Then::Stalls)), Some((2, Then::Ends))];
    let (mut guard, alive, _) = guard(&plan, 10.0);
    let frames: Vec<(u64, bool)> = std::iter::from_fn(|| frame(&mut guard)).collect();
    assert_eq!(frames, [(0, false), (3, false), (4, true), (5, true), (8, false)], "counted on, with cuts");
    let counts = guard.counts();
    let expected =
        SourceCounts { frames: 5, dropped: 10, failures: 1, stalls: 1, reopens: 2, ..SourceCounts::default() };
    assert_eq!(counts, expected);
    let events = guard.take_events();
    let told: Vec<(&str, Option<u64>)> = events.iter().map(|event| (event.what, event.tries)).collect();
    assert_eq!(told, [("failed", None), ("reopened", Some(3)), ("stalled", None), ("reopened", Some(1))]);
    assert_eq!(events[0].reason.as_deref(), Some("the cable is out"));
    assert!(events[1].down_secs.unwrap() >= 0.25 && guard.take_events().is_empty());
    assert_eq!(alive.load(Ordering::SeqCst), 1, "old openings are closed");
    drop(guard);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_source_that_does_not_notice_its_own_stall_is_opened_again() {
    let (mut guard, _, opened) = guard(&[Some((1, Then::Hangs)), Some((1, Then::Ends))], 0.1);
    assert_eq!(frame(&mut guard), Some((0, false)));
    assert_eq!(frame(&mut guard), Some((1, true)));
    assert_eq!((guard.counts().stalls, opened.load(Ordering::SeqCst)), (1, 2));
}

#[test]
fn pulls_do_not_wait_for_a_source_that_is_away_and_tries_are_few() {
    let (mut guard, alive, opened) = guard(&[Some((1, Then::Fails)), None], 10.0);
    assert_eq!(frame(&mut guard), Some((0, false)));
    let (began, mut pulls, mut scratch) = (Instant::now(), 0, Frame::default());
    while began.elapsed() < Duration::from_millis(1200) {
        assert_eq!(guard.next(&mut scratch, Duration::from_millis(20)).unwrap(), Pull::Idle);
        pulls += 1;
    }
    assert!(pulls <= 60, "a pull waits as long as it was told to, and no thread spins: {pulls}");
    let tries = opened.load(Ordering::SeqCst) - 1;
    assert!((1..=4).contains(&tries), "pauses of .25 s, then .3 s: {tries}");
    assert_eq!(alive.load(Ordering::SeqCst), 0, "the broken one was closed at once");
    let began = Instant::now();
    drop(guard);
    assert!(began.elapsed() < Duration::from_millis(200), "the end does not wait for the pause");
    let tries = opened.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(opened.load(Ordering::SeqCst), tries, "and nothing is opened after it");
}

#[test]
fn what_never_opened_is_an_error() {
    let open: Open = Box::new(|| Err(Error::runtime("nothing there")));
    let error = ReconnectingSource::open("x", open, &config::Source::default()).err().unwrap();
    assert_eq!(error.chain(), "nothing there");
}

#[test]
fn a_panic_while_opening_is_one_more_failed_try() {
    let mut nth = 0;
    let alive = Arc::new(AtomicUsize::new(2));
    let open: Open = Box::new(move || {
        nth += 1;
        assert!(nth != 2, "the library trips");
        Ok(Box::new(Fake {
            frames: 1,
            then: if nth == 1 { Then::Fails } else { Then::Ends },
            given: 0,
            alive: alive.clone(),
        }))
    });
    let mut guard = ReconnectingSource::open("x", open, &config::Source::default()).unwrap();
    assert_eq!((frame(&mut guard), frame(&mut guard), frame(&mut guard)), (Some((0, false)), Some((1, true)), None));
    assert_eq!(guard.take_events().last().unwrap().tries, Some(2));
}
