//! The held-out blocks that the promotion gate uses. See [`Holdout`].
use std::collections::VecDeque;

use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::config::Promotion;
use crate::error::{Error, Result};
use crate::sampling::Block;

/// The newest held-out blocks, with at most `promotion.max_frames` frames in total; the oldest are dropped first.
///
/// Uses `4 d` bytes per frame: 10 megabytes for 2048 latents of 1280 numbers.
#[derive(Debug, Clone)]
pub struct Holdout {
    blocks: VecDeque<Block>,
    frames: usize,
    max_frames: usize,
}

/// The state of a [`Holdout`] for a checkpoint, without its latents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldoutState {
    /// Length of a latent; 0 if there are none.
    pub dim: usize,
    /// The blocks, oldest first.
    pub blocks: Vec<HoldoutBlock>,
}

/// One block of a [`HoldoutState`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldoutBlock {
    /// The block's camera.
    pub camera: u16,
    /// Number of the block in the stream.
    pub number: u64,
    /// The block's segment.
    pub segment: u64,
    /// Stream indices of its frames.
    pub index: Vec<u64>,
    /// Capture times of its frames, in nanoseconds.
    pub stamps: Vec<i64>,
}

impl Holdout {
    /// Creates an empty holdout.
    pub fn new(config: &Promotion) -> Self {
        Self { blocks: VecDeque::new(), frames: 0, max_frames: config.max_frames }
    }

    /// Adds a block and drops the oldest ones until it fits. If the block alone exceeds the limit, its first frames are
    /// kept. If its latents differ in length from the earlier ones, all earlier blocks are dropped, because nothing is
    /// comparable any more.
    pub fn push(&mut self, mut block: Block) {
        if block.stamps.len() > self.max_frames {
            block.index.truncate(self.max_frames);
            block.stamps.truncate(self.max_frames);
            block.latents = block.latents.slice(s![..self.max_frames, ..]).to_owned();
        }
        if self.blocks.front().is_some_and(|b| b.latents.ncols() != block.latents.ncols()) {
            self.blocks.clear();
            self.frames = 0;
        }
        while self.frames + block.stamps.len() > self.max_frames {
            let Some(oldest) = self.blocks.pop_front() else { break };
            self.frames -= oldest.stamps.len();
        }
        self.frames += block.stamps.len();
        self.blocks.push_back(block);
    }

    /// The blocks, oldest first.
    pub fn blocks(&self) -> &VecDeque<Block> {
        &self.blocks
    }

    /// Number of frames in all blocks.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// The state to save, and all latents, row after row.
    pub fn save(&self) -> (HoldoutState, Vec<f32>) {
        let block = |b: &Block| HoldoutBlock {
            camera: b.camera,
            number: b.number,
            segment: b.segment,
            index: b.index.clone(),
            stamps: b.stamps.iter().map(|s| s.0).collect(),
        };
        let state = HoldoutState {
            dim: self.blocks.front().map_or(0, |b| b.latents.ncols()),
            blocks: self.blocks.iter().map(block).collect(),
        };
        (state, self.blocks.iter().flat_map(|b| b.latents.iter().copied()).collect())
    }

    /// Restores a holdout from a saved `state` and `rows`.
    ///
    /// # Errors
    /// The parts do not fit together.
    pub fn restore(config: &Promotion, state: HoldoutState, rows: &[f32]) -> Result<Self> {
        let frames: usize = state.blocks.iter().map(|b| b.stamps.len()).sum();
        if frames.checked_mul(state.dim) != Some(rows.len()) {
            let found = rows.len();
            return Err(broken(&format!("{found} numbers for {frames} latents of {}", state.dim)));
        }
        let mut held = Self::new(config);
        let mut rest = rows;
        for block in state.blocks {
            let n = block.stamps.len();
            let (these, others) = rest.split_at_checked(n * state.dim).unwrap_or_default();
            rest = others;
            if n == 0 || block.index.len() != n {
                return Err(broken(&format!(
                    "block {} has {n} stamps and {} positions",
                    block.number,
                    block.index.len()
                )));
            }
            let latents = Array2::from_shape_vec((n, state.dim), these.to_vec())
                .map_err(|e| broken(&format!("block {}", block.number)).with_source(e))?;
            let stamps = block.stamps.iter().copied().map(Timestamp).collect();
            let HoldoutBlock { camera, number, segment, index, .. } = block;
            held.push(Block {
                camera,
                number,
                camera_block_index: 0,
                segment,
                index,
                stamps,
                latents,
                ..Block::default()
            });
        }
        Ok(held)
    }
}

fn broken(what: &str) -> Error {
    Error::runtime(format!("saved held-out blocks: {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn block(number: u64, rows: usize, dim: usize) -> Block {
        Block {
            number,
            segment: number,
            index: (0..rows as u64).map(|i| number * 100 + i).collect(),
            stamps: (0..rows as i64).map(Timestamp).collect(),
            latents: Array2::from_shape_fn((rows, dim), |(i, j)| (number * 100 + i as u64) as f32 + 0.1 * j as f32),
            ..Block::default()
        }
    }

    fn config(max_frames: usize) -> Promotion {
        Promotion { max_frames, ..Promotion::default() }
    }

    #[test]
    fn the_oldest_go_first() {
        let mut held = Holdout::new(&config(64));
        for number in 0..20 {
            held.push(block(number, 10, 3));
            assert_eq!(held.frames(), held.blocks().iter().map(|b| b.stamps.len()).sum::<usize>());
            assert!(held.frames() <= 64);
        }
        assert_eq!(held.blocks().iter().map(|b| b.number).collect::<Vec<_>>(), [14, 15, 16, 17, 18, 19]);
        held.push(block(20, 100, 3));
        assert_eq!((held.blocks().len(), held.frames()), (1, 64));
        assert_eq!(held.blocks()[0].latents[[63, 0]], 2063.0);
        held.push(block(21, 2, 4));
        assert_eq!((held.blocks().len(), held.frames()), (1, 2), "another length");
    }

    #[test]
    fn goes_on_from_a_saved_state() {
        let mut held = Holdout::new(&config(64));
        (0..9).for_each(|n| held.push(block(n, 1 + n as usize * 2, 3)));
        let (state, rows) = held.save();
        let text = serde_json::to_string(&state).unwrap();
        let mut other = Holdout::restore(&config(64), serde_json::from_str(&text).unwrap(), &rows).unwrap();
        assert_eq!(held.blocks(), other.blocks());
        held.push(block(9, 30, 3));
        other.push(block(9, 30, 3));
        assert_eq!((held.blocks(), held.frames()), (other.blocks(), other.frames()));
        let empty = Holdout::new(&config(64));
        let (state, rows) = empty.save();
        assert_eq!(Holdout::restore(&config(64), state, &rows).unwrap().frames(), 0);
    }

    #[test]
    fn a_broken_state_is_refused() {
        let mut held = Holdout::new(&config(64));
        (0..3).for_each(|n| held.push(block(n, 4, 3)));
        let (state, rows) = held.save();
        let refused = |state: &HoldoutState, rows: &[f32]| Holdout::restore(&config(64), state.clone(), rows).is_err();
        assert!(!refused(&state, &rows));
        assert!(refused(&state, &rows[1..]));
        let mut bad = state.clone();
        bad.blocks[1].index.pop();
        assert!(refused(&bad, &rows));
        bad = state.clone();
        bad.dim = usize::MAX;
        assert!(refused(&bad, &rows));
    }
}
