//! `[learn.optimizer]`
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

crate::choices! {
    /// How gradients become steps.
    pub enum OptimizerKind {
        /// Adam with decoupled weight decay.
        AdamW = "adamw",
        /// Stochastic gradient descent with momentum.
        Sgd = "sgd",
        /// Layer-wise adaptive rate scaling.
        Lars = "lars",
    }
}

crate::choices! {
    /// The learning rate after the warm-up.
    pub enum ScheduleKind {
        /// Stays.
        Constant = "constant",
        /// Falls to zero along a cosine.
        Cosine = "cosine",
    }
}

/// Gradient steps of the residual MLP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OptimizerSettings {
    /// "adamw", "sgd" (with momentum) or "lars".
    pub name: OptimizerKind,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Momentum of sgd and lars.
    pub momentum: f64,
    /// Weight decay (adamw and lars: of matrices only).
    pub weight_decay: f64,
    /// Learned frames per gradient step; 0 trains no residual MLP.
    pub frames_per_step: u64,
    /// Steps of linear warm-up after each fit.
    pub warmup_steps: u64,
    /// The learning rate after the warm-up: "constant", or "cosine" down to zero at `schedule_steps`.
    pub schedule: ScheduleKind,
    /// Steps of a cosine schedule, counted from each fit, the warm-up included.
    pub schedule_steps: u64,
    /// Decay per step of the exponential moving average of the weights that the gate tests; 0: the last weights.
    pub ema: f64,
    /// Gradients are scaled down to this norm.
    pub clip_norm: f64,
    /// Decay of the orthogonal gradient, which removes what each gradient shares with the ones before; 0: off.
    pub orthogonal_gradient: f64,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            name: OptimizerKind::AdamW,
            learning_rate: 2e-4,
            momentum: 0.9,
            weight_decay: 1e-4,
            frames_per_step: 8,
            warmup_steps: 50,
            schedule: ScheduleKind::Constant,
            schedule_steps: 1000,
            ema: 0.0,
            clip_norm: 1.0,
            orthogonal_gradient: 0.0,
        }
    }
}
