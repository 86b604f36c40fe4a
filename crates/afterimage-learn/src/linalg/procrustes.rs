//! Orthogonal Procrustes (the orthogonal factor of a matrix), and linear systems with a symmetric matrix.
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::prelude::default;
use faer::{Mat, Par};
use ndarray::{Array2, ArrayView2};

use crate::error::{Error, Result};

/// `U V'` of the singular value decomposition `m = U S V'`: `[p, q]` to `[p, q]`, the semi-orthogonal matrix `R` with
/// the largest `tr(R' m)` (Schönemann 1966; Golub and Van Loan, "Matrix Computations", 6.4.1). If `p <= q`, `R R' =
/// I`; if `p >= q`, `R' R = I`. If `m` does not have full rank, there are several such `R`; the result is always the
/// same one. Runs on one thread.
///
/// # Errors
/// Values that are not finite, no rows or columns, an iteration that does not converge, or memory that cannot be
/// allocated.
pub fn semi_orthogonal(m: ArrayView2<f64>) -> Result<Array2<f64>> {
    let (p, q) = m.dim();
    if p == 0 || q == 0 || !m.iter().all(|x| x.is_finite()) {
        return Err(Error::runtime(format!(
            "no orthogonal factor of a matrix of {p} x {q} with numbers that are not finite, or with none at all"
        )));
    }
    let size = p.min(q);
    let a = Mat::from_fn(p, q, |i, j| m[[i, j]]);
    let (mut s, mut u, mut v) = (Diag::zeros(size), Mat::<f64>::zeros(p, size), Mat::<f64>::zeros(q, size));
    let thin = ComputeSvdVectors::Thin;
    let mut memory = memory(svd_scratch::<f64>(p, q, thin, thin, Par::Seq, default()))?;
    let stack = MemStack::new(&mut memory);
    svd(a.as_ref(), s.as_mut(), Some(u.as_mut()), Some(v.as_mut()), Par::Seq, stack, default())
        .map_err(|e| Error::runtime(format!("the singular values of a {p} x {q} matrix did not converge ({e:?})")))?;
    let view = |m: &Mat<f64>| Array2::from_shape_fn((m.nrows(), m.ncols()), |(i, j)| m[(i, j)]);
    Ok(super::product(view(&u).view(), view(&v).t()))
}

/// `a^-1 b`: `[p, p]`, `[p, q]` to `[p, q]`, by Cholesky. `a` is symmetric (its lower triangle is read). Runs on one
/// thread.
///
/// # Errors
/// Shapes that do not match, values that are not finite, or an `a` that is not positive definite.
pub fn solve_symmetric(a: ArrayView2<f64>, b: ArrayView2<f64>) -> Result<Array2<f64>> {
    let (p, q) = b.dim();
    if a.dim() != (p, p) || !a.iter().chain(&b).all(|x| x.is_finite()) {
        return Err(Error::runtime(format!("a system of {:?} and {p} x {q}, or one that is not finite", a.dim())));
    }
    let mut low = Mat::from_fn(p, p, |i, j| if i >= j { a[[i, j]] } else { 0.0 });
    let mut memory = memory(cholesky_in_place_scratch::<f64>(p, Par::Seq, default()))?;
    cholesky_in_place(low.as_mut(), default(), Par::Seq, MemStack::new(&mut memory), default())
        .map_err(|e| Error::runtime(format!("the matrix of {p} x {p} is not positive definite")).with_source(e))?;
    let mut x = Mat::from_fn(p, q, |i, j| b[[i, j]]);
    solve_lower_triangular_in_place(low.as_ref(), x.as_mut(), Par::Seq);
    solve_upper_triangular_in_place(low.as_ref().transpose(), x.as_mut(), Par::Seq);
    Ok(Array2::from_shape_fn((p, q), |(i, j)| x[(i, j)]))
}

fn memory(need: StackReq) -> Result<MemBuffer> {
    MemBuffer::try_new(need)
        .map_err(|_| Error::runtime(format!("no memory for a decomposition ({} bytes asked)", need.size_bytes())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::s;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::linalg::product;
    use crate::linalg::random::uniform;

    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_fn((rows, columns), |_| uniform(&mut rng) - 0.5)
    }

    /// How far `a` is from the identity.
    fn off(a: &Array2<f64>) -> f64 {
        a.indexed_iter().map(|((i, j), x)| (x - f64::from(u8::from(i == j))).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn a_known_rotation_comes_back() {
        let rotation = semi_orthogonal(random(40, 40, 1).view()).unwrap();
        assert!(off(&product(rotation.t(), rotation.view())) < 1e-12);
        let x = random(100, 40, 2);
        let y = product(x.view(), rotation.view());
        let found = semi_orthogonal(product(x.t(), y.view()).view()).unwrap();
        assert!((&found - &rotation).iter().all(|d| d.abs() < 1e-10));
        // Two by two by hand: the orthogonal factor of R diag(3, 1) is R.
        let (sin, cos) = 0.3f64.sin_cos();
        let turn = ndarray::array![[cos, -sin], [sin, cos]];
        let m = product(turn.view(), ndarray::array![[3.0, 0.5], [0.5, 1.0]].view());
        assert!((semi_orthogonal(m.view()).unwrap() - turn).iter().all(|d| d.abs() < 1e-12));
    }

    #[test]
    fn rectangular_and_rank_deficient_ones_stay_orthogonal() {
        for (p, q, rank) in [(7, 30, 7), (30, 7, 7), (24, 24, 5), (1, 9, 1), (9, 1, 1), (64, 48, 3), (33, 33, 0)] {
            let m = product(random(p, rank, 3).view(), random(rank, q, 4).view());
            let r = semi_orthogonal(m.view()).unwrap();
            let square = if p <= q { product(r.view(), r.t()) } else { product(r.t(), r.view()) };
            assert!(off(&square) < 1e-10, "{p} x {q} of rank {rank}: {}", off(&square));
            assert_eq!(r, semi_orthogonal(m.view()).unwrap(), "the same each time");
            // No other semi-orthogonal matrix has a larger trace, which is the sum of the singular values.
            let trace = (&r * &m).sum();
            for seed in 5..15 {
                let other = semi_orthogonal(random(p, q, seed).view()).unwrap();
                assert!((&other * &m).sum() <= trace + 1e-9);
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let mut m = random(4, 4, 6);
        m[[2, 1]] = f64::NAN;
        assert!(semi_orthogonal(m.view()).unwrap_err().to_string().contains("not finite"));
        assert!(semi_orthogonal(m.slice(s![..0, ..])).is_err());
        assert!(solve_symmetric(m.view(), random(4, 2, 7).view()).unwrap_err().to_string().contains("not finite"));
        let indefinite = Array2::from_diag(&ndarray::array![1.0, -1.0]);
        assert!(solve_symmetric(indefinite.view(), random(2, 2, 8).view()).is_err());
    }

    #[test]
    fn a_system_is_solved() {
        let x = random(50, 20, 9);
        let a = product(x.t(), x.view()) + Array2::<f64>::eye(20) * 0.1;
        let b = random(20, 3, 10);
        let solved = solve_symmetric(a.view(), b.view()).unwrap();
        assert!((product(a.view(), solved.view()) - b).iter().all(|d| d.abs() < 1e-10));
    }
}
