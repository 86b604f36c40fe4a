//! Frame timestamps: time of capture (live frames), or of presentation (videos).
use std::sync::OnceLock;
use std::time::Instant;

use super::wall_clock_nanos;
use crate::frame::Timestamp;

/// The same moment on the monotonic and the wall clock. The wall clock is read only once, so that timestamps stay in
/// order even if it is set, or a camera is reopened.
static START: OnceLock<(Instant, i64)> = OnceLock::new();

/// Makes all timestamps of this process come after `last`, the newest of the resumed run: a board without a
/// battery-backed clock boots in the past. Call it before any source is opened. Returns false if the wall clock is
/// behind; timestamps then continue from `last`.
pub fn go_on_after(last: Timestamp) -> bool {
    let least = last.0.saturating_add(1);
    let (_, begin) = *START.get_or_init(|| (Instant::now(), wall_clock_nanos().max(least)));
    begin > least
}

/// The timestamp of `moment`.
pub(super) fn stamp(moment: Instant) -> Timestamp {
    let (start, wall) = *START.get_or_init(|| (Instant::now(), wall_clock_nanos()));
    let nanos = |span: std::time::Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    match moment.checked_duration_since(start) {
        Some(after) => Timestamp(wall.saturating_add(nanos(after))),
        None => Timestamp(wall.saturating_sub(nanos(start.duration_since(moment)))),
    }
}

/// The timestamps of a video: the presentation time of each frame minus that of the first.
///
/// A frame without a time, or with an earlier time than the frame before, follows that frame by the previous step; such
/// frames are counted.
#[derive(Debug)]
pub(super) struct FileClock {
    /// Presentation time of the first frame.
    start: Option<i64>,
    last: i64,
    step: i64,
    /// Number of frames whose timestamp does not come from the video.
    pub(super) untimed: u64,
}

impl FileClock {
    /// `rate`: frames per second where the video has no times.
    pub(super) fn new(rate: f64) -> Self {
        Self { start: None, last: 0, step: (1e9 / rate).round() as i64, untimed: 0 }
    }

    /// The timestamp of the next frame, at position `index`; `time`: its presentation time in nanoseconds.
    pub(super) fn stamp(&mut self, index: u64, time: Option<i64>) -> Timestamp {
        let own = match (time, self.start) {
            (Some(time), Some(start)) => Some(time.saturating_sub(start)).filter(|own| *own >= self.last),
            // The first time in the video; frames without a time may have come before.
            (Some(time), None) => {
                let own = if index == 0 { 0 } else { self.last.saturating_add(self.step) };
                self.start = Some(time.saturating_sub(own));
                Some(own)
            }
            (None, _) => None,
        };
        let next = own.unwrap_or_else(|| {
            self.untimed += 1;
            if index == 0 { 0 } else { self.last.saturating_add(self.step) }
        });
        if own.is_some() && next > self.last {
            self.step = next - self.last;
        }
        self.last = next;
        Timestamp(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_a_video_are_its_own_and_only_missing_ones_are_counted_on() {
        let stamps = |times: &[Option<i64>]| {
            let mut clock = FileClock::new(1e9);
            let stamps = times.iter().enumerate().map(|(i, time)| clock.stamp(i as u64, *time).0).collect::<Vec<_>>();
            (stamps, clock.untimed)
        };
        assert_eq!(stamps(&[Some(70), Some(75), Some(75), Some(375)]), (vec![0, 5, 5, 305], 0));
        assert_eq!(stamps(&[Some(-10), Some(10), None, Some(5), Some(90)]), (vec![0, 20, 40, 60, 100], 2));
        assert_eq!(stamps(&[None, None, Some(500), Some(510)]), (vec![0, 1, 2, 12], 2));
        assert_eq!(stamps(&[Some(i64::MIN), Some(i64::MAX)]).1, 0);
    }

    use std::time::Duration;

    #[test]
    fn stamps_follow_the_monotonic_clock_and_begin_at_the_wall_clock() {
        let now = Instant::now();
        let (first, later) = (stamp(now), stamp(now + Duration::from_millis(250)));
        assert_eq!(later.0 - first.0, 250_000_000);
        assert!((first.0 - wall_clock_nanos()).abs() < 60_000_000_000);
        let earlier = stamp(now - Duration::from_nanos(7));
        assert_eq!(first.0 - earlier.0, 7);
    }
}
