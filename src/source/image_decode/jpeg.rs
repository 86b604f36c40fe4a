//! Decodes JPEG with libjpeg. Its warnings decide whether an image is intact: libjpeg fills missing parts with grey and
//! continues.
#![allow(unsafe_code, reason = "libjpeg tells errors and warnings through C functions that the application gives it")]
use std::cell::RefCell;
use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg::ColorSpace;
use mozjpeg::decompress::DecompressBuilder;
use mozjpeg_sys as sys;

use super::canvas::{BAND, Canvas};
use super::corrupt;
use super::jpeg_outline::JpegOutline;
use crate::error::{Error, Result};
use crate::frame::Frame;

/// Warnings that do not affect the pixels: extra bytes between segments, and unusual headers.
const HARMLESS: [c_int; 6] = [
    sys::JWRN_EXTRANEOUS_DATA as c_int,
    sys::JWRN_ADOBE_XFORM as c_int,
    sys::JWRN_JFIF_MAJOR as c_int,
    sys::JWRN_NOT_SEQUENTIAL as c_int,
    sys::JWRN_TOO_MUCH_DATA as c_int,
    sys::JWRN_BOGUS_ICC as c_int,
];

/// What libjpeg reported about the image that this thread decodes.
#[derive(Default)]
struct JpegWarnings {
    /// The file ended before the end marker.
    ended: bool,
    /// The first warning about lost pixels.
    damage: Option<String>,
    /// The fatal error, if any.
    error: Option<String>,
}

thread_local! {
    static SAID: RefCell<JpegWarnings> = RefCell::default();
}

/// Decodes `bytes` into `frame`.
/// # Errors
/// A runtime error: truncated, damaged, too large, or a type that libjpeg cannot decode.
pub(super) fn fill(bytes: &[u8], frame: &mut Frame) -> Result<()> {
    SAID.take();
    let outline = JpegOutline::of(bytes);
    let outcome = catch_unwind(AssertUnwindSafe(|| read(bytes, frame, &outline)));
    let said = SAID.take();
    let damaged = |why: &str| Error::runtime(format!("the JPEG is damaged; libjpeg says: {why}"));
    match outcome {
        Ok(Err(error)) => return Err(error),
        // libjpeg aborts by unwinding.
        Err(_) => return Err(damaged(said.error.as_deref().unwrap_or("nothing that could be read"))),
        Ok(Ok(())) => {}
    }
    match said.damage {
        Some(_) if said.ended => Err(Error::runtime("the JPEG is truncated: its last rows are missing")),
        Some(why) => Err(damaged(&why)),
        // All rows are there, but a progressive image may lack some detail.
        None if said.ended && !outline.complete => {
            Err(Error::runtime("the JPEG is truncated: its last scans are missing"))
        }
        None => Ok(()),
    }
}

fn read(bytes: &[u8], frame: &mut Frame, outline: &JpegOutline) -> Result<()> {
    let decoder = DecompressBuilder::new().with_err(listener()).from_mem(bytes).map_err(corrupt)?;
    let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut canvas = Canvas::new(frame, side(decoder.width()), side(decoder.height()), outline.orientation)?;
    if matches!(decoder.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK) {
        return Err(Error::runtime("the JPEG has print colours (CMYK); save it as RGB"));
    }
    let mut decoder = decoder.rgb().map_err(corrupt)?;
    if let Some(pixels) = canvas.upright() {
        decoder.read_scanlines_into::<u8>(pixels).map_err(corrupt)?;
    } else {
        let (width, height) = (canvas.width, canvas.height);
        let mut band = vec![0; BAND.min(height) * width * 3];
        for first in (0..height).step_by(BAND) {
            let rows = band.get_mut(..BAND.min(height - first) * width * 3).unwrap_or_default();
            decoder.read_scanlines_into::<u8>(rows).map_err(corrupt)?;
            canvas.put(first, rows);
        }
    }
    // All rows are there; nothing that follows can affect them.
    if catch_unwind(AssertUnwindSafe(|| decoder.finish())).is_err() {
        SAID.with_borrow_mut(|said| said.ended = true);
    }
    Ok(())
}

/// libjpeg's own error manager with our callbacks.
fn listener() -> sys::jpeg_error_mgr {
    // SAFETY: the struct holds only numbers, nullable pointers and optional functions; `jpeg_std_error` fills it.
    let mut manager: sys::jpeg_error_mgr = unsafe { std::mem::zeroed() };
    // SAFETY: `manager` outlives the call.
    unsafe { sys::jpeg_std_error(&mut manager) };
    manager.error_exit = Some(give_up);
    manager.emit_message = Some(listen);
    manager
}

unsafe extern "C-unwind" fn give_up(common: &mut sys::jpeg_common_struct) {
    let text = text(common);
    SAID.with_borrow_mut(|said| said.error = Some(text));
    // Unwind without printing a panic message.
    resume_unwind(Box::new(()));
}

unsafe extern "C-unwind" fn listen(common: &mut sys::jpeg_common_struct, level: c_int) {
    // Levels of 0 and above are traces.
    if level >= 0 {
        return;
    }
    // SAFETY: libjpeg calls this with the error manager that it was given.
    let code = unsafe { common.err.as_ref() }.map_or(0, |manager| manager.msg_code);
    if code == sys::JWRN_JPEG_EOF as c_int {
        SAID.with_borrow_mut(|said| said.ended = true);
    } else if !HARMLESS.contains(&code) && SAID.with_borrow(|said| said.damage.is_none()) {
        let text = text(common);
        SAID.with_borrow_mut(|said| said.damage = Some(text));
    }
}

/// The current message of libjpeg.
#[cold]
fn text(common: &mut sys::jpeg_common_struct) -> String {
    /// Buffer size for its longest message (`JMSG_LENGTH_MAX` is 200).
    const ROOM: usize = 512;
    // SAFETY: libjpeg calls the callbacks with the error manager that it was given.
    let Some(format) = (unsafe { common.err.as_ref() }).and_then(|manager| manager.format_message) else {
        return String::new();
    };
    type Format = unsafe extern "C-unwind" fn(&mut sys::jpeg_common_struct, *mut u8);
    // SAFETY: the C function takes a pointer to characters that it writes to; the binding declares it as a shared
    // array.
    let format = unsafe {
        std::mem::transmute::<unsafe extern "C-unwind" fn(&mut sys::jpeg_common_struct, &[u8; 80]), Format>(format)
    };
    let mut room = [0u8; ROOM];
    // SAFETY: the buffer has room for any message.
    unsafe { format(common, room.as_mut_ptr()) };
    CStr::from_bytes_until_nul(&room).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}
