//! Writes stored rows into a frame in display orientation.
use image::metadata::Orientation;

use crate::error::Result;
use crate::frame::Frame;
use crate::source::frame_bytes;

/// Rows that are rotated together, so that columns of the frame are written several pixels at a time.
pub(super) const BAND: usize = 16;

/// A frame that is filled row by row, with the orientation of the stored rows.
pub(super) struct Canvas<'a> {
    pixels: &'a mut [u8],
    /// Width of a stored row.
    pub(super) width: usize,
    /// Number of stored rows.
    pub(super) height: usize,
    orientation: Orientation,
}

impl<'a> Canvas<'a> {
    /// Sizes `frame` for an image stored as `width` x `height`, and allocates its memory.
    /// # Errors
    /// A runtime error: no pixels, or too many; nothing is allocated then.
    pub(super) fn new(frame: &'a mut Frame, width: u32, height: u32, orientation: Orientation) -> Result<Self> {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        let length = frame_bytes(width, height)?;
        let turned = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
        (frame.width, frame.height) = if turned { (height, width) } else { (width, height) };
        frame.pixels.resize(length, 0);
        Ok(Self { pixels: &mut frame.pixels, width: width as usize, height: height as usize, orientation })
    }

    /// The pixels of the whole frame, if the stored rows need no reorientation.
    pub(super) fn upright(&mut self) -> Option<&mut [u8]> {
        (self.orientation == Orientation::NoTransforms).then_some(&mut *self.pixels)
    }

    /// Writes complete stored rows, from row `first` on, to their place in the frame.
    pub(super) fn put(&mut self, first: usize, rows: &[u8]) {
        let (width, height) = (self.width, self.height);
        let count = (rows.len() / (3 * width)).min(height.saturating_sub(first));
        // The position of the stored pixel (0, 0) in the frame, and the distance to its right and lower neighbour
        // there.
        let (wide, high) = (width as isize, height as isize);
        let last = wide * high - 1;
        let (start, right, below) = match self.orientation {
            Orientation::NoTransforms => (0, 1, wide),
            Orientation::FlipHorizontal => (wide - 1, -1, wide),
            Orientation::Rotate180 => (last, -1, -wide),
            Orientation::FlipVertical => (last + 1 - wide, 1, -wide),
            Orientation::Rotate90FlipH => (0, high, 1),
            Orientation::Rotate90 => (high - 1, high, -1),
            Orientation::Rotate270FlipH => (last, -high, -1),
            Orientation::Rotate270 => (last + 1 - high, -high, 1),
        };
        for x in 0..width {
            for y in 0..count {
                let to = (start + right * x as isize + below * (first + y) as isize) as usize * 3;
                let from = (y * width + x) * 3;
                if let (Some(to), Some(from)) = (self.pixels.get_mut(to..to + 3), rows.get(from..from + 3)) {
                    to.copy_from_slice(from);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn all_eight_orientations_are_those_of_the_image_crate_however_the_rows_come() {
        let (width, height) = (21u32, 35u32);
        let stored: Vec<u8> = (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect();
        for number in 1..=8 {
            let orientation = Orientation::from_exif(number).unwrap();
            let whole = image::RgbImage::from_raw(width, height, stored.clone()).unwrap();
            let mut expected = image::DynamicImage::from(whole);
            expected.apply_orientation(orientation);
            for band in [1, BAND, 35] {
                let mut frame = Frame::default();
                let mut canvas = Canvas::new(&mut frame, width, height, orientation).unwrap();
                for (at, rows) in stored.chunks(band * width as usize * 3).enumerate() {
                    canvas.put(at * band, rows);
                }
                assert_eq!((frame.width, frame.height), (expected.width(), expected.height()), "{number}");
                assert!(frame.pixels == expected.as_bytes(), "{number} in bands of {band}");
            }
        }
    }
}
