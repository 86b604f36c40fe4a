//! `[learn.cpc]`
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

crate::choices! {
    /// The embedding of a grid.
    pub enum CpcEmbedding {
        /// The pooled projected cells.
        Projected = "projected",
        /// The pooled context.
        Context = "context",
    }
}

/// The objective `cpc`, contrastive predictive coding (van den Oord et al. 2018).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CpcSettings {
    /// First offset that is predicted, in rows (of a grid) or moments (of a sequence). Patches that overlap by half share
    /// pixels with the row below: 2 leaves that out.
    pub first: usize,
    /// Last offset that is predicted, at most the rows of a grid minus one.
    pub steps: usize,
    /// Moments of a sequence over vectors: consecutive learned frames of one block.
    pub moments: usize,
    /// Grids or sequences in a batch.
    pub batch: usize,
    /// Dimensions of the space in which predictions are compared with targets.
    pub dim: usize,
    /// Channels inside a block of the context network.
    pub width: usize,
    /// Residual blocks of the context network: it sees as many rows (or moments) back.
    pub blocks: usize,
    /// Factor of the inner products.
    pub scale: f64,
    /// Other frames of the same segment are no negatives.
    pub mask_segments: bool,
    /// Embedding of a grid: "projected" (pooled projected cells) or "context" (pooled context).
    pub embedding: CpcEmbedding,
}

impl Default for CpcSettings {
    fn default() -> Self {
        Self {
            first: 1,
            steps: 5,
            moments: 12,
            batch: 16,
            dim: 64,
            width: 64,
            blocks: 5,
            scale: 0.1,
            mask_segments: true,
            embedding: CpcEmbedding::Projected,
        }
    }
}
