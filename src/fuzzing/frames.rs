//! Fuzz targets for pictures and streams of frames.
use super::text;
use crate::frame::Frame;
use crate::source::{fuzzing, image_decode};

pub(super) fn picture(bytes: &[u8]) -> bool {
    let mut frame = Frame::default();
    let read = image_decode::decode(bytes, &mut frame).is_ok();
    assert!(!read || frame.pixels.len() == 3 * frame.width as usize * frame.height as usize, "pixels are missing");
    read
}

pub(super) fn camera_buffer(bytes: &[u8]) -> bool {
    fuzzing::camera_buffer(bytes)
}

pub(super) fn stdin_cutter(bytes: &[u8]) -> bool {
    fuzzing::cut_pictures(bytes) > 0
}

pub(super) fn piped_pictures(bytes: &[u8]) -> bool {
    fuzzing::piped_pictures(bytes) > 0
}

pub(super) fn decoder_header(bytes: &[u8]) -> bool {
    fuzzing::decoder_header(&text(bytes))
}

pub(super) fn matroska(bytes: &[u8]) -> bool {
    fuzzing::matroska(bytes) > 0
}

pub(super) fn nut(bytes: &[u8]) -> bool {
    fuzzing::nut(bytes) > 0
}

pub(super) fn ppm(bytes: &[u8]) -> bool {
    fuzzing::ppm(bytes) > 0
}

pub(super) fn video_kind(bytes: &[u8]) -> bool {
    fuzzing::video_kind(bytes)
}
