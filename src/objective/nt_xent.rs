//! NT-Xent, the loss of SimCLR.
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, s};

use super::{Loss, Objective};
use crate::linalg::{NORM_FLOOR, Real, inner, largest, matmul, product, slices, slices_mut, sum, unit_rows};

/// Normalised temperature-scaled cross-entropy (Chen et al. 2020, "A Simple Framework for Contrastive Learning of
/// Visual Representations", equation 1): with `z: [2n, d]` the unit rows of `a` over those of `b`, and `p(i)` the
/// partner of `i`,
///
/// `loss = mean over i of -log( exp(z_i . z_p(i) / t) / sum over j != i of exp(z_i . z_j / t) )`,
///
/// the sum over the partner and the negatives of `i`. Cross-entropy over `2n` rows of at most `2n - 1` logits.
///
/// A row whose negatives are all masked gives 0. A row shorter than [`NORM_FLOOR`] has no direction: it is a zero row
/// in the loss, and its gradient is zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NtXent {
    /// `t`, above 0.
    pub temperature: f64,
}

impl<T: Real> Objective<T> for NtXent {
    fn name(&self) -> &'static str {
        "nt-xent"
    }

    fn loss(&self, a: ArrayView2<T>, b: ArrayView2<T>, negatives: Option<ArrayView2<bool>>) -> Loss<T> {
        let (n, d) = a.dim();
        assert_eq!(b.dim(), (n, d), "shape of the partners");
        assert!(negatives.is_none_or(|x| x.dim() == (n, n)), "shape of the mask");
        if n == 0 {
            return Loss { value: T::zero(), grad_a: Array2::zeros((n, d)), grad_b: Array2::zeros((n, d)) };
        }
        let mut stacked = Array2::zeros((2 * n, d));
        stacked.slice_mut(s![..n, ..]).assign(&a);
        stacked.slice_mut(s![n.., ..]).assign(&b);
        let (z, norms) = unit_rows(&stacked);

        // Logits become dloss/dlogits * 2n, row by row: softmax minus one at the partner.
        let mut logits = Array2::zeros((2 * n, 2 * n));
        matmul(T::of(1.0 / self.temperature), z.view(), z.t(), T::zero(), logits.view_mut());
        let mut total = 0.0;
        for (i, row) in slices_mut(&mut logits).enumerate() {
            total += cross_entropy(row, i, negatives.as_ref().map(|x| x.row(i % n)));
        }
        let scale = 1.0 / (2 * n) as f64;

        // dloss/dz = (G + G') z / t; the logits are symmetric in z.
        let both = &logits + &logits.t();
        let mut grad = product(both.view(), z.view());
        let factor = T::of(scale / self.temperature);
        // Through z = x / |x|: only what is across z changes it.
        for ((grad, z), &norm) in slices_mut(&mut grad).zip(slices(&z)).zip(&norms) {
            let factor = if norm < T::of(NORM_FLOOR) { T::zero() } else { factor / norm };
            let along = inner(grad, z);
            grad.iter_mut().zip(z).for_each(|(g, &z)| *g = (*g - z * along) * factor);
        }
        let (grad_a, grad_b) = grad.view().split_at(Axis(0), n);
        Loss { value: T::of(total * scale), grad_a: grad_a.to_owned(), grad_b: grad_b.to_owned() }
    }
}

/// Cross-entropy of row `i` of `2n` logits with its partner as the label. The logits become softmax minus one at the
/// partner; what is masked becomes zero. `allowed[j]`: pair `j` is a negative.
fn cross_entropy<T: Real>(logits: &mut [T], i: usize, allowed: Option<ArrayView1<bool>>) -> f64 {
    let n = logits.len() / 2;
    let partner = (i + n) % (2 * n);
    let right = logits[partner];
    if let Some(allowed) = allowed {
        for (j, _) in allowed.iter().enumerate().filter(|(_, allowed)| !**allowed) {
            logits[j] = T::neg_infinity();
            logits[j + n] = T::neg_infinity();
        }
        logits[partner] = right;
    }
    logits[i] = T::neg_infinity();
    // The partner is always there, so that the largest logit is finite and the sum at least 1.
    let top = largest(logits);
    logits.iter_mut().for_each(|x| *x -= top);
    T::exp_in_place(logits);
    let whole = sum(logits);
    let inverse = T::one() / whole;
    logits.iter_mut().for_each(|x| *x *= inverse);
    logits[partner] -= T::one();
    whole.ln().as_f64() + (top - right).as_f64()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::concatenate;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::head::Mlp;
    use crate::linalg::random::uniform;

    fn batch(n: usize, d: usize, seed: u64) -> (Array2<f64>, Array2<f64>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let a = Array2::from_shape_simple_fn((n, d), || 2.0 * uniform(&mut rng) - 1.0);
        let b = &a + &Array2::from_shape_simple_fn((n, d), || uniform(&mut rng) - 0.5);
        (a, b)
    }

    /// Pairs 0 and 1 mask each other; pair 2 has no negatives at all.
    fn mask(n: usize) -> Array2<bool> {
        Array2::from_shape_fn((n, n), |(i, j)| !(i == 2 || i + j == 1 || i == j))
    }

    /// Compares `found` with central differences of `value` when the entries of `x` move one by one.
    fn compare(found: &[f64], x: &[f64], value: impl Fn(&[f64]) -> f64) {
        let step = 1e-6;
        let scale = found.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        assert!(scale > 1e-3, "no gradient to test");
        assert_eq!(found.len(), x.len());
        for (i, found) in found.iter().enumerate() {
            let moved = |by: f64| {
                let mut x = x.to_vec();
                x[i] += by;
                value(&x)
            };
            let error = (found - (moved(step) - moved(-step)) / (2.0 * step)).abs();
            assert!(error < 1e-7 * scale.max(1.0), "entry {i}: {error:e} of {scale}");
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (a, b) = batch(6, 5, 1);
        let mask = mask(6);
        let matrix = |x: &[f64]| Array2::from_shape_vec((6, 5), x.to_vec()).unwrap();
        for temperature in [0.07, 0.5] {
            for mask in [None, Some(mask.view())] {
                let loss = |a: &Array2<f64>, b: &Array2<f64>| NtXent { temperature }.loss(a.view(), b.view(), mask);
                let found = loss(&a, &b);
                let flat = |x: &Array2<f64>| x.iter().copied().collect::<Vec<f64>>();
                compare(&flat(&found.grad_a), &flat(&a), |a| loss(&matrix(a), &b).value);
                compare(&flat(&found.grad_b), &flat(&b), |b| loss(&a, &matrix(b)).value);
            }
        }
    }

    #[test]
    fn the_whole_embedding_path_agrees_with_finite_differences() {
        // y + alpha mlp(y), made unit length, contrasted: with respect to every parameter of the residual.
        let rng = &mut ChaCha8Rng::seed_from_u64(5);
        let mut mlp = Mlp::<f64>::start(5, 9, rng);
        mlp.parts_mut().into_iter().for_each(|(_, part)| part.iter_mut().for_each(|x| *x += uniform(rng) - 0.3));
        let (a, b) = batch(6, 5, 6);
        let (mask, alpha, objective) = (mask(6), 0.7, NtXent { temperature: 0.3 });
        let both = concatenate![Axis(0), a, b];
        let loss =
            |out: &Array2<f64>| objective.loss(out.slice(s![..6, ..]), out.slice(s![6.., ..]), Some(mask.view()));
        let (residual, cache) = mlp.forward(both.view());
        let found = loss(&(&both + &(residual * alpha)));
        let mut grads = mlp.zeros_like();
        mlp.backward(&cache, (concatenate![Axis(0), found.grad_a, found.grad_b] * alpha).view(), &mut grads);
        for part in 0..6 {
            compare(grads.parts()[part].1, mlp.parts()[part].1, |moved| {
                let mut mlp = mlp.clone();
                mlp.parts_mut()[part].1.copy_from_slice(moved);
                loss(&(&both + &(mlp.forward(both.view()).0 * alpha))).value
            });
        }
    }

    #[test]
    fn a_row_without_negatives_gives_nothing() {
        let (a, b) = batch(3, 4, 2);
        let none = Array2::from_elem((3, 3), false);
        let loss = NtXent { temperature: 0.1 }.loss(a.view(), b.view(), Some(none.view()));
        assert!(loss.value.abs() < 1e-15 && loss.grad_a.iter().all(|x| x.abs() < 1e-15));
        // So does a single pair, which has none to begin with.
        let loss = NtXent { temperature: 0.1 }.loss(a.slice(s![..1, ..]), b.slice(s![..1, ..]), None);
        assert!(loss.value.abs() < 1e-15 && loss.grad_b.iter().all(|x| x.abs() < 1e-15));
        let none = NtXent { temperature: 0.1 }.loss(a.slice(s![..0, ..]), b.slice(s![..0, ..]), None);
        assert_eq!((none.value, none.grad_a.dim()), (0.0, (0, 4)));
    }

    #[test]
    fn equal_rows_give_the_logarithm_of_their_number() {
        let a = Array2::from_elem((5, 3), 0.7f32);
        let loss = NtXent { temperature: 0.1 }.loss(a.view(), a.view(), None);
        assert!((loss.value - 9f32.ln()).abs() < 1e-6);
        assert!(loss.grad_a.iter().all(|x| x.abs() < 1e-6));
    }

    #[test]
    fn extremes_stay_finite() {
        let (mut a, b) = batch(4, 6, 3);
        a.row_mut(1).fill(0.0);
        let (mut a, b) = (a.mapv(|x| x as f32), b.mapv(|x| x as f32));
        a.row_mut(2).mapv_inplace(|x| x * 1e25);
        for temperature in [1e-3, 0.1, 100.0] {
            let loss = NtXent { temperature }.loss(a.view(), b.view(), Some(mask(4).view()));
            assert!(loss.value.is_finite());
            assert!(loss.grad_a.iter().chain(&loss.grad_b).all(|x| x.is_finite()));
            assert!(loss.grad_a.row(1).iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn does_not_depend_on_the_length_of_rows() {
        let (a, b) = batch(4, 6, 4);
        let long = &a * 3.0;
        let (one, three) = (
            NtXent { temperature: 0.2 }.loss(a.view(), b.view(), None),
            NtXent { temperature: 0.2 }.loss(long.view(), b.view(), None),
        );
        assert!((one.value - three.value).abs() < 1e-12);
        assert!((&one.grad_a - &three.grad_a * 3.0).iter().all(|x| x.abs() < 1e-12));
        assert!((&one.grad_a * &a).sum_axis(Axis(1)).iter().all(|x| x.abs() < 1e-12));
    }
}
