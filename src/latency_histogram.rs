//! Latencies in a histogram of fixed size.
use std::time::Duration;

use hdrhistogram::Histogram;

/// Two significant digits: a percentile is at most 1 % off.
const DIGITS: u8 = 2;

/// Longer times count as this long: 1000 s.
const LONGEST_NANOS: u64 = 1_000_000_000_000;

/// Counts times of 1 ns to 1000 s with a precision of 1 %. Memory is allocated once; recording allocates nothing.
#[derive(Debug, Clone)]
pub struct LatencyHistogram {
    times: Histogram<u64>,
    max: Duration,
}

impl Default for LatencyHistogram {
    #[allow(clippy::expect_used, reason = "constant bounds, which every test of this module passes")]
    fn default() -> Self {
        let times = Histogram::new_with_bounds(1, LONGEST_NANOS, DIGITS).expect("the bounds are valid");
        Self { times, max: Duration::ZERO }
    }
}

impl LatencyHistogram {
    /// Counts one time.
    pub fn record(&mut self, time: Duration) {
        self.times.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.max = self.max.max(time);
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.times.len()
    }

    /// The longest time.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The smallest time that is at least as long as a share `p` (0 to 1) of all times (nearest rank), within 1 %; `None`
    /// where nothing was counted.
    pub fn percentile(&self, p: f64) -> Option<Duration> {
        if self.times.is_empty() {
            return None;
        }
        let nanos = self.times.value_at_quantile(p);
        // Where the range ends, only the maximum is known.
        let longest = self.times.equivalent(nanos, LONGEST_NANOS);
        Some(if longest { self.max } else { Duration::from_nanos(nanos).min(self.max) })
    }

    /// [`LatencyHistogram::percentile`] in milliseconds; 0 where nothing was counted.
    pub fn percentile_ms(&self, p: f64) -> f64 {
        self.percentile(p).unwrap_or_default().as_secs_f64() * 1e3
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_one_percent() {
        let mut latency = LatencyHistogram::default();
        assert_eq!((latency.percentile(0.5), latency.percentile_ms(0.99)), (None, 0.0));
        for i in 1..=10_000u64 {
            latency.record(Duration::from_micros(i * i % 99_991 + 10));
        }
        let mut exact: Vec<f64> = (1..=10_000u64).map(|i| (i * i % 99_991 + 10) as f64 * 1e-6).collect();
        exact.sort_by(f64::total_cmp);
        for p in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let found = latency.percentile(p).unwrap().as_secs_f64();
            let exact = exact[(p * 10_000.0) as usize - 1];
            assert!((found / exact - 1.0).abs() < 0.01, "{p}: {found} {exact}");
        }
        assert_eq!((latency.count(), latency.max().as_secs_f64()), (10_000, exact[9_999]));
    }

    #[test]
    fn times_beyond_the_classes_are_counted_at_their_ends() {
        let mut latency = LatencyHistogram::default();
        latency.record(Duration::ZERO);
        assert_eq!(latency.percentile(0.5), Some(Duration::ZERO));
        latency.record(Duration::MAX);
        assert_eq!(latency.percentile(1.0), Some(Duration::MAX));
        assert!(latency.percentile(0.5).unwrap() < Duration::from_micros(2));
    }
}
