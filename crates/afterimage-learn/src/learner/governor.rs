//! Limits the CPU time of the learner.
use std::time::Duration;

/// Limits the learner's CPU time. It does not affect what is learned, except that a fit interrupted by a stop is done
/// later.
pub trait CpuGovernor: std::fmt::Debug + Send {
    /// CPU time used so far, for [`CpuTime`].
    fn used(&self) -> Duration;
    /// Called between the pieces of long work; may sleep.
    fn rest(&self);
    /// Whether to interrupt the current fit. It is then due again at the next block.
    fn stops(&self) -> bool;
}

/// Measures nothing and never rests.
#[derive(Debug)]
pub(super) struct NoThrottle;

impl CpuGovernor for NoThrottle {
    fn used(&self) -> Duration {
        Duration::ZERO
    }
    fn rest(&self) {}
    fn stops(&self) -> bool {
        false
    }
}

impl Clone for Box<dyn CpuGovernor> {
    fn clone(&self) -> Self {
        Box::new(NoThrottle)
    }
}

/// CPU time of long work, as [`CpuGovernor::used`] measures it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Total of all gradient steps.
    pub steps: Duration,
    /// Total of all fits, including their trials.
    pub fits: Duration,
}
