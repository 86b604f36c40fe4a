//! A running capture: buffers that are shared with the driver, filled by it and copied out.
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::v4l2_sys::{self, IoctlDirection, ask};

/// Buffers asked of the driver: it fills some while one is copied.
const BUFFERS: u32 = 4;
/// A driver's time stamp older than this is not believed.
const OLDEST: Duration = Duration::from_secs(60);

/// A buffer of the driver's in our memory.
struct Mapped {
    start: *mut c_void,
    length: usize,
}

/// An open camera that captures. Dropping it stops the capture and closes the device.
pub(super) struct CaptureStream {
    device: File,
    buffers: Vec<Mapped>,
}

/// What came with a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameMeta {
    /// The driver's count of frames, also of those that it had no buffer for.
    pub(super) sequence: u32,
    /// The driver says that the content is damaged.
    pub(super) damaged: bool,
    /// When it was captured.
    pub(super) at: Instant,
}

impl CaptureStream {
    /// Starts to capture in the format that `device` is set to.
    pub(super) fn start(device: File) -> io::Result<Self> {
        let mut request = v4l2_sys::RequestBuffers {
            count: BUFFERS,
            kind: v4l2_sys::CAPTURE,
            memory: v4l2_sys::MEMORY_MMAP,
            ..Default::default()
        };
        ask(&device, IoctlDirection::Query, &mut request)?;
        let mut stream = Self { device, buffers: Vec::new() };
        for index in 0..request.count {
            let mut buffer = described(index);
            ask(&stream.device, IoctlDirection::Query, &mut buffer)?;
            stream.buffers.push(map(&stream.device, &buffer)?);
            ask(&stream.device, IoctlDirection::Queue, &mut described(index))?;
        }
        v4l2_sys::stream(&stream.device, true)?;
        Ok(stream)
    }

    /// Copies the next frame into `bytes`, waiting at most `wait` for it; `None` where none came.
    /// # Errors
    /// What the driver says: the camera is gone, or broken.
    pub(super) fn next(&mut self, bytes: &mut Vec<u8>, wait: Duration) -> io::Result<Option<FrameMeta>> {
        let mut poll = libc::pollfd { fd: self.device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `poll` is one valid entry that lives through the call.
        #[allow(unsafe_code, reason = "the standard library cannot wait for a descriptor with a time limit")]
        let ready = unsafe { libc::poll(&raw mut poll, 1, millis) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(error) };
        }
        if ready == 0 {
            return Ok(None);
        }
        let mut buffer = described(0);
        match ask(&self.device, IoctlDirection::Dequeue, &mut buffer) {
            Ok(()) => {}
            // Woken by an error, and nothing there that names it: to wait again would be to spin.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && poll.revents & libc::POLLIN == 0 => {
                return Err(io::Error::other("the driver reports an error of the stream"));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        }
        let now = Instant::now();
        bytes.clear();
        if let Some(mapped) = self.buffers.get(buffer.index as usize) {
            // Some drivers leave it 0 and mean all.
            let used = if buffer.bytes_used == 0 { mapped.length } else { buffer.bytes_used as usize };
            // SAFETY: the mapping is `length` bytes long and lives as long as `self`; the driver does not write into a
            // buffer that it has handed out.
            #[allow(unsafe_code, reason = "the driver's memory is shared")]
            let filled = unsafe { std::slice::from_raw_parts(mapped.start.cast::<u8>(), used.min(mapped.length)) };
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
        for mapped in &self.buffers {
            // SAFETY: mapped by us with this length, unmapped once, and no slice of it outlives a call of `next`.
            #[allow(unsafe_code, reason = "what was mapped must be unmapped")]
            unsafe {
                libc::munmap(mapped.start, mapped.length);
            }
        }
    }
}

fn described(index: u32) -> v4l2_sys::Buffer {
    v4l2_sys::Buffer { index, kind: v4l2_sys::CAPTURE, memory: v4l2_sys::MEMORY_MMAP, ..Default::default() }
}

fn map(device: &File, buffer: &v4l2_sys::Buffer) -> io::Result<Mapped> {
    let (length, offset) = (buffer.length as usize, libc::off_t::from(buffer.offset));
    // SAFETY: a new mapping at an address of the kernel's choice; it touches no memory of ours.
    #[allow(unsafe_code, reason = "the driver's buffers are reached in no other way")]
    let start = unsafe {
        libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, device.as_raw_fd(), offset)
    };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Mapped { start, length }) }
}

/// The driver's time stamp as an [`Instant`], where it is of the monotonic clock and can be true; else `now`.
fn captured_at(buffer: &v4l2_sys::Buffer, now: Instant) -> Instant {
    if buffer.flags & v4l2_sys::BUFFER_TIMESTAMP_MASK != v4l2_sys::BUFFER_TIMESTAMP_MONOTONIC {
        return now;
    }
    let mut clock = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `clock` is a valid timespec that lives through the call.
    #[allow(unsafe_code, reason = "the standard library does not tell what an Instant is")]
    let told = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut clock) };
    if told != 0 {
        return now;
    }
    let nanos = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    let age = nanos(clock.tv_sec, clock.tv_nsec) - nanos(buffer.secs, buffer.micros.saturating_mul(1000));
    // A stamp in the future (the end of an exposure that is going on) is now.
    let age = u64::try_from(age.max(0)).map_or(Duration::MAX, Duration::from_nanos);
    if age > OLDEST { now } else { now.checked_sub(age).unwrap_or(now) }
}
