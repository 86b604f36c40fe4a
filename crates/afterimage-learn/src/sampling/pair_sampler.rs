//! Which frames of a block make a pair. See [`PairSampler`].
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Block;
use crate::Timestamp;
use crate::config::{GapRule, SamplingSettings};

/// Distances between frames a second apart that are remembered.
const MEMORY: usize = 512;
/// The quantile of them that a pair must reach.
const QUANTILE: f64 = 0.6;
/// Frames this far apart, seconds, count as a second apart.
const SECOND: (f64, f64) = (0.75, 1.5);

/// Which frames of a block make a pair, by `learn.sampling.gap`; all gaps lie in `learn.sampling.gap_min_secs..gap_max_secs`, to the
/// microsecond.
///
/// - `range`: every pair of frames.
/// - `adaptive`: for each frame (the anchor) the smallest gap at which the latent has moved: `1 - f_t . f_(t+gap) >=
///   delta`, and the largest gap where it never does. `delta` is the 60th percentile of that distance over frames one
///   second apart, of the last 512 seen; before the first, every pair counts. Slow scenes are paired over long gaps and
///   fast ones over short gaps.
///
/// The gaps of one batch or scatter are many and not multiples of each other, so that nothing periodic (key frames of a
/// video codec, flicker of lamps) is the same in both frames of most pairs: it varies within pairs and is unlearned like
/// any other noise.
#[derive(Debug, Clone)]
pub struct PairSampler {
    least: i64,
    most: i64,
    adaptive: bool,
    state: PairSamplerState,
}

/// What [`PairSampler`] remembers, for a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PairSamplerState {
    /// Distances between frames one second apart, the oldest first.
    pub distances: VecDeque<f32>,
    /// Their quantile.
    pub delta: Option<f32>,
}

impl PairSampler {
    /// By the configuration; nothing seen yet.
    pub fn new(config: &SamplingSettings) -> Self {
        // A microsecond wider at both ends: stamps are rounded.
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

    /// The pairs `[a, b]` (rows, `a` earlier) of a block that its statistics are made of.
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

    /// The distance that an adaptive pair has to reach.
    pub fn delta(&self) -> Option<f32> {
        self.state.delta
    }

    /// For every frame `i` the range `from..to` of the later frames in the range of gaps.
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

    /// What to save.
    pub fn save(&self) -> &PairSamplerState {
        &self.state
    }

    /// Goes on where `state` was saved.
    pub fn restore(&mut self, state: PairSamplerState) {
        self.state = state;
    }
}

/// `1 - f_i . f_j`
fn distance(block: &Block, i: usize, j: usize) -> f32 {
    1.0 - block.latents.row(i).dot(&block.latents.row(j))
}
