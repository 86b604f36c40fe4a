//! `[learn.replay]`
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

crate::choices! {
    /// What replay keeps of the past.
    pub enum ReplayPolicy {
        /// What is most like something else in memory goes first.
        MinRedundancy = "min-redundancy",
        /// An even sample of the past.
        Reservoir = "reservoir",
    }
}

/// The memory of past latents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReplaySettings {
    /// Memory for replayed latents (16-bit floats), megabytes.
    pub megabytes: f64,
    /// What it keeps of the past: "min-redundancy" (what is most like something else in memory goes first) or "reservoir"
    /// (an even sample).
    pub policy: ReplayPolicy,
    /// A latent that was drawn so often rests until the memory has taken in as much as it holds.
    pub max_uses: u32,
}

impl Default for ReplaySettings {
    fn default() -> Self {
        Self { megabytes: 48.0, policy: ReplayPolicy::MinRedundancy, max_uses: 64 }
    }
}
