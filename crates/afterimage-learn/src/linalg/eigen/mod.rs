//! The symmetric generalised eigenproblem.
mod inverse_iteration;

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::evd::tridiag::{tridiag_in_place, tridiag_in_place_scratch};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd_scratch, tridiagonal_self_adjoint_evd};
use faer::linalg::householder::{
    apply_block_householder_sequence_on_the_left_in_place_scratch,
    apply_block_householder_sequence_on_the_left_in_place_with_conj,
};
use faer::linalg::qr::no_pivoting::factor::recommended_block_size;
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::prelude::default;
use faer::{Conj, Mat, Par};
use ndarray::{Array1, Array2, ArrayView2};

use crate::error::{Error, Result};

/// The `keep` largest `lambda` of `total w = lambda within w`, largest first, and their `w` as columns of `W: [d,
/// keep]` with `W' within W = I`. `total` and `within` are `[d, d]` and symmetric (only their upper triangles are
/// read), and `within` is positive definite. The entry of largest magnitude in each column is positive, so that the
/// signs are unique.
///
/// # Errors
/// Shapes that do not match, `keep` outside `1..=d`, values that are not finite, or a `within` that is not positive
/// definite.
pub fn generalised_eigen(
    total: ArrayView2<f64>,
    within: ArrayView2<f64>,
    keep: usize,
) -> Result<(Array1<f64>, Array2<f64>)> {
    let dim = total.nrows();
    if total.dim() != (dim, dim) || within.dim() != (dim, dim) {
        return Err(Error::runtime(format!(
            "generalised eigenvectors need two square matrices of one size, found {:?} and {:?}",
            total.dim(),
            within.dim()
        )));
    }
    generalised_eigen_of(dim, |i, j| total[[i, j]], |i, j| within[[i, j]], keep)
}

/// [`generalised_eigen`] for two matrices given as functions of their entries `(i, j)`, `i <= j`, so that callers
/// need no copies.
///
/// Uses Cholesky `within = L L'`, then the eigenvectors `V` of `L^-1 total L^-T` by tridiagonal form and inverse
/// iteration, then `W = L^-T V` (Golub and Van Loan, "Matrix Computations", 8.7.2). Memory: two `[d, d]` matrices of
/// `f64`, and `[d, keep]` twice; five `[d, d]` matrices if more than half of the directions are kept (divide and
/// conquer). Runs on one thread.
///
/// # Errors
/// See [`generalised_eigen`].
pub fn generalised_eigen_of(
    dim: usize,
    total: impl Fn(usize, usize) -> f64,
    within: impl Fn(usize, usize) -> f64,
    keep: usize,
) -> Result<(Array1<f64>, Array2<f64>)> {
    if keep == 0 || keep > dim {
        return Err(Error::runtime(format!("{keep} directions asked of {dim} dimensions; ask for 1 to {dim}")));
    }
    let low = cholesky(dim, within)?;
    let mut m = Mat::<f64>::zeros(dim, dim);
    let mut finite = true;
    for j in 0..dim {
        for i in 0..=j {
            let x = total(i, j);
            finite &= x.is_finite();
            m[(i, j)] = x;
            m[(j, i)] = x;
        }
    }
    if !finite {
        return Err(Error::runtime(
            "the total scatter holds numbers that are not finite; the statistics must start anew",
        ));
    }
    // L^-1 total, then L^-1 (L^-1 total)', in place.
    solve_lower_triangular_in_place(low.as_ref(), m.as_mut(), Par::Seq);
    solve_lower_triangular_in_place(low.as_ref(), m.as_mut().transpose_mut(), Par::Seq);
    let (values, mut vectors) = symmetric_eigen(m, keep)?;
    solve_upper_triangular_in_place(low.as_ref().transpose(), vectors.as_mut(), Par::Seq);
    let mut directions = Array2::zeros((dim, keep));
    for k in 0..keep {
        let column = vectors.col(k);
        let largest = (0..dim).fold(0.0f64, |best, i| if column[i].abs() > best.abs() { column[i] } else { best });
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        for i in 0..dim {
            directions[[i, k]] = sign * column[i];
        }
    }
    if !directions.iter().chain(&values).all(|x| x.is_finite()) {
        return Err(Error::runtime(
            "the generalised eigenvectors are not finite: the scatter matrices are too ill-conditioned",
        ));
    }
    Ok((values, directions))
}

/// `L` of `L L' = a` in the lower triangle; the entries above it are meaningless.
fn cholesky(dim: usize, a: impl Fn(usize, usize) -> f64) -> Result<Mat<f64>> {
    let mut low = Mat::<f64>::zeros(dim, dim);
    let mut finite = true;
    for j in 0..dim {
        for i in j..dim {
            let x = a(j, i);
            finite &= x.is_finite();
            low[(i, j)] = x;
        }
    }
    if !finite {
        return Err(Error::runtime(
            "the within-pair scatter holds numbers that are not finite; the statistics must start anew",
        ));
    }
    let mut memory = memory(cholesky_in_place_scratch::<f64>(dim, Par::Seq, default()))?;
    cholesky_in_place(low.as_mut(), default(), Par::Seq, MemStack::new(&mut memory), default()).map_err(|e| {
        Error::runtime(format!(
            "the within-pair scatter ({dim} x {dim}) is not positive definite: raise head.shrinkage, or wait for more pairs"
        ))
        .with_source(e)
    })?;
    Ok(low)
}

/// All eigenvalues of a symmetric matrix given as a function of its entries `(i, j)`, `i >= j`, smallest first. Runs
/// on one thread.
///
/// # Errors
/// The iteration does not converge, for example because of values that are not finite, or memory cannot be allocated.
pub fn eigenvalues_of(dim: usize, entry: impl Fn(usize, usize) -> f64) -> Result<Vec<f64>> {
    if dim <= 1 {
        return Ok((0..dim).map(|i| entry(i, i)).collect());
    }
    let mut a = Mat::from_fn(dim, dim, |i, j| if i >= j { entry(i, j) } else { 0.0 });
    let Tridiagonal { diagonal, below, .. } = tridiagonal(&mut a)?;
    let values = tridiagonal_values(&diagonal, &below)?;
    Ok((0..dim).map(|k| values[k]).collect())
}

/// `T` of `a = Q T Q'`, and the block factors of `Q`.
struct Tridiagonal {
    diagonal: Diag<f64>,
    below: Diag<f64>,
    factors: Mat<f64>,
    block: usize,
}

/// Reduces the symmetric `a` (lower triangle) to `a = Q T Q'` with tridiagonal `T`; `Q` is stored in the lower
/// triangle as Householder reflections.
fn tridiagonal(a: &mut Mat<f64>) -> Result<Tridiagonal> {
    let dim = a.nrows();
    let block = recommended_block_size::<f64>(dim, dim);
    let mut factors = Mat::<f64>::zeros(block, dim - 1);
    let mut memory = memory(tridiag_in_place_scratch::<f64>(dim, Par::Seq, default()))?;
    tridiag_in_place(a.as_mut(), factors.as_mut(), Par::Seq, MemStack::new(&mut memory), default());
    let (mut diagonal, mut below) = (Diag::zeros(dim), Diag::zeros(dim));
    for i in 0..dim {
        diagonal[i] = a[(i, i)];
        if i + 1 < dim {
            below[i] = a[(i + 1, i)];
        }
    }
    Ok(Tridiagonal { diagonal, below, factors, block })
}

/// The `keep` largest eigenvalues of the symmetric `a` (lower triangle), largest first, and their eigenvectors.
fn symmetric_eigen(mut a: Mat<f64>, keep: usize) -> Result<(Array1<f64>, Mat<f64>)> {
    let dim = a.nrows();
    let Tridiagonal { diagonal, below, factors, block } = tridiagonal(&mut a)?;
    let values = tridiagonal_values(&diagonal, &below)?;
    let values: Vec<f64> = (0..keep).map(|k| values[dim - 1 - k]).collect();
    let slice = |x: &Diag<f64>, n| (0..n).map(|i| x[i]).collect::<Vec<_>>();
    let (on, off) = (slice(&diagonal, dim), slice(&below, dim.saturating_sub(1)));
    let tridiagonal = inverse_iteration::Matrix { diagonal: &on, below: &off };
    // Inverse iteration for a few eigenvectors; divide and conquer for most of them, or if inverse iteration fails.
    let some = if 2 * keep <= dim { tridiagonal.vectors(&values) } else { None };
    let mut vectors = match some {
        Some(found) => Mat::from_fn(dim, keep, |i, k| found[k][i]),
        None => all_vectors(&diagonal, &below, keep)?,
    };
    // Multiplies Q by the eigenvectors that are kept.
    let mut memory =
        memory(apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(dim - 1, block, keep))?;
    apply_block_householder_sequence_on_the_left_in_place_with_conj(
        a.as_ref().submatrix(1, 0, dim - 1, dim - 1),
        factors.as_ref(),
        Conj::No,
        vectors.as_mut().subrows_mut(1, dim - 1),
        Par::Seq,
        MemStack::new(&mut memory),
    );
    Ok((values.into(), vectors))
}

/// All eigenvalues of a tridiagonal matrix, smallest first.
fn tridiagonal_values(diagonal: &Diag<f64>, below: &Diag<f64>) -> Result<Diag<f64>> {
    let dim = diagonal.dim();
    let mut values = Diag::zeros(dim);
    let mut memory = memory(self_adjoint_evd_scratch::<f64>(dim, ComputeEigenvectors::No, Par::Seq, default()))?;
    let stack = MemStack::new(&mut memory);
    tridiagonal_self_adjoint_evd(diagonal.as_ref(), below.as_ref(), values.as_mut(), None, Par::Seq, stack, default())
        .map_err(|e| Error::runtime(format!("the eigenvalues of a {dim} x {dim} matrix did not converge ({e:?})")))?;
    Ok(values)
}

/// The `keep` eigenvectors of the largest eigenvalues of a tridiagonal matrix, largest first, by divide and conquer.
fn all_vectors(diagonal: &Diag<f64>, below: &Diag<f64>, keep: usize) -> Result<Mat<f64>> {
    let dim = diagonal.dim();
    let (mut values, mut all) = (Diag::zeros(dim), Mat::<f64>::zeros(dim, dim));
    // More than necessary (it counts a copy of the matrix too), but untouched pages cost nothing.
    let mut memory = memory(self_adjoint_evd_scratch::<f64>(dim, ComputeEigenvectors::Yes, Par::Seq, default()))?;
    tridiagonal_self_adjoint_evd(
        diagonal.as_ref(),
        below.as_ref(),
        values.as_mut(),
        Some(all.as_mut()),
        Par::Seq,
        MemStack::new(&mut memory),
        default(),
    )
    .map_err(|e| Error::runtime(format!("the eigenvectors of a {dim} x {dim} matrix did not converge ({e:?})")))?;
    Ok(Mat::from_fn(dim, keep, |i, k| all[(i, dim - 1 - k)]))
}

/// Working memory of one step.
fn memory(need: StackReq) -> Result<MemBuffer> {
    MemBuffer::try_new(need).map_err(|_| {
        Error::runtime(format!("no memory for an eigen-decomposition ({} bytes asked)", need.size_bytes()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::linalg::product;
    use crate::linalg::random::uniform;

    /// `x' x / n` for `n` random rows, plus `ridge` on the diagonal.
    fn scatter(dim: usize, rows: usize, ridge: f64, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let x = Array2::from_shape_fn((rows, dim), |_| uniform(&mut rng) - 0.5);
        product(x.t(), x.view()) / rows as f64 + Array2::<f64>::eye(dim) * ridge
    }

    #[test]
    fn solves_the_problem_in_every_size() {
        // From 128 on the decomposition uses divide and conquer.
        for (dim, keep) in [(1, 1), (2, 2), (3, 1), (12, 5), (60, 60), (127, 9), (128, 17), (300, 40)] {
            let (total, within) = (scatter(dim, 2 * dim, 0.0, 1), scatter(dim, 3 * dim, 0.01, 2));
            let (values, w) = generalised_eigen(total.view(), within.view(), keep).unwrap();
            assert!(values.as_slice().unwrap().is_sorted_by(|a, b| a >= b));
            let left = product(total.view(), w.view());
            let right = product(within.view(), w.view()) * &values;
            assert!((&left - &right).iter().all(|x| x.abs() < 1e-9), "{dim}");
            let unit = product(w.t(), product(within.view(), w.view()).view());
            assert!((unit - Array2::<f64>::eye(keep)).iter().all(|x| x.abs() < 1e-9), "{dim}");
            // With all of them found, their sum is the trace of within^-1 total.
            if keep == dim {
                let again = generalised_eigen(within.view(), within.view(), keep).unwrap().0;
                assert!(again.iter().all(|x| (x - 1.0).abs() < 1e-9));
            }
            for column in w.columns() {
                let largest = column.iter().fold(0.0f64, |a, &b| if b.abs() > a.abs() { b } else { a });
                assert!(largest > 0.0);
            }
        }
    }

    #[test]
    fn eigenvalues_alone_are_those_of_the_full_problem() {
        for dim in [1, 2, 9, 40] {
            let a = scatter(dim, 2 * dim + 3, 0.1, dim as u64);
            let (values, _) = generalised_eigen(a.view(), Array2::eye(dim).view(), dim).unwrap();
            let alone = eigenvalues_of(dim, |i, j| a[[i, j]]).unwrap();
            let largest = values[0];
            for (one, other) in alone.iter().rev().zip(&values) {
                assert!((one - other).abs() <= 1e-12 * largest, "{one} {other}");
            }
        }
        assert_eq!(eigenvalues_of(0, |_, _| 0.0).unwrap(), Vec::<f64>::new());
    }

    #[test]
    fn the_largest_come_first_and_none_is_missed() {
        // A known answer: diagonal matrices in mixed order.
        let diagonal = [3.0, 9.0, 1.0, 7.0, 5.0];
        let total = Array2::from_diag(&Array1::from(diagonal.to_vec()));
        let within = Array2::from_diag(&Array1::from(vec![1.0, 1.0, 1.0, 0.25, 1.0]));
        let (values, w) = generalised_eigen(total.view(), within.view(), 3).unwrap();
        let right = [28.0, 9.0, 5.0];
        assert!(values.iter().zip(right).all(|(a, b)| (a - b).abs() < 1e-12), "{values}");
        assert!((w[[3, 0]] - 2.0).abs() < 1e-12 && (w[[1, 1]] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn same_bits_every_time() {
        let (total, within) = (scatter(150, 200, 0.0, 3), scatter(150, 400, 0.01, 4));
        let first = generalised_eigen(total.view(), within.view(), 20).unwrap();
        // Allocations in between move the working memory.
        let _ballast = vec![0u8; 12_345];
        let second = generalised_eigen(total.clone().view(), within.view(), 20).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn what_cannot_be_solved_is_said() {
        let (good, dim) = (scatter(6, 20, 0.1, 5), 6);
        let message = |total: &Array2<f64>, within: &Array2<f64>, keep| {
            generalised_eigen(total.view(), within.view(), keep).unwrap_err().to_string()
        };
        assert!(message(&good, &good, 0).contains("ask for 1 to 6"));
        assert!(message(&good, &good, dim + 1).contains("7 directions"));
        assert!(message(&good, &Array2::zeros((6, 6)), 2).contains("head.shrinkage"));
        assert!(message(&good, &Array2::zeros((5, 6)), 2).contains("square"));
        let mut broken = good.clone();
        broken[[1, 2]] = f64::NAN;
        assert!(message(&broken, &good, 2).contains("total scatter"));
        assert!(message(&good, &broken, 2).contains("within-pair scatter"));
    }
}
