//! Reads Matroska as GStreamer writes raw images with timestamps: one RGB track, one image per block.
//! Source: RFC 9559 and RFC 8794.
use std::io::{BufRead, Read};

use super::stream::{Next, byte, cut, pixels, skip};
use crate::error::{Error, Result};
use crate::frame::Frame;

/// Signature of a stream.
pub(super) const MAGIC: &[u8] = b"\x1a\x45\xdf\xa3";

/// Element ids.
mod id {
    pub(super) const SEGMENT: u64 = 0x1853_8067;
    pub(super) const INFO: u64 = 0x1549_A966;
    pub(super) const SCALE: u64 = 0x2A_D7B1;
    pub(super) const TRACKS: u64 = 0x1654_AE6B;
    pub(super) const TRACK: u64 = 0xAE;
    pub(super) const VIDEO: u64 = 0xE0;
    pub(super) const WIDTH: u64 = 0xB0;
    pub(super) const HEIGHT: u64 = 0xBA;
    pub(super) const CLUSTER: u64 = 0x1F43_B675;
    pub(super) const TIME: u64 = 0xE7;
    pub(super) const GROUP: u64 = 0xA0;
    pub(super) const BLOCK: u64 = 0xA1;
    pub(super) const SIMPLE_BLOCK: u64 = 0xA3;
}

/// The state of the reader.
#[derive(Debug)]
pub(super) struct Matroska {
    /// Nanoseconds per tick.
    scale: u64,
    cluster: u64,
    size: (u32, u32),
}

impl Matroska {
    pub(super) fn begin() -> Self {
        Self { scale: 1_000_000, cluster: 0, size: (0, 0) }
    }

    /// Reads up to and including the next image. Enters elements that contain others; their end shows in what follows.
    pub(super) fn next(&mut self, stream: &mut impl BufRead, frame: &mut Frame) -> Result<Next> {
        loop {
            if stream.fill_buf().map_err(cut)?.is_empty() {
                return Ok(Next::End);
            }
            let element = vint(stream, true)?;
            let size = vint(stream, false)?;
            let side = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
            match element {
                id::SEGMENT | id::INFO | id::TRACKS | id::TRACK | id::VIDEO | id::CLUSTER | id::GROUP => {}
                id::SCALE => self.scale = unsigned(stream, size)?,
                id::WIDTH => self.size.0 = side(unsigned(stream, size)?),
                id::HEIGHT => self.size.1 = side(unsigned(stream, size)?),
                id::TIME => self.cluster = unsigned(stream, size)?,
                id::BLOCK | id::SIMPLE_BLOCK => return self.picture(stream, size, frame),
                _ => skip(stream, size)?,
            }
        }
    }

    fn picture(&self, stream: &mut impl BufRead, size: u64, frame: &mut Frame) -> Result<Next> {
        let track = vint(stream, false)?;
        let (high, low, flags) = (byte(stream)?, byte(stream)?, byte(stream)?);
        // Track numbers are small (one byte each), followed by three bytes of time and flags.
        if track > 126 || flags & 6 != 0 {
            return Err(strange("a block holds more than a picture"));
        }
        pixels(stream, self.size, size.saturating_sub(4), &[], frame)?;
        let ticks = i128::from(self.cluster) + i128::from(i16::from_be_bytes([high, low]));
        let time = ticks.checked_mul(i128::from(self.scale));
        Ok(Next::Frame(time.and_then(|time| i64::try_from(time).ok())))
    }
}

fn strange(what: &str) -> Error {
    Error::runtime(format!("the decoder's stream of frames (Matroska) cannot be read: {what}"))
}

/// A number whose first byte gives its length; `marked`: keeps the length marker, as element ids do.
fn vint(stream: &mut impl BufRead, marked: bool) -> Result<u64> {
    let first = byte(stream)?;
    let more = first.leading_zeros();
    if more > 7 {
        return Err(strange("a number has no length"));
    }
    let mut value = u64::from(first);
    if !marked {
        value &= (1 << (7 - more)) - 1;
    }
    for _ in 0..more {
        value = value << 8 | u64::from(byte(stream)?);
    }
    Ok(value)
}

fn unsigned(stream: &mut impl BufRead, size: u64) -> Result<u64> {
    if size > 8 {
        return Err(strange("a number is too long"));
    }
    let mut value = 0;
    for byte in stream.take(size).bytes() {
        value = value << 8 | u64::from(byte.map_err(cut)?);
    }
    Ok(value)
}
