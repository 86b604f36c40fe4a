//! Measures how well rows of one block are separated from those of others, and how much two embeddings of the same
//! frames differ.
use ndarray::{Array2, ArrayView2, Axis};

use super::{each_row_of_cosines, unit};
use crate::linalg::{Scalar, generalised_eigen_of, product};

/// Added to the diagonal of the within-class scatter of [`lidar`].
const LIDAR_DELTA: f64 = 1e-4;
/// Added to every share of the spectrum of [`lidar`].
const LIDAR_EPS: f64 = 1e-8;

/// Probability that a row is nearer (by cosine) to a row of its own block than to one of another: the area under the
/// ROC curve of "same block" by cosine. For every ordered pair `(i, p)` within a block, takes the share of rows `j`
/// of other blocks with `z_i . z_j < z_i . z_p`, and averages over the pairs; ties count against. NaN if there is no
/// such pair, no other block, or `block` is too short.
pub fn auroc<T: Scalar>(z: ArrayView2<T>, block: &[u64]) -> f64 {
    auroc_of(&unit(z), block)
}

pub(super) fn auroc_of(z: &Array2<f64>, block: &[u64]) -> f64 {
    if block.len() < z.nrows() {
        return f64::NAN;
    }
    let (mut sum, mut pairs) = (0.0, 0u64);
    each_row_of_cosines(z, |i, cosines| {
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for (j, &cosine) in cosines.iter().enumerate().filter(|(j, _)| *j != i) {
            if block[j] == block[i] { &mut own } else { &mut others }.push(cosine);
        }
        if others.is_empty() {
            return;
        }
        others.sort_unstable_by(f64::total_cmp);
        for cosine in own {
            sum += others.partition_point(|other| *other < cosine) as f64 / others.len() as f64;
            pairs += 1;
        }
    });
    if pairs == 0 { f64::NAN } else { sum / pairs as f64 }
}

/// `tr(C)^2 / tr(C^2)` with `C` the covariance of the rows of `z: [n, d]` as they are: the number of directions that
/// would carry the same variance if all carried equal amounts, from 1 to `d`. It needs no eigenvalues. 0 when all
/// rows are equal.
pub fn participation<T: Scalar>(z: ArrayView2<T>) -> f64 {
    participation_of(&z.as_standard_layout().map(|x| x.as_f64()))
}

pub(super) fn participation_of(z: &Array2<f64>) -> f64 {
    let Some(mean) = z.mean_axis(Axis(0)) else { return f64::NAN };
    let centred = z - &mean;
    // tr(C^2) is the same for both products, so use the smaller one.
    let (n, d) = centred.dim();
    let gram = if n < d { product(centred.view(), centred.t()) } else { product(centred.t(), centred.view()) };
    let (trace, squares) = (gram.diag().sum(), gram.iter().map(|x| x * x).sum::<f64>());
    if squares == 0.0 { 0.0 } else { trace * trace / squares }
}

/// LiDAR, the effective rank of the directions that distinguish blocks (Thilak et al. 2023, equations 1 to 3), on
/// unit rows. `B` is the covariance of the block means and `W` that of the rows around them (over all rows, minus one
/// per block). With `p` the eigenvalues of `(W + 1e-4 I)^-1/2 B (W + 1e-4 I)^-1/2` as shares plus 1e-8, it is
/// `exp(-sum p ln p)`. NaN for fewer than two blocks, or if no block has two rows.
pub fn lidar<T: Scalar>(z: ArrayView2<T>, block: &[u64]) -> f64 {
    lidar_of(&unit(z), block)
}

pub(super) fn lidar_of(z: &Array2<f64>, block: &[u64]) -> f64 {
    spectrum(z, block).map_or(f64::NAN, |values| {
        let sum: f64 = values.iter().sum();
        let entropy = |value: &f64| {
            let p = value / sum + LIDAR_EPS;
            -p * p.ln()
        };
        values.iter().map(entropy).sum::<f64>().exp()
    })
}

/// The eigenvalues of [`lidar`], clamped to at least 0.
fn spectrum(z: &Array2<f64>, block: &[u64]) -> Option<Vec<f64>> {
    let mut classes: Vec<u64> = block.to_vec();
    classes.sort_unstable();
    classes.dedup();
    let (n, count) = (z.nrows(), classes.len());
    if block.len() != n || count < 2 || n <= count {
        return None;
    }
    // If there are more columns than rows, use coordinates in the span of the rows: there is no variance outside it.
    let z = if n < z.ncols() { coordinates(z)? } else { z.clone() };
    let d = z.ncols();
    let of: Vec<usize> = block.iter().filter_map(|b| classes.binary_search(b).ok()).collect();
    let (mut means, mut sizes) = (Array2::<f64>::zeros((count, d)), vec![0.0; count]);
    for (row, &class) in z.rows().into_iter().zip(&of) {
        means.row_mut(class).scaled_add(1.0, &row);
        sizes[class] += 1.0;
    }
    means.rows_mut().into_iter().zip(&sizes).for_each(|(mut mean, size)| mean /= *size);
    let mut around = z;
    around.rows_mut().into_iter().zip(&of).for_each(|(mut row, &class)| row -= &means.row(class));
    let within = product(around.t(), around.view()) / (n - count) as f64;
    let centred = &means - &means.mean_axis(Axis(0))?;
    let between = product(centred.t(), centred.view()) / (count - 1) as f64;
    let shrunk = |i, j| within[[i, j]] + if i == j { LIDAR_DELTA } else { 0.0 };
    let (values, _) = generalised_eigen_of(d, |i, j| between[[i, j]], shrunk, d).ok()?;
    Some(values.iter().map(|value| value.max(0.0)).collect())
}

/// `[n, n]` matrix of the inner products of the rows of `z: [n, d]`.
fn coordinates(z: &Array2<f64>) -> Option<Array2<f64>> {
    let gram = product(z.view(), z.t());
    let n = gram.nrows();
    let (values, vectors) = generalised_eigen_of(n, |i, j| gram[[i, j]], |i, j| f64::from(u8::from(i == j)), n).ok()?;
    Some(vectors * &values.mapv(|value| value.max(0.0).sqrt()))
}

/// How much the neighbourhoods in two embeddings `a: [n, d]` and `b: [n, k]` of the same frames differ: 1 minus the
/// correlation (Pearson) of the cosines `a_i . a_j` and `b_i . b_j` over the pairs `i < j`. Rotated or rescaled
/// embeddings have drift 0, unrelated ones 1. NaN for fewer than three rows, different numbers of rows, or cosines
/// that are all equal.
pub fn drift<T: Scalar>(a: ArrayView2<T>, b: ArrayView2<T>) -> f64 {
    if a.nrows() != b.nrows() || a.nrows() < 3 {
        return f64::NAN;
    }
    let cosines = |z: ArrayView2<T>| {
        let mut all = Vec::with_capacity(z.nrows() * (z.nrows() - 1) / 2);
        each_row_of_cosines(&unit(z), |i, cosines| all.extend_from_slice(&cosines[i + 1..]));
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        all.iter_mut().for_each(|x| *x -= mean);
        all
    };
    let (a, b) = (cosines(a), cosines(b));
    let along = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    1.0 - along(&a, &b) / (along(&a, &a) * along(&b, &b)).sqrt()
}
