//! Counts and latencies that threads update without a lock.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of [`LatencyTimes`], seconds: from an encoder on a GPU to a stalled camera.
pub(super) const BOUNDS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// A count that only rises, or mirrors a count kept elsewhere.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    /// Copies a count kept elsewhere.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Latencies in buckets. Not the histogram of `prometheus-client`: that one takes a lock per observation.
#[derive(Debug, Default)]
pub(super) struct LatencyTimes {
    /// One more than there are bounds, the last for longer times; not cumulative.
    pub(super) buckets: [Counter; BOUNDS.len() + 1],
    pub(super) nanoseconds: AtomicU64,
}

impl LatencyTimes {
    pub(super) fn record(&self, time: Duration) {
        let secs = time.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| secs <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].inc();
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}
