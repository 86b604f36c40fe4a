//! Reads NUT as ffmpeg writes raw images with timestamps: one stream, every image complete, exact times in its own time
//! base.
//! Source: the NUT specification, <https://ffmpeg.org/nut.html>.
use std::io::BufRead;

use super::stream::{Next, byte, bytes, cut, pixels, skip, u32_of};
use crate::error::{Error, Result};
use crate::frame::Frame;

/// Signature of a stream.
pub(super) const MAGIC: &[u8] = b"nut/multimedia container\0";
const MAIN: u64 = 0x4E4D_7A56_1F5F_04AD;
const STREAM: u64 = 0x4E53_1140_5BF2_F9DB;
const SYNCPOINT: u64 = 0x4E4B_E4AD_EECA_4569;
/// Maximum length of a header.
const MAX_HEADER: u64 = 1 << 16;
/// The first byte of anything but a frame.
const START: u8 = b'N';

/// Flags of a frame.
mod flag {
    pub(super) const CODED_PTS: u64 = 8;
    pub(super) const STREAM_ID: u64 = 16;
    pub(super) const SIZE_MSB: u64 = 32;
    pub(super) const CHECKSUM: u64 = 64;
    pub(super) const RESERVED: u64 = 128;
    pub(super) const SIDE_DATA: u64 = 256;
    pub(super) const HEADER: u64 = 1024;
    pub(super) const MATCH_TIME: u64 = 2048;
    pub(super) const CODED: u64 = 4096;
    pub(super) const INVALID: u64 = 8192;
}

/// The meaning of a frame's first byte.
#[derive(Debug, Clone, Copy)]
struct Code {
    flags: u64,
    pts_step: i64,
    stream: u64,
    size_factor: u64,
    size: u64,
    reserved: u64,
    header: u64,
}

const NO_CODE: Code =
    Code { flags: flag::INVALID, pts_step: 0, stream: 0, size_factor: 1, size: 0, reserved: 0, header: 0 };

/// The state of the reader.
#[derive(Debug)]
pub(super) struct Nut {
    codes: Vec<Code>,
    /// Header bytes that small frames omit.
    headers: Vec<Vec<u8>>,
    /// Time bases: seconds per tick, as fractions.
    bases: Vec<(u32, u32)>,
    base: (u32, u32),
    shift: u32,
    size: Option<(u32, u32)>,
    last: i64,
}

impl Nut {
    /// Reads the signature of the stream.
    /// # Errors
    /// A runtime error: the stream ends within its first bytes.
    pub(super) fn begin(stream: &mut impl BufRead) -> Result<Self> {
        skip(stream, MAGIC.len() as u64)?;
        let (codes, headers) = (vec![NO_CODE; 256], vec![Vec::new()]);
        Ok(Self { codes, headers, bases: Vec::new(), base: (1, 1), shift: 0, size: None, last: 0 })
    }

    /// Reads up to and including the next image.
    pub(super) fn next(&mut self, stream: &mut impl BufRead, frame: &mut Frame) -> Result<Next> {
        loop {
            if stream.fill_buf().map_err(cut)?.is_empty() {
                return Ok(Next::End);
            }
            match byte(stream)? {
                START => self.header(stream)?,
                code => return self.picture(stream, code, frame),
            }
        }
    }

    fn header(&mut self, stream: &mut impl BufRead) -> Result<()> {
        let mut rest = [0; 8];
        rest[0] = START;
        stream.read_exact(&mut rest[1..]).map_err(cut)?;
        let length = number(stream)?;
        if length > 4096 {
            u32_of(stream)?;
        }
        match u64::from_be_bytes(rest) {
            kind @ (MAIN | STREAM | SYNCPOINT) if length <= MAX_HEADER => {
                let body = bytes(stream, length)?;
                let mut body = body.as_slice();
                match kind {
                    MAIN => self.main(&mut body),
                    STREAM => self.stream(&mut body),
                    _ => self.syncpoint(&mut body),
                }
            }
            MAIN | STREAM | SYNCPOINT => Err(strange("a header is too long")),
            _ => skip(stream, length),
        }
    }

    fn main(&mut self, body: &mut &[u8]) -> Result<()> {
        if number(body)? > 3 {
            number(body)?;
        }
        let (streams, _distance, bases) = (number(body)?, number(body)?, number(body)?);
        if streams != 1 || bases > 16 {
            return Err(strange("it has not one stream"));
        }
        self.bases.clear();
        for _ in 0..bases {
            self.bases.push((part(number(body)?)?, part(number(body)?)?));
        }
        self.table(body)?;
        self.headers.truncate(1);
        // Every header ends with a checksum of four bytes.
        if body.len() > 4 {
            for _ in 0..number(body)?.min(128) {
                let length = number(body)?.min(256);
                self.headers.push(bytes(body, length)?);
            }
        }
        Ok(())
    }

    fn table(&mut self, body: &mut &[u8]) -> Result<()> {
        let (mut at, mut code) = (0_usize, NO_CODE);
        while at < 256 {
            code.flags = number(body)?;
            let fields = number(body)?;
            let mut count = None;
            (code.size, code.reserved) = (0, 0);
            for field in 0..fields.min(64) {
                let value = number(body)?;
                match field {
                    0 => code.pts_step = signed(value),
                    1 => code.size_factor = value,
                    2 => code.stream = value,
                    3 => code.size = value,
                    4 => code.reserved = value,
                    5 => count = Some(value),
                    7 => code.header = value,
                    _ => {}
                }
            }
            let mut left = count.unwrap_or_else(|| code.size_factor.saturating_sub(code.size));
            if left == 0 || left > 256 {
                return Err(strange("the table of its frames makes no sense"));
            }
            while left > 0 && at < 256 {
                if at != usize::from(START) {
                    if let Some(slot) = self.codes.get_mut(at) {
                        *slot = code;
                    }
                    code.size = code.size.saturating_add(1);
                    left -= 1;
                }
                at += 1;
            }
        }
        Ok(())
    }

    fn stream(&mut self, body: &mut &[u8]) -> Result<()> {
        let (_id, class, fourcc) = (number(body)?, number(body)?, number(body)?);
        skip(body, fourcc)?;
        let (base, shift) = (number(body)?, number(body)?);
        let (_distance, _delay, _flags) = (number(body)?, number(body)?, number(body)?);
        let more = number(body)?;
        skip(body, more)?;
        let side = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let (width, height) = (side(number(body)?), side(number(body)?));
        let base = usize::try_from(base).ok().and_then(|at| self.bases.get(at));
        let (Some(base), true) = (base, class == 0 && shift < 16) else {
            return Err(strange("its stream is none of pictures"));
        };
        (self.base, self.shift, self.size) = (*base, shift as u32, Some((width, height)));
        Ok(())
    }

    fn syncpoint(&mut self, body: &mut &[u8]) -> Result<()> {
        let (value, count) = (number(body)?, self.bases.len() as u64);
        let index = value.checked_rem(count).and_then(|at| usize::try_from(at).ok());
        let base = index.and_then(|at| self.bases.get(at)).ok_or_else(|| strange("a time has no base"))?;
        let ticks = u128::from(value / count) * u128::from(base.0) * u128::from(self.base.1);
        let ticks = ticks / (u128::from(base.1) * u128::from(self.base.0));
        self.last = i64::try_from(ticks).unwrap_or(i64::MAX);
        Ok(())
    }

    fn picture(&mut self, stream: &mut impl BufRead, code: u8, frame: &mut Frame) -> Result<Next> {
        let code = self.codes.get(usize::from(code)).copied().unwrap_or(NO_CODE);
        let mut flags = code.flags;
        if flags & flag::CODED != 0 {
            flags ^= number(stream)?;
        }
        if flags & (flag::INVALID | flag::SIDE_DATA) != 0 {
            return Err(strange("a frame is of no kind"));
        }
        let id = if flags & flag::STREAM_ID != 0 { number(stream)? } else { code.stream };
        let pts = if flags & flag::CODED_PTS != 0 {
            self.whole_pts(number(stream)?)
        } else {
            self.last.saturating_add(code.pts_step)
        };
        let mut size = code.size;
        if flags & flag::SIZE_MSB != 0 {
            size = code.size_factor.saturating_mul(number(stream)?).saturating_add(size);
        }
        if flags & flag::MATCH_TIME != 0 {
            number(stream)?;
        }
        let mut header = if flags & flag::HEADER != 0 { number(stream)? } else { code.header };
        let reserved = if flags & flag::RESERVED != 0 { number(stream)? } else { code.reserved };
        for _ in 0..reserved {
            number(stream)?;
        }
        if flags & flag::CHECKSUM != 0 {
            u32_of(stream)?;
        }
        if size > 4096 {
            header = 0;
        }
        let (Some((width, height)), 0) = (self.size, id) else { return Err(strange("a frame has no stream")) };
        let start = usize::try_from(header).ok().and_then(|at| self.headers.get(at));
        let start = start.ok_or_else(|| strange("a frame has no beginning"))?;
        pixels(stream, (width, height), size, start, frame)?;
        self.last = pts;
        let nanos = i128::from(pts) * i128::from(self.base.0) * 1_000_000_000;
        let den = i128::from(self.base.1);
        Ok(Next::Frame(i64::try_from((2 * nanos + den).div_euclid(2 * den)).ok()))
    }

    /// Decodes a time that is stored with only its low bits, or in full.
    fn whole_pts(&self, coded: u64) -> i64 {
        let coded = i64::try_from(coded).unwrap_or(i64::MAX);
        let all = 1_i64 << self.shift;
        if coded >= all {
            return coded - all;
        }
        let (mask, near) = (all - 1, self.last.saturating_sub((all - 1) / 2));
        (coded.wrapping_sub(near) & mask).saturating_add(near)
    }
}

fn strange(what: &str) -> Error {
    Error::runtime(format!("the decoder's stream of frames (NUT) cannot be read: {what}"))
}

/// Numerator or denominator of a time base.
fn part(value: u64) -> Result<u32> {
    u32::try_from(value).ok().filter(|part| *part > 0).ok_or_else(|| strange("its times have no base"))
}

/// An integer with seven bits per byte, high bits first.
fn number(stream: &mut impl BufRead) -> Result<u64> {
    let mut value = 0_u64;
    for _ in 0..10 {
        let next = byte(stream)?;
        value = value << 7 | u64::from(next & 127);
        if next & 128 == 0 {
            return Ok(value);
        }
    }
    Err(strange("a number has no end"))
}

/// Decodes signed values: 0, 1, -1, 2, -2, ...
fn signed(value: u64) -> i64 {
    let value = i64::try_from(value).unwrap_or(i64::MAX).saturating_add(1);
    if value & 1 == 1 { -(value >> 1) } else { value >> 1 }
}
