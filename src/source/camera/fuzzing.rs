//! Entry points of this module that parse untrusted bytes, for [`crate::fuzzing`].
use super::format::{PixelLayout, Pixels};
use crate::frame::Frame;

/// A camera's buffer: width, height, row length and pixel format in the first five bytes, then the pixels.
pub(crate) fn camera_buffer(bytes: &[u8]) -> bool {
    let [width, height, low, high, format, pixels @ ..] = bytes else { return false };
    let formats = [Pixels::Rgb, Pixels::Bgr, Pixels::Nv12, Pixels::Yuyv, Pixels::Grey, Pixels::Mjpeg];
    let stride = u32::from(u16::from_le_bytes([*low, *high]));
    let format = formats[usize::from(*format) % formats.len()];
    let Ok(layout) = PixelLayout::new(format, u32::from(*width) + 1, u32::from(*height) + 1, stride) else {
        return false;
    };
    let mut frame = Frame::default();
    layout.to_rgb(layout.trim(pixels), &mut frame).is_ok()
}
