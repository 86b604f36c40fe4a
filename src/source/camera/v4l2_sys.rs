//! The part of the kernel's V4L2 interface (`linux/videodev2.h`) that capture needs, for 64-bit Linux.
//!
//! The interface is written out here, and all unsafe camera code is in this file and `stream.rs`, because no library is
//! reliable enough for an unattended camera: nokhwa blocks forever when a camera stalls, cannot open a camera that was
//! left in a format that it does not know, and rounds 29.97; the v4l crate below it leaks its file descriptor into
//! child processes, panics while closing a broken device, and needs libclang at build time.
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

pub(super) const CAPTURE: u32 = 1;
pub(super) const MEMORY_MMAP: u32 = 1;
pub(super) const CAP_VIDEO_CAPTURE: u32 = 0x1;
pub(super) const CAP_VIDEO_CAPTURE_MPLANE: u32 = 0x1000;
pub(super) const CAP_STREAMING: u32 = 0x0400_0000;
pub(super) const CAP_DEVICE_CAPS: u32 = 0x8000_0000;
/// The content of the buffer is damaged.
pub(super) const BUFFER_ERROR: u32 = 0x40;
pub(super) const BUFFER_TIMESTAMP_MASK: u32 = 0xe000;
pub(super) const BUFFER_TIMESTAMP_MONOTONIC: u32 = 0x2000;
/// A single size or interval; everything else is a range.
pub(super) const DISCRETE: u32 = 1;

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Capability {
    pub(super) driver: [u8; 16],
    pub(super) card: [u8; 32],
    pub(super) bus: [u8; 32],
    pub(super) version: u32,
    pub(super) capabilities: u32,
    pub(super) device_caps: u32,
    pub(super) reserved: [u32; 3],
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct FormatDescription {
    pub(super) index: u32,
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) description: [u8; 32],
    pub(super) fourcc: [u8; 4],
    pub(super) bus_code: u32,
    pub(super) reserved: [u32; 3],
}

/// A size: `[width, height]`, or `[min width, max, step, min height, max, step]`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct FrameSize {
    pub(super) index: u32,
    pub(super) fourcc: [u8; 4],
    pub(super) kind: u32,
    pub(super) values: [u32; 6],
    pub(super) reserved: [u32; 2],
}

/// A frame interval in seconds: `[numerator, denominator]`, or three of them: shortest, longest, step.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct FrameInterval {
    pub(super) index: u32,
    pub(super) fourcc: [u8; 4],
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) kind: u32,
    pub(super) values: [u32; 6],
    pub(super) reserved: [u32; 2],
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Format {
    pub(super) kind: u32,
    pub(super) padding: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) fourcc: [u8; 4],
    pub(super) field: u32,
    /// Bytes from one row to the next.
    pub(super) stride: u32,
    pub(super) size: u32,
    pub(super) more: [u32; 6],
    pub(super) rest: [u32; 19],
    pub(super) rest_too: [u32; 19],
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Parameters {
    pub(super) kind: u32,
    pub(super) capability: u32,
    pub(super) mode: u32,
    /// Seconds between frames: numerator, denominator.
    pub(super) interval: [u32; 2],
    pub(super) more: [u32; 6],
    pub(super) rest: [[u32; 20]; 2],
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RequestBuffers {
    pub(super) count: u32,
    pub(super) kind: u32,
    pub(super) memory: u32,
    pub(super) more: [u32; 2],
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Buffer {
    pub(super) index: u32,
    pub(super) kind: u32,
    pub(super) bytes_used: u32,
    pub(super) flags: u32,
    pub(super) field: u32,
    pub(super) padding: u32,
    pub(super) secs: i64,
    pub(super) micros: i64,
    pub(super) time_code: [u32; 4],
    pub(super) sequence: u32,
    pub(super) memory: u32,
    /// Offset in the device file for mmap.
    pub(super) offset: u32,
    pub(super) offset_high: u32,
    pub(super) length: u32,
    pub(super) more: [u32; 3],
}

/// A request and its struct: the only pairs that [`ask`] accepts.
pub(super) trait Request: Default {
    /// Direction (1 in, 2 out, 3 both) and number.
    const QUERY: (u32, u32);
}

/// Implements [`Request`], and checks that the struct has the kernel's size.
macro_rules! request {
    ($name:ident, $direction:literal, $number:literal, $size:literal) => {
        const _: () = assert!(size_of::<$name>() == $size);
        impl Request for $name {
            const QUERY: (u32, u32) = ($direction, $number);
        }
    };
}

request!(Capability, 2, 0, 104);
request!(FormatDescription, 3, 2, 64);
request!(FrameSize, 3, 74, 44);
request!(FrameInterval, 3, 75, 52);
request!(Format, 3, 5, 208);
request!(Parameters, 3, 22, 204);
request!(RequestBuffers, 3, 8, 20);
request!(Buffer, 3, 9, 88);

/// Other requests that use the same structs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IoctlDirection {
    /// The request of [`Request::QUERY`]: for formats and parameters it sets them.
    Query,
    /// Hands an empty buffer to the driver.
    Queue,
    /// Takes a filled buffer back.
    Dequeue,
}

/// Sends one request to the driver of `device`; `argument` is the input and receives the answer.
pub(super) fn ask<T: Request>(device: &File, verb: IoctlDirection, argument: &mut T) -> io::Result<()> {
    let (direction, mut number) = T::QUERY;
    match verb {
        IoctlDirection::Query => {}
        // Both exist only for `Buffer`; with another struct the kernel rejects the request because of the size in its
        // code.
        IoctlDirection::Queue => number = 15,
        IoctlDirection::Dequeue => number = 17,
    }
    control(device, direction, number, argument)
}

/// Starts or stops the stream.
pub(super) fn stream(device: &File, on: bool) -> io::Result<()> {
    let mut kind = CAPTURE as i32;
    control(device, 1, if on { 18 } else { 19 }, &mut kind)
}

fn control<T>(device: &File, direction: u32, number: u32, argument: &mut T) -> io::Result<()> {
    let code = direction << 30 | (size_of::<T>() as u32) << 16 | u32::from(b'V') << 8 | number;
    loop {
        let at: *mut c_void = std::ptr::from_mut(argument).cast();
        // SAFETY: `at` points to a live value of the size in the request code, and the kernel reads and writes only
        // within it; none of the structs holds a pointer. The descriptor is open while `device` is borrowed.
        #[allow(unsafe_code, reason = "a driver is asked in no other way")]
        let answer = unsafe { libc::ioctl(device.as_raw_fd(), code as libc::Ioctl, at) };
        if answer >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The text in a fixed-size field, up to its first zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).trim().to_owned()
}
