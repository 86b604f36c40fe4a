//! What of this module reads bytes of others, for [`crate::fuzzing`].
use std::io::BufReader;

use super::decoder::parse_header;
use super::kind;
use super::stream::{Next, Stream};
use super::{matroska, nut};
use crate::frame::Frame;

/// Most frames that are read of one input.
const FRAMES: usize = 64;

/// A NUT stream, as ffmpeg writes frames; how many.
pub(crate) fn nut(bytes: &[u8]) -> usize {
    if bytes.starts_with(nut::MAGIC) { frames(bytes) } else { 0 }
}

/// A Matroska stream, as GStreamer writes frames; how many.
pub(crate) fn matroska(bytes: &[u8]) -> usize {
    if bytes.starts_with(matroska::MAGIC) { frames(bytes) } else { 0 }
}

/// PPM pictures, one after another; how many.
pub(crate) fn ppm(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"P6") { frames(bytes) } else { 0 }
}

/// The frames of a stream, in pieces as a pipe gives them.
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

/// The line in which a decoder says the size of its frames.
pub(crate) fn decoder_header(text: &str) -> bool {
    parse_header(text).is_some()
}

/// What a file begins with; whether that is known as a video.
pub(crate) fn video_kind(bytes: &[u8]) -> bool {
    kind::bare(bytes);
    kind::text(bytes).is_none() && kind::video(bytes).is_some()
}
