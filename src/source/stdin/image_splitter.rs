//! Splits a byte stream into images: JPEG and PNG, as `cat *.jpg` and `ffmpeg -f mjpeg` write them.
use std::io::{ErrorKind, Read};

use crate::source::image_decode::{MAX_FILE_BYTES, jpeg_end_from};

/// Signature of a JPEG.
pub(super) const JPEG: &[u8] = &[0xFF, 0xD8, 0xFF];
/// Signature of a PNG.
pub(super) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Maximum number of bytes between two images (padding or part headers); with more it is not a stream of images.
const MAX_BETWEEN: usize = 1 << 16;
/// Bytes per read.
const PIECE: usize = 1 << 16;

/// Splits a stream into complete images.
pub(super) struct ImageSplitter<R> {
    stream: R,
    /// Bytes read but not returned yet.
    bytes: Vec<u8>,
    piece: Vec<u8>,
    ended: bool,
}

/// The next item of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SplitItem {
    /// The complete bytes of an image.
    Picture(Vec<u8>),
    /// The end, after a complete image.
    End,
    /// An irregular end, and why.
    Broken(String),
}

impl<R: Read> ImageSplitter<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, bytes: Vec::new(), piece: vec![0; PIECE], ended: false }
    }

    /// Returns the next image.
    pub(super) fn next(&mut self) -> SplitItem {
        self.picture().unwrap_or_else(|error| SplitItem::Broken(format!("it cannot be read: {error}")))
    }

    fn picture(&mut self) -> std::io::Result<SplitItem> {
        if let Some(other) = self.drop_before()? {
            return Ok(other);
        }
        let jpeg = self.bytes.starts_with(JPEG);
        let (mut at, mut seen) = (0, 0);
        loop {
            let end =
                if jpeg { self.jpeg_end(&mut at, seen) } else { png_end_from(&self.bytes, &mut at, seen, self.ended) };
            seen = self.bytes.len();
            if let Some(end) = end {
                let rest = self.bytes.split_off(end);
                return Ok(SplitItem::Picture(std::mem::replace(&mut self.bytes, rest)));
            }
            if self.ended {
                return Ok(SplitItem::Broken("it ends in the middle of a picture".into()));
            }
            if self.bytes.len() as u64 > MAX_FILE_BYTES {
                return Ok(SplitItem::Broken(format!("a picture has more than {MAX_FILE_BYTES} bytes")));
            }
            self.more()?;
        }
    }

    /// Where the JPEG at the start of the buffer ends; `seen` bytes were examined before. A JPEG without an end marker
    /// ends where the next image begins, so that damage stays within one image.
    fn jpeg_end(&self, at: &mut usize, seen: usize) -> Option<usize> {
        let end = jpeg_end_from(&self.bytes, at);
        let new = self.bytes.get(seen.saturating_sub(PNG.len() - 1)..).unwrap_or_default();
        let next = end.is_some() || self.ended || found(new, PNG).is_some();
        let before = self.bytes.get(..end.unwrap_or(self.bytes.len())).unwrap_or_default();
        next.then(|| next_after_jpeg(before)).flatten().or(end)
    }

    /// Drops the bytes before the next image; returns an item only if there is no next image.
    fn drop_before(&mut self) -> std::io::Result<Option<SplitItem>> {
        let mut between = 0;
        loop {
            let starts = |at: &usize| {
                let rest = self.bytes.get(*at..).unwrap_or_default();
                rest.starts_with(JPEG) || rest.starts_with(PNG)
            };
            let start = (0..self.bytes.len()).find(starts);
            // Keep a partial signature at the end.
            let gone = start.unwrap_or_else(|| self.bytes.len().saturating_sub(PNG.len() - 1));
            between += gone;
            self.bytes.drain(..gone);
            if between > MAX_BETWEEN {
                return Ok(Some(SplitItem::Broken(format!(
                    "no picture begins within {MAX_BETWEEN} bytes after the last"
                ))));
            }
            if start.is_some() {
                return Ok(None);
            }
            if !self.more()? {
                return Ok(Some(SplitItem::End));
            }
        }
    }

    /// Reads more bytes; false at the end.
    fn more(&mut self) -> std::io::Result<bool> {
        while !self.ended {
            match self.stream.read(&mut self.piece) {
                Ok(n) => {
                    self.ended = n == 0;
                    self.bytes.extend_from_slice(self.piece.get(..n).unwrap_or_default());
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(!self.ended)
    }
}

/// Position of the first `what`.
fn found(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|some| some == what)
}

/// Position of the next image.
fn start(bytes: &[u8]) -> Option<usize> {
    [JPEG, PNG].into_iter().filter_map(|kind| found(bytes, kind)).min()
}

/// Where another image begins in `bytes`, which begin with a JPEG. Application and comment segments may contain
/// complete images; other segments, and the data between segments, contain none.
fn next_after_jpeg(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        let rest = bytes.get(at..)?;
        let marker = rest.iter().position(|&byte| byte == 0xFF);
        // The signature of a PNG does not contain this byte.
        if let Some(png) = found(rest.get(..marker.unwrap_or(rest.len())).unwrap_or_default(), PNG) {
            return Some(at + png);
        }
        at += marker?;
        if bytes.get(at + 1..).is_some_and(|rest| rest.starts_with(PNG)) {
            return Some(at + 1);
        }
        let length = match *bytes.get(at + 1)? {
            0xD8 => return Some(at),
            0xFF => 1,
            0x00 | 0x01 | 0xD0..=0xD9 => 2,
            marker => {
                let length = usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]));
                let next = at + 2 + length;
                // The segment may have swallowed the first bytes of the next image.
                let inside = bytes.get(at + 2..bytes.len().min(next + PNG.len())).unwrap_or_default();
                // A complete segment is followed by a marker, and no image begins across its end.
                let whole = bytes.get(next).is_none_or(|byte| *byte == 0xFF)
                    && bytes.get(next - 2..).is_none_or(|rest| !rest.starts_with(JPEG));
                let holds = matches!(marker, 0xE0..=0xEF | 0xFE) && whole;
                if !holds && let Some(start) = start(inside).filter(|start| at + 2 + start < next) {
                    return Some(at + 2 + start);
                }
                2 + length.max(2)
            }
        };
        at += length;
    }
}

/// Length of the PNG at the start of `bytes`, including its last chunk (`IEND`), or up to the next image if that begins
/// inside a truncated chunk; `at` as for a JPEG. `seen` bytes were examined before; `last`: no more will come. Source:
/// PNG specification, third edition, 5.3: length, type, data, checksum.
fn png_end_from(bytes: &[u8], at: &mut usize, seen: usize, last: bool) -> Option<usize> {
    *at = (*at).max(PNG.len());
    loop {
        let rest = bytes.get(*at..)?;
        let (from, new) = if last { (*at, rest) } else { unseen(bytes, *at, seen) };
        let Some(head) = rest.first_chunk::<8>() else { return start(new).filter(|_| last).map(|next| from + next) };
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let chunk = length <= i32::MAX.unsigned_abs() && head[4..].iter().all(u8::is_ascii_alphabetic);
        let whole = rest.get(4..8 + length as usize + 4).filter(|_| chunk).and_then(<[u8]>::split_last_chunk::<4>);
        let Some((body, checksum)) = whole else {
            // A PNG signature is never there by chance; the three bytes of a JPEG may be pixels, so the checksum must
            // decide.
            let next = if last || !chunk { start(new) } else { found(new, PNG) };
            return next.map(|next| from + next);
        };
        let end = *at + length as usize + 12;
        if &head[4..] == b"IEND" {
            return Some(end - swallowed(checksum));
        }
        if u32::from_be_bytes(*checksum) != crc32fast::hash(body) {
            // A signature that begins in the chunk may continue after it.
            let behind = end + PNG.len() - 1;
            if bytes.len() < behind && !last {
                return None;
            }
            let inside = bytes.get(*at..bytes.len().min(behind)).unwrap_or_default();
            if let Some(next) = start(inside).filter(|next| at.saturating_add(*next) < end) {
                return Some(*at + next);
            }
        }
        *at = end;
    }
}

/// The bytes from `at` on in which a signature may begin that was not within the first `seen`, and where they begin.
fn unseen(bytes: &[u8], at: usize, seen: usize) -> (usize, &[u8]) {
    let from = at.max(seen.saturating_sub(PNG.len() - 1));
    (from, bytes.get(from..).unwrap_or_default())
}

/// How many bytes at the end of a truncated checksum of a PNG already belong to the next image.
fn swallowed(checksum: &[u8]) -> usize {
    let begins = |rest: &[u8]| PNG.starts_with(rest) || rest.starts_with(JPEG) || JPEG.starts_with(rest);
    if checksum == [0xAE, 0x42, 0x60, 0x82] {
        return 0;
    }
    (0..checksum.len()).find_map(|at| checksum.get(at..).filter(|rest| begins(rest))).map_or(0, <[u8]>::len)
}

#[cfg(test)]
#[path = "image_splitter_tests.rs"]
mod tests;
