//! The residual MLP on a slow head, trained by an objective on pairs.
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use rand_chacha::ChaCha8Rng;

use crate::config::Learn;
use crate::error::{Error, Result};
use crate::head::{Head, Learned, Mlp};
use crate::linalg::product;
use crate::objective::Objective;
use crate::optimizer::{AdamW, AdamWState, clip_norm};
use crate::pairs::Batch;

/// `y + alpha * mlp(y)` with `y = W'(f - mu)`, `W` and `mu` fixed; starts as the slow head (last layer zero).
#[derive(Debug, Clone)]
pub(super) struct Residual {
    pub(super) base: Learned,
    pub(super) mlp: Mlp<f32>,
    pub(super) optimizer: AdamWState<f32>,
    grads: Mlp<f32>,
}

impl Residual {
    /// On a slow head, with fresh weights.
    pub(super) fn start(base: Learned, hidden: usize, rng: &mut ChaCha8Rng) -> Self {
        let mlp = Mlp::start(base.slow.ncols(), hidden, rng);
        let optimizer = AdamWState::new(&mlp);
        Self::resume(base, mlp, optimizer)
    }

    /// As saved.
    pub(super) fn resume(base: Learned, mlp: Mlp<f32>, optimizer: AdamWState<f32>) -> Self {
        let grads = mlp.zeros_like();
        Self { base, mlp, optimizer, grads }
    }

    /// One gradient step; the loss before it.
    ///
    /// # Errors
    /// The loss or a gradient is not finite; the weights are as before.
    pub(super) fn step(&mut self, batch: &Batch, objective: &dyn Objective<f32>, config: &Learn) -> Result<f32> {
        let n = batch.a.nrows();
        let latents = stack(batch.a.view(), batch.b.view())?;
        let y = product((latents - &self.base.mean).view(), self.base.slow.view());
        let (out, cache) = self.mlp.forward(y.view());
        let z = y + out * self.base.alpha;
        let negatives = Some(batch.negatives.view());
        let loss = objective.loss(z.slice(s![..n, ..]), z.slice(s![n.., ..]), negatives);
        let grad = stack(loss.grad_a.view(), loss.grad_b.view())? * self.base.alpha;
        self.mlp.backward(&cache, grad.view(), &mut self.grads);
        let norm = clip_norm(&mut self.grads, config.clip_norm);
        if !loss.value.is_finite() || !norm.is_finite() {
            return Err(Error::work(format!(
                "{} gave loss {} and gradient norm {norm} at step {}; learn.temperature or learn.learning_rate is off",
                objective.name(),
                loss.value,
                self.steps()
            )));
        }
        let adamw = AdamW::new(config.learning_rate, config.weight_decay, config.warmup_steps);
        adamw.step(&mut self.mlp, &self.grads, &mut self.optimizer);
        Ok(loss.value)
    }

    /// Gradient steps since it was started.
    pub(super) fn steps(&self) -> u64 {
        self.optimizer.step
    }

    /// The head as it stands.
    pub(super) fn head(&self) -> Head {
        Head::Learned(Learned { mlp: Some(self.mlp.clone()), ..self.base.clone() })
    }
}

/// `[2n, k]`, `a` over `b`.
fn stack(a: ArrayView2<f32>, b: ArrayView2<f32>) -> Result<Array2<f32>> {
    concatenate(Axis(0), &[a, b]).map_err(|e| Error::work("the two sides of a batch differ in shape").because(e))
}
