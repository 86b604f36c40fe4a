//! NT-Xent, the SimCLR loss.
use ndarray::{ArrayView1, ArrayView2};

use super::contrastive::{over_logits, put_out, softmax};
use super::{Loss, Objective, PairMask};
use crate::linalg::Scalar;

/// Normalised temperature-scaled cross-entropy (Chen et al. 2020, "A Simple Framework for Contrastive Learning of
/// Visual Representations", equation 1): with `z: [2n, d]` the unit rows of `a` stacked on those of `b`, and `p(i)`
/// the partner of `i`,
///
/// `loss = mean over i of -log( exp(z_i . z_p(i) / t) / sum over j != i of exp(z_i . z_j / t) )`,
///
/// where the sum covers the partner and the negatives of `i`. This is the cross-entropy over `2n` rows of at most
/// `2n - 1` logits.
///
/// A row whose negatives are all masked gives 0. A row shorter than [`crate::linalg::NORM_FLOOR`] has no direction:
/// it counts as a zero row in the loss, and its gradient is zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NtXent {
    /// Temperature `t`, above 0.
    pub temperature: f64,
}

impl<T: Scalar> Objective<T> for NtXent {
    fn name(&self) -> &'static str {
        "nt-xent"
    }

    fn loss(&self, a: ArrayView2<T>, b: ArrayView2<T>, relations: &PairMask<'_>) -> Loss<T> {
        over_logits((a, b), self.temperature, relations, cross_entropy)
    }
}

/// Cross-entropy with the partner as the label.
fn cross_entropy<T: Scalar>(logits: &mut [T], i: usize, allowed: Option<ArrayView1<bool>>) -> f64 {
    let partner = (i + logits.len() / 2) % logits.len();
    let right = logits[partner];
    put_out(logits, i, allowed);
    logits[partner] = right;
    let whole = softmax(logits);
    logits[partner] -= T::one();
    whole - right.as_f64()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::{Array2, Axis, concatenate, s};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::super::gradcheck::{self, batch, mask};
    use super::*;
    use crate::head::Mlp;
    use crate::linalg::random::uniform;

    #[test]
    fn gradients_agree_with_finite_differences() {
        gradcheck::pairs(&NtXent { temperature: 0.07 });
        gradcheck::pairs(&NtXent { temperature: 0.5 });
    }

    #[test]
    fn rows_without_negatives_and_extremes_stay_finite() {
        gradcheck::no_negatives_give_nothing(&NtXent { temperature: 0.1 });
        for temperature in [1e-3, 0.1, 100.0] {
            gradcheck::extremes(&NtXent { temperature });
        }
    }

    #[test]
    fn the_whole_embedding_path_agrees_with_finite_differences() {
        // The loss of y + alpha mlp(y), normalised, with respect to every parameter of the residual.
        let rng = &mut ChaCha8Rng::seed_from_u64(5);
        let mut mlp = Mlp::<f64>::start(5, 9, rng);
        mlp.parts_mut().into_iter().for_each(|(_, part)| part.iter_mut().for_each(|x| *x += uniform(rng) - 0.3));
        let (a, b) = batch(6, 5, 6);
        let (mask, alpha, objective) = (mask(6), 0.7, NtXent { temperature: 0.3 });
        let relations = PairMask { negatives: Some(mask.view()), segments: None };
        let both = concatenate![Axis(0), a, b];
        let loss = |out: &Array2<f64>| objective.loss(out.slice(s![..6, ..]), out.slice(s![6.., ..]), &relations);
        let (residual, cache) = mlp.forward(both.view());
        let found = loss(&(&both + &(residual * alpha)));
        let mut grads = mlp.zeros_like();
        mlp.backward(&cache, (concatenate![Axis(0), found.grad_a, found.grad_b] * alpha).view(), &mut grads);
        for part in 0..6 {
            let matrix = |x: &[f64]| Array2::from_shape_vec((1, x.len()), x.to_vec()).unwrap();
            gradcheck::gradient(&matrix(grads.parts()[part].1), &matrix(mlp.parts()[part].1), |moved| {
                let mut mlp = mlp.clone();
                mlp.parts_mut()[part].1.copy_from_slice(moved.as_slice().unwrap());
                loss(&(&both + &(mlp.forward(both.view()).0 * alpha))).value
            });
        }
    }

    #[test]
    fn equal_rows_give_the_logarithm_of_their_number() {
        let a = Array2::from_elem((5, 3), 0.7f32);
        let loss = NtXent { temperature: 0.1 }.loss(a.view(), a.view(), &PairMask::default());
        assert!((loss.value - 9f32.ln()).abs() < 1e-6);
        assert!(loss.grad_a.iter().all(|x| x.abs() < 1e-6));
    }

    #[test]
    fn does_not_depend_on_the_length_of_rows() {
        let (a, b) = batch(4, 6, 4);
        let long = &a * 3.0;
        let objective = NtXent { temperature: 0.2 };
        let one = objective.loss(a.view(), b.view(), &PairMask::default());
        let three = objective.loss(long.view(), b.view(), &PairMask::default());
        assert!((one.value - three.value).abs() < 1e-12);
        assert!((&one.grad_a - &three.grad_a * 3.0).iter().all(|x| x.abs() < 1e-12));
        assert!((&one.grad_a * &a).sum_axis(Axis(1)).iter().all(|x| x.abs() < 1e-12));
    }
}
