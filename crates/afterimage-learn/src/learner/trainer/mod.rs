//! What trains the residual MLP: one [`TrainingObjective`] for each objective, and [`Residual`], which feeds them and takes the
//! steps.
//!
//! A method sees rows that went through the residual and gives a loss with its gradient. What has no state is a pure
//! loss over pairs ([`Pairwise`]); what has state or networks of its own keeps them here.
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

/// The MLP that was saved under `prefix`, which must be of the size of `like`.
fn same_size(stored: &mut LoadedTensors, prefix: &str, like: &Mlp<f32>) -> Result<Mlp<f32>> {
    let (hidden, k) = like.w1.dim();
    let mlp = stored.take_mlp(prefix, k, like.b2.len())?;
    if mlp.w1.nrows() == hidden {
        return Ok(mlp);
    }
    Err(stored
        .wrong(format!("has a network {prefix:?} of {} hidden units, of {hidden} by head.hidden", mlp.w1.nrows())))
}

/// Rows of one draw, and what the residual made of them.
pub(super) struct ForwardBatch<'a> {
    /// What was drawn: latents `[m, d]` and what is known of them.
    pub(super) drawn: &'a TrainingBatch,
    /// `y`, the slow head of the latents: `[m, k]`.
    pub(super) slow: ArrayView2<'a, f32>,
    /// `y + alpha mlp(y)`: `[m, k]`; for a method that is [`TrainingObjective::one_way`] perhaps the first half only.
    pub(super) out: ArrayView2<'a, f32>,
    /// The residual.
    pub(super) head: &'a Mlp<f32>,
    /// Its weight.
    pub(super) alpha: f32,
    /// Steps taken before this one.
    pub(super) step: u64,
}

/// What a method makes of its rows.
#[derive(Debug)]
pub(super) struct LossGrad {
    /// The loss.
    pub(super) value: f32,
    /// Its gradient with respect to [`ForwardBatch::out`], of the same shape.
    pub(super) grad: Array2<f32>,
}

/// One objective with all that it needs; see the module.
pub(super) trait TrainingObjective: std::fmt::Debug + Send {
    /// Its name in configuration and messages.
    fn name(&self) -> &'static str;

    /// The rows that it learns from.
    fn need(&self) -> BatchKind;

    /// It does not look at what the head makes of the second half of its rows.
    fn one_way(&self) -> bool {
        false
    }

    /// Loss and gradients; those of its own networks are left in what [`TrainingObjective::networks`] gives.
    fn turn(&mut self, rows: &ForwardBatch<'_>) -> LossGrad;

    /// Its own networks with the gradients of the last turn, where it has some: they are trained with the residual.
    fn networks(&mut self) -> Option<[&mut dyn Parameters<f32>; 2]> {
        None
    }

    /// The head that it trains for, made of the residual's: the same, unless the embedding is made of cells.
    fn head(&self, learned: HeadParams) -> Head {
        Head::Learned(learned)
    }

    /// Saves what it remembers, under `prefix`.
    fn save<'a>(&'a self, _contents: &mut StateDict<'a>, _prefix: &str) {}

    /// Goes on as saved; it was started with the same configuration.
    ///
    /// # Errors
    /// Parts that are missing or do not fit.
    fn restore(&mut self, _stored: &mut LoadedTensors, _prefix: &str) -> Result<()> {
        Ok(())
    }

    /// A copy.
    fn boxed(&self) -> Box<dyn TrainingObjective>;
}

impl Clone for Box<dyn TrainingObjective> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// The terms of `learn.objective.name`, fresh, for a residual that begins as `head`. `grid`: what is
/// learned from are whole grids.
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
    let over_pairs = |objective: Arc<dyn Objective<f32>>| Box::new(Pairwise { name: of.name(), need, objective });
    match of {
        // Instance discrimination: the positive is an augmented view of the same frame (Wu et al. 2018; the loss that of
        // Chen et al. 2020).
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

/// A method and its weight in the sum.
#[derive(Debug, Clone)]
struct Term {
    weight: f32,
    method: Box<dyn TrainingObjective>,
}

#[cfg(test)]
mod tests;
