//! Limits the learner to a share of a core on live sources: it sleeps in proportion to the CPU time of its thread.
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::learner::CpuGovernor;
use crate::process_stats;

/// Longest sleep at a time, so that a stop is noticed.
const NAP: Duration = Duration::from_millis(50);

/// Limits the thread that made it to `share` of one core, on average.
#[derive(Debug)]
pub(super) struct CpuThrottle {
    share: f64,
    stop: Arc<AtomicBool>,
    paid: Cell<Duration>,
}

impl CpuThrottle {
    /// Counts from now. With a share of 1, or once `stop` is set, it never sleeps.
    pub(super) fn new(share: f64, stop: Arc<AtomicBool>) -> Self {
        Self { share, stop, paid: Cell::new(process_stats::thread_cpu_time()) }
    }

    /// No limit; only measures.
    pub(super) fn full() -> Self {
        Self::new(1.0, Arc::default())
    }
}

impl CpuGovernor for CpuThrottle {
    fn used(&self) -> Duration {
        process_stats::thread_cpu_time()
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps for the work since the last call; ends early when `stop` is set.
    fn rest(&self) {
        let now = process_stats::thread_cpu_time();
        let worked = now.saturating_sub(self.paid.replace(now));
        let mut owed = owed(worked, self.share);
        tracing::trace!("the learner worked {worked:.1?}, sleeps {owed:.1?}");
        while owed > Duration::ZERO && !self.stop.load(Ordering::Relaxed) {
            let nap = owed.min(NAP);
            std::thread::sleep(nap);
            owed -= nap;
        }
    }
}

/// The sleep after which `worked` is `share` of the time.
fn owed(worked: Duration, share: f64) -> Duration {
    worked.mul_f64((1.0 / share - 1.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_the_share_of_work_and_sleep() {
        let worked = Duration::from_millis(30);
        for share in [0.01, 0.25, 0.5] {
            let whole = worked + owed(worked, share);
            assert!((worked.as_secs_f64() / whole.as_secs_f64() - share).abs() < 1e-6);
        }
        assert_eq!(owed(worked, 1.0), Duration::ZERO);
    }
}
