//! The slow head: directions in which latents differ much over time but little between frames close in time, in closed
//! form from running statistics ([`ScatterStats`]).
//!
//! This is linear slow feature analysis (Wiskott, Sejnowski 2002) with pairs of frames in place of the time derivative,
//! or discriminant analysis with pairs in place of classes.
mod scatter;

use ndarray::{Array1, Array2, s};

pub use scatter::{ScatterBuffers, ScatterStats};

use crate::error::{Error, Result};
use crate::linalg::generalised_eigen_of;

/// A fitted slow head: `y = W' (f - mu)`.
#[derive(Debug, Clone, PartialEq)]
pub struct SfaFit {
    /// `mu: [d]`, mean of the latents.
    pub mean: Array1<f64>,
    /// `W: [d, keep]` with `W' S W = I` for the shrunk within-pair scatter `S`. The entry of largest size of each
    /// column is positive.
    pub directions: Array2<f64>,
    /// Total per within-pair variance along each direction, `[keep]`, largest first.
    pub eigenvalues: Array1<f64>,
}

impl SfaFit {
    /// The same head for latents of `dim` entries of which this fit has seen those from `start` on: all others have
    /// weight zero.
    ///
    /// # Panics
    /// When they do not fit in.
    #[must_use]
    pub fn padded(self, dim: usize, start: usize) -> Self {
        let (n, keep) = self.directions.dim();
        let mut mean = Array1::zeros(dim);
        mean.slice_mut(s![start..start + n]).assign(&self.mean);
        let mut directions = Array2::zeros((dim, keep));
        directions.slice_mut(s![start..start + n, ..]).assign(&self.directions);
        Self { mean, directions, eigenvalues: self.eigenvalues }
    }
}

/// The `keep` directions with the most total variance per variance within pairs: the largest generalised eigenvectors
/// of
///
/// `T w = lambda ((1 - s) S + s tr(S) / d I) w`
///
/// `total(i, j)`: `T: [d, d]`, covariance of all latents; `within(i, j)`: `S: [d, d]`, mean over pairs of
/// `(fa - fb)(fa - fb)' / 2`; both symmetric and asked for `i <= j` only; `mean: [d]`; `s` is `shrinkage`, 0 to 1.
///
/// Shrinkage keeps directions that few pairs have spoken about from looking slow. Time: of the order of `d^3` (about a
/// second at `d = 1280` on one core); memory: two `[d, d]` matrices of `f64` for the time of the call (80 MB at
/// `d = 2240`).
///
/// # Errors
/// `keep` outside `1..=d`, `shrinkage` outside 0 to 1, numbers that are not finite, shrunk `S` not positive definite.
pub fn slow_from(
    mean: Array1<f64>,
    total: impl Fn(usize, usize) -> f64,
    within: impl Fn(usize, usize) -> f64,
    keep: usize,
    shrinkage: f64,
) -> Result<SfaFit> {
    if !(0.0..=1.0).contains(&shrinkage) {
        return Err(Error::config(format!("head.shrinkage is {shrinkage}; it must lie between 0 and 1")));
    }
    let dim = mean.len();
    let ridge = shrinkage * (0..dim).map(|i| within(i, i)).sum::<f64>() / dim.max(1) as f64;
    let shrunk = |i, j| (1.0 - shrinkage) * within(i, j) + if i == j { ridge } else { 0.0 };
    let (eigenvalues, directions) = generalised_eigen_of(dim, total, shrunk, keep)?;
    Ok(SfaFit { mean, directions, eigenvalues })
}
