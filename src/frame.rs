//! A frame: pixels and capture time.
use std::sync::Arc;

pub use afterimage_learn::Timestamp;

/// One picture: 8-bit RGB, `pixels[(y * width + x) * 3 + channel]`, no padding between rows.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 3` bytes, RGB.
    pub pixels: Vec<u8>,
    /// Capture time.
    pub stamp: Timestamp,
    /// Number of its camera in the run, from 0.
    pub camera: u16,
    /// Position in the source, from 0; gaps are frames that the source dropped or could not read.
    pub index: u64,
    /// The file that it is of, as its path below the folder; sources of several files only.
    pub file: Option<Arc<str>>,
    /// The source knows that a new shot begins here (a new sub-folder, a reopened camera).
    pub cut: bool,
    /// When it was there to be taken (monotonic clock), for latency; `None` outside a pipeline.
    pub arrived: Option<std::time::Instant>,
}
