//! Barlow Twins: trains the cross-correlation of the two sides towards the identity.
use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::{Loss, Objective, PairMask};
use crate::linalg::{Scalar, inner, matmul, product, slices_mut};

/// Added to the variance under the square root.
const EPSILON: f64 = 1e-5;

/// Barlow Twins (Zbontar et al. 2021, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", equations 1
/// and 2): with `x`, `y: [n, d]` the columns of `a` and `b` standardised to mean 0 and variance 1 over the batch, and
/// `C = x' y / n`,
///
/// `loss = sum over j of (C_jj - 1)^2 + lambda sum over i != j of C_ij^2`.
///
/// The variance is divided by `n` and has 1e-5 added under the square root, as in batch normalisation. There are no
/// negatives, so it ignores masks. Fewer than two rows give 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BarlowTwins {
    /// Weight of the off-diagonal terms.
    pub lambda: f64,
}

impl Default for BarlowTwins {
    /// `lambda = 0.005`, as in the paper.
    fn default() -> Self {
        Self { lambda: 5e-3 }
    }
}

impl<T: Scalar> Objective<T> for BarlowTwins {
    fn name(&self) -> &'static str {
        "barlow-twins"
    }

    fn loss(&self, a: ArrayView2<T>, b: ArrayView2<T>, _: &PairMask<'_>) -> Loss<T> {
        let (n, d) = a.dim();
        assert_eq!(b.dim(), (n, d), "shape of the partners");
        if n < 2 {
            return Loss { value: T::zero(), grad_a: Array2::zeros((n, d)), grad_b: Array2::zeros((n, d)) };
        }
        let (x, inverse_a) = normal(a);
        let (y, inverse_b) = normal(b);
        let mut correlation = Array2::default((d, d));
        matmul(T::of(1.0 / n as f64), x.t(), y.view(), T::zero(), correlation.view_mut());
        // Turns the correlations into the gradient with respect to them, divided by n.
        let (mut on, mut off) = (0.0, 0.0);
        let factor = T::of(2.0 * self.lambda / n as f64);
        for (j, row) in slices_mut(&mut correlation).enumerate() {
            let missing = row[j].as_f64() - 1.0;
            on += missing * missing;
            row[j] = T::zero();
            off += inner(row, row).as_f64();
            row.iter_mut().for_each(|x| *x *= factor);
            row[j] = T::of(2.0 * missing / n as f64);
        }
        let grad_a = through_normal(product(y.view(), correlation.t()), &x, &inverse_a);
        let grad_b = through_normal(product(x.view(), correlation.view()), &y, &inverse_b);
        Loss { value: T::of(on + self.lambda * off), grad_a, grad_b }
    }
}

/// Columns standardised to mean 0 and variance 1, and 1 / standard deviation of each: `[n, d]`, `[d]`.
fn normal<T: Scalar>(x: ArrayView2<T>) -> (Array2<T>, Array1<T>) {
    let share = T::of(1.0 / x.nrows() as f64);
    let mut rows = x.as_standard_layout().into_owned();
    let mean = rows.sum_axis(Axis(0)) * share;
    rows -= &mean;
    let variance = (&rows * &rows).sum_axis(Axis(0)) * share;
    let inverse = variance.mapv(|v| T::one() / (v + T::of(EPSILON)).sqrt());
    rows *= &inverse;
    (rows, inverse)
}

/// Turns a gradient with respect to standardised columns into one with respect to the original columns: `(g -
/// mean(g) - x mean(g x)) / deviation`.
fn through_normal<T: Scalar>(mut grad: Array2<T>, normal: &Array2<T>, inverse: &Array1<T>) -> Array2<T> {
    let share = T::of(1.0 / grad.nrows() as f64);
    let mean = grad.sum_axis(Axis(0)) * share;
    let along = (&grad * normal).sum_axis(Axis(0)) * share;
    grad -= &mean;
    grad -= &(normal * &along);
    grad *= inverse;
    grad
}

#[cfg(test)]
mod tests {
    use super::super::gradcheck;
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        gradcheck::pairs(&BarlowTwins::default());
        gradcheck::pairs(&BarlowTwins { lambda: 1.0 });
    }

    #[test]
    fn columns_that_agree_and_differ_from_each_other_cost_nothing() {
        let a = Array2::from_shape_vec((4, 2), vec![2.0, 5.0, -2.0, 5.0, 2.0, -5.0, -2.0, -5.0f64]).expect("shape");
        // Scaling or shifting a column does not change the loss.
        let b = &a * 3.0 + 7.0;
        assert!(BarlowTwins::default().loss(a.view(), b.view(), &PairMask::default()).value < 1e-9);
    }

    #[test]
    fn constant_rows_and_single_rows_stay_finite() {
        let a = Array2::from_elem((5, 3), 0.7f32);
        let loss = BarlowTwins::default().loss(a.view(), a.view(), &PairMask::default());
        assert!((loss.value - 3.0).abs() < 1e-3 && loss.grad_b.iter().all(|x| x.is_finite()), "{}", loss.value);
        let one = a.slice(ndarray::s![..1, ..]);
        assert_eq!(BarlowTwins::default().loss(one, one, &PairMask::default()).value, 0.0);
    }
}
