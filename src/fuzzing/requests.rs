//! Fuzz targets for network requests, and for the ring that another process writes.
use super::file;
use crate::config::Size;
use crate::detection::{BBox, GridGeometry, RoiAlign};
use crate::export::box_api::{BoxRequest, ErrorCode};
use crate::export::fuzzing;
use crate::export::sinks::shm_ring::{RingRead, RingReader};
use crate::frame::Frame;
use crate::head::Grid;

/// Boxes of one input to crop and pool.
const BOXES: usize = 50;

pub(super) fn box_request(bytes: &[u8]) -> bool {
    fuzzing::box_request(bytes, None).is_some_and(answered)
}

pub(super) fn mqtt_request(bytes: &[u8]) -> bool {
    fuzzing::box_request(bytes, Some("door")).is_some_and(answered)
}

fn answered(request: BoxRequest) -> bool {
    request.refuse(0, ErrorCode::NoCamera, "no camera has the name");
    request.boxes.iter().take(BOXES).for_each(|found| embedded(found.rect));
    true
}

/// Crops a box out of the frame and pools it from a grid of latents.
pub(super) fn embedded(rect: BBox) {
    let frame = Frame { width: 64, height: 48, pixels: vec![7; 64 * 48 * 3], ..Frame::default() };
    let Ok(part) = rect.clipped(frame.width, frame.height, 0.0) else { return };
    crate::pipeline::box_encoder::cut(&frame, part.pixels(), &mut Frame::default());
    let grid = Grid { rows: 3, columns: 5, dim: 2 };
    let latent = [0.5; 30];
    let size = Size { height: 48, width: 32 };
    let rect = GridGeometry::even(grid, size).of(part, [0.0, 0.0, 64.0, 48.0], size);
    RoiAlign::POOL.pool(grid, &latent, rect);
    RoiAlign { bins: [7, 7], samples: 0 }.align(grid, &latent, rect);
}

pub(super) fn ring(bytes: &[u8]) -> bool {
    let Ok(mut reader) = RingReader::open(&file("ring", bytes)) else { return false };
    for _ in 0..100 {
        if !matches!(reader.read(), RingRead::Message(..)) {
            break;
        }
    }
    true
}
