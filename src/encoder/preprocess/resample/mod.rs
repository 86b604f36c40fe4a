//! Pillow's 8-bit `BILINEAR` resize, bit-identical to Pillow 13.
//!
//! The filter is a triangle as wide as the scale, so that downscaling averages. It runs along the rows, then along
//! the columns, and rounds to 8 bits after each pass. If the height shrinks by more than twice the pixels that the
//! width shrinks by, the columns come first, as in Pillow from version 13 on. Weights are rounded to 22 bits and
//! summed in integers, so the instructions used do not change a bit. (`fast_image_resize` keeps only as many bits as
//! fit 16, which gives other values.)
#[cfg(target_arch = "aarch64")]
mod neon;
mod weights;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::config::Size;
use crate::error::{Error, Result};
pub(super) use weights::Span;
use weights::{BITS, HALF, Weights};

/// Resizes images to one size. Keeps its buffers, and its weights while the images have the same size.
#[derive(Debug)]
pub(super) struct Resample {
    size: Size,
    columns: Weights,
    rows: Weights,
    /// The image resized along one axis only.
    between: Vec<u8>,
    sums: Vec<i32>,
    out: Vec<u8>,
}

impl Resample {
    pub(super) fn new(size: Size) -> Self {
        let (columns, rows) = (Weights::default(), Weights::default());
        Self { size, columns, rows, between: Vec::new(), sums: Vec::new(), out: vec![0; size.values()] }
    }

    /// Resizes the spans `across` and `down` of the image `pixels` (`width * height` RGB triples).
    ///
    /// # Errors
    /// The spans are not within the image, or do not give the pixels of this size.
    pub(super) fn run(&mut self, pixels: &[u8], width: u32, height: u32, [across, down]: [Span; 2]) -> Result<()> {
        let whole = u64::from(width) * u64::from(height) * 3 == pixels.len() as u64 && !pixels.is_empty();
        let fits = across.fits(width, self.size.width) && down.fits(height, self.size.height);
        if !(whole && fits) {
            return Err(Error::runtime(format!(
                "cannot resize {width} x {height} pixels ({} bytes): columns {across:?}, rows {down:?} to {}",
                pixels.len(),
                self.size
            )));
        }
        self.columns.prepare(across, width);
        self.rows.prepare(down, height);
        let (line, narrow_line) = (3 * width as usize, 3 * self.size.width as usize);
        let shrinks = |from: u32, span: Span| i64::from(from) - i64::from(span.total);
        if shrinks(height, down) > 0.max(2 * shrinks(width, across)) {
            self.between.resize(self.size.height as usize * line, 0);
            self.sums.resize(line, 0);
            along_columns(pixels, 0, &self.rows, &mut self.sums, &mut self.between);
            along_rows(&self.between, line, &self.columns, &mut self.out);
            return Ok(());
        }
        let needed = self.rows.needed();
        self.between.resize(needed.len() * narrow_line, 0);
        let source = &pixels[needed.start * line..needed.end * line];
        along_rows(source, line, &self.columns, &mut self.between);
        self.sums.resize(narrow_line, 0);
        along_columns(&self.between, needed.start, &self.rows, &mut self.sums, &mut self.out);
        Ok(())
    }

    /// Resizes the whole image.
    ///
    /// # Errors
    /// As [`Resample::run`].
    pub(super) fn whole(&mut self, pixels: &[u8], width: u32, height: u32) -> Result<()> {
        let spans = [Span::whole(width, self.size.width), Span::whole(height, self.size.height)];
        self.run(pixels, width, height, spans)
    }

    /// The RGB triples of the last resized image.
    pub(super) fn pixels(&self) -> &[u8] {
        &self.out
    }

    /// The same, mutably.
    pub(super) fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.out
    }
}

/// Resizes every row of `source` (`line` bytes each) along the row.
fn along_rows(source: &[u8], line: usize, weights: &Weights, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if x86::along_rows(source, line, weights, out) {
        return;
    }
    #[cfg(target_arch = "aarch64")]
    if neon::along_rows(source, line, weights, out) {
        return;
    }
    plain_along_rows(source, line, weights, out);
}

fn plain_along_rows(source: &[u8], line: usize, weights: &Weights, out: &mut [u8]) {
    let narrow = 3 * weights.len();
    for (row, out) in source.chunks_exact(line).zip(out.chunks_exact_mut(narrow)) {
        for (place, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (start, taps) = weights.of(place);
            let mut sums = [HALF; 3];
            for (pixel, weight) in row[3 * start..].as_chunks::<3>().0.iter().zip(taps) {
                sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += i32::from(*value) * weight);
            }
            *out = sums.map(rounded);
        }
    }
}

/// Resizes `picture`, whose first row is row `first` of the source, along the columns.
fn along_columns(picture: &[u8], first: usize, weights: &Weights, sums: &mut [i32], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if x86::along_columns(picture, first, sums.len(), weights, out) {
        return;
    }
    plain_along_columns(picture, first, weights, sums, out);
}

fn plain_along_columns(picture: &[u8], first: usize, weights: &Weights, sums: &mut [i32], out: &mut [u8]) {
    let line = sums.len();
    for (place, out) in out.chunks_exact_mut(line).enumerate() {
        let (start, taps) = weights.of(place);
        sums.fill(HALF);
        for (row, weight) in picture[(start - first) * line..].chunks_exact(line).zip(taps) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += i32::from(*value) * weight);
        }
        out.iter_mut().zip(&*sums).for_each(|(out, sum)| *out = rounded(*sum));
    }
}

fn rounded(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests;
