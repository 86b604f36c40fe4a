//! What a step is fed with: rows of the replay memory.
use ndarray::{Array2, Axis, concatenate};
use rand_chacha::ChaCha8Rng;

use crate::config::Learn;
use crate::error::{Error, Result};
use crate::pairs::{Batch, Replay};

/// The kind of rows that a method learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::learner) enum Need {
    /// Pairs of latents that lie close in time: the `n` earlier ones over the `n` later ones.
    Pairs,
    /// Latents of frames over those of augmented views of the same frames.
    Views,
}

/// Rows of one kind.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::learner) struct Drawn {
    /// `[m, d]`, unit rows.
    pub(in crate::learner) latents: Array2<f32>,
    /// `[n, n]`: pairs `i` and `j` may be each other's negatives.
    pub(in crate::learner) negatives: Array2<bool>,
    /// `[n]`, the block of each pair.
    pub(in crate::learner) blocks: Vec<u64>,
    /// `[n]`, the segment of each pair.
    pub(in crate::learner) segments: Vec<u64>,
}

impl Need {
    /// Draws `learn.batch_pairs` of the kind; `None` while the memory does not hold enough.
    ///
    /// # Errors
    /// The two sides of a batch differ in shape.
    pub(super) fn draw(self, replay: &mut Replay, config: &Learn, rng: &mut ChaCha8Rng) -> Result<Option<Drawn>> {
        let batch = match self {
            Self::Pairs => replay.batch(config.batch_pairs, rng),
            Self::Views => replay.views(config.batch_pairs, rng),
        };
        batch.map(Drawn::of).transpose()
    }
}

impl Drawn {
    /// The rows of a batch, `a` over `b`.
    ///
    /// # Errors
    /// They differ in shape.
    pub(super) fn of(batch: Batch) -> Result<Self> {
        let latents = concatenate(Axis(0), &[batch.a.view(), batch.b.view()])
            .map_err(|e| Error::work("the two sides of a batch differ in shape").because(e))?;
        Ok(Self { latents, negatives: batch.negatives, blocks: batch.blocks, segments: batch.segments })
    }
}
