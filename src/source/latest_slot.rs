//! A slot for one item between two threads: a newer item replaces one that nobody took.
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The slot. Items are swapped in and out, so their buffers are reused and nothing is allocated.
#[derive(Debug)]
pub(super) struct LatestSlot<T> {
    slot: Mutex<Slot<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Slot<T> {
    content: T,
    full: bool,
    dropped: u64,
    /// Why no more items will come.
    closed: Option<String>,
    /// The receiver is gone.
    abandoned: bool,
}

/// The result of [`LatestSlot::take`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The newest item, swapped into the caller's.
    Fresh,
    /// No item within the wait.
    Nothing,
    /// No more items will come, and why.
    Closed(String),
}

impl<T: Default> LatestSlot<T> {
    pub(super) fn new() -> Self {
        let slot = Slot { content: T::default(), full: false, dropped: 0, closed: None, abandoned: false };
        Self { slot: Mutex::new(slot), changed: Condvar::new() }
    }

    /// Swaps `thing` in; the caller gets an old item back to fill again. Returns false when nobody will take it.
    pub(super) fn put(&self, thing: &mut T) -> bool {
        let mut slot = self.lock();
        std::mem::swap(&mut slot.content, thing);
        slot.dropped += u64::from(slot.full);
        slot.full = true;
        self.changed.notify_one();
        !slot.abandoned
    }

    /// Declares that no more items will come; the first reason stays.
    pub(super) fn close(&self, reason: &str) {
        self.lock().closed.get_or_insert_with(|| reason.into());
        self.changed.notify_one();
    }

    /// Declares that nobody takes items any more.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
    }

    /// True if nobody takes items any more.
    pub(super) fn abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// Swaps the newest item into `thing`, waiting at most `wait` for it.
    pub(super) fn take(&self, thing: &mut T, wait: Duration) -> Taken {
        let (mut slot, _) = self
            .changed
            .wait_timeout_while(self.lock(), wait, |slot| !slot.full && slot.closed.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if slot.full {
            slot.full = false;
            std::mem::swap(&mut slot.content, thing);
            return Taken::Fresh;
        }
        slot.closed.clone().map_or(Taken::Nothing, Taken::Closed)
    }

    /// Number of items that were replaced before they were taken.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        // No code that could panic runs under the lock, so the data of a poisoned lock is still valid.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::sync::Arc;
    use std::time::Instant;

    #[test]
    fn the_newest_wins_and_buffers_go_round() {
        let mailbox: LatestSlot<Vec<u8>> = LatestSlot::new();
        let mut mine = Vec::new();
        assert_eq!(mailbox.take(&mut mine, Duration::ZERO), Taken::Nothing);
        let mut theirs = vec![1];
        assert!(mailbox.put(&mut theirs));
        assert!(theirs.is_empty());
        theirs = vec![2];
        mailbox.put(&mut theirs);
        assert_eq!((theirs, mailbox.dropped()), (vec![1], 1));
        assert_eq!((mailbox.take(&mut mine, Duration::ZERO), mine.as_slice()), (Taken::Fresh, [2].as_slice()));
        assert_eq!(mailbox.take(&mut mine, Duration::ZERO), Taken::Nothing);
        mailbox.abandon();
        assert!(!mailbox.put(&mut Vec::new()));
    }

    #[test]
    fn what_was_put_before_the_end_is_still_taken() {
        let mailbox: LatestSlot<u32> = LatestSlot::new();
        let mut mine = 0;
        mailbox.put(&mut 7);
        mailbox.close("unplugged");
        mailbox.close("later");
        assert_eq!((mailbox.take(&mut mine, Duration::ZERO), mine), (Taken::Fresh, 7));
        assert_eq!(mailbox.take(&mut mine, Duration::from_secs(60)), Taken::Closed("unplugged".into()));
    }

    #[test]
    fn a_taker_wakes_when_something_comes() {
        let mailbox: Arc<LatestSlot<u32>> = Arc::new(LatestSlot::new());
        let other = mailbox.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            other.put(&mut 9)
        });
        let (began, mut mine) = (Instant::now(), 0);
        assert_eq!(mailbox.take(&mut mine, Duration::from_secs(60)), Taken::Fresh);
        assert!(mine == 9 && began.elapsed() < Duration::from_secs(30));
        assert!(thread.join().unwrap());
    }
}
