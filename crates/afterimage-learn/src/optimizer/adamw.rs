//! The AdamW optimizer.
use super::param_group::{Parameters, along};
use crate::linalg::Scalar;

/// Adam with decoupled weight decay (Loshchilov, Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2,
/// with the decay multiplied by the learning rate as in PyTorch). At step `s` (from 1), with gradient `g`:
///
/// `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
/// `p = p (1 - rate decay) - rate m / (1 - beta1^s) / (sqrt(v / (1 - beta2^s)) + epsilon)`.
///
/// Only matrices decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay rate of the mean of the gradients, `beta1`.
    pub beta1: f64,
    /// Decay rate of the mean of their squares, `beta2`.
    pub beta2: f64,
    /// Added to the square root.
    pub epsilon: f64,
    /// Weight decay of matrices.
    pub weight_decay: f64,
}

impl AdamW {
    /// Creates the optimizer with the usual `beta1 = 0.9`, `beta2 = 0.999`, `epsilon = 1e-8`.
    pub fn new(learning_rate: f64, weight_decay: f64) -> Self {
        Self { learning_rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay }
    }

    /// Takes one step of `params` along `grads`, a set with the same shapes.
    ///
    /// # Panics
    /// If the state belongs to other parameters.
    pub fn step<T: Scalar, P: Parameters<T> + ?Sized>(&self, params: &mut P, grads: &P, state: &mut AdamWState<T>) {
        let rate = self.learning_rate;
        state.step += 1;
        let steps = state.step as f64;
        let pace = T::of(rate / (1.0 - self.beta1.powf(steps)));
        let root = T::of(1.0 / (1.0 - self.beta2.powf(steps)).sqrt());
        let (beta1, beta2, epsilon) = (T::of(self.beta1), T::of(self.beta2), T::of(self.epsilon));
        let (rest1, rest2) = (T::of(1.0 - self.beta1), T::of(1.0 - self.beta2));
        let params = params.parts_mut();
        let first: Vec<_> = along(&params, &mut state.first).collect();
        let second = along(&params, &mut state.second);
        for (((p, g), m), v) in params.into_iter().zip(grads.parts()).zip(first).zip(second) {
            let kept = if p.decays { T::of(1.0 - rate * self.weight_decay) } else { T::one() };
            for (((p, &g), m), v) in p.values.iter_mut().zip(g.values).zip(m).zip(v) {
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * g * g;
                *p = kept * *p - pace * *m / (v.sqrt() * root + epsilon);
            }
        }
    }
}

/// The state of [`AdamW`], with the values of all parameter arrays one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWState<T> {
    /// `m`
    pub first: Vec<T>,
    /// `v`
    pub second: Vec<T>,
    /// Number of steps taken.
    pub step: u64,
}

impl<T: Scalar> AdamWState<T> {
    /// The state before the first step of `params`.
    pub fn new<P: Parameters<T> + ?Sized>(params: &P) -> Self {
        let zeros = vec![T::zero(); params.count()];
        Self { first: zeros.clone(), second: zeros, step: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::filled;
    use super::*;

    #[test]
    fn the_first_step_is_the_sign_of_the_gradient() {
        let (mut params, grads) = (filled(1.0), filled(-2.0));
        let mut state = AdamWState::new(&params);
        let before = params.clone();
        AdamW::new(0.01, 0.5).step(&mut params, &grads, &mut state);
        for ((name, p), (_, old)) in params.parts().iter().zip(before.parts()) {
            let decay = if name.starts_with('w') { 0.01 * 0.5 } else { 0.0 };
            for (p, old) in p.iter().zip(old) {
                assert!((p - (old * (1.0 - decay) + 0.01)).abs() < 1e-9, "{name}");
            }
        }
        assert_eq!(state.step, 1);
    }
}
