//! The residual MLP on a slow head, trained by one or several objectives.
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::optimizer_step::OptimizerState;
use super::{BatchKind, ForwardBatch, Term, TrainingBatch, same_size, terms};
use crate::config::{LearnerConfig, Training};
use crate::error::{Error, Result};
use crate::head::{Grid, Head, HeadParams, Mlp};
use crate::linalg::product;
use crate::objective::anchor;
use crate::optimizer::{ParamGroup, average, average_decay};
use crate::sampling::Replay;
use crate::state_dict::{LoadedTensors, StateDict};

/// `y + alpha * mlp(y)` with `y = W'(f - mu)`, where `W` and `mu` are fixed. Starts as the slow head (the last layer is
/// zero).
#[derive(Debug, Clone)]
pub(in crate::learner) struct Residual {
    pub(in crate::learner) base: HeadParams,
    mlp: Mlp<f32>,
    grads: Mlp<f32>,
    terms: Vec<Term>,
    descent: OptimizerState,
    /// The shape of the latents in memory, if they are whole grids.
    grid: Option<Grid>,
    /// The moving average of the weights, if `learn.optimizer.ema` is set.
    averaged: Option<Mlp<f32>>,
    /// The part of the configuration that decides which arrays there are, and what they mean.
    form: String,
}

/// Limits on a step, set by the collapse guard.
#[derive(Debug, Clone, Copy)]
pub(in crate::learner) struct StepLimits {
    /// Learning rate relative to the configured one.
    pub(in crate::learner) rate: f64,
    /// Gradients with a larger norm are skipped.
    pub(in crate::learner) most_norm: f64,
}

impl StepLimits {
    /// The configured rate, with no limit on the gradient.
    pub(in crate::learner) const FREE: Self = Self { rate: 1.0, most_norm: f64::INFINITY };
}

/// The result of a step.
#[derive(Debug, Clone, Copy)]
pub(in crate::learner) struct Stepped {
    /// The loss before the step.
    pub(in crate::learner) loss: f32,
    /// Norm of the gradient before clipping.
    pub(in crate::learner) norm: f64,
}

impl Residual {
    /// Starts on a slow head, with new weights.
    pub(in crate::learner) fn start(
        base: HeadParams,
        config: &LearnerConfig,
        grid: Option<Grid>,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let mut mlp = Mlp::start(base.slow.ncols(), config.head.hidden, rng);
        let mut terms = terms(config, &mlp, grid, rng);
        let mut grads = mlp.zeros_like();
        let descent = OptimizerState::new(&config.learn, &joint(&mut mlp, &mut grads, &mut terms)[0]);
        let averaged = (config.learn.optimizer.ema > 0.0).then(|| mlp.clone());
        let form = form(config);
        Self { base, mlp, grads, terms, descent, grid, averaged, form }
    }

    /// Takes one gradient step on rows of `replay`. Returns the loss before it, or `None` while the replay buffer does
    /// not hold enough. `exported` is the reference of relational distillation.
    ///
    /// # Errors
    /// The loss or a gradient is not finite; the weights are unchanged.
    pub(in crate::learner) fn step(
        &mut self,
        replay: &mut Replay,
        exported: &Head,
        config: &LearnerConfig,
        pace: StepLimits,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Stepped>> {
        let draws = self.draw(replay, &config.learn, rng)?;
        if draws.is_empty() { Ok(None) } else { self.step_on(&draws, exported, &config.learn, pace).map(Some) }
    }

    /// Draws the rows that the terms need, each kind once. Kinds that the replay buffer cannot provide are left out.
    fn draw(
        &self,
        replay: &mut Replay,
        learn: &Training,
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<(BatchKind, TrainingBatch)>> {
        let mut draws: Vec<(BatchKind, TrainingBatch)> = Vec::new();
        for need in self.terms.iter().map(|term| term.method.need()) {
            if draws.iter().all(|(drawn, _)| *drawn != need) {
                draws.extend(need.draw(replay, learn, self.grid, rng)?.map(|drawn| (need, drawn)));
            }
        }
        Ok(draws)
    }

    /// Takes one step on these rows.
    fn step_on(
        &mut self,
        draws: &[(BatchKind, TrainingBatch)],
        exported: &Head,
        learn: &Training,
        pace: StepLimits,
    ) -> Result<Stepped> {
        let views: Vec<ArrayView2<f32>> = draws.iter().map(|(_, drawn)| drawn.latents.view()).collect();
        let mut latents =
            concatenate(Axis(0), &views).map_err(|e| Error::runtime("latents of different lengths").with_source(e))?;
        let reference =
            (learn.objective.relational_weight > 0.0).then(|| exported.of_cells().embed_rows(latents.view()));
        latents -= &self.base.mean;
        let y = product(latents.view(), self.base.slow.view());
        // Rows that only provide targets need not pass through the trained head.
        let one_way = draws.len() == 1 && reference.is_none() && self.terms.iter().all(|term| term.method.one_way());
        let trained = if one_way { y.nrows() / 2 } else { y.nrows() };
        let (mut z, cache) = self.mlp.forward(y.slice(s![..trained, ..]));
        z *= self.base.alpha;
        z += &y.slice(s![..trained, ..]);
        let (mut value, mut grad) = (0.0, Array2::zeros(z.dim()));
        for term in &mut self.terms {
            let mut from = 0;
            for (need, drawn) in draws {
                let rows = from..from + drawn.latents.nrows();
                let at = s![from..rows.end.min(trained), ..];
                from = rows.end;
                if *need != term.method.need() {
                    continue;
                }
                let rows = ForwardBatch {
                    drawn,
                    slow: y.slice(s![rows, ..]),
                    out: z.slice(at),
                    head: &self.mlp,
                    alpha: self.base.alpha,
                    step: self.descent.steps(),
                };
                let turn = term.method.turn(&rows);
                value += term.weight * turn.value;
                grad.slice_mut(at).scaled_add(term.weight, &turn.grad);
                scale_own(term);
            }
        }
        if let Some(reference) = reference {
            let weight = learn.objective.relational_weight as f32;
            let held = anchor(z.view(), reference.view());
            value += weight * held.value;
            grad.scaled_add(weight, &held.grad);
        }
        grad *= self.base.alpha;
        self.mlp.backward(&cache, grad.view(), &mut self.grads);
        self.descend(value, learn, pace)
    }

    /// Takes a step of all networks along their gradients.
    fn descend(&mut self, loss: f32, learn: &Training, pace: StepLimits) -> Result<Stepped> {
        let [mut params, mut grads] = joint(&mut self.mlp, &mut self.grads, &mut self.terms);
        let pace = if loss.is_finite() { pace } else { StepLimits { most_norm: f64::NAN, ..pace } };
        let (norm, taken) = self.descent.step(learn, pace, &mut params, &mut grads);
        if taken {
            if let Some(averaged) = &mut self.averaged {
                average(averaged, &self.mlp, average_decay(self.descent.steps(), learn.optimizer.ema));
            }
            return Ok(Stepped { loss, norm });
        }
        let names: Vec<&str> = self.terms.iter().map(|term| term.method.name()).collect();
        Err(Error::runtime(format!(
            "{} gave loss {loss} and gradient norm {norm:.3e} (at most {:.3e} is followed) at step {}; learn.objective.temperature or \
             learn.optimizer.learning_rate is off",
            names.join(" + "),
            pace.most_norm,
            self.steps()
        )))
    }

    /// Gradient steps since the start.
    pub(in crate::learner) fn steps(&self) -> u64 {
        self.descent.steps()
    }

    /// The head with the trained weights, not their average: problems show up there first.
    pub(in crate::learner) fn live(&self) -> Head {
        self.head_of(&self.mlp)
    }

    /// The current head, with the averaged weights if there are any.
    pub(in crate::learner) fn head(&self) -> Head {
        self.head_of(self.averaged.as_ref().unwrap_or(&self.mlp))
    }

    fn head_of(&self, mlp: &Mlp<f32>) -> Head {
        let learned = HeadParams { mlp: Some(mlp.clone()), ..self.base.clone() };
        // An objective over cells decides how they are combined into one embedding.
        let over_cells = self.terms.iter().find(|term| matches!(term.method.need(), BatchKind::Grids { .. }));
        match over_cells {
            Some(term) => term.method.head(learned),
            None => Head::Learned(learned),
        }
    }

    /// Saves everything under `prefix`.
    pub(in crate::learner) fn save<'a>(&'a self, contents: &mut StateDict<'a>, prefix: &str) {
        contents.text(format!("{prefix}form"), &self.form);
        contents.learned(&format!("{prefix}base."), &self.base);
        contents.mlp(&format!("{prefix}mlp."), &self.mlp);
        if let Some(averaged) = &self.averaged {
            contents.mlp(&format!("{prefix}averaged."), averaged);
        }
        self.descent.save(contents, &format!("{prefix}descent."));
        for (i, term) in self.terms.iter().enumerate() {
            term.method.save(contents, &format!("{prefix}term{i}."));
        }
    }

    /// Restores a saved state over latents of length `dim`. If the configuration now asks for other networks or another
    /// optimizer (which a live run may change), training restarts on the saved slow head.
    ///
    /// # Errors
    /// Parts are missing or do not fit together.
    pub(in crate::learner) fn restore(
        stored: &mut LoadedTensors,
        config: &LearnerConfig,
        grid: Option<Grid>,
        dim: usize,
        prefix: &str,
    ) -> Result<Self> {
        let base = stored.take_learned(&format!("{prefix}base."))?;
        let k = base.slow.ncols();
        if base.slow.nrows() != dim || k == 0 || k > dim {
            let found = base.slow.dim();
            return Err(stored.wrong(format!("has a slow head {found:?} under a residual, over latents of {dim}")));
        }
        // The random numbers for the new weights do not matter: all weights are replaced.
        let mut residual = Self::start(base, config, grid, &mut ChaCha8Rng::seed_from_u64(0));
        if stored.text(&format!("{prefix}form"))? != residual.form {
            return Ok(residual);
        }
        residual.mlp = same_size(stored, &format!("{prefix}mlp."), &residual.mlp)?;
        if let Some(averaged) = &mut residual.averaged {
            *averaged = same_size(stored, &format!("{prefix}averaged."), averaged)?;
        }
        residual.descent.restore(stored, &format!("{prefix}descent."))?;
        for (i, term) in residual.terms.iter_mut().enumerate() {
            term.method.restore(stored, &format!("{prefix}term{i}."))?;
        }
        Ok(residual)
    }
}

/// See [`Residual::form`].
fn form(config: &LearnerConfig) -> String {
    let learn = &config.learn;
    let (averaged, orthogonal) = (learn.optimizer.ema > 0.0, learn.optimizer.orthogonal_gradient > 0.0);
    // Other objectives have no networks of these sizes.
    let cpc = if learn.has_cpc() {
        format!(
            "; cpc {} to {}, {} moments, {} dimensions, {} blocks of {}, {}",
            learn.cpc.first,
            learn.cpc.steps,
            learn.cpc.moments,
            learn.cpc.dim,
            learn.cpc.blocks,
            learn.cpc.width,
            learn.cpc.embedding
        )
    } else {
        String::new()
    };
    format!(
        "{}; {}; hidden {}; queue of {} {}; averaged {averaged}; orthogonal {orthogonal}{cpc}",
        learn.objective.name,
        learn.optimizer.name,
        config.head.hidden,
        learn.objective.queue_len,
        learn.objective.queue
    )
}

/// All networks, and all their gradients.
fn joint<'a>(mlp: &'a mut Mlp<f32>, grads: &'a mut Mlp<f32>, terms: &'a mut [Term]) -> [ParamGroup<'a, f32>; 2] {
    let (mut params, mut gradients) = (ParamGroup::default(), ParamGroup::default());
    params.networks.push(mlp);
    gradients.networks.push(grads);
    for [network, gradient] in terms.iter_mut().filter_map(|term| term.method.networks()) {
        params.networks.push(network);
        gradients.networks.push(gradient);
    }
    [params, gradients]
}

/// Scales the gradients of a term's own networks by its weight.
fn scale_own(term: &mut Term) {
    let Some([_, grads]) = term.method.networks() else { return };
    if term.weight != 1.0 {
        grads.parts_mut().into_iter().for_each(|part| part.values.iter_mut().for_each(|x| *x *= term.weight));
    }
}
