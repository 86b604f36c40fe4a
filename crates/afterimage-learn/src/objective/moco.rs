//! Momentum contrast: queries against a queue of keys.
use ndarray::{Array2, ArrayView2};

use super::LossAndGrad;
use super::contrastive::{softmax, through_unit};
use crate::linalg::{Scalar, inner, matmul, slices, slices_mut, sum, unit_rows};

/// The MoCo loss (He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning", equation 1):
/// with `q_i` and `k_i` the unit rows of `queries: [n, d]` and `keys: [n, d]`, and `u_j` the rows of `queue: [m, d]`,
///
/// `loss = mean over i of -log( exp(q_i . k_i / t) / (exp(q_i . k_i / t) + sum over j of exp(q_i . u_j / t)) )`,
///
/// the cross-entropy over `1 + m` logits, the positive first. Keys and queue get no gradient. The rows of the queue
/// must be unit rows; entry `j` is not a negative of query `i` if `(i, j)` is in `masked`. A query whose negatives
/// are all masked, or an empty queue, gives 0.
///
/// # Panics
/// If the shapes do not match. `temperature` must be above 0.
pub fn moco<T: Scalar>(
    queries: ArrayView2<T>,
    keys: ArrayView2<T>,
    queue: ArrayView2<T>,
    masked: &[(usize, usize)],
    temperature: f64,
) -> LossAndGrad<T> {
    let (n, d) = queries.dim();
    assert!(keys.dim() == (n, d) && queue.ncols() == d, "shape of keys and queue");
    let (q, norms) = unit_rows(&queries.as_standard_layout().into_owned());
    let (k, _) = unit_rows(&keys.as_standard_layout().into_owned());
    let mut logits = Array2::default((n, queue.nrows()));
    matmul(T::of(1.0 / temperature), q.view(), queue.t(), T::zero(), logits.view_mut());
    for &(i, j) in masked {
        logits[[i, j]] = T::neg_infinity();
    }
    let inverse = T::of(1.0 / temperature);
    // The gradient with respect to the positive logit: its probability minus one.
    let mut pull = Vec::with_capacity(n);
    let mut total = 0.0;
    for ((logits, q), k) in slices_mut(&mut logits).zip(slices(&q)).zip(slices(&k)) {
        let right = (inner(q, k) * inverse).as_f64();
        let others = softmax(logits);
        // log(e^right + e^others) - right, and the total probability of the negatives.
        let loss = soft_plus(others - right);
        let share = T::of(-(-loss).exp_m1());
        logits.iter_mut().for_each(|x| *x *= share);
        pull.push(if logits.is_empty() { T::zero() } else { -sum(logits) });
        total += loss;
    }
    let mut grad = Array2::default((n, d));
    matmul(T::one(), logits.view(), queue, T::zero(), grad.view_mut());
    for ((grad, k), &pull) in slices_mut(&mut grad).zip(slices(&k)).zip(&pull) {
        grad.iter_mut().zip(k).for_each(|(g, &k)| *g += pull * k);
    }
    let count = n.max(1) as f64;
    through_unit(&mut grad, &q, &norms, T::of(1.0 / (count * temperature)));
    LossAndGrad { value: T::of(total / count), grad }
}

/// `log(1 + e^x)`.
fn soft_plus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::super::gradcheck;
    use super::*;

    /// Queries, keys and a queue of seven unit rows.
    fn inputs() -> (Array2<f64>, Array2<f64>, Array2<f64>) {
        let (q, k) = gradcheck::batch(6, 5, 1);
        (q, k, unit_rows(&gradcheck::batch(7, 5, 2).0).0)
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let (q, k, queue) = inputs();
        let masked: Vec<_> = (0..7).map(|j| (2, j)).chain([(0, 3), (5, 6)]).collect();
        for temperature in [0.07, 0.5] {
            for masked in [&[], masked.as_slice()] {
                let loss = |q: &Array2<f64>| moco(q.view(), k.view(), queue.view(), masked, temperature);
                gradcheck::gradient(&loss(&q).grad, &q, |q| loss(q).value);
            }
        }
    }

    #[test]
    fn without_negatives_it_gives_nothing() {
        let (q, k, queue) = inputs();
        let masked: Vec<_> = (0..7).map(|j| (2, j)).collect();
        let loss = moco(q.view(), k.view(), queue.view(), &masked, 0.1);
        assert!(loss.value > 0.0 && loss.grad.row(2).iter().all(|&x| x == 0.0));
        assert!(loss.grad.row(3).iter().any(|x| x.abs() > 1e-6));
        let none = moco(q.view(), k.view(), Array2::zeros((0, 5)).view(), &[], 0.1);
        assert!(none.value == 0.0 && none.grad.iter().all(|&x| x == 0.0));
        let none = moco(q.slice(ndarray::s![..0, ..]), k.slice(ndarray::s![..0, ..]), queue.view(), &[], 0.1);
        assert_eq!((none.value, none.grad.dim()), (0.0, (0, 5)));
    }

    #[test]
    fn equal_rows_give_the_logarithm_of_their_number() {
        let (rows, _) = unit_rows(&Array2::from_elem((9, 3), 0.7f32));
        let loss = moco(rows.view(), rows.view(), rows.view(), &[], 0.1);
        assert!((loss.value - 10f32.ln()).abs() < 1e-5, "{}", loss.value);
    }

    #[test]
    fn extremes_stay_finite() {
        let (q, k, queue) = inputs();
        let cast = |x: &Array2<f64>| x.mapv(|x| x as f32);
        let (mut q, k, queue) = (cast(&q), cast(&k), cast(&queue));
        q.row_mut(1).fill(0.0);
        q.row_mut(2).mapv_inplace(|x| x * 1e25);
        for temperature in [1e-3, 0.1, 100.0] {
            let loss = moco(q.view(), k.view(), queue.view(), &[(4, 0)], temperature);
            assert!(loss.value.is_finite() && loss.grad.iter().all(|x| x.is_finite()));
            assert!(loss.grad.row(1).iter().all(|&x| x == 0.0));
        }
    }
}
