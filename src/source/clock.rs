//! The capture time of live frames.
use std::sync::OnceLock;
use std::time::Instant;

use super::wall_clock_nanos;
use crate::frame::Stamp;

/// One moment on the monotonic clock, and the same on the wall: the wall clock is read once, so that stamps follow each
/// other rightly even when it is set anew, or a camera is opened again.
static START: OnceLock<(Instant, i64)> = OnceLock::new();

/// Stamps of this process come after `last`, the newest of the run that goes on: a board without a battery for its clock
/// wakes up in the past. Before any source is opened. False where the wall clock is behind, and stamps go on from `last`.
pub fn go_on_after(last: Stamp) -> bool {
    let least = last.0.saturating_add(1);
    let (_, begin) = *START.get_or_init(|| (Instant::now(), wall_clock_nanos().max(least)));
    begin > least
}

/// The stamp of `moment`.
pub(super) fn stamp(moment: Instant) -> Stamp {
    let (start, wall) = *START.get_or_init(|| (Instant::now(), wall_clock_nanos()));
    let nanos = |span: std::time::Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    match moment.checked_duration_since(start) {
        Some(after) => Stamp(wall.saturating_add(nanos(after))),
        None => Stamp(wall.saturating_sub(nanos(start.duration_since(moment)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
