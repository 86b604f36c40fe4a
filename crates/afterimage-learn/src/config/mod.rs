//! The settings of the learner. Each part has its own struct; the caller reads them from text.
mod augmentation;
mod choice;
mod cpc;
mod head_spec;
pub mod objective;
mod optimizer;
mod ranges;
mod replay;
mod sampling;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use augmentation::{AugmentationKind, AugmentationSettings};
pub use cpc::{CpcEmbedding, CpcSettings};
pub use head_spec::{HeadKind, HeadSpec, check as check_candidates};
pub use objective::{Objective, ObjectiveSettings, ObjectiveSum};
pub use optimizer::{OptimizerKind, OptimizerSettings, ScheduleKind};
pub use ranges::{RANGES, WORDS};
pub use replay::{ReplayPolicy, ReplaySettings};
pub use sampling::{FalseNegativeRule, GapRule, SamplingSettings};

/// All settings that decide what is learned and promoted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LearnerConfig {
    /// What is learned, from which pairs, and at what pace.
    pub learn: Training,
    /// The shape of the head.
    pub head: Head,
    /// When a learned head may replace the exported one.
    pub promotion: Promotion,
}

/// What is learned, and at what pace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Training {
    /// Seed of every random choice.
    pub seed: u64,
    /// At most so many frames per second are learned from; all are embedded.
    pub frames_per_sec: f64,
    /// Share of one core that the learner may use on a live source. A bounded source is learned from completely.
    pub cpu_share: f64,
    /// Latents that may wait for the learner. A live source drops more (counted), a bounded one waits.
    pub queue_latents: usize,
    /// The first fit comes after so many learned frames ...
    pub first_fit_frames: u64,
    /// ... the next after so many times as many ...
    pub refit_growth: f64,
    /// ... but at most so many frames later.
    pub refit_max_frames: u64,
    /// A head is used so many frames after the last frame that it knows of (bounded sources: exactly).
    pub promote_lag_frames: u64,
    /// How the stream is cut into segments, and which frames make pairs.
    pub sampling: SamplingSettings,
    /// Augmented views of frames.
    pub augmentation: AugmentationSettings,
    /// The memory of past latents.
    pub replay: ReplaySettings,
    /// What the residual MLP is trained for.
    pub objective: ObjectiveSettings,
    /// Gradient steps of the residual MLP.
    pub optimizer: OptimizerSettings,
    /// The objective `cpc`.
    pub cpc: CpcSettings,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            seed: 0,
            frames_per_sec: 10.0,
            cpu_share: 0.25,
            queue_latents: 512,
            first_fit_frames: 512,
            refit_growth: 2.0,
            refit_max_frames: 16384,
            promote_lag_frames: 256,
            sampling: SamplingSettings::default(),
            augmentation: AugmentationSettings::default(),
            replay: ReplaySettings::default(),
            objective: ObjectiveSettings::default(),
            optimizer: OptimizerSettings::default(),
            cpc: CpcSettings::default(),
        }
    }
}

impl Training {
    /// Whether a term of the objective is `cpc`, which predicts rows or moments from earlier ones.
    pub fn has_cpc(&self) -> bool {
        self.objective.name.has(Objective::Cpc)
    }
}

/// The shape of the head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Head {
    /// Dimensions of the slow head, where a candidate does not say otherwise.
    pub dim: usize,
    /// Heads to try at every fit, in this order; the first that passes the promotion gate is promoted (with
    /// `promotion.probe`: of those that pass, the best on the labelled images). "slow" (closed form), "slow+mlp" (with the
    /// residual), "mean" (of these two), "frozen+slow" (next to the frozen latent). "slow" and "frozen+slow" take options:
    /// dim=, shrinkage=, views=no (without augmented views in the fit), part=N (the Nth part of a latent of several taps).
    pub candidates: Vec<HeadSpec>,
    /// Shrinkage of the within-pair scatter towards a multiple of the identity.
    pub shrinkage: f64,
    /// Hidden units of the residual MLP.
    pub hidden: usize,
    /// Weight of the residual MLP in the embedding.
    pub alpha: f64,
    /// A promoted head is rotated onto the one before, so that old embeddings stay as near to new ones as they can.
    pub align: bool,
}

/// The promotion gate: when a learned head may replace the exported one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Promotion {
    /// Every Nth block is held out: tested on, never learned from.
    pub holdout_every: u64,
    /// A segment longer than this is held out or learned from in blocks of this length, seconds.
    pub block_secs: f64,
    /// Held-out blocks that are needed before anything is promoted.
    pub min_blocks: usize,
    /// Held-out frames kept; the oldest blocks go first.
    pub max_frames: usize,
    /// Draws of the paired bootstrap.
    pub resamples: usize,
    /// Quantile of the bootstrap that must be above zero.
    pub quantile: f64,
    /// Shortest stream time between two promotions, seconds: each opens a new space. The last fit of a bounded source and
    /// the return to the frozen latents do not wait.
    pub min_interval_secs: f64,
    /// Gradient steps between two checks of the collapse guard.
    pub guard_steps: u64,
    /// Folder with labelled images (`CLASS/*.jpg`): nothing is promoted against them, and they choose among heads that
    /// pass; empty: none.
    pub probe: String,
}

impl Default for Head {
    fn default() -> Self {
        let spec = HeadSpec::new;
        let small = HeadSpec { dim: Some(192), ..spec(HeadKind::Slow) };
        let candidates = vec![
            spec(HeadKind::Slow),
            small,
            spec(HeadKind::SlowMlp),
            spec(HeadKind::Mean),
            spec(HeadKind::FrozenSlow),
        ];
        Self { dim: 256, candidates, shrinkage: 0.2, hidden: 512, alpha: 1.0, align: true }
    }
}

impl Default for Promotion {
    fn default() -> Self {
        Self {
            holdout_every: 5,
            block_secs: 4.0,
            min_blocks: 14,
            max_frames: 2048,
            resamples: 1000,
            quantile: 0.05,
            min_interval_secs: 20.0,
            guard_steps: 50,
            probe: String::new(),
        }
    }
}
