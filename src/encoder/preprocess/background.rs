//! Models what a fixed camera sees when nothing happens.
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::frame::Timestamp;

/// Rows of the small image that is compared; a block is 3 x 3 of its pixels.
pub(super) const ROWS: u32 = 96;
/// Time between two frames that update the mean.
const PERIOD_NS: i64 = 500_000_000;
/// Number of frames in the mean before it is used.
const WARM_UP: u64 = 20;
/// If the median distance of pixels from their mean exceeds this, the camera is moving.
const MOVES: f32 = 0.05;

/// Running mean, per pixel, of small exposure-normalised images of one camera, and the mean distance of frames from
/// it.
///
/// Twice a second, `B += a (y - B)` and `D += a (|y - B| - D)` with `a = 1 / n` for the `n`th image, but at least
/// half a second divided by `preprocess.background_secs`: what stands still for that long becomes background.
#[derive(Debug, Clone, PartialEq)]
pub struct BackgroundModel {
    state: BackgroundState,
    /// `[96, width, 3]`, 0 to 1.
    mean: Vec<f32>,
    /// `[96, width]`, mean over the channels.
    deviation: Vec<f32>,
    /// Median of `deviation`; infinite until there is one.
    moves: f32,
}

/// The state of a [`BackgroundModel`] apart from its images, for a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackgroundState {
    /// Width and height of the camera's frames, pixels.
    pub frame: [u32; 2],
    /// Width of the small image.
    pub width: u32,
    /// Number of frames in the mean.
    pub count: u64,
    /// Capture time of the last frame in the mean, nanoseconds.
    pub last_ns: i64,
}

impl BackgroundModel {
    /// A background for frames of `frame` pixels, before the first frame.
    pub(super) fn new(frame: [u32; 2]) -> Self {
        let (w, h) = (u64::from(frame[0]), u64::from(frame[1].max(1)));
        // Keeps the aspect ratio of the frame in whole blocks; frames of extreme shapes are squeezed.
        let blocks = (w * u64::from(ROWS / 3) + h / 2) / h;
        let width = 3 * blocks.clamp(1, 256) as u32;
        let pixels = (ROWS * width) as usize;
        let state = BackgroundState { frame, width, count: 0, last_ns: 0 };
        Self { state, mean: vec![0.0; 3 * pixels], deviation: vec![0.0; pixels], moves: f32::INFINITY }
    }

    /// Returns what to save: the state, the mean and the deviations.
    pub fn save(&self) -> (&BackgroundState, &[f32], &[f32]) {
        (&self.state, &self.mean, &self.deviation)
    }

    /// Restores a saved background.
    ///
    /// # Errors
    /// The parts do not match each other, or are not finite.
    pub fn restore(state: BackgroundState, mean: Vec<f32>, deviation: Vec<f32>) -> Result<Self> {
        let new = Self::new(state.frame);
        let finite = mean.iter().chain(&deviation).all(|x| x.is_finite());
        let lengths = (state.width, mean.len(), deviation.len());
        if lengths != (new.state.width, new.mean.len(), new.deviation.len()) || !finite {
            return Err(Error::runtime(format!(
                "saved background of frames of {:?} pixels: {lengths:?} numbers do not fit, or are not finite",
                state.frame
            )));
        }
        let mut background = Self { state, mean, deviation, moves: f32::INFINITY };
        background.judge();
        Ok(background)
    }

    /// True if it belongs to frames of this size.
    pub(super) fn fits(&self, frame: [u32; 2]) -> bool {
        self.state.frame == frame
    }

    pub(super) fn width(&self) -> u32 {
        self.state.width
    }

    pub(super) fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// True if it has seen enough frames and the camera is fixed.
    pub fn usable(&self) -> bool {
        self.warm() && self.moves < MOVES
    }

    /// True if it has seen enough frames to tell whether the camera is fixed.
    pub fn warm(&self) -> bool {
        self.state.count >= WARM_UP
    }

    /// Median over pixels of the mean distance of frames from the background, 0 to 1: below .05 the camera is fixed.
    pub fn deviation(&self) -> f32 {
        self.moves
    }

    /// Updates the mean with the small image `y: [96, width, 3]` of a frame if an update is due; returns true if so.
    pub(super) fn observe(&mut self, y: &[f32], stamp: Timestamp, memory_secs: f64) -> bool {
        let passed = stamp.0.saturating_sub(self.state.last_ns);
        if self.state.count > 0 && (0..PERIOD_NS).contains(&passed) {
            return false;
        }
        let least = (PERIOD_NS as f64 * 1e-9 / memory_secs) as f32;
        let before = self.state.count;
        let rate = ((before + 1) as f32).recip().max(least);
        let rate_of_deviation = (before.max(1) as f32).recip().max(least);
        let (means, pixels) = (self.mean.as_chunks_mut::<3>().0, y.as_chunks::<3>().0);
        for ((mean, y), deviation) in means.iter_mut().zip(pixels).zip(&mut self.deviation) {
            if before > 0 {
                let distance = mean.iter().zip(y).map(|(m, y)| (y - m).abs()).sum::<f32>() / 3.0;
                *deviation += rate_of_deviation * (distance - *deviation);
            }
            mean.iter_mut().zip(y).for_each(|(m, y)| *m += rate * (y - *m));
        }
        self.state.count += 1;
        self.state.last_ns = stamp.0;
        self.judge();
        true
    }

    fn judge(&mut self) {
        if self.state.count > 1 {
            let mut sorted = self.deviation.clone();
            let middle = sorted.len() / 2;
            self.moves = *sorted.select_nth_unstable_by(middle, f32::total_cmp).1;
        }
    }
}

#[cfg(test)]
#[path = "background_tests.rs"]
mod tests;
