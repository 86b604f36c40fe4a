//! Stochastic gradient descent with momentum.
use super::param_group::{Parameters, along};
use crate::linalg::Scalar;

/// With gradient `g` and the decay included in it, as in PyTorch: `u = momentum u + (g + decay p)`, `p = p - rate u`.
/// All arrays decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub learning_rate: f64,
    /// Momentum: how much of the previous step is kept.
    pub momentum: f64,
    /// Weight decay of every array.
    pub weight_decay: f64,
}

impl Sgd {
    /// Takes one step of `params` along `grads`, a set with the same shapes.
    ///
    /// # Panics
    /// If the state belongs to other parameters.
    pub fn step<T: Scalar, P: Parameters<T> + ?Sized>(&self, params: &mut P, grads: &P, state: &mut SgdState<T>) {
        let (rate, momentum, decay) = (T::of(self.learning_rate), T::of(self.momentum), T::of(self.weight_decay));
        let params = params.parts_mut();
        let remembered = along(&params, &mut state.momentum);
        for ((p, g), u) in params.into_iter().zip(grads.parts()).zip(remembered) {
            for ((p, &g), u) in p.values.iter_mut().zip(g.values).zip(u) {
                *u = momentum * *u + (g + decay * *p);
                *p -= rate * *u;
            }
        }
    }
}

/// The state of [`Sgd`], with the values of all parameter arrays one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct SgdState<T> {
    /// `u`
    pub momentum: Vec<T>,
}

impl<T: Scalar> SgdState<T> {
    /// The state before the first step of `params`.
    pub fn new<P: Parameters<T> + ?Sized>(params: &P) -> Self {
        Self { momentum: vec![T::zero(); params.count()] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::filled;
    use super::*;

    #[test]
    fn two_steps_by_hand() {
        let mut params = filled(1.0);
        let mut state = SgdState::new(&params);
        let sgd = Sgd { learning_rate: 0.1, momentum: 0.5, weight_decay: 0.2 };
        sgd.step(&mut params, &filled(3.0), &mut state);
        // u = 3 + 0.2 * 1, p = 1 - 0.1 u
        assert!((params.w1[[0, 0]] - 0.68).abs() < 1e-12);
        sgd.step(&mut params, &filled(3.0), &mut state);
        // u = 1.6 + 3 + 0.2 * 0.68, p = 0.68 - 0.1 u
        assert!((params.b2[0] - (0.68 - 0.4736)).abs() < 1e-12);
    }
}
