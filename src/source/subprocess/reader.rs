//! Reads frames from a pipe on a separate thread, into recycled buffers.
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::stream::{Next, Stream};
use crate::error::{Error, Result};
use crate::frame::Frame;

/// Frames that may wait in the channel. With the one being read and the caller's, there are four in total.
const WAITING: usize = 2;

/// A message of the reading thread.
#[derive(Debug)]
pub(super) enum Item {
    /// The next frame, and its presentation time in nanoseconds if the video has one.
    Frame(Frame, Option<i64>),
    /// The stream ended, between two frames or (with a reason) irregularly.
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
    /// A runtime error: the thread cannot be started.
    pub(super) fn start(stream: impl Read + Send + 'static) -> Result<Frames> {
        let (send_full, full) = bounded(WAITING);
        let (empty, take_empty) = bounded::<Frame>(WAITING + 1);
        let began = Instant::now();
        let last_byte = Arc::new(AtomicU64::new(0));
        let timed = Timed { inner: stream, began, last_byte: last_byte.clone() };
        let work = move || {
            let mut stream = Stream::new(BufReader::with_capacity(1 << 16, timed));
            loop {
                let mut frame = take_empty.try_recv().unwrap_or_default();
                let item = match stream.next(&mut frame) {
                    Ok(Next::Frame(time)) => Item::Frame(frame, time),
                    Ok(Next::End) => Item::End(None),
                    Err(error) => Item::End(Some(error.chain())),
                };
                let last = matches!(item, Item::End(_));
                if send_full.send(item).is_err() || last {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("decoder-frames".into()).spawn(work);
        thread.map_err(|e| Error::runtime("cannot start the thread that reads the video decoder").with_source(e))?;
        Ok(Frames { full, empty, began, last_byte })
    }

    /// The next item; `None` if none comes before `until`.
    pub(super) fn next(&self, until: Instant) -> Option<Item> {
        match self.full.recv_deadline(until) {
            Ok(item) => Some(item),
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => None,
            Err(_) => Some(Item::End(Some("the thread that reads it ended".into()))),
        }
    }

    /// Returns a used buffer.
    pub(super) fn recycle(&self, frame: Frame) {
        // Full only if the caller returns more buffers than it took; those are freed.
        drop(self.empty.try_send(frame));
    }

    /// When the last byte came (or the reading began).
    pub(super) fn last_byte(&self) -> Instant {
        let millis = Duration::from_millis(self.last_byte.load(Ordering::Relaxed));
        self.began.checked_add(millis).unwrap_or(self.began)
    }
}

/// Records when bytes come.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn buffers_are_recycled() {
        let stream: Vec<u8> = (0..20).flat_map(|i| [b"P6 1 1 255 ".as_slice(), &[i, i, i]].concat()).collect();
        let frames = Frames::start(std::io::Cursor::new(stream)).unwrap();
        for i in 0..20 {
            let Some(Item::Frame(frame, None)) = frames.next(Instant::now() + Duration::from_secs(5)) else {
                panic!("frame {i} is missing")
            };
            assert_eq!(frame.pixels, [i; 3]);
            frames.recycle(frame);
        }
        assert!(matches!(frames.next(Instant::now() + Duration::from_secs(5)), Some(Item::End(None))));
    }
}
