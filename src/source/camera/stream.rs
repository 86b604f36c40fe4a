//! A running capture: the driver fills shared buffers, and their content is copied out.
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::v4l2_sys::{self, IoctlDirection, ask};

/// Buffers requested from the driver: it fills some while one is copied.
const BUFFERS: u32 = 4;
/// Older driver timestamps are ignored.
const OLDEST: Duration = Duration::from_secs(60);

/// An open, capturing camera. Dropping it stops the capture and closes the device.
pub(super) struct CaptureStream {
    /// The driver's buffers, mapped into our memory.
    buffers: Vec<MmapRaw>,
    device: File,
}

/// Metadata of a frame from the driver.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameMeta {
    /// The driver's frame count, including frames that it had no buffer for.
    pub(super) sequence: u32,
    /// The driver marked the content as damaged.
    pub(super) damaged: bool,
    /// Capture time.
    pub(super) at: Instant,
}

impl CaptureStream {
    /// Starts capturing in the current format of `device`.
    pub(super) fn start(device: File) -> io::Result<Self> {
        let mut request = v4l2_sys::RequestBuffers {
            count: BUFFERS,
            kind: v4l2_sys::CAPTURE,
            memory: v4l2_sys::MEMORY_MMAP,
            ..Default::default()
        };
        ask(&device, IoctlDirection::Query, &mut request)?;
        let mut stream = Self { buffers: Vec::new(), device };
        for index in 0..request.count {
            let mut buffer = described(index);
            ask(&stream.device, IoctlDirection::Query, &mut buffer)?;
            stream.buffers.push(map(&stream.device, &buffer)?);
            ask(&stream.device, IoctlDirection::Queue, &mut described(index))?;
        }
        v4l2_sys::stream(&stream.device, true)?;
        Ok(stream)
    }

    /// Copies the next frame into `bytes`, waiting at most `wait`; `None` if no frame came.
    ///
    /// # Errors
    /// The driver reports that the camera is gone or broken.
    pub(super) fn next(&mut self, bytes: &mut Vec<u8>, wait: Duration) -> io::Result<Option<FrameMeta>> {
        let mut device = [PollFd::new(&self.device, PollFlags::IN)];
        // A wait that is too long to be expressed has no end.
        match poll(&mut device, Timespec::try_from(wait).ok().as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let readable = device[0].revents().contains(PollFlags::IN);
        let mut buffer = described(0);
        match ask(&self.device, IoctlDirection::Dequeue, &mut buffer) {
            Ok(()) => {}
            // Woken by an error without a name: waiting again would spin.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && !readable => {
                return Err(io::Error::other("the driver reports an error of the stream"));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        }
        let now = Instant::now();
        bytes.clear();
        if let Some(mapped) = self.buffers.get(buffer.index as usize) {
            // Some drivers leave it 0 and mean the whole buffer.
            let used = if buffer.bytes_used == 0 { mapped.len() } else { buffer.bytes_used as usize };
            // SAFETY: the mapping is `len` bytes long and lives as long as `self`; the driver does not write into a
            // buffer that it has handed out.
            #[allow(unsafe_code, reason = "the driver's memory is shared")]
            let filled = unsafe { std::slice::from_raw_parts(mapped.as_ptr(), used.min(mapped.len())) };
            bytes.extend_from_slice(filled);
        }
        let came = FrameMeta {
            sequence: buffer.sequence,
            damaged: buffer.flags & v4l2_sys::BUFFER_ERROR != 0,
            at: captured_at(&buffer, now),
        };
        ask(&self.device, IoctlDirection::Queue, &mut described(buffer.index))?;
        Ok(Some(came))
    }
}

impl Drop for CaptureStream {
    fn drop(&mut self) {
        // A camera that is gone cannot be stopped, and need not be.
        v4l2_sys::stream(&self.device, false).ok();
    }
}

fn described(index: u32) -> v4l2_sys::Buffer {
    v4l2_sys::Buffer { index, kind: v4l2_sys::CAPTURE, memory: v4l2_sys::MEMORY_MMAP, ..Default::default() }
}

fn map(device: &File, buffer: &v4l2_sys::Buffer) -> io::Result<MmapRaw> {
    MmapOptions::new().offset(buffer.offset.into()).len(buffer.length as usize).map_raw_read_only(device)
}

/// The driver's timestamp as an [`Instant`] if it uses the monotonic clock and is plausible, otherwise `now`.
fn captured_at(buffer: &v4l2_sys::Buffer, now: Instant) -> Instant {
    if buffer.flags & v4l2_sys::BUFFER_TIMESTAMP_MASK != v4l2_sys::BUFFER_TIMESTAMP_MONOTONIC {
        return now;
    }
    let clock = clock_gettime(ClockId::Monotonic);
    let nanos = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    let age = nanos(clock.tv_sec, clock.tv_nsec) - nanos(buffer.secs, buffer.micros.saturating_mul(1000));
    // A timestamp in the future (the end of an exposure still in progress) counts as now.
    let age = u64::try_from(age.max(0)).map_or(Duration::MAX, Duration::from_nanos);
    if age > OLDEST { now } else { now.checked_sub(age).unwrap_or(now) }
}
