//! How far the learner is, for the hot path of a bounded source to wait for.
use std::sync::{Condvar, Mutex, PoisonError};

/// The number of latents done by the learner; all of them once it has ended, for whatever reason.
#[derive(Debug, Default)]
pub(super) struct ProgressBarrier {
    done: Mutex<u64>,
    moved: Condvar,
}

impl ProgressBarrier {
    /// `count` latents are done.
    pub(super) fn set(&self, count: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done = count;
        self.moved.notify_all();
    }

    /// Waits until `count` latents are done.
    pub(super) fn wait(&self, count: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while *done < count {
            done = self.moved.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Opens the turnstile for good when it goes, so that nobody waits for a learner that is no more.
pub(super) struct ReleaseOnDrop<'t>(pub(super) &'t ProgressBarrier);

impl Drop for ReleaseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.set(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_until_reached_and_never_for_a_dead_learner() {
        let turnstile = ProgressBarrier::default();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| turnstile.wait(3));
            turnstile.set(2);
            assert!(!waiter.is_finished());
            turnstile.set(3);
        });
        let worker = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _open = ReleaseOnDrop(&turnstile);
            panic!("the learner dies");
        }));
        assert!(worker.is_err());
        turnstile.wait(1_000_000);
    }
}
