//! `[boxes]`: boxes of a detector (`--boxes`).
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BoxPooling;

/// `[boxes]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Boxes {
    /// How a box becomes a latent: `crop` (encoded by itself), `roi` (pooled out of the grid of its frame), or `auto`: `roi`
    /// where the encoder gives a grid, else `crop`.
    pub method: BoxPooling,
    /// Boxes of which less lies in the frame are left out: pixels of the shorter side.
    pub min_pixels: f64,
    /// Boxes whose score is not above this are left out; such without a score are kept.
    pub score_above: f64,
    /// Latents that `learn --boxes` may hold in memory, megabytes.
    pub memory_megabytes: f64,
}

impl Default for Boxes {
    fn default() -> Self {
        Self { method: BoxPooling::Auto, min_pixels: 4.0, score_above: 0.0, memory_megabytes: 1024.0 }
    }
}
