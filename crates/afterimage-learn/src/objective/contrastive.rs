//! Shared by the contrastive losses: logits between all rows of a batch, and the gradient through the normalisation.
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use super::{Loss, PairMask};
use crate::linalg::{NORM_FLOOR, Scalar, inner, largest, matmul, product, slices, slices_mut, sum, unit_rows};

/// The mean of `row` over the `2n` rows of logits `z z' / temperature`, where `z` stacks the unit rows of `a` on
/// those of `b`.
///
/// `row(logits, i, allowed)` gets row `i`, whose partner is `(i + n) % 2n`, and the mask of its negatives (all others
/// if that is `None`). It returns the loss of the row and replaces the logits by the gradient with respect to them.
///
/// # Panics
/// If the shapes do not match.
pub(super) fn over_logits<T: Scalar>(
    (a, b): (ArrayView2<T>, ArrayView2<T>),
    temperature: f64,
    relations: &PairMask<'_>,
    row: impl Fn(&mut [T], usize, Option<ArrayView1<bool>>) -> f64,
) -> Loss<T> {
    let (n, d) = a.dim();
    assert_eq!(b.dim(), (n, d), "shape of the partners");
    assert!(relations.negatives.is_none_or(|x| x.dim() == (n, n)), "shape of the mask");
    if n == 0 {
        return Loss { value: T::zero(), grad_a: Array2::zeros((n, d)), grad_b: Array2::zeros((n, d)) };
    }
    let mut stacked = Array2::zeros((2 * n, d));
    stacked.slice_mut(s![..n, ..]).assign(&a);
    stacked.slice_mut(s![n.., ..]).assign(&b);
    let (z, norms) = unit_rows(&stacked);

    let mut logits = Array2::zeros((2 * n, 2 * n));
    matmul(T::of(1.0 / temperature), z.view(), z.t(), T::zero(), logits.view_mut());
    let mut total = 0.0;
    for (i, logits) in slices_mut(&mut logits).enumerate() {
        total += row(logits, i, relations.negatives.as_ref().map(|x| x.row(i % n)));
    }
    let scale = 1.0 / (2 * n) as f64;

    // dloss/dz = (G + G') z / t; the logits are symmetric in z.
    let both = &logits + &logits.t();
    let mut grad = product(both.view(), z.view());
    through_unit(&mut grad, &z, &norms, T::of(scale / temperature));
    let (grad_a, grad_b) = grad.view().split_at(Axis(0), n);
    Loss { value: T::of(total * scale), grad_a: grad_a.to_owned(), grad_b: grad_b.to_owned() }
}

/// Turns a gradient with respect to unit rows `z = x / |x|` into one with respect to `x`, times `factor`: only the
/// component orthogonal to `z` remains. Rows shorter than [`NORM_FLOOR`] get zero.
pub(super) fn through_unit<T: Scalar>(grad: &mut Array2<T>, z: &Array2<T>, norms: &Array1<T>, factor: T) {
    for ((grad, z), &norm) in slices_mut(grad).zip(slices(z)).zip(norms) {
        let factor = if norm < T::of(NORM_FLOOR) { T::zero() } else { factor / norm };
        let along = inner(grad, z);
        grad.iter_mut().zip(z).for_each(|(g, &z)| *g = (*g - z * along) * factor);
    }
}

/// Replaces the logits by their softmax and returns the logarithm of the sum of their exponentials. If all logits are
/// minus infinity, returns minus infinity and zeros.
pub(super) fn softmax<T: Scalar>(logits: &mut [T]) -> f64 {
    let top = largest(logits);
    if top == T::neg_infinity() {
        logits.fill(T::zero());
        return f64::NEG_INFINITY;
    }
    logits.iter_mut().for_each(|x| *x -= top);
    T::exp_in_place(logits);
    let whole = sum(logits);
    let inverse = T::one() / whole;
    logits.iter_mut().for_each(|x| *x *= inverse);
    whole.ln().as_f64() + top.as_f64()
}

/// Masks the logits of row `i` itself and of the pairs that are not negatives.
pub(super) fn put_out<T: Scalar>(logits: &mut [T], i: usize, allowed: Option<ArrayView1<bool>>) {
    let n = logits.len() / 2;
    if let Some(allowed) = allowed {
        for (j, _) in allowed.iter().enumerate().filter(|(_, allowed)| !**allowed) {
            logits[j] = T::neg_infinity();
            logits[j + n] = T::neg_infinity();
        }
    }
    logits[i] = T::neg_infinity();
}
