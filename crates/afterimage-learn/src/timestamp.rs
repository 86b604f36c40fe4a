//! Capture time.

/// Capture time in nanoseconds. Live sources: wall clock (since 1970) advanced by the monotonic clock, so it never
/// steps back. Videos: presentation time in the file, from the first frame; folders: frame number / frame rate. So a run
/// over files is the same every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Seconds from `earlier` to this stamp (negative when this one is earlier).
    pub fn secs_since(self, earlier: Timestamp) -> f64 {
        (self.0 - earlier.0) as f64 * 1e-9
    }
}
