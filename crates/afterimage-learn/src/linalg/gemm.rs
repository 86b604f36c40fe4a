//! Matrix products and vector norms.
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};

use super::Scalar;

/// Shorter rows are divided by this instead of their length, so that zero rows stay zero and give no NaN (PyTorch's
/// `F.normalize`, eps 1e-12).
pub const NORM_FLOOR: f64 = 1e-12;

/// `out = alpha a b + beta out`: `[m, k]`, `[k, n]`, `[m, n]`. Any strides are allowed, so transposing with `.t()`
/// costs nothing. With `beta = 0` the previous contents of `out` are ignored, NaN included.
///
/// # Panics
/// If the shapes do not match.
pub fn matmul<T: Scalar>(alpha: T, a: ArrayView2<T>, b: ArrayView2<T>, beta: T, mut out: ArrayViewMut2<T>) {
    let ((m, k), n) = (a.dim(), b.ncols());
    assert!(b.nrows() == k && out.dim() == (m, n), "product of {:?} and {:?} into {:?}", a.dim(), b.dim(), out.dim());
    let keep = beta != T::zero();
    if k == 0 {
        out.map_inplace(|x| *x = if keep { *x * beta } else { T::zero() });
        return;
    }
    let (out_strides, a_strides, b_strides) = (steps(out.strides()), steps(a.strides()), steps(b.strides()));
    // SAFETY: the shapes were checked above, the strides and pointers belong to live views of these shapes, and `out`
    // is borrowed mutably, so it overlaps neither `a` nor `b`.
    #[allow(unsafe_code, reason = "the gemm crate works on pointers")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            out_strides.1,
            out_strides.0,
            keep,
            a.as_ptr(),
            a_strides.1,
            a_strides.0,
            b.as_ptr(),
            b_strides.1,
            b_strides.0,
            beta,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Strides along rows and columns.
fn steps(strides: &[isize]) -> (isize, isize) {
    (strides[0], strides[1])
}

/// The product `a b` as a new matrix: `[m, k]`, `[k, n]` to `[m, n]`.
///
/// # Panics
/// If the shapes do not match.
pub fn product<T: Scalar>(a: ArrayView2<T>, b: ArrayView2<T>) -> Array2<T> {
    let mut out = Array2::default((a.nrows(), b.ncols()));
    matmul(T::one(), a, b, T::zero(), out.view_mut());
    out
}

/// Number of parallel partial sums; they vectorise, and are added in a fixed order.
const LANES: usize = 16;

/// The largest entry; minus infinity for an empty slice. Ignores NaN.
pub fn largest<T: Scalar>(x: &[T]) -> T {
    let mut lanes = [T::neg_infinity(); LANES];
    let larger = |a: T, b: T| if b > a { b } else { a };
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder().iter().fold(T::neg_infinity(), |a, &b| larger(a, b));
    for x in blocks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], x[i]);
        }
    }
    lanes.into_iter().fold(rest, larger)
}

/// Inner product of two slices (over the shorter length), always summed in the same order.
pub fn inner<T: Scalar>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    let (a, b) = (&a[..a.len().min(b.len())], &b[..a.len().min(b.len())]);
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_blocks.remainder().iter().zip(b_blocks.remainder()).fold(T::zero(), |s, (&x, &y)| s + x * y);
    for (x, y) in a_blocks.zip(b_blocks) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    fold_lanes(lanes) + rest
}

/// [`inner`] in `f32`: the cosine of two unit vectors.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    inner(a, b)
}

/// Sum of a slice, always in the same order.
pub fn sum<T: Scalar>(x: &[T]) -> T {
    let mut lanes = [T::zero(); LANES];
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder().iter().fold(T::zero(), |s, &x| s + x);
    for x in blocks {
        for i in 0..LANES {
            lanes[i] += x[i];
        }
    }
    fold_lanes(lanes) + rest
}

fn fold_lanes<T: Scalar>(mut lanes: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Euclidean norm, computed in `f64`, so that the squares of `f32` neither overflow nor underflow. Always summed in
/// the same order.
pub fn norm<T: Scalar>(x: &[T]) -> f64 {
    let mut lanes = [0.0; LANES];
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder().iter().fold(0.0, |s, &x| s + x.as_f64() * x.as_f64());
    for x in blocks {
        for i in 0..LANES {
            lanes[i] += x[i].as_f64() * x[i].as_f64();
        }
    }
    (fold_lanes(lanes) + rest).sqrt()
}

/// Normalises `x` to unit length and returns its original length. If that is zero or not finite, `x` stays unchanged.
pub fn normalise(x: &mut [f32]) -> f32 {
    let length = norm(x);
    if length > 0.0 && length.is_finite() {
        let factor = 1.0 / length;
        for x in x {
            *x = (f64::from(*x) * factor) as f32;
        }
    }
    length as f32
}

/// The rows of a matrix in standard layout, as slices.
pub fn slices<T>(x: &Array2<T>) -> std::slice::ChunksExact<'_, T> {
    debug_assert!(x.is_standard_layout(), "rows as slices need standard layout");
    x.as_slice().unwrap_or_default().chunks_exact(x.ncols().max(1))
}

/// [`slices`], mutably.
pub fn slices_mut<T>(x: &mut Array2<T>) -> std::slice::ChunksExactMut<'_, T> {
    debug_assert!(x.is_standard_layout(), "rows as slices need standard layout");
    let columns = x.ncols().max(1);
    x.as_slice_mut().unwrap_or_default().chunks_exact_mut(columns)
}

/// The rows of `x: [n, d]` divided by their lengths (at least [`NORM_FLOOR`]), and the lengths `[n]`.
pub fn unit_rows<T: Scalar>(x: &Array2<T>) -> (Array2<T>, Array1<T>) {
    let mut rows = x.as_standard_layout().into_owned();
    let mut norms = Array1::default(x.nrows());
    for (row, out) in slices_mut(&mut rows).zip(&mut norms) {
        let length = norm(row);
        let factor = T::of(1.0 / length.max(NORM_FLOOR));
        row.iter_mut().for_each(|x| *x *= factor);
        *out = T::of(length);
    }
    (rows, norms)
}

#[cfg(test)]
mod tests {
    use ndarray::{array, s};

    use super::*;

    fn wave(m: usize, n: usize, phase: f64) -> Array2<f64> {
        Array2::from_shape_fn((m, n), |(i, j)| (0.37 * (i * n + j) as f64 + phase).sin())
    }

    fn naive(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
        Array2::from_shape_fn((a.nrows(), b.ncols()), |(i, j)| (0..a.ncols()).map(|k| a[[i, k]] * b[[k, j]]).sum())
    }

    #[test]
    fn products_of_every_shape_and_stride() {
        for (m, k, n) in
            [(1, 1, 1), (1, 7, 5), (5, 7, 1), (3, 1, 4), (3, 2, 4), (17, 33, 9), (70, 65, 66), (0, 3, 2), (2, 0, 3)]
        {
            let (a, b) = (wave(m, k, 0.1), wave(k, n, 0.2));
            let right = naive(&a, &b);
            let close = |x: &Array2<f64>| x.iter().zip(&right).all(|(x, y)| (x - y).abs() < 1e-12);
            let mut out = Array2::from_elem((m, n), f64::NAN);
            matmul(1.0, a.view(), b.view(), 0.0, out.view_mut());
            assert!(close(&out), "{m} {k} {n}");
            // Transposed views of transposed copies, into a transposed result.
            let (at, bt) = (a.t().as_standard_layout().into_owned(), b.t().as_standard_layout().into_owned());
            let mut out = Array2::from_elem((n, m), f64::NAN);
            matmul(1.0, at.t(), bt.t(), 0.0, out.view_mut().reversed_axes());
            assert!(close(&out.t().to_owned()), "{m} {k} {n}, transposed");
            // 2 a b - out, on every second column of a wider matrix.
            let mut wide = Array2::from_shape_fn((m, 2 * n), |(i, j)| if j < 2 * n { right[[i, j / 2]] } else { 0.0 });
            matmul(2.0, a.view(), b.view(), -1.0, wide.slice_mut(s![.., ..;2]));
            assert!(close(&wide.slice(s![.., ..;2]).to_owned()), "{m} {k} {n}, accumulated");
        }
    }

    #[test]
    fn f32_products_follow_f64() {
        let (a, b) = (wave(40, 300, 0.3), wave(300, 50, 0.4));
        let out = product(a.mapv(|x| x as f32).view(), b.mapv(|x| x as f32).view());
        let right = naive(&a, &b);
        assert!(out.iter().zip(&right).all(|(&x, y)| (f64::from(x) - y).abs() < 1e-4));
    }

    #[test]
    #[should_panic(expected = "product of")]
    fn shapes_that_do_not_fit_are_refused() {
        product(wave(2, 3, 0.0).view(), wave(2, 3, 0.0).view());
    }

    #[test]
    fn inner_products_and_sums_of_every_length() {
        for n in 0..70 {
            let a: Vec<f64> = (0..n).map(|i| f64::from(i).sin()).collect();
            let b: Vec<f64> = (0..n).map(|i| f64::from(i).cos()).collect();
            let right: f64 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
            assert!((inner(&a, &b) - right).abs() < 1e-13);
            assert_eq!(largest(&a), a.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            assert!((sum(&a) - a.iter().sum::<f64>()).abs() < 1e-13);
            assert!((norm(&a) - a.iter().map(|x| x * x).sum::<f64>().sqrt()).abs() < 1e-13);
        }
        assert_eq!(dot(&[1.0, 2.0, 9.0], &[3.0, 4.0]), 11.0);
    }

    #[test]
    fn normalise_leaves_what_has_no_direction() {
        let mut x = [3.0, 4.0];
        assert_eq!(normalise(&mut x), 5.0);
        assert_eq!(x, [0.6, 0.8]);
        let mut zero = [0.0; 3];
        assert_eq!((normalise(&mut zero), zero), (0.0, [0.0; 3]));
        let mut broken = [f32::NAN, 1.0];
        assert!(normalise(&mut broken).is_nan() && broken[1] == 1.0);
        let mut huge = [3e30f32, 4e30];
        normalise(&mut huge);
        assert!((huge[0] - 0.6).abs() < 1e-6 && (huge[1] - 0.8).abs() < 1e-6, "{huge:?}");
    }

    #[test]
    fn unit_rows_keep_zero_rows() {
        let (rows, norms) = unit_rows(&array![[3.0f32, 4.0], [0.0, 0.0]]);
        assert_eq!((rows, norms), (array![[0.6f32, 0.8], [0.0, 0.0]], array![5.0f32, 0.0]));
    }
}
