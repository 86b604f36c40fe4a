//! Supervised contrastive loss with the segment as the label.
use ndarray::{ArrayView1, ArrayView2};

use super::contrastive::{over_logits, put_out, softmax};
use super::{Loss, Objective, PairMask};
use crate::linalg::Scalar;

/// Supervised contrastive loss (Khosla et al. 2020, "Supervised Contrastive Learning", equation 2, `L_out`): with `z:
/// [2n, d]` the unit rows of `a` stacked on those of `b`, and the positives `P(i)` all other rows of the same
/// segment,
///
/// `loss = mean over i of -1 / |P(i)| * sum over p in P(i) of log( exp(z_i . z_p / t) / sum over j != i of exp(z_i .
/// z_j / t) )`,
///
/// where the inner sum covers positives and negatives. The partner is always a positive; if no two pairs share a
/// segment (or none is known) this is NT-Xent. Two pairs of one segment are positives, whatever the mask says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SupCon {
    /// Temperature `t`, above 0.
    pub temperature: f64,
}

impl<T: Scalar> Objective<T> for SupCon {
    fn name(&self) -> &'static str {
        "supcon"
    }

    fn loss(&self, a: ArrayView2<T>, b: ArrayView2<T>, relations: &PairMask<'_>) -> Loss<T> {
        let n = a.nrows();
        assert!(relations.segments.is_none_or(|x| x.len() == n), "a segment for each pair");
        over_logits((a, b), self.temperature, relations, |logits, i, allowed| {
            let of = |j: usize| relations.segments.map_or(j % n, |x| x[j % n] as usize);
            supervised(logits, i, allowed, |j| j != i && of(j) == of(i))
        })
    }
}

fn supervised<T: Scalar>(
    logits: &mut [T],
    i: usize,
    allowed: Option<ArrayView1<bool>>,
    positive: impl Fn(usize) -> bool,
) -> f64 {
    let (mut count, mut right) = (0.0, 0.0);
    let positives: Vec<(usize, T)> = (0..logits.len()).filter(|&j| positive(j)).map(|j| (j, logits[j])).collect();
    put_out(logits, i, allowed);
    for &(j, logit) in &positives {
        logits[j] = logit;
        count += 1.0;
        right += logit.as_f64();
    }
    let whole = softmax(logits);
    let share = T::of(1.0 / count);
    positives.iter().for_each(|&(j, _)| logits[j] -= share);
    whole - right / count
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::super::{NtXent, gradcheck};
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        // Three pairs of one segment, and a mask: see the gradient check.
        gradcheck::pairs(&SupCon { temperature: 0.1 });
        gradcheck::pairs(&SupCon { temperature: 0.5 });
    }

    #[test]
    fn without_shared_segments_it_is_nt_xent() {
        let (a, b) = gradcheck::batch(5, 4, 3);
        let other = NtXent { temperature: 0.2 }.loss(a.view(), b.view(), &PairMask::default());
        for segments in [None, Some([7, 1, 9, 4, 2].as_slice())] {
            let relations = PairMask { negatives: None, segments };
            let found = SupCon { temperature: 0.2 }.loss(a.view(), b.view(), &relations);
            assert!((found.value - other.value).abs() < 1e-12);
            assert!((&found.grad_a - &other.grad_a).iter().all(|x| x.abs() < 1e-12));
        }
    }

    #[test]
    fn two_segments_by_hand() {
        // Rows of segment 0 are (1, 0), the row of segment 1 is (0, 1): logits are 1 / t within a segment, 0 across.
        let a: Array2<f64> = array![[2.0, 0.0], [3.0, 0.0], [0.0, 1.0]];
        let relations = PairMask { negatives: None, segments: Some(&[5, 5, 8]) };
        let loss = SupCon { temperature: 0.5 }.loss(a.view(), a.view(), &relations);
        let (e, within, single) = (2f64.exp(), 4.0, 2.0);
        let right = (within * ((3.0 * e + 2.0).ln() - 2.0) + single * ((e + 4.0).ln() - 2.0)) / 6.0;
        assert!((loss.value - right).abs() < 1e-12, "{} {right}", loss.value);
    }

    #[test]
    fn rows_without_negatives_and_extremes_stay_finite() {
        gradcheck::no_negatives_give_nothing(&SupCon { temperature: 0.1 });
        gradcheck::extremes(&SupCon { temperature: 1e-3 });
        // With only one segment, all rows are positives, and the loss is at best that of guessing among them.
        let (a, b) = gradcheck::batch(4, 3, 9);
        let relations = PairMask { negatives: None, segments: Some(&[1; 4]) };
        let loss = SupCon { temperature: 0.1 }.loss(a.view(), b.view(), &relations);
        assert!(loss.value >= 7f64.ln() && loss.grad_a.iter().all(|x| x.is_finite()));
    }
}
