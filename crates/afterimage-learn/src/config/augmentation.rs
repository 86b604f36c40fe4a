//! `[learn.augmentation]`
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

crate::choices! {
    /// What an augmented view is made with.
    pub enum AugmentationKind {
        /// Mirrored left to right.
        Flip = "flip",
        /// A part of the frame, resized.
        Crop = "crop",
        /// Brightness, contrast, saturation and hue.
        Colour = "colour",
        /// Without colour.
        Grey = "grey",
        /// Gaussian blur.
        Blur = "blur",
    }
}

/// Augmented views of frames, as a third statistic of the slow head. Each costs an encoder pass; a live source skips views
/// while frames wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AugmentationSettings {
    /// Share of the frames that get an augmented view.
    pub share: f64,
    /// What a view is made with: "flip", "crop", "colour", "grey", "blur".
    pub kinds: Vec<AugmentationKind>,
    /// Weight of the views relative to the pairs in the within-pair scatter; 1: the same trace.
    pub weight: f64,
}

impl Default for AugmentationSettings {
    fn default() -> Self {
        Self { share: 0.0, kinds: vec![AugmentationKind::Colour], weight: 1.0 }
    }
}
