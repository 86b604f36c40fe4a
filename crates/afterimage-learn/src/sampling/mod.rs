//! From a stream of latents to training pairs: segments, blocks and replay.
pub mod block_builder;
pub mod pair_sampler;
mod false_negative_mask;
mod open_block;
pub mod replay;
pub mod shot_detector;
mod static_scene;
pub mod view_buffer;

use ndarray::{Array2, Array3};

use crate::Timestamp;

pub use block_builder::{BlockBuilder, BlockBuilderState, BlockCounts, held};
pub use open_block::OpenBlockState;
pub use pair_sampler::{PairSampler, PairSamplerState};
pub use replay::{Replay, ReplayBlockState, ReplayState};
pub use shot_detector::{ShotDetector, ShotDetectorState, ShotInput};
pub use static_scene::StaticSceneState;
pub use view_buffer::{ViewBuffer, ViewBufferState};

/// One latent for the learner.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Number of its camera in the run, from 0.
    pub camera: u16,
    /// Index of its frame in the source.
    pub index: u64,
    /// Capture time of its frame.
    pub stamp: Timestamp,
    /// The segment of its frame: the frames of one camera between two scene cuts. No two cameras share a segment.
    pub segment: u64,
    /// `[d]`, unit length.
    pub latent: Vec<f32>,
    /// `[d]`, unit length: the latent of an augmented view of the same frame; empty if there is none.
    pub view: Vec<f32>,
}

/// Augmented views of some of the latents of a block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Views {
    /// For each view, the row of the block that it shows, in ascending order.
    pub rows: Vec<u32>,
    /// `[m, d]`, unit rows; `[0, 0]` if there are none.
    pub latents: Array2<f32>,
}

/// Consecutive samples of one segment, at most `promotion.block_secs` long: the unit of holdout, replay and resampling.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Block {
    /// Number of its camera in the run, from 0.
    pub camera: u16,
    /// Number of the block in the stream, from 0.
    pub number: u64,
    /// Number of the block among those of its camera, from 0. Every `promotion.holdout_every`th one is held out.
    pub camera_block_index: u64,
    /// The segment that it belongs to.
    pub segment: u64,
    /// Indices of the frames in the source.
    pub index: Vec<u64>,
    /// Capture times, in ascending order.
    pub stamps: Vec<Timestamp>,
    /// `[n, d]`, unit rows.
    pub latents: Array2<f32>,
    /// Augmented views of some of the frames.
    pub views: Views,
}

/// Pairs of latents for one step of a contrastive objective. Row `i` of `a` and row `i` of `b` are a pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `[n, d]`, unit rows, the earlier frames.
    pub a: Array2<f32>,
    /// `[n, d]`, unit rows, the later frames.
    pub b: Array2<f32>,
    /// `[n, n]`: pairs `i` and `j` may be each other's negatives, because they come from different blocks and, as far
    /// as `learn.sampling.false_negatives` can tell, show different things.
    pub negatives: Array2<bool>,
    /// `[n]`, the number of the block that contains both frames of a pair.
    pub blocks: Vec<u64>,
    /// `[n]`, the segment that contains both frames of a pair; no two cameras share one.
    pub segments: Vec<u64>,
}

/// Sequences of consecutive frames for one step of a predictive objective.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceBatch {
    /// `[n, len, d]`, unit rows.
    pub latents: Array3<f32>,
    /// `[n]`, the segment of each sequence; no two cameras share one.
    pub segments: Vec<u64>,
}
