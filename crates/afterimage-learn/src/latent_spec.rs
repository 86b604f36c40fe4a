//! What the learner knows of the encoder.
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::head::Grid;

/// A part of the latent: one tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSlice {
    /// The tap, `TENSOR:POOLING`; `output:as-is` where there are none.
    pub name: String,
    /// Values.
    pub len: usize,
}

/// The encoder that the latents come from: heads and spaces belong to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LatentSpec {
    /// SHA-256 of the model file.
    pub encoder_sha256: String,
    /// Hash of everything else that changes the latents (card, taps and input size).
    pub card_hash: String,
    /// Dimensions of a latent.
    pub dim: usize,
    /// What a latent is joined from, in order: unit vectors over the root of their number. Empty in runs of the first
    /// version: one part.
    pub parts: Vec<FeatureSlice>,
    /// `[h, w, d]` where a latent is a grid, row by row of cells.
    pub grid: Option<[usize; 3]>,
}

impl LatentSpec {
    /// The grid, where a latent is one.
    pub fn shape(&self) -> Option<Grid> {
        self.grid.map(Grid::new)
    }

    /// Dimensions of a latent, pooled where it is a grid.
    pub fn pooled_dim(&self) -> usize {
        self.grid.map_or(self.dim, |[_, _, dim]| dim)
    }

    /// Where the parts of a latent lie, one after the other; without parts, or pooled of a grid, it is one as a whole.
    pub fn ranges(&self) -> Vec<Range<usize>> {
        let mut end = 0;
        let ranges = self.parts.iter().map(|part| {
            end += part.len;
            end - part.len..end
        });
        let ranges: Vec<_> = ranges.collect();
        if ranges.last().is_some_and(|last| last.end == self.dim && self.grid.is_none()) {
            ranges
        } else {
            std::iter::once(0..self.pooled_dim()).collect()
        }
    }
}
