//! The SimSiam loss: the negative cosine.
use ndarray::ArrayView2;

use super::{LossAndGrad, byol};
use crate::linalg::Scalar;

/// The SimSiam loss in one direction (Chen, He 2021, "Exploring Simple Siamese Representation Learning", equation 1):
/// with `p_i` and `z_i` the unit rows of `predictions: [n, d]` and `targets: [n, d]`,
///
/// `loss = -mean over i of p_i . z_i`.
///
/// The targets get no gradient. The paper takes the mean of both directions (its equation 2). It equals half of
/// [`byol`](super::byol), minus one.
///
/// # Panics
/// If the shapes do not match.
pub fn simsiam<T: Scalar>(predictions: ArrayView2<T>, targets: ArrayView2<T>) -> LossAndGrad<T> {
    let half = T::of(0.5);
    let none = predictions.nrows() == 0;
    let LossAndGrad { value, grad } = byol(predictions, targets);
    LossAndGrad { value: if none { T::zero() } else { value * half - T::one() }, grad: grad * half }
}

#[cfg(test)]
mod tests {
    use super::super::gradcheck;
    use super::*;

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let (p, z) = gradcheck::batch(6, 5, 4);
        gradcheck::gradient(&simsiam(p.view(), z.view()).grad, &p, |p| simsiam(p.view(), z.view()).value);
    }

    #[test]
    fn lies_between_minus_one_and_one() {
        let (p, _) = gradcheck::batch(5, 3, 5);
        assert!((simsiam(p.view(), p.view()).value + 1.0).abs() < 1e-12);
        assert!((simsiam(p.view(), (-&p).view()).value - 1.0).abs() < 1e-12);
    }
}
