//! Computes some eigenvectors of a symmetric tridiagonal matrix by inverse iteration.
//!
//! Divide and conquer computes all `n` of them and needs `3 n^2` numbers for it, but a head keeps only a tenth.
//! Inverse iteration computes the requested ones one by one, in `O(n)` each, from eigenvalues that are known to the
//! last bits (Golub and Van Loan, "Matrix Computations", 8.4.2; LAPACK's `dstein`).
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::linalg::inner;
use crate::linalg::random::uniform;

/// Maximum number of steps for one vector; two are nearly always enough.
const STEPS: usize = 6;
/// A residual `|T v - lambda v|` below this fraction of `|T|` ends the steps ...
const GOOD: f64 = 1e-14;
/// ... and one above this fraction means failure.
const BAD: f64 = 1e-11;
/// Eigenvalues closer than this fraction of `|T|` form a cluster, whose vectors are orthogonalised at every step (as
/// in `dstein`).
const CLUSTER: f64 = 1e-3;

/// `T`: its `diagonal`, `[n]`, and the entries `below` it, `[n - 1]`.
pub(super) struct Matrix<'a> {
    pub(super) diagonal: &'a [f64],
    pub(super) below: &'a [f64],
}

impl Matrix<'_> {
    /// Orthonormal eigenvectors for `values`, largest first; `None` if one does not converge.
    pub(super) fn vectors(&self, values: &[f64]) -> Option<Vec<Vec<f64>>> {
        let size = self.size();
        // A fixed seed: the same matrix gives the same bits.
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut found: Vec<Vec<f64>> = Vec::with_capacity(values.len());
        let mut factors = Factors::default();
        for (k, value) in values.iter().enumerate() {
            let near = values[..k].iter().rev().take_while(|other| (*other - value).abs() <= CLUSTER * size).count();
            factors.of(self, *value, size);
            let mut x: Vec<f64> = (0..self.diagonal.len()).map(|_| uniform(&mut rng) - 0.5).collect();
            for step in 0..STEPS {
                factors.solve(&mut x);
                scale(&mut x)?;
                remove(&mut x, &found[k - near..]);
                scale(&mut x)?;
                if step > 0 && self.residual(&x, *value) <= GOOD * size {
                    break;
                }
            }
            remove(&mut x, &found);
            scale(&mut x)?;
            let left = self.residual(&x, *value);
            if left.is_nan() || left > BAD * size {
                return None;
            }
            found.push(x);
        }
        Some(found)
    }

    /// The largest sum of magnitudes in a row; never 0.
    fn size(&self) -> f64 {
        let beside = |i: Option<usize>| i.and_then(|i| self.below.get(i)).map_or(0.0, |x| x.abs());
        let row = |(i, x): (usize, &f64)| x.abs() + beside(i.checked_sub(1)) + beside(Some(i));
        self.diagonal.iter().enumerate().map(row).fold(f64::MIN_POSITIVE, f64::max)
    }

    /// Largest magnitude in `T v - value v`.
    fn residual(&self, v: &[f64], value: f64) -> f64 {
        let n = v.len();
        let at = |i: usize| {
            let before = if i > 0 { self.below[i - 1] * v[i - 1] } else { 0.0 };
            let after = if i + 1 < n { self.below[i] * v[i + 1] } else { 0.0 };
            (before + (self.diagonal[i] - value) * v[i] + after).abs()
        };
        // A NaN must not be ignored.
        (0..n).map(at).fold(0.0, |most: f64, x| if x.is_nan() || x > most { x } else { most })
    }
}

/// Factors `T - value I = P L U` by elimination with row exchanges.
#[derive(Default)]
struct Factors {
    /// Multipliers, and whether rows `i` and `i + 1` were exchanged.
    lower: Vec<(f64, bool)>,
    /// The diagonal of `U` and the two entries to its right.
    upper: Vec<[f64; 3]>,
}

impl Factors {
    fn of(&mut self, matrix: &Matrix, value: f64, size: f64) {
        let n = matrix.diagonal.len();
        // Replaces pivots that are 0 up to rounding: the matrix is singular by design.
        let least = f64::EPSILON * size;
        let fix = |x: f64| if x.abs() < least { least } else { x };
        let beside = |i: usize| matrix.below.get(i).copied().unwrap_or(0.0);
        self.lower.clear();
        self.upper.clear();
        // The current pivot row: its entries at i, i + 1, i + 2.
        let mut row = [matrix.diagonal[0] - value, beside(0), 0.0];
        for i in 0..n - 1 {
            let next = [matrix.below[i], matrix.diagonal[i + 1] - value, beside(i + 1)];
            let exchange = next[0].abs() > row[0].abs();
            let (mut pivot, other) = if exchange { (next, row) } else { (row, next) };
            pivot[0] = fix(pivot[0]);
            let factor = other[0] / pivot[0];
            self.lower.push((factor, exchange));
            self.upper.push(pivot);
            row = [other[1] - factor * pivot[1], other[2] - factor * pivot[2], 0.0];
        }
        self.upper.push([fix(row[0]), 0.0, 0.0]);
    }

    /// Replaces `x` by `(T - value I)^-1 x`.
    fn solve(&self, x: &mut [f64]) {
        for (i, (factor, exchange)) in self.lower.iter().enumerate() {
            if *exchange {
                x.swap(i, i + 1);
            }
            x[i + 1] -= factor * x[i];
        }
        for i in (0..x.len()).rev() {
            let [pivot, one, two] = self.upper[i];
            let after = |k: usize| x.get(i + k).copied().unwrap_or(0.0);
            x[i] = (x[i] - one * after(1) - two * after(2)) / pivot;
        }
    }
}

/// Removes from `x` its components along the unit vectors `others`, one after the other.
fn remove(x: &mut [f64], others: &[Vec<f64>]) {
    for other in others {
        let along = inner(x, other);
        x.iter_mut().zip(other).for_each(|(x, other)| *x -= along * other);
    }
}

/// Normalises to unit length; `None` if there is no direction.
fn scale(x: &mut [f64]) -> Option<()> {
    // Scales by the largest entry first: after a solve the squares may overflow.
    for pass in 0..2 {
        let by = if pass == 0 { x.iter().fold(0.0, |most: f64, x| most.max(x.abs())) } else { inner(x, x).sqrt() };
        if !(by > 0.0 && by.is_finite()) {
            return None;
        }
        x.iter_mut().for_each(|x| *x /= by);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the vectors are orthonormal eigenvectors.
    fn check(matrix: &Matrix, values: &[f64], what: &str) {
        let found = matrix.vectors(values).unwrap_or_else(|| panic!("{what}: none found"));
        for (i, a) in found.iter().enumerate() {
            assert!(matrix.residual(a, values[i]) <= BAD * matrix.size(), "{what}: {i}");
            for (j, b) in found.iter().enumerate() {
                let right = if i == j { 1.0 } else { 0.0 };
                assert!((inner(a, b) - right).abs() < 1e-12, "{what}: {i} {j}");
            }
        }
    }

    #[test]
    fn known_vectors_are_found() {
        // Second differences have the eigenvalues 2 - 2 cos(k pi / (n + 1)).
        let n = 200;
        let (diagonal, below) = (vec![2.0; n], vec![-1.0; n - 1]);
        let value = |k: usize| 2.0 - 2.0 * (k as f64 * std::f64::consts::PI / (n as f64 + 1.0)).cos();
        let values: Vec<f64> = (0..60).map(|k| value(n - k)).collect();
        let matrix = Matrix { diagonal: &diagonal, below: &below };
        check(&matrix, &values, "second differences");
        let first = &matrix.vectors(&values[..1]).expect("found")[0];
        let sine = |i: usize| ((i + 1) as f64 * n as f64 * std::f64::consts::PI / (n as f64 + 1.0)).sin();
        let expected: Vec<f64> = (0..n).map(|i| sine(i) / ((n as f64 + 1.0) / 2.0).sqrt()).collect();
        assert!((inner(first, &expected).abs() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn equal_eigenvalues_get_different_vectors() {
        let diagonal = [1.0, 1.0, 1.0, 0.5, 1.0, 0.0];
        check(&Matrix { diagonal: &diagonal, below: &[0.0; 5] }, &[1.0, 1.0, 1.0, 1.0, 0.5], "equal");
        // Wilkinson's W21: pairs of eigenvalues that agree to the last bits, from nearly independent halves.
        let diagonal: Vec<f64> = (-10i32..=10).map(|i| f64::from(i.abs())).collect();
        let values = [10.746_194_182_903_4, 10.746_194_182_903_32, 9.210_678_647_361_33, 9.210_678_647_304_92];
        check(&Matrix { diagonal: &diagonal, below: &[1.0; 20] }, &values, "Wilkinson");
    }

    #[test]
    fn what_is_no_eigenvalue_or_not_finite_is_not_taken() {
        let matrix = Matrix { diagonal: &[1.0, 2.0, 3.0], below: &[0.0, 0.0] };
        assert!(matrix.vectors(&[2.5]).is_none());
        assert!(matrix.vectors(&[f64::NAN]).is_none());
    }
}
