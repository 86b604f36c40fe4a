//! The LARS optimizer.
use super::param_group::{Parameters, along};
use crate::linalg::{Scalar, norm};

/// Layer-wise adaptive rate scaling (You, Gitman, Ginsburg 2017, "Large Batch Training of Convolutional Networks",
/// equations 5 and 6), with the scale inside the momentum as in Lightly. With gradient `g` of a matrix `p`:
///
/// `local = trust |p| / (|g| + decay |p| + epsilon)`, `u = momentum u + local (g + decay p)`, `p = p - rate u`.
///
/// Parameters that are not matrices are neither scaled nor decayed (`u = momentum u + g`), nor is a matrix while it
/// or its gradient is zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lars {
    /// Learning rate.
    pub learning_rate: f64,
    /// Momentum: how much of the previous step is kept.
    pub momentum: f64,
    /// Weight decay of matrices.
    pub weight_decay: f64,
    /// Trust coefficient: the fraction of its own length that a matrix may move by.
    pub trust: f64,
    /// Added to the denominator.
    pub epsilon: f64,
}

impl Lars {
    /// Creates the optimizer with `trust = 0.001` and `epsilon = 1e-8`.
    pub fn new(learning_rate: f64, momentum: f64, weight_decay: f64) -> Self {
        Self { learning_rate, momentum, weight_decay, trust: 1e-3, epsilon: 1e-8 }
    }

    /// Takes one step of `params` along `grads`, a set with the same shapes.
    ///
    /// # Panics
    /// If the state belongs to other parameters.
    pub fn step<T: Scalar, P: Parameters<T> + ?Sized>(&self, params: &mut P, grads: &P, state: &mut LarsState<T>) {
        let (rate, momentum) = (T::of(self.learning_rate), T::of(self.momentum));
        let params = params.parts_mut();
        let remembered = along(&params, &mut state.momentum);
        for ((p, g), u) in params.into_iter().zip(grads.parts()).zip(remembered) {
            let (local, decay) = if p.decays { self.local(norm(p.values), norm(g.values)) } else { (1.0, 0.0) };
            let (local, decay) = (T::of(local), T::of(decay));
            for ((p, &g), u) in p.values.iter_mut().zip(g.values).zip(u) {
                *u = momentum * *u + local * (g + decay * *p);
                *p -= rate * *u;
            }
        }
    }

    /// Scale and decay for a matrix of length `p` with a gradient of length `g`.
    fn local(&self, p: f64, g: f64) -> (f64, f64) {
        if p > 0.0 && g > 0.0 {
            (self.trust * p / (g + self.weight_decay * p + self.epsilon), self.weight_decay)
        } else {
            (1.0, 0.0)
        }
    }
}

/// The state of [`Lars`], with the values of all parameter arrays one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct LarsState<T> {
    /// `u`
    pub momentum: Vec<T>,
}

impl<T: Scalar> LarsState<T> {
    /// The state before the first step of `params`.
    pub fn new<P: Parameters<T> + ?Sized>(params: &P) -> Self {
        Self { momentum: vec![T::zero(); params.count()] }
    }
}
