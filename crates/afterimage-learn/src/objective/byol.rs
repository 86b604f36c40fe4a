//! The BYOL loss: predictions against targets, without negatives.
use ndarray::ArrayView2;

use super::LossAndGrad;
use super::contrastive::through_unit;
use crate::linalg::{Scalar, inner, slices, unit_rows};

/// The BYOL loss in one direction (Grill et al. 2020, "Bootstrap Your Own Latent", equation 2): with `p_i` and `z_i`
/// the unit rows of `predictions: [n, d]` and `targets: [n, d]`,
///
/// `loss = mean over i of |p_i - z_i|^2 = 2 - 2 mean of p_i . z_i`.
///
/// The targets get no gradient. The paper adds both directions. A row shorter than [`crate::linalg::NORM_FLOOR`]
/// counts as zero and has no gradient.
///
/// # Panics
/// If the shapes do not match.
pub fn byol<T: Scalar>(predictions: ArrayView2<T>, targets: ArrayView2<T>) -> LossAndGrad<T> {
    assert_eq!(predictions.dim(), targets.dim(), "shape of the targets");
    let (p, norms) = unit_rows(&predictions.as_standard_layout().into_owned());
    let (mut z, _) = unit_rows(&targets.as_standard_layout().into_owned());
    let count = p.nrows().max(1) as f64;
    let total: f64 = slices(&p).zip(slices(&z)).map(|(p, z)| inner(p, z).as_f64()).sum();
    // The gradient with respect to p_i is -2 z_i / n.
    through_unit(&mut z, &p, &norms, T::of(-2.0 / count));
    let value = if p.nrows() == 0 { T::zero() } else { T::of(2.0 - 2.0 * total / count) };
    LossAndGrad { value, grad: z }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::super::gradcheck;
    use super::*;

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let (p, z) = gradcheck::batch(6, 5, 1);
        gradcheck::gradient(&byol(p.view(), z.view()).grad, &p, |p| byol(p.view(), z.view()).value);
    }

    #[test]
    fn is_the_squared_distance_of_unit_rows() {
        let (p, z) = gradcheck::batch(5, 3, 2);
        let apart = unit_rows(&p).0 - unit_rows(&z).0;
        assert!((byol(p.view(), z.view()).value - apart.mapv(|x| x * x).sum() / 5.0).abs() < 1e-12);
        assert!(byol(p.view(), (&p * 3.0).view()).value.abs() < 1e-12);
        assert!((byol(p.view(), (&p * -3.0).view()).value - 4.0).abs() < 1e-12);
    }

    #[test]
    fn rows_of_no_length_are_passed_over() {
        let (p, z) = gradcheck::batch(3, 4, 3);
        let (mut p, mut z) = (p.mapv(|x| x as f32), z.mapv(|x| x as f32));
        p.row_mut(0).fill(0.0);
        z.row_mut(1).fill(0.0);
        p.row_mut(2).mapv_inplace(|x| x * 1e25);
        let loss = byol(p.view(), z.view());
        assert!(loss.value.is_finite() && loss.grad.iter().all(|x| x.is_finite()));
        assert!(loss.grad.rows().into_iter().take(2).all(|row| row.iter().all(|&x| x == 0.0)));
        let none = byol(Array2::<f32>::zeros((0, 4)).view(), Array2::zeros((0, 4)).view());
        assert_eq!((none.value, none.grad.dim()), (0.0, (0, 4)));
    }
}
