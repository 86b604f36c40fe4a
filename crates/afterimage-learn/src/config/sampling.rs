//! `[learn.sampling]`
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

crate::choices! {
    /// Which frames make a positive pair.
    pub enum GapRule {
        /// All whose distance in time lies in the range.
        Range = "range",
        /// For each frame the smallest gap of the range at which the latent has moved as much as latents usually do in a
        /// second.
        Adaptive = "adaptive",
    }
}

crate::choices! {
    /// Which pairs of a batch are no negatives of each other.
    pub enum FalseNegativeRule {
        /// Those of the same block.
        Block = "block",
        /// Also those of the same camera within `false_negative_secs`.
        Window = "window",
        /// Also those of the same segment.
        Segment = "segment",
        /// Also those whose frozen latents are similar.
        Similar = "similar",
    }
}

/// How the stream is cut into segments, and which frames make pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SamplingSettings {
    /// Which frames make a pair: "range" (all whose gap lies in the range) or "adaptive" (for each the smallest gap of the
    /// range at which the latent has moved).
    pub gap: GapRule,
    /// Shortest time between the two frames of a pair, seconds.
    pub gap_min_secs: f64,
    /// Longest time between the two frames of a pair, seconds.
    pub gap_max_secs: f64,
    /// Pairs that a frame begins in one batch.
    pub positives: usize,
    /// Which pairs of a batch are no negatives of each other: those of the same "block"; also those of the same camera
    /// within a "window", of the same "segment", or "similar" ones.
    pub false_negatives: FalseNegativeRule,
    /// Length of the "window", seconds.
    pub false_negative_secs: f64,
    /// Cosine of frozen latents above which frames are "similar"; 0: 0.9 times the median of the pairs.
    pub false_negative_similarity: f64,
    /// Scene cut: the cosine distance of neighbouring latents is above this ...
    pub cut_latent_distance: f64,
    /// ... and the mean difference of their luma thumbnails (0 to 1) is above this.
    pub cut_luma_distance: f64,
    /// A jump that is undone within so many seconds, or by the next frame, is a flash and not a cut.
    pub flash_secs: f64,
    /// Neighbouring latents closer than this cosine distance are a static scene and are skipped.
    pub still_distance: f64,
    /// After so many samples in which nothing but noise changes, the scene is static too; 0 turns this off.
    pub still_frames: u64,
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self {
            gap: GapRule::Range,
            gap_min_secs: 0.1,
            gap_max_secs: 1.2,
            positives: 1,
            false_negatives: FalseNegativeRule::Block,
            false_negative_secs: 30.0,
            false_negative_similarity: 0.0,
            cut_latent_distance: 0.35,
            cut_luma_distance: 0.08,
            flash_secs: 0.25,
            still_distance: 1e-5,
            still_frames: 64,
        }
    }
}
