//! Stochastic gradient descent with momentum.
use crate::head::Mlp;
use crate::linalg::Real;

/// With gradient `g` and the decay inside it, as in PyTorch: `u = momentum u + (g + decay p)`, `p = p - rate u`. All
/// parts decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub learning_rate: f64,
    /// Memory of past gradients.
    pub momentum: f64,
    /// Decay of every part.
    pub weight_decay: f64,
}

impl Sgd {
    /// One step of `params` along `grads`.
    pub fn step<T: Real>(&self, params: &mut Mlp<T>, grads: &Mlp<T>, state: &mut SgdState<T>) {
        let (rate, momentum, decay) = (T::of(self.learning_rate), T::of(self.momentum), T::of(self.weight_decay));
        let parts = params.parts_mut().into_iter().zip(grads.parts());
        for (((_, p), (_, g)), (_, u)) in parts.zip(state.momentum.parts_mut()) {
            for ((p, &g), u) in p.iter_mut().zip(g).zip(u) {
                *u = momentum * *u + (g + decay * *p);
                *p -= rate * *u;
            }
        }
    }
}

/// What [`Sgd`] remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct SgdState<T> {
    /// `u`
    pub momentum: Mlp<T>,
}

impl<T: Real> SgdState<T> {
    /// Before the first step of `params`.
    pub fn new(params: &Mlp<T>) -> Self {
        Self { momentum: params.zeros_like() }
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
