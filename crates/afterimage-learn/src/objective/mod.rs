//! The losses: what the head is trained for. A loss sees the outputs of the head before they are made unit length, and
//! gives its value and its gradient with respect to them.
//!
//! Losses over the pairs of a batch are [`Objective`]s: [`NtXent`], [`Dcl`], [`SupCon`], [`VicReg`], [`BarlowTwins`].
//! Those that train one side against targets without a gradient give a [`LossAndGrad`]: [`moco`], [`byol`], [`simsiam`].
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
    /// The value, a mean over the batch.
    pub value: T,
    /// Its gradient with respect to `a`, `[n, d]`.
    pub grad_a: Array2<T>,
    /// Its gradient with respect to `b`, `[n, d]`.
    pub grad_b: Array2<T>,
}

/// A loss with a gradient with respect to one side only.
#[derive(Debug, Clone, PartialEq)]
pub struct LossAndGrad<T> {
    /// The value, a mean over the rows.
    pub value: T,
    /// Its gradient, `[n, d]`.
    pub grad: Array2<T>,
}

/// What is known of the pairs of a batch beside their rows. By default nothing: all other pairs are negatives.
#[derive(Debug, Clone, Copy, Default)]
pub struct PairMask<'a> {
    /// `[n, n]`: where false at `[i, j]`, pairs `i` and `j` are no negatives of each other. The diagonal has no meaning.
    pub negatives: Option<ArrayView2<'a, bool>>,
    /// `[n]`: the segment of each pair. Only [`SupCon`] asks.
    pub segments: Option<&'a [u64]>,
}

/// A loss over pairs.
pub trait Objective<T: Scalar>: std::fmt::Debug + Send + Sync {
    /// Its name in configuration and journal.
    fn name(&self) -> &'static str;

    /// `a`, `b: [n, d]` are outputs of the head before they are made unit length; row `i` of `a` and row `i` of `b` are
    /// a pair.
    ///
    /// # Panics
    /// When the shapes do not fit.
    fn loss(&self, a: ArrayView2<T>, b: ArrayView2<T>, relations: &PairMask<'_>) -> Loss<T>;
}

#[cfg(test)]
mod gradcheck;
