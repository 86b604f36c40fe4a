//! How far the learner is: the inference loop of a bounded source waits for it.
use std::sync::{Condvar, Mutex, PoisonError};

/// The number of samples that the learner has done; all of them once it has ended, for whatever reason.
#[derive(Debug, Default)]
pub(super) struct ProgressBarrier {
    done: Mutex<u64>,
    moved: Condvar,
}

impl ProgressBarrier {
    /// The learner has done `count` samples.
    pub(super) fn set(&self, count: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done = count;
        self.moved.notify_all();
    }

    /// Waits until the learner has done `count` samples.
    pub(super) fn wait(&self, count: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while *done < count {
            done = self.moved.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Opens the barrier for good when dropped, so that nobody waits for a learner that has ended.
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
        let barrier = ProgressBarrier::default();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| barrier.wait(3));
            barrier.set(2);
            assert!(!waiter.is_finished());
            barrier.set(3);
        });
        let worker = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _release = ReleaseOnDrop(&barrier);
            panic!("the learner dies");
        }));
        assert!(worker.is_err());
        barrier.wait(1_000_000);
    }
}
