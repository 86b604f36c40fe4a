//! Rows as they are stored to a frame as it is seen.
use image::metadata::Orientation;

use crate::error::Result;
use crate::frame::Frame;
use crate::source::frame_bytes;

/// Rows that are turned together: columns of the frame are then written a few pixels at a time.
pub(super) const BAND: usize = 16;

/// A frame that is being filled with stored rows, and how they are turned.
pub(super) struct Canvas<'a> {
    pixels: &'a mut [u8],
    /// Width of a stored row.
    pub(super) width: usize,
    /// Number of stored rows.
    pub(super) height: usize,
    orientation: Orientation,
}

impl<'a> Canvas<'a> {
    /// Gives `frame` the size and the memory of a picture that is stored as `width` x `height`.
    /// # Errors
    /// Work: no pixels, or too many; nothing was allocated then.
    pub(super) fn new(frame: &'a mut Frame, width: u32, height: u32, orientation: Orientation) -> Result<Self> {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        let length = frame_bytes(width, height)?;
        let turned = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
        (frame.width, frame.height) = if turned { (height, width) } else { (width, height) };
        frame.pixels.resize(length, 0);
        Ok(Self { pixels: &mut frame.pixels, width: width as usize, height: height as usize, orientation })
    }

    /// All of the frame, where rows are stored as they are seen.
    pub(super) fn upright(&mut self) -> Option<&mut [u8]> {
        (self.orientation == Orientation::NoTransforms).then_some(&mut *self.pixels)
    }

    /// Puts whole stored rows, from row `first` on, where they are seen.
    pub(super) fn put(&mut self, first: usize, rows: &[u8]) {
        let (width, height) = (self.width, self.height);
        let count = (rows.len() / (3 * width)).min(height.saturating_sub(first));
        // Where the stored pixel (0, 0) is seen, and how far its neighbours to the right and below lie from it.
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
