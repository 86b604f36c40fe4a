//! Trains a residual on synthetic latents to measure the cost of a gradient step, for `bench step`.
use ndarray::{Array1, Array2};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::{Residual, StepLimits};
use crate::Timestamp;
use crate::config::LearnerConfig;
use crate::error::{Error, Result};
use crate::head::{EmbeddingKind, Head, HeadParams};
use crate::linalg::random::uniform;
use crate::linalg::{normalise, slices_mut};
use crate::sampling::{Block, Replay};

/// Number of segments of synthetic latents, and of latents per segment.
const SEGMENTS: usize = 512;
const FRAMES: usize = 4;

/// A replay buffer, slow head and residual of their usual sizes, filled with random numbers; steps work as in a run.
#[derive(Debug)]
pub struct StepBench {
    config: LearnerConfig,
    exported: Head,
    replay: Replay,
    residual: Residual,
    rng: ChaCha8Rng,
}

impl StepBench {
    /// Creates a benchmark for latents of length `dim` and the objective, optimizer and sizes of `config`.
    ///
    /// # Errors
    /// Latents of this size do not fit into `learn.replay.megabytes`.
    pub fn new(config: &LearnerConfig, dim: usize) -> Result<Self> {
        let mut config = config.clone();
        // Never let latents rest: every step uses the same ones.
        config.learn.replay.max_uses = u32::MAX;
        // Long enough for objectives that predict in time.
        let frames = if config.learn.has_cpc() { config.learn.cpc.moments } else { FRAMES };
        let mut rng = ChaCha8Rng::seed_from_u64(config.learn.seed);
        let mut replay = Replay::new(&config.learn, dim)?;
        for number in 0..SEGMENTS as u64 {
            let mut latents = Array2::from_shape_simple_fn((frames, dim), || uniform(&mut rng) as f32 - 0.3);
            for row in slices_mut(&mut latents) {
                normalise(row);
            }
            let stamps = (0..frames as i64).map(|i| Timestamp(i * 200_000_000)).collect();
            let index = (0..frames as u64).collect();
            replay.insert(&Block { number, segment: number, index, stamps, latents, ..Block::default() });
        }
        let slow = Array2::from_shape_simple_fn((dim, config.head.dim), || uniform(&mut rng) as f32 - 0.5);
        let alpha = config.head.alpha as f32;
        let base = HeadParams { mean: Array1::zeros(dim), slow, mlp: None, alpha, form: EmbeddingKind::Single };
        let residual = Residual::start(base, &config, None, &mut rng);
        Ok(Self { config, exported: Head::Identity { dim }, replay, residual, rng })
    }

    /// Takes one gradient step, from drawing the batch to the new weights, and returns the loss.
    ///
    /// # Errors
    /// There is no batch for this objective, or the loss is not finite.
    pub fn step(&mut self) -> Result<f32> {
        let stepped =
            self.residual.step(&mut self.replay, &self.exported, &self.config, StepLimits::FREE, &mut self.rng)?;
        stepped.map(|stepped| stepped.loss).ok_or_else(|| {
            Error::runtime(format!("no batch for {} on made-up latents", self.config.learn.objective.name))
        })
    }
}
