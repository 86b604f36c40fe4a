//! A brightness thumbnail for detecting shot changes.
use super::preprocess::is_whole;
use crate::frame::Frame;

/// Number of columns.
const ACROSS: usize = 16;
/// Number of rows.
const DOWN: usize = 12;
/// Maximum number of pixels sampled along each axis of a cell.
const SAMPLES: usize = 4;
/// Number of values: 16 across, 12 down, in row-major order.
pub const LUMA_LEN: usize = ACROSS * DOWN;

/// `out[y * 16 + x]`: mean brightness of a cell of the frame, `(0.299 R + 0.587 G + 0.114 B) / 255` (Rec. 601), 0 to
/// 1.
///
/// At most 4 x 4 evenly spaced pixels of each cell are sampled. A frame without pixels, or with too few bytes, is all
/// 0.
pub fn luma(frame: &Frame, out: &mut [f32; LUMA_LEN]) {
    out.fill(0.0);
    if !is_whole(frame) {
        return;
    }
    let (width, height) = (frame.width as usize, frame.height as usize);
    for (cell, value) in out.iter_mut().enumerate() {
        let (mut sum, mut count) = (0u32, 0u32);
        for y in samples(height, cell / ACROSS, DOWN) {
            for x in samples(width, cell % ACROSS, ACROSS) {
                let at = (y * width + x) * 3;
                let [r, g, b] = [0, 1, 2].map(|c| u32::from(frame.pixels[at + c]));
                sum += 299 * r + 587 * g + 114 * b;
                count += 1;
            }
        }
        *value = sum as f32 / (count as f32 * 255_000.0);
    }
}

/// Positions to sample in cell `cell` of `cells` along an axis of `length` pixels; at least one.
fn samples(length: usize, cell: usize, cells: usize) -> impl Iterator<Item = usize> {
    let first = cell * length / cells;
    let span = ((cell + 1) * length / cells - first).max(1);
    let count = span.min(SAMPLES);
    (0..count).map(move |i| first + (2 * i + 1) * span / (2 * count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(width: u32, height: u32, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Frame {
        let (w, h) = (width as usize, height as usize);
        let pixels = (0..w * h).flat_map(|i| pixel(i % w, i / w)).collect();
        Frame { width, height, pixels, ..Frame::default() }
    }

    fn thumbnail(frame: &Frame) -> [f32; LUMA_LEN] {
        let mut out = [f32::NAN; LUMA_LEN];
        luma(frame, &mut out);
        out
    }

    #[test]
    fn weighs_the_channels() {
        for (pixel, value) in
            [([255; 3], 1.0), ([0; 3], 0.0), ([255, 0, 0], 0.299), ([0, 255, 0], 0.587), ([0, 0, 255], 0.114)]
        {
            assert!(thumbnail(&frame(64, 48, |_, _| pixel)).iter().all(|v| (v - value).abs() < 1e-6), "{pixel:?}");
        }
    }

    #[test]
    fn is_the_mean_of_each_cell() {
        // 64 x 48: every pixel is sampled, so the thumbnail is exact.
        let picture = frame(64, 48, |x, y| [(x * 3 + y) as u8; 3]);
        let out = thumbnail(&picture);
        for (cx, cy) in [(0, 0), (15, 0), (3, 7), (15, 11)] {
            let mean = 3.0 * (cx as f32 * 4.0 + 1.5) + (cy as f32 * 4.0 + 1.5);
            assert!((out[cy * 16 + cx] - mean / 255.0).abs() < 1e-6);
        }
        // Large frames are subsampled; a smooth image stays the same.
        let large = frame(1283, 719, |x, _| [(x * 255 / 1282) as u8; 3]);
        for (cell, v) in thumbnail(&large).iter().enumerate() {
            assert!((v - (cell % 16) as f32 / 16.0 - 1.0 / 32.0).abs() < 0.01);
        }
    }

    #[test]
    fn any_size_is_looked_at_from_within() {
        for width in 1..40 {
            for height in 1..30 {
                assert!(thumbnail(&frame(width, height, |_, _| [255; 3])).iter().all(|v| (v - 1.0).abs() < 1e-6));
            }
        }
        let mut short = frame(20, 20, |_, _| [255; 3]);
        short.pixels.pop();
        for bad in [Frame::default(), short] {
            assert_eq!(thumbnail(&bad), [0.0; LUMA_LEN]);
        }
    }
}
