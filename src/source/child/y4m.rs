//! Frames out of a YUV4MPEG2 stream, whose header names their size: what a live pipeline writes.
use std::io::BufRead;

use super::decoder::{Header, parse_header};
use super::reader::cut;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::{frame_bytes, yuv};

/// A line of the stream is no longer than this.
const MAX_LINE: usize = 512;

/// A stream of frames in 4:2:0.
#[derive(Debug)]
pub(super) struct Y4m<R> {
    stream: R,
    header: Option<Header>,
    planes: Vec<u8>,
}

impl<R: BufRead> Y4m<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, header: None, planes: Vec::new() }
    }

    /// Reads the next frame into `frame`; false at the end between two frames.
    pub(super) fn next(&mut self, frame: &mut Frame) -> Result<bool> {
        let Some(mut text) = line(&mut self.stream)? else { return Ok(false) };
        if let Some(header) = parse_header(&text) {
            self.header = Some(header);
            match line(&mut self.stream)? {
                Some(next) => text = next,
                None => return Ok(false),
            }
        }
        let header = self.header.filter(|_| text.starts_with("FRAME")).ok_or_else(|| {
            Error::work(format!("the stream of frames is no YUV4MPEG2: found `{}`", text.escape_debug()))
        })?;
        let pixels = frame_bytes(header.width, header.height)?;
        let (width, height) = (header.width as usize, header.height as usize);
        let (wide, high) = (width.div_ceil(2), height.div_ceil(2));
        self.planes.resize(width * height + 2 * wide * high, 0);
        self.stream.read_exact(&mut self.planes).map_err(cut)?;
        frame.pixels.resize(pixels, 0);
        let (luma, chroma) = self.planes.split_at(width * height);
        let (us, vs) = chroma.split_at(wide * high);
        for (y, (row, line)) in frame.pixels.chunks_exact_mut(width * 3).zip(luma.chunks_exact(width)).enumerate() {
            let at = y / 2 * wide;
            let (us, vs) = (us.get(at..at + wide).unwrap_or_default(), vs.get(at..at + wide).unwrap_or_default());
            yuv::row(row, line, us.iter().copied().zip(vs.iter().copied()));
        }
        (frame.width, frame.height) = (header.width, header.height);
        Ok(true)
    }
}

/// One line without its end; `None` where the stream has ended.
fn line(stream: &mut impl BufRead) -> Result<Option<String>> {
    let mut text = Vec::new();
    std::io::Read::take(&mut *stream, MAX_LINE as u64).read_until(b'\n', &mut text).map_err(cut)?;
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&text).trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn frames_of_odd_size_are_read_and_broken_streams_are_errors() {
        let mut bytes = b"YUV4MPEG2 W3 H3 F30:1 Ip A1:1 C420jpeg\n".to_vec();
        for luma in [235u8, 16] {
            bytes.extend(b"FRAME\n");
            bytes.extend([luma; 9]);
            bytes.extend([128; 8]);
        }
        let mut frames = Y4m::new(bytes.as_slice());
        let mut frame = Frame::default();
        assert!(frames.next(&mut frame).unwrap());
        assert_eq!((frame.width, frame.height, frame.pixels.as_slice()), (3, 3, [255u8; 27].as_slice()));
        assert!(frames.next(&mut frame).unwrap());
        assert_eq!(frame.pixels, [0; 27]);
        assert!(!frames.next(&mut frame).unwrap());
        let cut_off = &bytes[..bytes.len() - 3];
        let mut frames = Y4m::new(cut_off);
        assert!(frames.next(&mut frame).unwrap() && frames.next(&mut frame).is_err());
        for bad in ["hello\n", "FRAME\n", "YUV4MPEG2 W99999 H99999 F1:1\nFRAME\n", "YUV4MPEG2 W2 H2 F1:1\nJUNK\n"] {
            assert!(Y4m::new(bad.as_bytes()).next(&mut frame).is_err(), "{bad}");
        }
    }
}
