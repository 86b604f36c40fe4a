//! The loss functions that train the head. A loss takes the head's outputs before normalisation, and returns its
//! value and its gradient with respect to them.
//!
//! Losses over the pairs of a batch are [`Objective`]s: [`NtXent`], [`Dcl`], [`SupCon`], [`VicReg`], [`BarlowTwins`].
//! Losses that train one side against targets without a gradient return a [`LossAndGrad`]: [`moco`], [`byol`],
//! [`simsiam`].
mod relational_distillation;
mod barlow_twins;
mod byol;
mod contrastive;
mod cpc;
mod dcl;
mod moco;
mod nt_xent;
mod simsiam;
mod supcon;
mod vicreg;

use ndarray::{Array2, ArrayView2};

pub use barlow_twins::BarlowTwins;
pub use byol::byol;
pub use cpc::{CpcNetwork, CpcPass, CpcSizes, InfoNce};
pub use dcl::Dcl;
pub use moco::moco;
pub use nt_xent::NtXent;
pub use relational_distillation::anchor;
pub use simsiam::simsiam;
pub use supcon::SupCon;
pub use vicreg::VicReg;

use crate::linalg::Scalar;

/// A loss and its gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss<T> {
    /// The loss, a mean over the batch.
    pub value: T,
    /// Gradient with respect to `a`, `[n, d]`.
    pub grad_a: Array2<T>,
    /// Gradient with respect to `b`, `[n, d]`.
    pub grad_b: Array2<T>,
}

/// A loss with a gradient with respect to one side only.
#[derive(Debug, Clone, PartialEq)]
pub struct LossAndGrad<T> {
    /// The loss, a mean over the rows.
    pub value: T,
    /// Gradient with respect to the trained side, `[n, d]`.
    pub grad: Array2<T>,
}

/// Extra information about the pairs of a batch. Without it, all other pairs are negatives.
#[derive(Debug, Clone, Copy, Default)]
pub struct PairMask<'a> {
    /// `[n, n]`: if false at `[i, j]`, pairs `i` and `j` are not negatives of each other. The diagonal is ignored.
    pub negatives: Option<ArrayView2<'a, bool>>,
    /// `[n]`: the segment of each pair. Only [`SupCon`] uses it.
    pub segments: Option<&'a [u64]>,
}

/// A loss over pairs.
pub trait Objective<T: Scalar>: std::fmt::Debug + Send + Sync {
    /// Its name in the configuration and the journal.
    fn name(&self) -> &'static str;

    /// Computes the loss. `a`, `b: [n, d]` are outputs of the head before normalisation; row `i` of `a` and row `i`
    /// of `b` form a pair.
    ///
    /// # Panics
    /// If the shapes do not match.
    fn loss(&self, a: ArrayView2<T>, b: ArrayView2<T>, relations: &PairMask<'_>) -> Loss<T>;
}

#[cfg(test)]
mod gradcheck;
