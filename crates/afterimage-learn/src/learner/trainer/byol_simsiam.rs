//! BYOL and SimSiam: a predictor predicts the head's output for the partner.
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rand_chacha::ChaCha8Rng;

use super::optimizer_step::schedule;
use super::{BatchKind, ForwardBatch, LossGrad, TrainingObjective, same_size};
use crate::config::LearnerConfig;
use crate::error::Result;
use crate::head::Mlp;
use crate::objective::{byol, simsiam};
use crate::optimizer::{Parameters, Schedule, average};
use crate::state_dict::{LoadedTensors, StateDict};

/// Let `z` be the head's outputs and `p = predictor(z)`, where the predictor is an MLP of its own. The `p` of each
/// frame is pulled towards the target of its partner, in both directions; targets get no gradient.
///
/// - BYOL (Grill et al. 2020): targets are the outputs of a slower head, `slower = m slower + (1 - m) head`. `m` rises
///   to 1 if the number of steps is known (`learn.optimizer.schedule = "cosine"`). The losses of both directions are
///   added.
/// - SimSiam (Chen, He 2021): targets are the outputs themselves; the loss is the mean of both directions.
///
/// The predictor uses LayerNorm instead of the papers' batch normalisation, which leaks information between the
/// correlated rows of a stream.
#[derive(Debug, Clone)]
pub(super) struct Predictive {
    predictor: Mlp<f32>,
    grads: Mlp<f32>,
    /// Only for BYOL.
    slower: Option<Slower>,
}

#[derive(Debug, Clone)]
struct Slower {
    head: Mlp<f32>,
    momentum: f64,
    schedule: Schedule,
}

impl Predictive {
    pub(super) fn byol(config: &LearnerConfig, head: &Mlp<f32>, rng: &mut ChaCha8Rng) -> Self {
        let learn = &config.learn;
        let slower = Slower { head: head.clone(), momentum: learn.objective.momentum, schedule: schedule(learn) };
        Self { slower: Some(slower), ..Self::simsiam(config, head, rng) }
    }

    pub(super) fn simsiam(config: &LearnerConfig, head: &Mlp<f32>, rng: &mut ChaCha8Rng) -> Self {
        let k = head.b2.len();
        let predictor = Mlp::random(k, config.head.hidden, k, rng);
        Self { grads: predictor.zeros_like(), predictor, slower: None }
    }
}

impl TrainingObjective for Predictive {
    fn name(&self) -> &'static str {
        if self.slower.is_some() { "byol" } else { "simsiam" }
    }

    fn need(&self) -> BatchKind {
        BatchKind::Pairs
    }

    fn turn(&mut self, rows: &ForwardBatch<'_>) -> LossGrad {
        let (predictions, cache) = self.predictor.forward(rows.out);
        let loss = match &mut self.slower {
            Some(slower) => {
                average(&mut slower.head, rows.head, slower.schedule.momentum(rows.step, slower.momentum));
                let targets = slower.head.rows(rows.slow) * rows.alpha + rows.slow;
                let mut loss = byol(predictions.view(), swapped(targets.view()).view());
                loss.value *= 2.0;
                loss.grad *= 2.0;
                loss
            }
            None => simsiam(predictions.view(), swapped(rows.out).view()),
        };
        let grad = self.predictor.backward_to_input(&cache, loss.grad.view(), &mut self.grads);
        LossGrad { value: loss.value, grad }
    }

    fn networks(&mut self) -> Option<[&mut dyn Parameters<f32>; 2]> {
        Some([&mut self.predictor, &mut self.grads])
    }

    fn save<'a>(&'a self, contents: &mut StateDict<'a>, prefix: &str) {
        contents.mlp(&format!("{prefix}predictor."), &self.predictor);
        if let Some(slower) = &self.slower {
            contents.mlp(&format!("{prefix}slower."), &slower.head);
        }
    }

    fn restore(&mut self, stored: &mut LoadedTensors, prefix: &str) -> Result<()> {
        self.predictor = same_size(stored, &format!("{prefix}predictor."), &self.predictor)?;
        self.grads = self.predictor.zeros_like();
        if let Some(slower) = &mut self.slower {
            slower.head = same_size(stored, &format!("{prefix}slower."), &slower.head)?;
        }
        Ok(())
    }

    fn boxed(&self) -> Box<dyn TrainingObjective> {
        Box::new(self.clone())
    }
}

/// Swaps the two halves: each row is replaced by its partner.
fn swapped(rows: ArrayView2<f32>) -> Array2<f32> {
    let n = rows.nrows() / 2;
    concatenate![Axis(0), rows.slice(s![n.., ..]), rows.slice(s![..n, ..])]
}
