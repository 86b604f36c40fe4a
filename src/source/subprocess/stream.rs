//! Reads frames from a decoder's pipe. The first bytes identify the format: NUT (ffmpeg) and Matroska (GStreamer) have
//! a timestamp for each image, plain PPM images have none.
use std::io::{BufRead, ErrorKind, Read};

use super::matroska::{self, Matroska};
use super::nut::{self, Nut};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::frame_bytes;

/// The next item of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A frame, and its presentation time in nanoseconds if the stream has one.
    Frame(Option<i64>),
    /// The end, between two frames.
    End,
}

/// A stream of frames.
#[derive(Debug)]
pub(super) struct Stream<R> {
    bytes: R,
    kind: StreamFormat,
}

#[derive(Debug)]
enum StreamFormat {
    Unknown,
    Ppm,
    Nut(Box<Nut>),
    Matroska(Matroska),
}

impl<R: BufRead> Stream<R> {
    pub(super) fn new(bytes: R) -> Self {
        Self { bytes, kind: StreamFormat::Unknown }
    }

    /// Reads the next frame (size and pixels) into `frame`.
    /// # Errors
    /// A runtime error: the stream breaks off within a frame, or is not a stream of frames.
    pub(super) fn next(&mut self, frame: &mut Frame) -> Result<Next> {
        if matches!(self.kind, StreamFormat::Unknown) {
            match first(&mut self.bytes)? {
                None => return Ok(Next::End),
                Some(b'n') => self.kind = StreamFormat::Nut(Box::new(Nut::begin(&mut self.bytes)?)),
                Some(0x1a) => self.kind = StreamFormat::Matroska(Matroska::begin()),
                Some(_) => self.kind = StreamFormat::Ppm,
            }
        }
        match &mut self.kind {
            StreamFormat::Nut(nut) => nut.next(&mut self.bytes, frame),
            StreamFormat::Matroska(matroska) => matroska.next(&mut self.bytes, frame),
            StreamFormat::Ppm | StreamFormat::Unknown => ppm(&mut self.bytes, frame),
        }
    }
}

const _: () = assert!(nut::MAGIC[0] == b'n' && matroska::MAGIC[0] == 0x1a, "kinds are told by the first byte");

/// The next byte of the stream; `None` at the end.
fn first(stream: &mut impl BufRead) -> Result<Option<u8>> {
    loop {
        match stream.fill_buf() {
            Ok(bytes) => return Ok(bytes.first().copied()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(cut(error)),
        }
    }
}

pub(super) fn cut(error: std::io::Error) -> Error {
    Error::runtime("the stream of frames broke off in the middle of a frame").with_source(error)
}

pub(super) fn byte(stream: &mut impl BufRead) -> Result<u8> {
    let mut byte = [0u8; 1];
    stream.read_exact(&mut byte).map_err(cut)?;
    Ok(byte[0])
}

pub(super) fn u32_of(stream: &mut impl BufRead) -> Result<u32> {
    let mut bytes = [0u8; 4];
    stream.read_exact(&mut bytes).map_err(cut)?;
    Ok(u32::from_be_bytes(bytes))
}

/// Reads `count` bytes; the caller makes sure that it is small.
pub(super) fn bytes(stream: &mut impl BufRead, count: u64) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    stream.take(count).read_to_end(&mut out).map_err(cut)?;
    if out.len() as u64 == count { Ok(out) } else { Err(cut(ErrorKind::UnexpectedEof.into())) }
}

pub(super) fn skip(stream: &mut impl BufRead, count: u64) -> Result<()> {
    let gone = std::io::copy(&mut stream.take(count), &mut std::io::sink()).map_err(cut)?;
    if gone == count { Ok(()) } else { Err(cut(ErrorKind::UnexpectedEof.into())) }
}

/// Reads an image of `size` bytes, which begin with `start`, into `frame`. Rows may be padded to a multiple of four
/// bytes, as GStreamer does.
pub(super) fn pixels(
    stream: &mut impl BufRead,
    (width, height): (u32, u32),
    size: u64,
    start: &[u8],
    frame: &mut Frame,
) -> Result<()> {
    let bytes = frame_bytes(width, height)?;
    let row = bytes / height.max(1) as usize;
    let padding = row.next_multiple_of(4) - row;
    let padded = bytes + padding * height as usize;
    if size != bytes as u64 && size != padded as u64 {
        return Err(Error::runtime(format!("a frame of {width}x{height} pixels has {size} bytes instead of {bytes}")));
    }
    frame.pixels.resize(bytes, 0);
    if size == bytes as u64 {
        let (head, rest) = frame.pixels.split_at_mut(start.len().min(bytes));
        head.copy_from_slice(start.get(..head.len()).unwrap_or_default());
        stream.read_exact(rest).map_err(cut)?;
    } else {
        for pixels in frame.pixels.chunks_exact_mut(row) {
            stream.read_exact(pixels).map_err(cut)?;
            skip(stream, padding as u64)?;
        }
    }
    (frame.width, frame.height) = (width, height);
    Ok(())
}

/// Reads one binary PPM, which contains its own size: `P6`, then width, height and 255 in decimal digits, separated by
/// white space, and one white-space byte at the end.
fn ppm(stream: &mut impl BufRead, frame: &mut Frame) -> Result<Next> {
    if first(stream)?.is_none() {
        return Ok(Next::End);
    }
    let magic = [byte(stream)?, byte(stream)?];
    if &magic != b"P6" {
        return Err(Error::runtime(format!("the stream of frames is no PPM: `P6` expected, found {magic:?}")));
    }
    let (width, height, depth) = (number(stream)?, number(stream)?, number(stream)?);
    if depth != 255 {
        return Err(Error::runtime(format!("the PPM frames have {depth} levels; 255 expected")));
    }
    pixels(stream, (width, height), frame_bytes(width, height)? as u64, &[], frame)?;
    Ok(Next::Frame(None))
}

/// Reads one number and the byte after it; skips white space before it.
fn number(stream: &mut impl BufRead) -> Result<u32> {
    let mut value: Option<u32> = None;
    // More bytes than any header has, and few enough digits that the value cannot overflow.
    for _ in 0..8 {
        match (byte(stream)?, value) {
            (digit @ b'0'..=b'9', _) => value = Some(value.unwrap_or(0) * 10 + u32::from(digit - b'0')),
            (space, None) if space.is_ascii_whitespace() => {}
            (space, Some(value)) if space.is_ascii_whitespace() => return Ok(value),
            _ => break,
        }
    }
    Err(Error::runtime("the header of a PPM frame makes no sense"))
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
