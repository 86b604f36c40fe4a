//! Label-free health metrics of embeddings: a broken head falls below their thresholds. None of them may choose
//! between heads (rank, uniformity and alignment can rise for harmful ones as well); that is the task of the
//! promotion gate.
//!
//! Everything is computed in `f64` on one thread. For `[n, d]` the cost in multiplications is `n d min(n, d)` for the
//! rank and `n^2 d` each for uniformity and retrieval, so pass at most 2048 rows. 2048 rows of 256 cost about 2
//! billion in all, 2048 rows of 2048 about 30 billion.
mod separability;

use ndarray::{Array2, ArrayView1, ArrayView2, s};
use serde::Serialize;

pub use separability::{auroc, drift, lidar, participation};

use crate::linalg::{Scalar, eigenvalues_of, product, slices, unit_rows};

/// Added by RankMe to every share.
const RANK_EPS: f64 = 1e-7;
/// Rows of the cosine matrix that are in memory at a time.
const CHUNK: usize = 64;

/// All metrics of an embedding, for rows in stream order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmbeddingHealth {
    /// Number of rows measured.
    pub frames: usize,
    /// Length of each row.
    pub dim: usize,
    /// [`all_finite`]. If it is false, all other metrics are NaN.
    pub finite: bool,
    /// [`spread`] times the square root of `dim`: about 1 when all directions are used equally, 0 when all rows are
    /// equal.
    pub spread: f64,
    /// [`rank_me`] of the unit rows: from 1 to `dim`.
    pub rank: f64,
    /// [`uniformity`]: 0 when all rows are equal; more negative means more uniform.
    pub uniformity: f64,
    /// [`alignment`] of neighbouring rows of a block: 0 when they are equal.
    pub alignment: f64,
    /// [`retrieval_at_1`]: 0 to 1.
    pub retrieval: f64,
    /// [`auroc`] of pairs within a block against pairs across blocks: 0 to 1. NaN in [`EmbeddingHealth::floors`].
    pub auroc: f64,
    /// [`participation`] ratio: from 1 to `dim`. NaN in [`EmbeddingHealth::floors`].
    pub participation: f64,
    /// [`lidar`] with blocks as classes: 1 to the number of blocks minus one. NaN in [`EmbeddingHealth::floors`].
    pub lidar: f64,
}

impl EmbeddingHealth {
    /// Measures `z: [n, d]`; `block` holds the block of every row.
    pub fn of<T: Scalar>(z: ArrayView2<T>, block: &[u64]) -> Self {
        Self::measured(z, block, true)
    }

    /// Measures only the metrics that reveal a collapse, cheap enough to run often.
    pub fn floors<T: Scalar>(z: ArrayView2<T>, block: &[u64]) -> Self {
        Self::measured(z, block, false)
    }

    fn measured<T: Scalar>(z: ArrayView2<T>, block: &[u64], all: bool) -> Self {
        let (frames, dim) = z.dim();
        let (finite, nan) = (all_finite(z), f64::NAN);
        let (spread, rank, uniformity, alignment, retrieval) = (nan, nan, nan, nan, nan);
        let (auroc, participation, lidar) = (nan, nan, nan);
        let mut health =
            Self { frames, dim, finite, spread, rank, uniformity, alignment, retrieval, auroc, participation, lidar };
        if finite {
            // One `f64` copy for all metrics: held-out rows take many megabytes.
            let unit = unit(z);
            let next: Vec<usize> = (1..frames.min(block.len())).filter(|&i| block[i] == block[i - 1]).collect();
            health.spread = spread_of(&unit) * (dim as f64).sqrt();
            health.rank = rank_of(&unit);
            health.uniformity = uniformity_of(&unit);
            health.alignment = mean(next.iter().map(|&i| squared_distance(unit.row(i - 1), unit.row(i))));
            health.retrieval = retrieval_of(&unit, block);
            if all {
                health.auroc = separability::auroc_of(&unit, block);
                health.participation = separability::participation_of(&unit);
                health.lidar = separability::lidar_of(&unit, block);
            }
        }
        health
    }
}

impl EmbeddingHealth {
    /// A one-line summary.
    pub fn figures(&self) -> String {
        if !self.finite {
            return format!("{} frames: not finite", self.frames);
        }
        format!(
            "rank {:.0} of {}, spread {:.2}, uniformity {:.2}, alignment {:.3}, TR@1 {:.3}",
            self.rank, self.dim, self.spread, self.uniformity, self.alignment, self.retrieval
        )
    }
}

/// True if `z` contains no NaN and no infinity.
pub fn all_finite<T: Scalar>(z: ArrayView2<T>) -> bool {
    z.iter().all(|x| x.is_finite())
}

/// Mean over the columns of the (unbiased) standard deviation of the unit rows of `z: [n, d]`; about `1 / sqrt(d)`
/// when healthy, 0 when collapsed (SimSiam, Chen & He 2021, section 4.1). NaN for fewer than two rows.
pub fn spread<T: Scalar>(z: ArrayView2<T>) -> f64 {
    spread_of(&unit(z))
}

fn spread_of(z: &Array2<f64>) -> f64 {
    let (n, d) = z.dim();
    let mut sum = 0.0;
    for column in z.columns() {
        let mean = column.sum() / n as f64;
        sum += (column.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n as f64 - 1.0)).sqrt();
    }
    if n < 2 { f64::NAN } else { sum / d as f64 }
}

/// RankMe, a smooth rank of `z: [n, d]` as it is (neither centred nor scaled): `exp(-sum p ln p)` with `p_k = s_k /
/// sum s + 1e-7` over the singular values `s` (Garrido et al. 2023, equation 1). 0 for an all-zero matrix; NaN if not
/// finite.
pub fn rank_me<T: Scalar>(z: ArrayView2<T>) -> f64 {
    rank_of(&z.as_standard_layout().map(|x| x.as_f64()))
}

fn rank_of(z: &Array2<f64>) -> f64 {
    let Some(values) = singular_values(z) else { return f64::NAN };
    let sum: f64 = values.iter().sum();
    if sum == 0.0 {
        return 0.0;
    }
    let entropy = |s: &f64| {
        let p = s / sum + RANK_EPS;
        -p * p.ln()
    };
    values.iter().map(entropy).sum::<f64>().exp()
}

/// `ln mean exp(-2 |z_i - z_j|^2)` over the pairs `i < j` of unit rows of `z: [n, d]` (Wang & Isola 2020, `t = 2`). NaN
/// for fewer than two rows.
pub fn uniformity<T: Scalar>(z: ArrayView2<T>) -> f64 {
    uniformity_of(&unit(z))
}

fn uniformity_of(z: &Array2<f64>) -> f64 {
    let (mut sum, n) = (0.0, z.nrows());
    each_row_of_cosines(z, |i, cosines| {
        // |z_i - z_j|^2 = 2 - 2 z_i . z_j
        sum += cosines[i + 1..].iter().map(|c| (-4.0 * (1.0 - c)).exp()).sum::<f64>();
    });
    (2.0 * sum / (n as f64 * (n as f64 - 1.0))).ln()
}

/// Mean of `|a_i - b_i|^2` over the unit rows of `a, b: [n, d]` (Wang & Isola 2020, `alpha = 2`). NaN if there are no
/// rows or the shapes differ.
pub fn alignment<T: Scalar>(a: ArrayView2<T>, b: ArrayView2<T>) -> f64 {
    if a.dim() != b.dim() {
        return f64::NAN;
    }
    let (a, b) = (unit(a), unit(b));
    mean(a.rows().into_iter().zip(b.rows()).map(|(a, b)| squared_distance(a, b)))
}

fn squared_distance(a: ArrayView1<f64>, b: ArrayView1<f64>) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// NaN for an empty slice.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// Share of the rows of `z: [n, d]` whose nearest other row (by cosine) is in the same block; ties with a row of
/// another block count as misses. Rows alone in their block are skipped; NaN if none is left or `block` is too short.
pub fn retrieval_at_1<T: Scalar>(z: ArrayView2<T>, block: &[u64]) -> f64 {
    retrieval_of(&unit(z), block)
}

fn retrieval_of(z: &Array2<f64>, block: &[u64]) -> f64 {
    if block.len() < z.nrows() {
        return f64::NAN;
    }
    let (mut hits, mut asked) = (0u64, 0u64);
    each_row_of_cosines(z, |i, cosines| {
        let (mut own, mut other) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for (j, &cosine) in cosines.iter().enumerate() {
            if j != i {
                let best = if block[j] == block[i] { &mut own } else { &mut other };
                *best = best.max(cosine);
            }
        }
        if own > f64::NEG_INFINITY {
            asked += 1;
            hits += u64::from(own > other);
        }
    });
    if asked == 0 { f64::NAN } else { hits as f64 / asked as f64 }
}

/// Calls `with(i, cosines of row i with every row)` for unit rows.
fn each_row_of_cosines(z: &Array2<f64>, mut with: impl FnMut(usize, &[f64])) {
    let n = z.nrows();
    for begin in (0..n).step_by(CHUNK) {
        let cosines = product(z.slice(s![begin..n.min(begin + CHUNK), ..]), z.t());
        for (k, row) in slices(&cosines).enumerate() {
            with(begin + k, row);
        }
    }
}

/// The rows as `f64`, normalised to unit length.
fn unit<T: Scalar>(z: ArrayView2<T>) -> Array2<f64> {
    unit_rows(&z.map(|x| x.as_f64())).0
}

/// Square roots of the eigenvalues of the smaller of `z' z` and `z z'`; `None` if they are not finite or do not
/// converge.
fn singular_values(z: &Array2<f64>) -> Option<Vec<f64>> {
    if !all_finite(z.view()) {
        return None;
    }
    let (n, d) = z.dim();
    let gram = if n < d { product(z.view(), z.t()) } else { product(z.t(), z.view()) };
    let squares = eigenvalues_of(n.min(d), |i, j| gram[[i, j]]).ok()?;
    Some(squares.iter().map(|square| square.max(0.0).sqrt()).collect())
}

#[cfg(test)]
mod tests;
