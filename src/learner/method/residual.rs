//! The residual MLP on a slow head, trained by one or several methods.
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::{Need, OverPairs, Rows, Term};
use crate::checkpoint::{Contents, Stored, Tensor};
use crate::config::{Config, Learn};
use crate::error::{Error, Result};
use crate::head::{Head, Learned, Mlp};
use crate::linalg::product;
use crate::objective::NtXent;
use crate::optimizer::{AdamW, AdamWState, Joint, clip_norm};
use crate::pairs::Replay;

/// `y + alpha * mlp(y)` with `y = W'(f - mu)`, `W` and `mu` fixed; starts as the slow head (last layer zero).
#[derive(Debug, Clone)]
pub(in crate::learner) struct Residual {
    pub(in crate::learner) base: Learned,
    mlp: Mlp<f32>,
    grads: Mlp<f32>,
    terms: Vec<Term>,
    optimizer: AdamWState<f32>,
}

impl Residual {
    /// On a slow head, with fresh weights.
    pub(in crate::learner) fn start(base: Learned, config: &Config, rng: &mut ChaCha8Rng) -> Self {
        let mlp = Mlp::start(base.slow.ncols(), config.head.hidden, rng);
        let objective = Arc::new(NtXent { temperature: config.learn.temperature });
        let terms = vec![Term { weight: 1.0, method: Box::new(OverPairs { objective }) }];
        Self::assemble(base, mlp, terms)
    }

    fn assemble(base: Learned, mut mlp: Mlp<f32>, mut terms: Vec<Term>) -> Self {
        let mut grads = mlp.zeros_like();
        let optimizer = AdamWState::new(&joint(&mut mlp, &mut grads, &mut terms)[0]);
        Self { base, mlp, grads, terms, optimizer }
    }

    /// One gradient step on rows of `replay`; the loss before it, or `None` while the memory does not hold enough.
    ///
    /// # Errors
    /// The loss or a gradient is not finite; the weights are as before.
    pub(in crate::learner) fn step(
        &mut self,
        replay: &mut Replay,
        config: &Config,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<f32>> {
        let learn = &config.learn;
        let mut draws: Vec<(Need, _)> = Vec::new();
        for term in &self.terms {
            let need = term.method.need();
            if draws.iter().all(|(drawn, _)| *drawn != need) {
                draws.extend(need.draw(replay, learn, rng)?.map(|drawn| (need, drawn)));
            }
        }
        if draws.is_empty() {
            return Ok(None);
        }
        let views: Vec<ArrayView2<f32>> = draws.iter().map(|(_, drawn)| drawn.latents.view()).collect();
        let latents =
            concatenate(Axis(0), &views).map_err(|e| Error::work("latents of different lengths").because(e))?;
        let y = product((latents - &self.base.mean).view(), self.base.slow.view());
        let (out, cache) = self.mlp.forward(y.view());
        let z = y + out * self.base.alpha;
        let (mut value, mut grad) = (0.0, Array2::zeros(z.dim()));
        for term in &mut self.terms {
            let mut from = 0;
            for (need, drawn) in &draws {
                let rows = from..from + drawn.latents.nrows();
                from = rows.end;
                if *need == term.method.need() {
                    let turn = term.method.turn(&Rows { drawn, out: z.slice(s![rows.clone(), ..]) });
                    value += term.weight * turn.value;
                    grad.slice_mut(s![rows, ..]).scaled_add(term.weight, &turn.grad);
                    scale_own(term);
                }
            }
        }
        grad *= self.base.alpha;
        self.mlp.backward(&cache, grad.view(), &mut self.grads);
        self.descend(value, learn)?;
        Ok(Some(value))
    }

    /// A step of all networks along their gradients.
    fn descend(&mut self, value: f32, learn: &Learn) -> Result<()> {
        let adamw = AdamW::new(learn.learning_rate, learn.weight_decay, learn.warmup_steps);
        let [mut params, mut grads] = joint(&mut self.mlp, &mut self.grads, &mut self.terms);
        let norm = clip_norm(&mut grads, learn.clip_norm);
        if value.is_finite() && norm.is_finite() {
            adamw.step(&mut params, &grads, &mut self.optimizer);
            return Ok(());
        }
        Err(Error::work(format!(
            "{} gave loss {value} and gradient norm {norm} at step {}; learn.temperature or learn.learning_rate is off",
            self.names(),
            self.steps()
        )))
    }

    fn names(&self) -> String {
        self.terms.iter().map(|term| term.method.name()).collect::<Vec<_>>().join(" + ")
    }

    /// Gradient steps since it was started.
    pub(in crate::learner) fn steps(&self) -> u64 {
        self.optimizer.step
    }

    /// The head as it stands.
    pub(in crate::learner) fn head(&self) -> Head {
        Head::Learned(Learned { mlp: Some(self.mlp.clone()), ..self.base.clone() })
    }

    /// Saves all of it.
    pub(in crate::learner) fn save<'a>(&'a self, contents: &mut Contents<'a>) {
        contents.learned("residual.base.", &self.base);
        contents.mlp("residual.mlp.", &self.mlp);
        contents.text("residual.steps", self.optimizer.step);
        let moments = [("first", &self.optimizer.first), ("second", &self.optimizer.second)];
        for (name, values) in moments {
            contents.tensors.push((format!("residual.{name}"), Tensor::new(&[values.len()], values)));
        }
        for (i, term) in self.terms.iter().enumerate() {
            term.method.save(contents, &format!("residual.term{i}."));
        }
    }

    /// Goes on as saved.
    ///
    /// # Errors
    /// Parts that are missing or do not fit together or to the configuration.
    pub(in crate::learner) fn restore(stored: &mut Stored, config: &Config) -> Result<Self> {
        let base = stored.take_learned("residual.base.")?;
        let k = base.slow.ncols();
        // What is drawn for the fresh weights is of no account: all are replaced.
        let mut residual = Self::start(base, config, &mut ChaCha8Rng::seed_from_u64(0));
        residual.mlp = stored.take_mlp("residual.mlp.", k, k)?;
        for (i, term) in residual.terms.iter_mut().enumerate() {
            term.method.restore(stored, &format!("residual.term{i}."))?;
        }
        let mut residual = Self::assemble(residual.base, residual.mlp, residual.terms);
        residual.optimizer = AdamWState {
            first: stored.take("residual.first", &[residual.optimizer.first.len()])?,
            second: stored.take("residual.second", &[residual.optimizer.second.len()])?,
            step: stored.parse("residual.steps")?,
        };
        Ok(residual)
    }
}

/// All networks, and all their gradients.
fn joint<'a>(mlp: &'a mut Mlp<f32>, grads: &'a mut Mlp<f32>, terms: &'a mut [Term]) -> [Joint<'a, f32>; 2] {
    let (mut params, mut gradients) = (Joint::default(), Joint::default());
    params.networks.push(mlp);
    gradients.networks.push(grads);
    for [network, gradient] in terms.iter_mut().filter_map(|term| term.method.networks()) {
        params.networks.push(network);
        gradients.networks.push(gradient);
    }
    [params, gradients]
}

/// Brings the gradients of a term's own networks to its weight.
fn scale_own(term: &mut Term) {
    let Some([_, grads]) = term.method.networks() else { return };
    if term.weight != 1.0 {
        grads.parts_mut().into_iter().for_each(|part| part.values.iter_mut().for_each(|x| *x *= term.weight));
    }
}
