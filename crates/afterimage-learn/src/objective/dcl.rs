//! Decoupled contrastive loss.
use ndarray::{ArrayView1, ArrayView2};

use super::contrastive::{over_logits, put_out, softmax};
use super::{Loss, Objective, PairMask};
use crate::linalg::Scalar;

/// Decoupled contrastive loss (Yeh et al. 2022, "Decoupled Contrastive Learning", equation 6, without weights):
/// NT-Xent without the positive in the denominator. With `z: [2n, d]` the unit rows of `a` stacked on those of `b`,
/// and `p(i)` the partner of `i`,
///
/// `loss = mean over i of -z_i . z_p(i) / t + log sum over the negatives j of exp(z_i . z_j / t)`.
///
/// It can be negative. A row without negatives gives 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dcl {
    /// Temperature `t`, above 0.
    pub temperature: f64,
}

impl<T: Scalar> Objective<T> for Dcl {
    fn name(&self) -> &'static str {
        "dcl"
    }

    fn loss(&self, a: ArrayView2<T>, b: ArrayView2<T>, relations: &PairMask<'_>) -> Loss<T> {
        over_logits((a, b), self.temperature, relations, decoupled)
    }
}

fn decoupled<T: Scalar>(logits: &mut [T], i: usize, allowed: Option<ArrayView1<bool>>) -> f64 {
    let partner = (i + logits.len() / 2) % logits.len();
    let right = logits[partner].as_f64();
    put_out(logits, i, allowed);
    logits[partner] = T::neg_infinity();
    let whole = softmax(logits);
    if whole == f64::NEG_INFINITY {
        return 0.0;
    }
    logits[partner] = -T::one();
    whole - right
}

#[cfg(test)]
mod tests {
    use super::super::gradcheck;
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        gradcheck::pairs(&Dcl { temperature: 0.07 });
        gradcheck::pairs(&Dcl { temperature: 0.5 });
    }

    #[test]
    fn rows_without_negatives_and_extremes_stay_finite() {
        gradcheck::no_negatives_give_nothing(&Dcl { temperature: 0.1 });
        gradcheck::extremes(&Dcl { temperature: 1e-3 });
        gradcheck::extremes(&Dcl { temperature: 100.0 });
    }
}
