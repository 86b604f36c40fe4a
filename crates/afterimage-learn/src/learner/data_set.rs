//! The learner's data: blocks, statistics, replay buffer and holdout.
use ndarray::Array2;

use super::latent_layout::LatentLayout;
use super::training::REFERENCE_FRAMES;
use crate::config::{LearnerConfig, Promotion};
use crate::error::Result;
use crate::gate::Holdout;
use crate::head::ScatterStats;
use crate::sampling::block_builder::BlockBuilder;
use crate::sampling::replay::Replay;

/// Maximum number of training frames that serve as distractors in next-frame retrieval.
const MAX_DISTRACTORS: usize = 2048;
/// Every Nth training frame is a distractor.
const DISTRACTOR_STEP: usize = 5;

/// Samples grouped into blocks, and everything derived from them.
#[derive(Debug, Clone)]
pub(super) struct DataSet {
    pub(super) blocks: BlockBuilder,
    /// Statistics of the training blocks.
    pub(super) scatter: ScatterStats,
    /// Statistics of the held-out blocks. Only a head that has passed the gate is fitted on them too.
    pub(super) holdout_scatter: ScatterStats,
    pub(super) replay: Replay,
    pub(super) holdout: Holdout,
    /// The oldest held-out blocks, which are kept for good.
    pub(super) reference: Holdout,
    /// The first block, segment and camera number that no joined learner uses.
    pub(super) joined: (u64, u64, u16),
    /// Static samples so far, and in a row.
    pub(super) still_seen: u64,
    pub(super) still_run: u64,
}

impl DataSet {
    /// Creates an empty data set. `promotion` has its number of held-out frames already limited to the memory for whole
    /// grids.
    ///
    /// # Errors
    /// `learn.replay.megabytes` is too small for latents of this size.
    pub(super) fn new(config: &LearnerConfig, form: LatentLayout, promotion: &Promotion) -> Result<Self> {
        Ok(Self {
            blocks: BlockBuilder::new(&config.learn, &config.promotion),
            scatter: ScatterStats::new(form.dim()),
            holdout_scatter: ScatterStats::new(form.dim()),
            replay: Replay::new(&config.learn, form.numbers())?,
            holdout: Holdout::new(promotion),
            reference: Holdout::new(&reference_size(&config.promotion)),
            joined: (0, 0, 0),
            still_seen: 0,
            still_run: 0,
        })
    }

    /// Training frames that compete with the held-out ones in next-frame retrieval.
    pub(super) fn distractors(&self) -> Array2<f32> {
        self.replay.references((self.replay.len() / DISTRACTOR_STEP).min(MAX_DISTRACTORS))
    }

    /// The statistics of all blocks, including the held-out ones.
    ///
    /// # Errors
    /// The two sets of statistics do not fit together.
    pub(super) fn all_blocks(&self) -> Result<ScatterStats> {
        let mut all = self.scatter.clone();
        all.merge(&self.holdout_scatter)?;
        Ok(all)
    }
}

/// The settings of the reference blocks.
pub(super) fn reference_size(config: &Promotion) -> Promotion {
    Promotion { max_frames: REFERENCE_FRAMES, ..config.clone() }
}
