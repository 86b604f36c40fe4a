//! The processor time that the learner may take.
use std::time::Duration;

/// Limits the processor time of the learner. Nothing that is learned depends on it, except that a fit that is in the way of
/// a stop comes later.
pub trait CpuGovernor: std::fmt::Debug + Send {
    /// Processor time used so far, for [`CpuTime`].
    fn used(&self) -> Duration;
    /// Called between the pieces of long work: the place to sleep.
    fn rest(&self);
    /// A fit is to be broken off: it falls due again with the next block.
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

/// Processor time that long work took, as [`CpuGovernor::used`] measures it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Gradient steps, all together.
    pub steps: Duration,
    /// Fits with their trials, all together.
    pub fits: Duration,
}
