//! Detects static scenes under noise. See [`StaticSceneDetector`].
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Sample;
use crate::error::{Error, Result};

/// Each sample is compared with the samples this many steps back. Noise that a camera smooths over time is correlated
/// from one frame to the next, but not over three.
const LAGS: [usize; 2] = [1, 3];
/// Number of samples kept for these lags.
const HISTORY: usize = 3;
/// `R` up to this value is noise. Measured with the bundled encoder: white noise and jumping exposure, .9 to 1.1; noise
/// smoothed over time, 1.2; a street, 1.8 and more; a slow pan, 2.2 and more.
const NOISE_RATIO: f64 = 1.25;
/// Samples further apart than this, in nanoseconds, show no motion that could be told from noise.
const NEAR_NS: i64 = 250_000_000;
/// A frame belongs to a static scene up to this many standard deviations above the mean squared distance.
const DEVIATIONS: f64 = 5.0;
/// A static scene has changed once its mean has moved by this share of the mean squared distance (half of the noise).
const MOVED: f64 = 0.25;
/// Number of static scenes remembered per camera: a lamp on and off, a door open and shut.
const SCENES: usize = 4;

/// Tells a static scene under noise (of the sensor or the exposure) from a moving one, at any noise level. One detector
/// per camera.
///
/// *Search.* Over every `learn.sampling.still_frames` consecutive samples `x_t` of a segment (with mean `m`):
///
/// ```text
/// S = E |x_t - m|^2      D_k = E |x_t - x_(t-k)|^2 / 2      R = S / max(D_1, D_3)
/// ```
///
/// Under noise, all three are the variance, so `R` is 1 at any level: this is the inverse of von Neumann's ratio (1941,
/// "Distribution of the ratio of the mean square successive difference to the variance"). Moving things are more alike
/// the closer they are in time, which makes `R` large. A flicker of 2 to 13 samples per period also has `R <= 1.25`; a
/// slower one cannot be told from something that moves to and fro. If `R` is near 1, pairs teach nothing: neighbouring
/// frames differ as much as any two. Then `m` and the spread around it are remembered as a static scene.
///
/// *Scenes.* A sample near a remembered scene, `|x - m|^2 <= S + 5 sd`, is static, whatever came in between: a person
/// who walks through is learned from, the empty scene behind is not. `m` follows the samples slowly. Once it has moved
/// by half of the noise from where it was found (at dusk, or with something that creeps), the scene is forgotten and
/// searched again, so that some frames of every such step are learned from. Each camera remembers the four scenes that
/// it saw last.
///
/// The search never completes in a segment shorter than `learn.sampling.still_frames`, or in a stream with less than 4
/// samples per second. Costs `O(d)` per sample: at most eight distances.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct StaticSceneDetector {
    /// The most recently seen scene first.
    scenes: VecDeque<Scene>,
    search: Search,
}

/// Mean of the squared distance to a mean, and mean of its square.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Spread {
    mean: f64,
    of_squares: f64,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Scene {
    spread: Spread,
    mean: Vec<f32>,
    /// The mean when the scene was found.
    anchor: Vec<f32>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Search {
    at: SearchState,
    mean: Vec<f32>,
    /// The last samples, newest first.
    history: VecDeque<Vec<f32>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct SearchState {
    segment: u64,
    /// Capture time of the last sample, in nanoseconds.
    stamp: i64,
    seen: u64,
    spread: Spread,
    /// Half the mean squared distance at each lag.
    steps: [f64; LAGS.len()],
}

/// The state of a `StaticSceneDetector` for a checkpoint, without its latents.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StaticSceneState {
    dim: usize,
    scenes: Vec<Spread>,
    search: SearchState,
    history: usize,
}

impl StaticSceneState {
    /// Length of its latents; 0 if there are none.
    pub fn dim(&self) -> usize {
        self.dim
    }
}

impl StaticSceneDetector {
    /// Whether a sample shows a static scene under noise. `frames` is `learn.sampling.still_frames` and must be above
    /// 0.
    pub(super) fn holds(&mut self, sample: &Sample, frames: u64) -> bool {
        let x = sample.latent.as_slice();
        self.scenes.retain(|scene| scene.mean.len() == x.len());
        if let Some(place) = self.scenes.iter().position(|scene| scene.holds(x)) {
            self.search = Search::default();
            let Some(mut scene) = self.scenes.remove(place) else { return false };
            scene.follow(x, 1.0 / frames as f64);
            let stays = !scene.moved();
            if stays {
                self.scenes.push_front(scene);
            }
            return stays;
        }
        self.search.take(sample);
        if self.search.at.seen >= frames {
            let search = std::mem::take(&mut self.search);
            if search.is_noise() {
                let Search { at, mean, .. } = search;
                self.scenes.push_front(Scene { spread: at.spread, anchor: mean.clone(), mean });
                self.scenes.truncate(SCENES);
            }
        }
        false
    }

    /// The state to save; appends its latents to `rows`.
    pub(super) fn save(&self, rows: &mut Vec<f32>) -> StaticSceneState {
        let Search { at, mean, history } = &self.search;
        let kept = self.scenes.iter().flat_map(|scene| [&scene.mean, &scene.anchor]);
        kept.chain([mean]).chain(history).for_each(|row| rows.extend_from_slice(row));
        let of_scenes = self.scenes.front().map_or(0, |scene| scene.mean.len());
        StaticSceneState {
            dim: mean.len().max(of_scenes),
            scenes: self.scenes.iter().map(|scene| scene.spread).collect(),
            search: *at,
            history: history.len(),
        }
    }

    /// Restores a saved state. `rows` starts with its latents, which are removed from it.
    pub(super) fn restore(state: StaticSceneState, rows: &mut Vec<f32>) -> Result<Self> {
        let StaticSceneState { dim, scenes, search: at, history } = state;
        let count = 2 * scenes.len() + usize::from(at.seen > 0) + history;
        let Some(numbers) = count.checked_mul(dim).filter(|&n| n <= rows.len() && history <= HISTORY) else {
            return Err(Error::runtime(format!(
                "saved still scenes: {} numbers for {count} latents of {dim}, {history} of them history: these do not fit",
                rows.len()
            )));
        };
        let rest = rows.split_off(numbers);
        let taken = std::mem::replace(rows, rest);
        let mut latents = taken.chunks_exact(dim.max(1)).map(<[f32]>::to_vec);
        let mut next = || latents.next().unwrap_or_default();
        let scenes = scenes.into_iter().map(|spread| Scene { spread, mean: next(), anchor: next() }).collect();
        let mean = if at.seen > 0 { next() } else { Vec::new() };
        Ok(Self { scenes, search: Search { at, mean, history: (0..history).map(|_| next()).collect() } })
    }
}

impl Scene {
    fn holds(&self, x: &[f32]) -> bool {
        square(x, &self.mean) <= self.spread.mean + DEVIATIONS * self.spread.deviation()
    }

    fn follow(&mut self, x: &[f32], rate: f64) {
        // Four times slower than the mean: the spread of a scene changes with the light, not with events.
        self.spread.take((1.0 - rate) * square(x, &self.mean), rate / 4.0);
        follow(&mut self.mean, x, rate);
    }

    fn moved(&self) -> bool {
        square(&self.mean, &self.anchor) > MOVED * self.spread.mean
    }
}

impl Search {
    fn take(&mut self, sample: &Sample) {
        let (x, stamp) = (sample.latent.as_slice(), sample.stamp.0);
        let gap = stamp.saturating_sub(self.at.stamp);
        let goes_on = self.at.segment == sample.segment && self.mean.len() == x.len() && (0..=NEAR_NS).contains(&gap);
        if !goes_on {
            *self = Self::default();
            self.at.segment = sample.segment;
            self.mean = x.to_vec();
        }
        self.at.stamp = stamp;
        self.at.seen += 1;
        // The weight of a new value in a plain mean.
        let rate = |seen: u64| 1.0 / seen.max(1) as f64;
        let now = rate(self.at.seen);
        self.at.spread.take((1.0 - now) * square(x, &self.mean), now);
        follow(&mut self.mean, x, now);
        for (step, lag) in self.at.steps.iter_mut().zip(LAGS) {
            if let Some(before) = self.history.get(lag - 1) {
                *step += rate(self.at.seen - lag as u64) * (square(x, before) / 2.0 - *step);
            }
        }
        let mut row = if self.history.len() == HISTORY { self.history.pop_back() } else { None }.unwrap_or_default();
        row.clear();
        row.extend_from_slice(x);
        self.history.push_front(row);
    }

    fn is_noise(&self) -> bool {
        let step = self.at.steps.into_iter().fold(0.0, f64::max);
        step > 0.0 && self.at.spread.mean <= NOISE_RATIO * step
    }
}

impl Spread {
    fn take(&mut self, square: f64, rate: f64) {
        self.mean += rate * (square - self.mean);
        self.of_squares += rate * (square * square - self.of_squares);
    }

    fn deviation(self) -> f64 {
        (self.of_squares - self.mean * self.mean).max(0.0).sqrt()
    }
}

fn follow(mean: &mut [f32], x: &[f32], rate: f64) {
    mean.iter_mut().zip(x).for_each(|(m, x)| *m += rate as f32 * (x - *m));
}

/// `|a - b|^2`, summed in order.
fn square(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "static_scene_tests.rs"]
mod tests;
