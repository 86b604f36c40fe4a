//! The losses: what the head is trained for. A loss sees the outputs of the head before they are made unit length, and
//! gives its value and its gradient with respect to them.
mod cpc;
mod nt_xent;

use ndarray::{Array2, ArrayView2};

pub use cpc::{CpcNetwork, CpcPass, CpcSizes, InfoNce};
pub use nt_xent::NtXent;

use crate::linalg::Real;

/// A loss and its gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss<T> {
    /// The value, a mean over the batch.
    pub value: T,
    /// Its gradient with respect to `a`, `[n, d]`.
    pub grad_a: Array2<T>,
    /// Its gradient with respect to `b`, `[n, d]`.
    pub grad_b: Array2<T>,
}

/// A loss over pairs.
pub trait Objective<T: Real>: std::fmt::Debug + Send + Sync {
    /// Its name in configuration and journal.
    fn name(&self) -> &'static str;

    /// `a`, `b: [n, d]` are outputs of the head before they are made unit length; row `i` of `a` and row `i` of `b` are
    /// a pair. Where `negatives[i, j]: [n, n]` is false, pairs `i` and `j` are no negatives of each other; without it
    /// all other pairs are negatives. The diagonal of `negatives` has no meaning.
    ///
    /// # Panics
    /// When the shapes do not fit.
    fn loss(&self, a: ArrayView2<T>, b: ArrayView2<T>, negatives: Option<ArrayView2<bool>>) -> Loss<T>;
}
