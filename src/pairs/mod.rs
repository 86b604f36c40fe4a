//! From a stream of latents to pairs: segments, blocks, replay.
mod batch;
pub mod blocks;
pub mod replay;
mod replay_state;
pub mod segments;
mod stored;

use ndarray::Array2;

use crate::frame::Stamp;

pub use batch::Batch;
pub use blocks::{BlockCounts, Blocks, BlocksState, held};
pub use replay::Replay;
pub use replay_state::{ReplayState, StoredState};
pub use segments::{Segmenter, SegmenterState};

/// One latent that may be learned from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Number of its camera in the run, from 0.
    pub camera: u16,
    /// Position of its frame in the source.
    pub index: u64,
    /// Capture time of its frame.
    pub stamp: Stamp,
    /// The segment (frames of one camera between two scene cuts) that its frame lies in; no two cameras share one.
    pub segment: u64,
    /// `[d]`, unit length.
    pub latent: Vec<f32>,
    /// `[d]`, unit length: the latent of an augmented view of the same frame; empty where there is none.
    pub view: Vec<f32>,
}

/// Augmented views of some of the latents of a block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Views {
    /// For each view the row of the block that it is a view of, rising.
    pub rows: Vec<u32>,
    /// `[m, d]`, unit rows; `[0, 0]` where there are none.
    pub latents: Array2<f32>,
}

/// Consecutive samples of one segment, at most `judge.block_secs` long: the unit of holding out, replay and resampling.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Block {
    /// Number of its camera in the run, from 0.
    pub camera: u16,
    /// Number of the block in the stream, from 0. Every `judge.hold_every`th is held out.
    pub number: u64,
    /// The segment it is a part of.
    pub segment: u64,
    /// Positions of the frames in the source.
    pub index: Vec<u64>,
    /// Capture times, rising.
    pub stamps: Vec<Stamp>,
    /// `[n, d]`, unit rows.
    pub latents: Array2<f32>,
    /// Views of some of them.
    pub views: Views,
}
