//! Optimizers that turn gradients into steps, over any set of [`Parameters`]. An optimizer holds only settings; its
//! state is a plain struct that can be saved. The arithmetic follows the optimizers of the same names in PyTorch and
//! Lightly.
mod adamw;
mod ema;
mod lars;
mod orthogonal_gradient;
mod param_group;
mod schedule;
mod sgd;

pub use adamw::{AdamW, AdamWState};
pub use ema::{average, average_decay};
pub use lars::{Lars, LarsState};
pub use orthogonal_gradient::Orthogonal;
pub use param_group::{Param, ParamGroup, ParamMut, Parameters};
pub use schedule::Schedule;
pub use sgd::{Sgd, SgdState};

use crate::linalg::{Scalar, norm};

/// Clips `grads` to the length `max`, measured over all arrays together (the factor is `max / (length + 1e-6)`, as in
/// PyTorch's `clip_grad_norm_`). Returns the length before clipping. If that is not finite, `grads` stay unchanged,
/// and the caller must skip the step.
pub fn clip_norm<T: Scalar, P: Parameters<T> + ?Sized>(grads: &mut P, max: f64) -> f64 {
    let norms: Vec<f64> = grads.parts().iter().map(|part| norm(part.values)).collect();
    let norm = norm(&norms);
    let factor = max / (norm + 1e-6);
    if norm.is_finite() && factor < 1.0 {
        let factor = T::of(factor);
        for part in grads.parts_mut() {
            part.values.iter_mut().for_each(|x| *x *= factor);
        }
    }
    norm
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::head::Mlp;

    /// Parameters with the values `value + 0.1 * position` in every array.
    pub(super) fn filled(value: f64) -> Mlp<f64> {
        let mut mlp = Mlp {
            w1: Array2::zeros((3, 2)),
            b1: Array1::zeros(3),
            gamma: Array1::zeros(3),
            beta: Array1::zeros(3),
            w2: Array2::zeros((2, 3)),
            b2: Array1::zeros(2),
        };
        for (_, part) in mlp.parts_mut() {
            part.iter_mut().enumerate().for_each(|(i, x)| *x = value + 0.1 * i as f64);
        }
        mlp
    }

    #[test]
    fn long_gradients_are_scaled_short_ones_kept() {
        let mut grads = filled(1.0);
        let before = grads.clone();
        let length = grads.parts().iter().flat_map(|(_, part)| part.iter()).map(|x| x * x).sum::<f64>().sqrt();
        assert!((clip_norm(&mut grads, 100.0) - length).abs() < 1e-12);
        assert_eq!(grads, before);
        assert!((clip_norm(&mut grads, 0.5) - length).abs() < 1e-12);
        assert!((clip_norm(&mut grads, 0.5) - 0.5).abs() < 1e-6);
        assert!((grads.w2[[1, 1]] / before.w2[[1, 1]] - grads.b1[2] / before.b1[2]).abs() < 1e-12);
        grads.beta[1] = f64::NAN;
        let broken = grads.clone();
        assert!(clip_norm(&mut grads, 0.1).is_nan());
        assert_eq!(grads.w1, broken.w1);
    }
}
