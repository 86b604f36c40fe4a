//! Where frames come from. Every source is opened from a URI and sits behind one trait.
pub mod uri;

use std::time::Duration;

use crate::error::Result;
use crate::frame::Frame;

/// What one pull brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// A frame was written into the caller's buffer.
    Frame,
    /// Nothing within the wait; ask again.
    Idle,
    /// The source is at its end; no frame will follow.
    End,
}

/// Counts of a source, for the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct SourceCounts {
    /// Frames handed out.
    pub frames: u64,
    /// Live only: frames replaced by a newer one before they were taken.
    pub dropped: u64,
    /// Files or frames that could not be read and were skipped.
    pub unreadable: u64,
}

/// A stream of frames.
pub trait Source: Send {
    /// Fills `frame` (its buffer is reused) with the next frame, waiting at most `wait`.
    ///
    /// Live sources hand out the newest frame and count the ones that it replaced; files hand out every frame in order.
    /// # Errors
    /// The source is broken for good; the message names the source, what was found, and what to do.
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull>;
    /// Bounded sources: the next frame handed out is the first readable one whose `index` is at least `index`, with the
    /// same index, stamp and `cut` as in a run from the start. Called before the first `next`.
    /// # Errors
    /// The source is live, or ends before `index`.
    fn skip_to(&mut self, index: u64) -> Result<()>;
    /// Live (newest frame wins) or bounded (every frame, back pressure, the same every time).
    fn live(&self) -> bool;
    /// Frames in all, where the source knows it before the end; for progress.
    fn length(&self) -> Option<u64>;
    /// True where the source itself marks every cut (`Frame::cut`), so that none has to be detected.
    fn marks_cuts(&self) -> bool;
    /// The counts so far.
    fn counts(&self) -> SourceCounts;
}
