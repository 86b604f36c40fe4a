//! The resize.
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::error::{Error, Result};

/// Part of a picture in its pixels: left, top, width, height.
pub(super) type Region = [f64; 4];

/// Pillow's `BILINEAR` to one size: a triangle as wide as the scale, so that shrinking averages. Along the rows first,
/// then along the columns, rounded to 8 bits after each. Its buffers are kept.
#[derive(Debug)]
pub(super) struct Shrink {
    resizer: Resizer,
    /// Resized along the rows only.
    narrow: Image<'static>,
    out: Image<'static>,
}

impl Shrink {
    pub(super) fn new(width: u32, height: u32) -> Self {
        let image = |height| Image::new(width, height, PixelType::U8x3);
        Self { resizer: Resizer::new(), narrow: image(1), out: image(height) }
    }

    /// `region` of the picture `pixels` (`width * height` RGB triples).
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub(super) fn run(&mut self, pixels: &[u8], width: u32, height: u32, region: Region) -> Result<()> {
        let failed = |e: &dyn std::fmt::Display| Error::work(format!("cannot resize {width} x {height} pixels: {e}"));
        let source = ImageRef::new(width, height, pixels, PixelType::U8x3).map_err(|e| failed(&e))?;
        let side = self.out.width();
        if self.narrow.height() != height {
            self.narrow = Image::new(side, height, PixelType::U8x3);
        }
        let [left, top, wide, high] = region;
        let options = || ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        let rows = options().crop(left, 0.0, wide, f64::from(height));
        self.resizer.resize(&source, &mut self.narrow, &rows).map_err(|e| failed(&e))?;
        let columns = options().crop(0.0, top, f64::from(side), high);
        self.resizer.resize(&self.narrow, &mut self.out, &columns).map_err(|e| failed(&e))
    }

    /// RGB triples of what was resized last.
    pub(super) fn pixels(&self) -> &[u8] {
        self.out.buffer()
    }

    /// The same, to be changed.
    pub(super) fn pixels_mut(&mut self) -> &mut [u8] {
        self.out.buffer_mut()
    }
}
