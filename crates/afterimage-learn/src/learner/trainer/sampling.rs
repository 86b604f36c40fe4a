//! Draws the batches for gradient steps from the replay buffer.
use ndarray::{Array2, Axis, concatenate};
use rand_chacha::ChaCha8Rng;

use crate::config::Training;
use crate::error::{Error, Result};
use crate::head::Grid;
use crate::sampling::{Batch, Replay, SequenceBatch};

/// The kind of rows that an objective learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::learner) enum BatchKind {
    /// Pairs of latents that are close in time: the `n` earlier ones, then the `n` later ones.
    Pairs,
    /// Latents of frames, then latents of augmented views of the same frames.
    Views,
    /// Sequences of `len` learned frames: the moments of one sequence after those of another.
    Sequences {
        /// Number of sequences.
        count: usize,
        /// Moments per sequence.
        len: usize,
    },
    /// Grids: the cells of one grid after those of another, scaled by [`Grid::cells_of`].
    Grids {
        /// Number of grids.
        count: usize,
    },
}

/// A batch of rows of one kind.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::learner) struct TrainingBatch {
    /// `[m, d]`, unit rows.
    pub(in crate::learner) latents: Array2<f32>,
    /// `[n, n]`: whether pairs `i` and `j` may be each other's negatives; `[0, 0]` for sequences and grids.
    pub(in crate::learner) negatives: Array2<bool>,
    /// `[n]`, the block of each pair; empty for sequences and grids.
    pub(in crate::learner) blocks: Vec<u64>,
    /// `[n]`, the segment of each pair, sequence or grid.
    pub(in crate::learner) segments: Vec<u64>,
}

impl BatchKind {
    /// Draws a batch of this kind: `learn.objective.batch_pairs` pairs, or the kind's own count. Returns `None` while
    /// the replay buffer does not hold enough. If it holds whole grids of shape `grid`, pairs and sequences consist of
    /// their pooled latents.
    ///
    /// # Errors
    /// The two sides of a batch differ in shape.
    pub(super) fn draw(
        self,
        replay: &mut Replay,
        config: &Training,
        grid: Option<Grid>,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<TrainingBatch>> {
        let pool = |rows: Array2<f32>| match grid {
            Some(grid) => grid.pooled(rows.view()),
            None => rows,
        };
        let cells = |rows: Array2<f32>| match grid {
            Some(grid) => grid.cells_of(rows.view()),
            None => rows,
        };
        match self {
            Self::Pairs | Self::Views => {
                let batch = match self {
                    Self::Views => replay.views(config.objective.batch_pairs, rng),
                    _ => replay.batch(config.objective.batch_pairs, rng),
                };
                let drawn = batch.map(TrainingBatch::of).transpose()?;
                Ok(drawn.map(|drawn| TrainingBatch { latents: pool(drawn.latents), ..drawn }))
            }
            Self::Sequences { count, len } => {
                Ok(replay.sequences(count, len, rng).map(|runs| TrainingBatch::runs(runs, pool)))
            }
            Self::Grids { count } => Ok(replay.sequences(count, 1, rng).map(|runs| TrainingBatch::runs(runs, cells))),
        }
    }
}

impl TrainingBatch {
    /// The rows of a batch, `a` followed by `b`.
    ///
    /// # Errors
    /// `a` and `b` differ in shape.
    pub(super) fn of(batch: Batch) -> Result<Self> {
        let latents = concatenate(Axis(0), &[batch.a.view(), batch.b.view()])
            .map_err(|e| Error::runtime("the two sides of a batch differ in shape").with_source(e))?;
        Ok(Self { latents, negatives: batch.negatives, blocks: batch.blocks, segments: batch.segments })
    }

    /// The frames of all sequences, one after another, converted by `rows`.
    fn runs(runs: SequenceBatch, rows: impl FnOnce(Array2<f32>) -> Array2<f32>) -> Self {
        let (count, len, dim) = runs.latents.dim();
        let frames = runs.latents.into_shape_with_order((count * len, dim)).unwrap_or_default();
        let negatives = Array2::default((0, 0));
        Self { latents: rows(frames), negatives, blocks: Vec::new(), segments: runs.segments }
    }
}
