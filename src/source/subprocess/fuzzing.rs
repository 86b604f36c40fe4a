//! Entry points of this module that parse untrusted bytes, for [`crate::fuzzing`].
use std::io::BufReader;

use super::decoder::parse_header;
use super::kind;
use super::stream::{Next, Stream};
use super::{matroska, nut};
use crate::frame::Frame;

/// Maximum number of frames to read from one input.
const FRAMES: usize = 64;

/// Reads a NUT stream, as ffmpeg writes frames; returns the number of frames.
pub(crate) fn nut(bytes: &[u8]) -> usize {
    if bytes.starts_with(nut::MAGIC) { frames(bytes) } else { 0 }
}

/// Reads a Matroska stream, as GStreamer writes frames; returns the number of frames.
pub(crate) fn matroska(bytes: &[u8]) -> usize {
    if bytes.starts_with(matroska::MAGIC) { frames(bytes) } else { 0 }
}

/// Reads consecutive PPM images; returns their number.
pub(crate) fn ppm(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"P6") { frames(bytes) } else { 0 }
}

/// Reads the frames of a stream in chunks, as from a pipe.
fn frames(bytes: &[u8]) -> usize {
    let mut stream = Stream::new(BufReader::with_capacity(64, bytes));
    let mut frame = Frame::default();
    let mut count = 0;
    while count < FRAMES && matches!(stream.next(&mut frame), Ok(Next::Frame(_))) {
        assert_eq!(frame.pixels.len(), 3 * frame.width as usize * frame.height as usize, "pixels are missing");
        count += 1;
    }
    count
}

/// Parses the line in which a decoder reports the size of its frames.
pub(crate) fn decoder_header(text: &str) -> bool {
    parse_header(text).is_some()
}

/// Detects a video by its first bytes; true if they are a known format.
pub(crate) fn video_kind(bytes: &[u8]) -> bool {
    kind::bare(bytes);
    kind::text(bytes).is_none() && kind::video(bytes).is_some()
}
