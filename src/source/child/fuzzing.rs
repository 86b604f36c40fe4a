//! What of this module reads bytes of others, for [`crate::fuzzing`].
use std::io::BufReader;

use super::decoder::parse_header;
use super::reader::{Layout, read_frame};
use super::y4m::Y4m;
use crate::frame::Frame;

/// Most frames that are read of one input.
const FRAMES: usize = 64;

/// A YUV4MPEG2 stream, in pieces as a pipe gives them; how many frames.
pub(crate) fn y4m(bytes: &[u8]) -> usize {
    let mut stream = Y4m::new(BufReader::with_capacity(64, bytes));
    let mut frame = Frame::default();
    let whole = |frame: &Frame| frame.pixels.len() == 3 * frame.width as usize * frame.height as usize;
    (0..FRAMES).take_while(|_| matches!(stream.next(&mut frame), Ok(true)) && whole(&frame)).count()
}

/// The line in which a decoder says the size of its frames.
pub(crate) fn decoder_header(text: &str) -> bool {
    parse_header(text).is_some()
}

/// What a decoder writes: pictures as PPM, and bare pixels.
pub(crate) fn raw_frames(bytes: &[u8]) -> usize {
    let count = |layout| {
        let mut stream = BufReader::new(bytes);
        let mut frame = Frame::default();
        (0..FRAMES).take_while(|_| matches!(read_frame(&mut stream, layout, &mut frame), Ok(true))).count()
    };
    count(Layout::Ppm) + count(Layout::Raw { width: 5, height: 3 })
}
