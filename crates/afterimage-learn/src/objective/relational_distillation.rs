//! Relational distillation: keeps the geometry of a batch close to that of the head in use.
use ndarray::{Array2, ArrayView2};

use super::LossAndGrad;
use super::contrastive::through_unit;
use crate::linalg::{Scalar, inner, matmul, product, slices_mut, unit_rows};

/// Relational distillation (Park et al. 2019, "Relational Knowledge Distillation", equation 1, with the cosine as the
/// relation and the square as the penalty): with `z_i` the unit rows of `rows: [n, d]`, and `e_i` those of
/// `reference: [n, k]`, the embeddings of the same latents under the exported head,
///
/// `loss = mean over i != j of (z_i . z_j - e_i . e_j)^2`.
///
/// Only angles matter: the two heads need neither common coordinates nor the same number of dimensions, and a
/// rotation costs nothing. The reference gets no gradient. Fewer than two rows give 0. A row shorter than
/// [`crate::linalg::NORM_FLOOR`] counts as zero and has no gradient.
///
/// # Panics
/// If the numbers of rows differ.
pub fn anchor<T: Scalar>(rows: ArrayView2<T>, reference: ArrayView2<T>) -> LossAndGrad<T> {
    let n = rows.nrows();
    assert_eq!(reference.nrows(), n, "a reference for each row");
    let (z, norms) = unit_rows(&rows.as_standard_layout().into_owned());
    let (e, _) = unit_rows(&reference.as_standard_layout().into_owned());
    let mut apart = product(e.view(), e.t());
    matmul(T::one(), z.view(), z.t(), -T::one(), apart.view_mut());
    let mut total = 0.0;
    for (i, row) in slices_mut(&mut apart).enumerate() {
        row[i] = T::zero();
        total += inner(row, row).as_f64();
    }
    let pairs = (n * n.saturating_sub(1)).max(1) as f64;
    // Each pair counts twice, and the square contributes another factor of two.
    let mut grad: Array2<T> = product(apart.view(), z.view());
    through_unit(&mut grad, &z, &norms, T::of(4.0 / pairs));
    LossAndGrad { value: T::of(total / pairs), grad }
}

#[cfg(test)]
mod tests {
    use super::super::gradcheck;
    use super::*;

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let (rows, _) = gradcheck::batch(6, 5, 1);
        let (reference, _) = gradcheck::batch(6, 8, 2);
        let loss = |rows: &Array2<f64>| anchor(rows.view(), reference.view());
        gradcheck::gradient(&loss(&rows).grad, &rows, |rows| loss(rows).value);
    }

    #[test]
    fn a_rotation_costs_nothing() {
        let (rows, _) = gradcheck::batch(7, 3, 3);
        let (sin, cos) = 0.7f64.sin_cos();
        let turn = ndarray::array![[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, -1.0]];
        let turned = product(rows.view(), turn.view()) * 5.0;
        let loss = anchor(rows.view(), turned.view());
        assert!(loss.value < 1e-24 && loss.grad.iter().all(|x| x.abs() < 1e-12), "{}", loss.value);
    }

    #[test]
    fn three_rows_by_hand() {
        // Cosines 1, 0, 0 against 0, 0, 1.
        let rows: Array2<f64> = ndarray::array![[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]];
        let reference = ndarray::array![[1.0, 0.0], [0.0, 3.0], [0.0, 1.0]];
        assert!((anchor(rows.view(), reference.view()).value - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn extremes_stay_finite() {
        let (rows, reference) = gradcheck::batch(4, 3, 4);
        let (mut rows, mut reference) = (rows.mapv(|x| x as f32), reference.mapv(|x| x as f32));
        rows.row_mut(0).fill(0.0);
        rows.row_mut(1).mapv_inplace(|x| x * 1e25);
        reference.row_mut(2).fill(0.0);
        let loss = anchor(rows.view(), reference.view());
        assert!(loss.value.is_finite() && loss.grad.iter().all(|x| x.is_finite()));
        assert!(loss.grad.row(0).iter().all(|&x| x == 0.0));
        let one = anchor(rows.slice(ndarray::s![..1, ..]), reference.slice(ndarray::s![..1, ..]));
        assert_eq!(one.value, 0.0);
    }
}
