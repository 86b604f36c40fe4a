//! The *slow head*: linear slow feature analysis (SFA), fitted in closed form from running statistics
//! ([`ScatterStats`]). It keeps the directions in which latents vary much over time but little between frames close
//! in time.
//!
//! This is linear SFA (Wiskott, Sejnowski 2002) with shrinkage and with pairs of frames in place of the time
//! derivative, or equivalently discriminant analysis with pairs in place of classes.
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
    /// `W: [d, keep]` with `W' S W = I` for the shrunk within-pair scatter `S`. The entry of largest magnitude in
    /// each column is positive.
    pub directions: Array2<f64>,
    /// Ratio of total to within-pair variance along each direction, `[keep]`, largest first.
    pub eigenvalues: Array1<f64>,
}

impl SfaFit {
    /// Extends this fit, which saw the entries from `start` on, to latents of `dim` entries; all other entries get
    /// weight zero.
    ///
    /// # Panics
    /// If the entries do not fit into `dim`.
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

/// Finds the `keep` directions with the largest ratio of total variance to variance within pairs, the largest
/// generalised eigenvectors of
///
/// `T w = lambda ((1 - s) S + s tr(S) / d I) w`
///
/// `total(i, j)` returns entries of `T: [d, d]`, the covariance of all latents. `within(i, j)` returns entries of `S:
/// [d, d]`, the mean over pairs of `(fa - fb)(fa - fb)' / 2`. Both are symmetric and called for `i <= j` only. `mean`
/// is `[d]`; `s` is `shrinkage`, 0 to 1.
///
/// Shrinkage prevents directions that few pairs cover from appearing slow. Time: of the order of `d^3` (about a
/// second at `d = 1280` on one core). Memory: two `[d, d]` matrices of `f64` for the duration of the call (80 MB at
/// `d = 2240`).
///
/// # Errors
/// `keep` outside `1..=d`, `shrinkage` outside 0 to 1, values that are not finite, or a shrunk `S` that is not
/// positive definite.
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
