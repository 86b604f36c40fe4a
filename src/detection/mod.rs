//! Boxes of an object detector: their type, their file format, and how to pool them from a grid latent.
pub mod mot;
pub mod roi_align;

pub use roi_align::{GridGeometry, RoiAlign};

/// A rectangle in pixels of the original frame: pixel `i` covers `i` to `i + 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BBox {
    /// Left edge.
    pub left: f64,
    /// Top edge.
    pub top: f64,
    /// Right edge.
    pub right: f64,
    /// Bottom edge.
    pub bottom: f64,
}

/// Why a box cannot be embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxError {
    /// It has no width or no height, or one of its coordinates is not finite.
    Empty,
    /// It lies completely outside the frame.
    Outside,
    /// Its part inside the frame is narrower or lower than the minimum.
    Small,
}

/// One box of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Source position of its frame, from 0.
    pub frame: u64,
    /// The box as the detector reported it; it may extend beyond the frame.
    pub rect: BBox,
    /// Track id from the tracker, if known; not negative.
    pub track: Option<i64>,
    /// Confidence of the detector, if known.
    pub score: Option<f32>,
    /// Class id from the detector, if known.
    pub class: Option<i64>,
    /// Line number in its file, from 1.
    pub line: usize,
}

impl BBox {
    /// The part of the box inside a frame of `width` x `height` pixels.
    ///
    /// # Errors
    /// Why the box is unusable. `least`: minimum length of the shorter side of that part, in pixels.
    pub fn clipped(self, width: u32, height: u32, least: f64) -> Result<Self, BoxError> {
        let BBox { left, top, right, bottom } = self;
        let finite = [left, top, right, bottom].iter().all(|x| x.is_finite());
        if !(finite && right > left && bottom > top) {
            return Err(BoxError::Empty);
        }
        let (width, height) = (f64::from(width), f64::from(height));
        if left >= width || top >= height || right <= 0.0 || bottom <= 0.0 {
            return Err(BoxError::Outside);
        }
        let part = BBox { left: left.max(0.0), top: top.max(0.0), right: right.min(width), bottom: bottom.min(height) };
        if (part.right - part.left).min(part.bottom - part.top) < least {
            return Err(BoxError::Small);
        }
        Ok(part)
    }

    /// The whole pixels that a clipped box touches: left, top, right, bottom; right and bottom are exclusive.
    pub fn pixels(self) -> [u32; 4] {
        [self.left.floor() as u32, self.top.floor() as u32, self.right.ceil() as u32, self.bottom.ceil() as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(left: f64, top: f64, right: f64, bottom: f64) -> BBox {
        BBox { left, top, right, bottom }
    }

    #[test]
    fn a_box_is_clipped_to_the_frame_and_what_is_not_usable_is_named() {
        let clip = |r: BBox| r.clipped(100, 50, 4.0);
        assert_eq!(clip(rect(10.5, 5.0, 20.0, 30.25)), Ok(rect(10.5, 5.0, 20.0, 30.25)));
        assert_eq!(clip(rect(-5.0, -5.0, 200.0, 200.0)), Ok(rect(0.0, 0.0, 100.0, 50.0)));
        assert_eq!(clip(rect(90.0, 40.0, 101.0, 60.0)), Ok(rect(90.0, 40.0, 100.0, 50.0)));
        for outside in [rect(100.0, 0.0, 120.0, 20.0), rect(-20.0, 0.0, 0.0, 20.0), rect(0.0, 50.0, 9.0, 70.0)] {
            assert_eq!(clip(outside), Err(BoxError::Outside));
        }
        for empty in [rect(5.0, 5.0, 5.0, 9.0), rect(5.0, 9.0, 8.0, 2.0), rect(f64::NAN, 0.0, 9.0, 9.0)] {
            assert_eq!(clip(empty), Err(BoxError::Empty));
        }
        assert_eq!(clip(rect(0.0, 0.0, f64::INFINITY, 9.0)), Err(BoxError::Empty));
        assert_eq!(clip(rect(-10.0, 10.0, 3.9, 30.0)), Err(BoxError::Small));
    }

    #[test]
    fn the_pixels_of_a_box_are_all_that_it_touches() {
        assert_eq!(rect(10.5, 5.0, 20.0, 30.25).pixels(), [10, 5, 20, 31]);
    }
}
