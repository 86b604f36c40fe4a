//! Trains the residual MLP: one [`TrainingObjective`] per objective, and [`Residual`], which feeds them and takes the
//! steps.
//!
//! An objective receives rows that have passed through the residual and returns a loss with its gradient. A stateless
//! objective is a pure loss over pairs ([`Pairwise`]); objectives with state or networks of their own keep them here.
mod cpc;
mod optimizer_step;
mod sampling;
mod moco;
mod pairwise;
mod byol_simsiam;
mod queue;
mod residual_mlp;
mod step_bench;

use std::sync::Arc;

use ndarray::{Array2, ArrayView2};
use rand_chacha::ChaCha8Rng;

use byol_simsiam::Predictive;
use cpc::Cpc;
use moco::Moco;
use pairwise::Pairwise;
pub(super) use residual_mlp::{Residual, StepLimits};
use sampling::{BatchKind, TrainingBatch};
pub use step_bench::StepBench;

use crate::config::{LearnerConfig, objective};
use crate::error::Result;
use crate::head::{Grid, Head, HeadParams, Mlp};
use crate::objective::{BarlowTwins, Dcl, NtXent, Objective, SupCon, VicReg};
use crate::optimizer::Parameters;
use crate::state_dict::{LoadedTensors, StateDict};

/// Loads the MLP saved under `prefix`, which must have the size of `like`.
fn same_size(stored: &mut LoadedTensors, prefix: &str, like: &Mlp<f32>) -> Result<Mlp<f32>> {
    let (hidden, k) = like.w1.dim();
    let mlp = stored.take_mlp(prefix, k, like.b2.len())?;
    if mlp.w1.nrows() == hidden {
        return Ok(mlp);
    }
    Err(stored
        .wrong(format!("has a network {prefix:?} of {} hidden units, of {hidden} by head.hidden", mlp.w1.nrows())))
}

/// The rows of one draw, and the residual's output for them.
pub(super) struct ForwardBatch<'a> {
    /// The drawn batch: latents `[m, d]` and their metadata.
    pub(super) drawn: &'a TrainingBatch,
    /// `y`, the slow head's output for the latents: `[m, k]`.
    pub(super) slow: ArrayView2<'a, f32>,
    /// `y + alpha mlp(y)`: `[m, k]`; possibly only the first half for an objective that is
    /// [`TrainingObjective::one_way`].
    pub(super) out: ArrayView2<'a, f32>,
    /// The residual MLP.
    pub(super) head: &'a Mlp<f32>,
    /// Weight of the residual MLP.
    pub(super) alpha: f32,
    /// Number of steps before this one.
    pub(super) step: u64,
}

/// An objective's loss and gradient for a batch.
#[derive(Debug)]
pub(super) struct LossGrad {
    /// The value of the loss.
    pub(super) value: f32,
    /// The gradient with respect to [`ForwardBatch::out`], with the same shape.
    pub(super) grad: Array2<f32>,
}

/// One objective with all its state; see the module documentation.
pub(super) trait TrainingObjective: std::fmt::Debug + Send {
    /// Its name in configuration and messages.
    fn name(&self) -> &'static str;

    /// The kind of rows that it learns from.
    fn need(&self) -> BatchKind;

    /// Whether it ignores the head's output for the second half of its rows.
    fn one_way(&self) -> bool {
        false
    }

    /// Computes loss and gradients. Gradients of its own networks are left in [`TrainingObjective::networks`].
    fn turn(&mut self, rows: &ForwardBatch<'_>) -> LossGrad;

    /// Its own networks, if any, with the gradients of the last call of `turn`; they are trained together with the
    /// residual.
    fn networks(&mut self) -> Option<[&mut dyn Parameters<f32>; 2]> {
        None
    }

    /// The head that it trains, built from the residual's parameters. It differs only if the embedding is made of
    /// cells.
    fn head(&self, learned: HeadParams) -> Head {
        Head::Learned(learned)
    }

    /// Saves its state under `prefix`.
    fn save<'a>(&'a self, _contents: &mut StateDict<'a>, _prefix: &str) {}

    /// Restores a saved state. `self` must have been created with the same configuration.
    ///
    /// # Errors
    /// Parts are missing or do not fit.
    fn restore(&mut self, _stored: &mut LoadedTensors, _prefix: &str) -> Result<()> {
        Ok(())
    }

    /// Clones the objective.
    fn boxed(&self) -> Box<dyn TrainingObjective>;
}

impl Clone for Box<dyn TrainingObjective> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// The terms of `learn.objective.name`, newly initialised, for a residual that starts as `head`. `grid` is given if
/// whole grids are learned from.
fn terms(config: &LearnerConfig, head: &Mlp<f32>, grid: Option<Grid>, rng: &mut ChaCha8Rng) -> Vec<Term> {
    let term = |term: &objective::Term| Term {
        weight: term.weight as f32,
        method: method(term.objective, config, grid, head, rng),
    };
    config.learn.objective.name.terms().iter().map(term).collect()
}

fn method(
    of: objective::Objective,
    config: &LearnerConfig,
    grid: Option<Grid>,
    head: &Mlp<f32>,
    rng: &mut ChaCha8Rng,
) -> Box<dyn TrainingObjective> {
    use objective::Objective as Of;
    let learn = &config.learn;
    let temperature = learn.objective.temperature;
    let need = if of == Of::Instance { BatchKind::Views } else { BatchKind::Pairs };
    let over_pairs = |objective: Arc<dyn Objective<f32>>| Box::new(Pairwise { name: of.as_str(), need, objective });
    match of {
        // Instance discrimination: the positive is an augmented view of the same frame (Wu et al. 2018; with the loss
        // of Chen et al. 2020).
        Of::NtXent | Of::Instance => over_pairs(Arc::new(NtXent { temperature })),
        Of::Dcl => over_pairs(Arc::new(Dcl { temperature })),
        Of::SupCon => over_pairs(Arc::new(SupCon { temperature })),
        Of::VicReg => over_pairs(Arc::new(VicReg::default())),
        Of::BarlowTwins => over_pairs(Arc::new(BarlowTwins::default())),
        Of::Cpc => Box::new(Cpc::new(&learn.cpc, grid, head.b2.len(), rng)),
        Of::Moco => Box::new(Moco::start(learn, head)),
        Of::Byol => Box::new(Predictive::byol(config, head, rng)),
        Of::SimSiam => Box::new(Predictive::simsiam(config, head, rng)),
    }
}

/// An objective and its weight in the sum.
#[derive(Debug, Clone)]
struct Term {
    weight: f32,
    method: Box<dyn TrainingObjective>,
}

#[cfg(test)]
mod tests;
