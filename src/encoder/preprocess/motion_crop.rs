//! Crops the window around motion in front of a fixed camera.
use super::background::{BackgroundModel, ROWS};
use super::resample::Resample;
use crate::config::Size;
use crate::encoder::augment::reflected;
use crate::encoder::exposure::gain;
use crate::error::Result;
use crate::frame::Frame;

/// Mean level at which frames are compared if the card sets none.
const LEVEL: f32 = 0.45;
/// A block differs from the background by more than this ...
const LEAST_DISTANCE: f32 = 0.08;
/// ... and by more than this many times the median of all blocks.
const TIMES_MEDIAN: f32 = 2.5;
/// Share of the blocks that must differ: less is noise, more is a change of the whole scene.
const SHARE: std::ops::RangeInclusive<f32> = 0.005..=0.6;
/// Half the side of the window, in standard deviations of the distance from its centre.
const SPREADS: f32 = 2.2;
/// Minimum of half the side of the window, blocks.
const LEAST_HALF_SIDE: f32 = 6.0;

/// Edges of a window in pixels of the frame: left, top, right, bottom (the last two exclusive). It may extend beyond
/// the frame, which is reflected there.
pub type CropRect = [i32; 4];

/// Finds and cuts windows.
#[derive(Debug)]
pub(super) struct MotionCropper {
    background: BackgroundModel,
    /// Whether frames still update the background.
    learns: bool,
    memory_secs: f64,
    level: f32,
    /// Height over width of the encoder's input.
    aspect: f32,
    small: Resample,
    /// The small image, exposure-normalised: `[96, width, 3]`.
    y: Vec<f32>,
    /// Distance of each block from the background, `[32, width / 3]`; `sorted` holds the same values in order.
    distances: Vec<f32>,
    sorted: Vec<f32>,
    /// The last window that was cut, RGB.
    cut: Vec<u8>,
    /// The gain of the last frame.
    pub(super) gain: f32,
    /// Whether the last frame changed the background.
    pub(super) updated: bool,
}

impl MotionCropper {
    pub(super) fn new(memory_secs: f64, level: Option<f32>, input: Size) -> Self {
        let background = BackgroundModel::new([1, 1]);
        Self {
            small: Resample::new(small(&background)),
            background,
            learns: true,
            memory_secs,
            level: level.unwrap_or(LEVEL),
            aspect: input.height as f32 / input.width.max(1) as f32,
            y: Vec::new(),
            distances: Vec::new(),
            sorted: Vec::new(),
            cut: Vec::new(),
            gain: 1.0,
            updated: false,
        }
    }

    /// Continues with `background`; `learns` says whether frames still update it.
    pub(super) fn start(&mut self, background: Option<BackgroundModel>, learns: bool) {
        self.learns = learns;
        if let Some(background) = background {
            self.small = Resample::new(small(&background));
            self.background = background;
        }
    }

    pub(super) fn background(&self) -> &BackgroundModel {
        &self.background
    }

    /// Returns the window of a frame, or `None` for the whole frame, and then updates the background from the frame.
    ///
    /// # Errors
    /// The frame cannot be resized.
    pub(super) fn look(&mut self, frame: &Frame) -> Result<Option<CropRect>> {
        self.updated = false;
        let size = [frame.width, frame.height];
        if !self.background.fits(size) {
            if !self.learns {
                return Ok(None);
            }
            self.start(Some(BackgroundModel::new(size)), true);
        }
        self.small.whole(&frame.pixels, frame.width, frame.height)?;
        self.gain = gain(self.level, self.small.pixels());
        let levels: [f32; 256] = std::array::from_fn(|v| (self.gain * (v as f32 / 255.0)).min(1.0));
        self.y.clear();
        self.y.extend(self.small.pixels().iter().map(|v| levels[usize::from(*v)]));
        let window = if self.background.usable() { self.window(frame) } else { None };
        self.updated = self.learns && self.background.observe(&self.y, frame.stamp, self.memory_secs);
        Ok(window)
    }

    /// Let `d` be the distance of a block (3 x 3 small pixels, mean over these and the channels) from the background,
    /// and `m = d > max(.08, 2.5 median d)`. The window is a square around the mean of the block positions weighted
    /// by `d m`, with half its side `max(6, 2.2 s + 1)` blocks, where `s` is the larger of the two weighted standard
    /// deviations. For an input that is not square, it is the smallest window of the input's aspect ratio around that
    /// square. `None` if fewer than .5 % or more than 60 % of the blocks differ.
    fn window(&mut self, frame: &Frame) -> Option<CropRect> {
        let (across, down) = (self.background.width() as usize / 3, ROWS as usize / 3);
        self.distances.clear();
        self.distances.resize(across * down, 0.0);
        let pixels = self.y.iter().zip(self.background.mean());
        for (i, (y, b)) in pixels.enumerate() {
            let (row, column) = (i / (9 * across), i / 3 % (3 * across));
            self.distances[row / 3 * across + column / 3] += (y - b).abs() / 27.0;
        }
        self.sorted.clone_from(&self.distances);
        self.sorted.sort_unstable_by(f32::total_cmp);
        let middle = self.sorted.len() / 2;
        let median = (self.sorted[middle] + self.sorted[(self.sorted.len() - 1) / 2]) / 2.0;
        let least = LEAST_DISTANCE.max(TIMES_MEDIAN * median);
        let differ = || self.distances.iter().copied().enumerate().filter(|(_, d)| *d > least);
        if !SHARE.contains(&(differ().count() as f32 / self.distances.len() as f32)) {
            return None;
        }
        let sum: f32 = differ().map(|(_, d)| d).sum();
        let mean = |of: &dyn Fn(usize) -> f32| differ().map(|(i, d)| d * of(i)).sum::<f32>() / sum;
        let (x, y) = (|i: usize| (i % across) as f32, |i: usize| (i / across) as f32);
        let (cx, cy) = (mean(&x), mean(&y));
        let variance = mean(&|i| (x(i) - cx).powi(2)).max(mean(&|i| (y(i) - cy).powi(2)));
        let block = [frame.width as f32 / across as f32, frame.height as f32 / down as f32];
        let half = (SPREADS * variance.sqrt() + 1.0).max(LEAST_HALF_SIDE) * block[1];
        let (cx, cy) = ((cx + 0.5) * block[0], (cy + 0.5) * block[1]);
        // The shorter side equals that of the square: a window inside the square would cut off moving parts.
        let (across, down) = (half * self.aspect.recip().max(1.0), half * self.aspect.max(1.0));
        let (left, top) = ((cx - across).round() as i32, (cy - down).round() as i32);
        let (wide, high) = ((2.0 * across).round() as i32, (2.0 * down).round() as i32);
        (wide > 0 && high > 0).then_some([left, top, left + wide, top + high])
    }

    /// The pixels of `window`, its width and its height; the frame is reflected beyond its borders.
    pub(super) fn cut(&mut self, frame: &Frame, window: CropRect) -> (&[u8], u32, u32) {
        let [left, top, right, bottom] = window;
        self.cut.clear();
        for y in top..bottom {
            let row = 3 * reflected(i64::from(y), frame.height as usize) * frame.width as usize;
            for x in left..right {
                let at = row + 3 * reflected(i64::from(x), frame.width as usize);
                self.cut.extend_from_slice(&frame.pixels[at..at + 3]);
            }
        }
        (&self.cut, (right - left) as u32, (bottom - top) as u32)
    }

    /// The last window that was cut.
    pub(super) fn last(&self) -> &[u8] {
        &self.cut
    }
}

/// The small image that is compared with the background.
fn small(background: &BackgroundModel) -> Size {
    Size { height: ROWS, width: background.width() }
}

#[cfg(test)]
#[path = "motion_crop_tests.rs"]
mod tests;
