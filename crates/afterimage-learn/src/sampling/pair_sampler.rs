//! Decides which frames of a block make a pair. See [`PairSampler`].
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Block;
use crate::Timestamp;
use crate::config::{GapRule, SamplingSettings};

/// Number of remembered distances between frames a second apart.
const MEMORY: usize = 512;
/// The quantile of these distances that a pair must reach.
const QUANTILE: f64 = 0.6;
/// Frames count as a second apart if their gap, in seconds, lies in this range.
const SECOND: (f64, f64) = (0.75, 1.5);

/// Decides which frames of a block make a pair, by `learn.sampling.gap`. All gaps lie in
/// `learn.sampling.gap_min_secs..gap_max_secs`, to the microsecond.
///
/// - `range`: every pair of frames.
/// - `adaptive`: for each frame (the anchor), the smallest gap at which the latent has moved, `1 - f_t . f_(t+gap) >=
///   delta`, or the largest gap if it never does. `delta` is the 60th percentile of that distance over the last 512
///   pairs of frames one second apart; before the first such pair, every pair counts. Slow scenes are paired over long
///   gaps, fast ones over short gaps.
///
/// A batch or scatter contains many gaps that are not multiples of each other. So nothing periodic (key frames of a
/// video codec, flickering lamps) is the same in both frames of most pairs: it varies within pairs and is unlearned
/// like any other noise.
#[derive(Debug, Clone)]
pub struct PairSampler {
    least: i64,
    most: i64,
    adaptive: bool,
    state: PairSamplerState,
}

/// The state of a [`PairSampler`] for a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PairSamplerState {
    /// Distances between frames one second apart, oldest first.
    pub distances: VecDeque<f32>,
    /// Quantile of these distances.
    pub delta: Option<f32>,
}

impl PairSampler {
    /// Creates a sampler from the configuration.
    pub fn new(config: &SamplingSettings) -> Self {
        // One microsecond wider at both ends, because timestamps are rounded.
        let (least, most) = (config.gap_min_secs - 1e-6, config.gap_max_secs + 1e-6);
        Self {
            least: (least * 1e9).ceil() as i64,
            most: (most * 1e9).floor() as i64,
            adaptive: config.gap == GapRule::Adaptive,
            state: PairSamplerState::default(),
        }
    }

    /// Learns from a training block how fast latents move.
    pub fn learn(&mut self, block: &Block) {
        if !self.adaptive {
            return;
        }
        for (i, &from) in block.stamps.iter().enumerate() {
            let second = |stamp: &Timestamp| (stamp.secs_since(from) - 1.0).abs();
            let later = block.stamps.iter().enumerate().skip(i + 1);
            let near = later.filter(|(_, s)| (SECOND.0..=SECOND.1).contains(&s.secs_since(from)));
            let Some((j, _)) = near.min_by(|(_, a), (_, b)| second(a).total_cmp(&second(b))) else { continue };
            if self.state.distances.len() == MEMORY {
                self.state.distances.pop_front();
            }
            self.state.distances.push_back(distance(block, i, j));
        }
        let mut sorted: Vec<f32> = self.state.distances.iter().copied().collect();
        sorted.sort_unstable_by(f32::total_cmp);
        self.state.delta = sorted.get((QUANTILE * sorted.len() as f64) as usize).copied();
    }

    /// The pairs `[a, b]` of a block (row numbers, `a` earlier) for its statistics.
    pub fn pairs(&self, block: &Block) -> Vec<[usize; 2]> {
        let stamps: Vec<i64> = block.stamps.iter().map(|s| s.0).collect();
        let partners = self.partners(&stamps).filter(|(_, from, to)| from < to);
        match self.delta() {
            None => partners.flat_map(|(i, from, to)| (from..to).map(move |j| [i, j])).collect(),
            Some(delta) => partners
                .map(|(i, from, to)| [i, (from..to).find(|&j| distance(block, i, j) >= delta).unwrap_or(to - 1)])
                .collect(),
        }
    }

    /// The distance that an adaptive pair must reach.
    pub fn delta(&self) -> Option<f32> {
        self.state.delta
    }

    /// For every frame `i`, the range `from..to` of later frames within the range of gaps.
    pub fn partners<'a>(&self, stamps: &'a [i64]) -> impl Iterator<Item = (usize, usize, usize)> + use<'a> {
        let (least, most) = (self.least, self.most);
        let (mut from, mut to) = (0, 0);
        (0..stamps.len()).map(move |i| {
            let gap = |j: usize| stamps[j].saturating_sub(stamps[i]);
            from = from.max(i + 1);
            while from < stamps.len() && gap(from) < least {
                from += 1;
            }
            to = to.max(from);
            while to < stamps.len() && gap(to) <= most {
                to += 1;
            }
            (i, from, to)
        })
    }

    /// The state to save.
    pub fn save(&self) -> &PairSamplerState {
        &self.state
    }

    /// Restores a saved `state`.
    pub fn restore(&mut self, state: PairSamplerState) {
        self.state = state;
    }
}

/// `1 - f_i . f_j`
fn distance(block: &Block, i: usize, j: usize) -> f32 {
    1.0 - block.latents.row(i).dot(&block.latents.row(j))
}
