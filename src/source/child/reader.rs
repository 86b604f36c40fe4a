//! Frames out of a pipe, on a thread of their own, in recycled buffers.
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::frame_bytes;

/// Frames that may wait in the channel. With the one being read and the caller's, four exist in all.
const WAITING: usize = 2;

/// How frames lie in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Each frame is a binary PPM (`P6`) that names its own size.
    Ppm,
    /// Bare RGB of one size, rows padded to a multiple of four bytes (GStreamer's layout).
    Raw { width: u32, height: u32 },
}

/// What the thread sends.
#[derive(Debug)]
pub(super) enum Item {
    /// The next frame.
    Frame(Frame),
    /// The stream ended, between two frames or (with a reason) in a way that it should not.
    End(Option<String>),
}

/// The receiving end. Dropping it ends the thread at its next frame.
#[derive(Debug)]
pub(super) struct Frames {
    full: Receiver<Item>,
    empty: Sender<Frame>,
    began: Instant,
    /// Milliseconds from `began` to the last byte.
    last_byte: Arc<AtomicU64>,
}

impl Frames {
    /// Reads `stream` on a new thread.
    /// # Errors
    /// Work: no thread can be started.
    pub(super) fn start(stream: impl Read + Send + 'static, layout: Layout) -> Result<Frames> {
        let (send_full, full) = bounded(WAITING);
        let (empty, take_empty) = bounded::<Frame>(WAITING + 1);
        let began = Instant::now();
        let last_byte = Arc::new(AtomicU64::new(0));
        let timed = Timed { inner: stream, began, last_byte: last_byte.clone() };
        let work = move || {
            let mut stream = BufReader::with_capacity(1 << 16, timed);
            loop {
                let mut frame = take_empty.try_recv().unwrap_or_default();
                let item = match read_frame(&mut stream, layout, &mut frame) {
                    Ok(true) => Item::Frame(frame),
                    Ok(false) => Item::End(None),
                    Err(error) => Item::End(Some(error.chain())),
                };
                let last = matches!(item, Item::End(_));
                if send_full.send(item).is_err() || last {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("decoder-frames".into()).spawn(work);
        thread.map_err(|e| Error::work("cannot start the thread that reads the video decoder").because(e))?;
        Ok(Frames { full, empty, began, last_byte })
    }

    /// The next item; `None` when there is none by `until`.
    pub(super) fn next(&self, until: Instant) -> Option<Item> {
        match self.full.recv_deadline(until) {
            Ok(item) => Some(item),
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => None,
            Err(_) => Some(Item::End(Some("the thread that reads it ended".into()))),
        }
    }

    /// Gives a used buffer back.
    pub(super) fn recycle(&self, frame: Frame) {
        // Full only when the caller brings more buffers than it took; those are freed.
        drop(self.empty.try_send(frame));
    }

    /// When the last byte came (or the reading began).
    pub(super) fn last_byte(&self) -> Instant {
        let millis = Duration::from_millis(self.last_byte.load(Ordering::Relaxed));
        self.began.checked_add(millis).unwrap_or(self.began)
    }
}

/// Notes when bytes come.
struct Timed<R> {
    inner: R,
    began: Instant,
    last_byte: Arc<AtomicU64>,
}

impl<R: Read> Read for Timed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_byte.store(millis, Ordering::Relaxed);
        Ok(n)
    }
}

/// Reads one frame (size and pixels) into `frame`; false at the end of the stream between two frames.
pub(super) fn read_frame(stream: &mut impl BufRead, layout: Layout, frame: &mut Frame) -> Result<bool> {
    if at_end(stream)? {
        return Ok(false);
    }
    let (width, height) = match layout {
        Layout::Ppm => ppm_header(stream)?,
        Layout::Raw { width, height } => (width, height),
    };
    let bytes = frame_bytes(width, height)?;
    frame.pixels.resize(bytes, 0);
    let row = bytes / height.max(1) as usize;
    match layout {
        Layout::Raw { .. } if !row.is_multiple_of(4) => {
            let mut padding = [0u8; 4];
            let padding = padding.get_mut(..4 - row % 4).unwrap_or_default();
            for pixels in frame.pixels.chunks_exact_mut(row) {
                stream.read_exact(pixels).map_err(cut)?;
                stream.read_exact(padding).map_err(cut)?;
            }
        }
        _ => stream.read_exact(&mut frame.pixels).map_err(cut)?,
    }
    (frame.width, frame.height) = (width, height);
    Ok(true)
}

fn at_end(stream: &mut impl BufRead) -> Result<bool> {
    loop {
        match stream.fill_buf() {
            Ok(bytes) => return Ok(bytes.is_empty()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(cut(error)),
        }
    }
}

pub(super) fn cut(error: std::io::Error) -> Error {
    Error::work("the stream of frames broke off in the middle of a frame").because(error)
}

/// `P6`, width, height and 255 in decimal digits, white space between them and one white-space byte after.
fn ppm_header(stream: &mut impl BufRead) -> Result<(u32, u32)> {
    let mut magic = [0u8; 2];
    stream.read_exact(&mut magic).map_err(cut)?;
    if &magic != b"P6" {
        return Err(Error::work(format!("the stream of frames is no PPM: `P6` expected, found {magic:?}")));
    }
    let (width, height, depth) = (number(stream)?, number(stream)?, number(stream)?);
    if depth != 255 {
        return Err(Error::work(format!("the PPM frames have {depth} levels; 255 expected")));
    }
    Ok((width, height))
}

/// One number and the byte after it; white space before it is passed over.
fn number(stream: &mut impl BufRead) -> Result<u32> {
    let mut value: Option<u32> = None;
    // More bytes than any header has, and few enough digits that the value cannot overflow.
    for _ in 0..8 {
        let mut byte = [0u8; 1];
        stream.read_exact(&mut byte).map_err(cut)?;
        match (byte[0], value) {
            (digit @ b'0'..=b'9', _) => value = Some(value.unwrap_or(0) * 10 + u32::from(digit - b'0')),
            (space, None) if space.is_ascii_whitespace() => {}
            (space, Some(value)) if space.is_ascii_whitespace() => return Ok(value),
            _ => break,
        }
    }
    Err(Error::work("the header of a PPM frame makes no sense"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ppm_frames_of_changing_size() {
        let mut stream: &[u8] = b"P6\n2 1\n255\nabcdefP6 1 2 255 ghijkl";
        let mut frame = Frame::default();
        assert!(read_frame(&mut stream, Layout::Ppm, &mut frame).unwrap());
        assert_eq!((frame.width, frame.height, frame.pixels.as_slice()), (2, 1, b"abcdef".as_slice()));
        assert!(read_frame(&mut stream, Layout::Ppm, &mut frame).unwrap());
        assert_eq!((frame.width, frame.height, frame.pixels.as_slice()), (1, 2, b"ghijkl".as_slice()));
        assert!(!read_frame(&mut stream, Layout::Ppm, &mut frame).unwrap());
    }

    #[test]
    fn bad_ppm_streams_are_errors_before_memory_is_taken() {
        let mut frame = Frame::default();
        for bad in [
            "P5\n2 1\n255\nab",
            "P6\n2 1\n65535\nab",
            "P6\n99999999 1\n255\n",
            "P6\n16384 16384\n255\n",
            "P6\n0 4\n255\n",
            "P6\n-2 1\n255\n",
            "P6\n\n\n\n\n\n\n\n\n\n2 1\n255\nabcdef",
            "P6\n2 1\n255\nabcde",
            "P6\n2",
            "P",
        ] {
            assert!(read_frame(&mut bad.as_bytes(), Layout::Ppm, &mut frame).is_err(), "{bad}");
            assert!(frame.pixels.capacity() < 1 << 16);
        }
    }

    #[test]
    fn raw_rows_lose_their_padding() {
        let mut stream: &[u8] = b"abcdefgh--ijklmn--opq";
        let mut frame = Frame::default();
        let layout = Layout::Raw { width: 2, height: 2 };
        let mut first: &[u8] = b"abcdef--ghijkl--";
        assert!(read_frame(&mut first, layout, &mut frame).unwrap());
        assert_eq!(frame.pixels, b"abcdefghijkl");
        assert!(!read_frame(&mut first, layout, &mut frame).unwrap());
        assert!(read_frame(&mut stream, Layout::Raw { width: 4, height: 1 }, &mut frame).unwrap());
        assert_eq!(frame.pixels, b"abcdefgh--ij");
        assert!(read_frame(&mut stream, Layout::Raw { width: 4, height: 1 }, &mut frame).is_err());
    }

    #[test]
    fn buffers_are_recycled() {
        let stream: Vec<u8> = (0..20).flat_map(|i| [b"P6 1 1 255 ".as_slice(), &[i, i, i]].concat()).collect();
        let frames = Frames::start(std::io::Cursor::new(stream), Layout::Ppm).unwrap();
        for i in 0..20 {
            let Some(Item::Frame(frame)) = frames.next(Instant::now() + Duration::from_secs(5)) else {
                panic!("frame {i} is missing")
            };
            assert_eq!(frame.pixels, [i; 3]);
            frames.recycle(frame);
        }
        assert!(matches!(frames.next(Instant::now() + Duration::from_secs(5)), Some(Item::End(None))));
    }
}
