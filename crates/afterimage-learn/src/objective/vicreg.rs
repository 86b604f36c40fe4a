//! VICReg: variance, invariance, covariance.
use ndarray::{Array2, ArrayView2, Axis};

use super::{Loss, Objective, PairMask};
use crate::linalg::{Scalar, matmul, product, slices_mut};

/// Added to the variance under the square root.
const EPSILON: f64 = 1e-4;

/// VICReg (Bardes, Ponce, LeCun 2022, "VICReg: Variance-Invariance-Covariance Regularization", equations 1 to 6),
/// with the variance term halved as in the authors' code: with `a`, `b: [n, d]` as they are (not normalised),
///
/// `loss = invariance mean((a - b)^2) + variance (v(a) + v(b)) / 2 + covariance (c(a) + c(b))`,
/// `v(x) = mean over columns of max(0, 1 - sqrt(Var(column) + 1e-4))`,
/// `c(x) = sum of the squares off the diagonal of Cov(x) / d`,
///
/// with variance and covariance over the batch, divided by `n - 1`. There are no negatives, so it ignores masks.
/// Fewer than two rows give 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VicReg {
    /// Weight of the mean squared distance within pairs (invariance).
    pub invariance: f64,
    /// Weight of the hinge on the standard deviation.
    pub variance: f64,
    /// Weight of the squared off-diagonal covariances.
    pub covariance: f64,
}

impl Default for VicReg {
    /// The weights 25, 25 and 1, as in the paper.
    fn default() -> Self {
        Self { invariance: 25.0, variance: 25.0, covariance: 1.0 }
    }
}

impl<T: Scalar> Objective<T> for VicReg {
    fn name(&self) -> &'static str {
        "vicreg"
    }

    fn loss(&self, a: ArrayView2<T>, b: ArrayView2<T>, _: &PairMask<'_>) -> Loss<T> {
        let (n, d) = a.dim();
        assert_eq!(b.dim(), (n, d), "shape of the partners");
        if n < 2 || d == 0 {
            return Loss { value: T::zero(), grad_a: Array2::zeros((n, d)), grad_b: Array2::zeros((n, d)) };
        }
        let (spread_a, mut grad_a) = self.spread(a);
        let (spread_b, mut grad_b) = self.spread(b);
        let count = (n * d) as f64;
        let apart = &a - &b;
        let squares: f64 = apart.iter().map(|x| x.as_f64() * x.as_f64()).sum();
        let pull = T::of(2.0 * self.invariance / count);
        grad_a.scaled_add(pull, &apart);
        grad_b.scaled_add(-pull, &apart);
        Loss { value: T::of(self.invariance * squares / count + spread_a + spread_b), grad_a, grad_b }
    }
}

impl VicReg {
    /// The variance and covariance terms of one side, with their weights, and their gradient.
    fn spread<T: Scalar>(&self, x: ArrayView2<T>) -> (f64, Array2<T>) {
        let (n, d) = x.dim();
        let rest = (n - 1) as f64;
        let mut centred = x.as_standard_layout().into_owned();
        let mean = centred.sum_axis(Axis(0)) * T::of(1.0 / n as f64);
        centred -= &mean;
        let mut covariance = Array2::default((d, d));
        matmul(T::of(1.0 / rest), centred.t(), centred.view(), T::zero(), covariance.view_mut());

        // The hinge pulls a column along its own deviations; off-diagonal covariances pull it along the other
        // columns. Both act on the centred rows, whose columns already sum to zero.
        let (mut hinge, mut off) = (0.0, 0.0);
        let across = T::of(4.0 * self.covariance / (d as f64 * rest));
        for (j, row) in slices_mut(&mut covariance).enumerate() {
            let deviation = (row[j].as_f64() + EPSILON).sqrt();
            hinge += (1.0 - deviation).max(0.0);
            row[j] = T::zero();
            off += crate::linalg::inner(row, row).as_f64();
            row.iter_mut().for_each(|x| *x *= across);
            if deviation < 1.0 {
                row[j] = T::of(-self.variance / (2.0 * d as f64 * deviation * rest));
            }
        }
        let grad = product(centred.view(), covariance.view());
        (self.variance * hinge / (2.0 * d as f64) + self.covariance * off / d as f64, grad)
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradcheck;
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        gradcheck::pairs(&VicReg::default());
        gradcheck::pairs(&VicReg { invariance: 0.0, variance: 1.0, covariance: 0.0 });
        gradcheck::pairs(&VicReg { invariance: 0.0, variance: 0.0, covariance: 1.0 });
    }

    #[test]
    fn spread_rows_that_agree_cost_nothing() {
        // Uncorrelated columns with variance above 1.
        let a = Array2::from_shape_vec((4, 2), vec![2.0, 2.0, -2.0, 2.0, 2.0, -2.0, -2.0, -2.0f64]).expect("shape");
        let loss = VicReg::default().loss(a.view(), a.view(), &PairMask::default());
        assert!(loss.value.abs() < 1e-12 && loss.grad_a.iter().all(|x| x.abs() < 1e-12));
    }

    #[test]
    fn constant_rows_and_single_rows_stay_finite() {
        let a = Array2::from_elem((5, 3), 0.7f32);
        let loss = VicReg::default().loss(a.view(), a.view(), &PairMask::default());
        assert!((loss.value - 25.0 * 0.99).abs() < 1e-4 && loss.grad_b.iter().all(|x| x.is_finite()));
        let one = a.slice(ndarray::s![..1, ..]);
        assert_eq!(VicReg::default().loss(one, one, &PairMask::default()).value, 0.0);
    }
}
