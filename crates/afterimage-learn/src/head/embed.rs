//! Maps latents to embeddings: one at a time in the inference loop, many at once for the promotion gate.
use ndarray::{Array2, ArrayView2, Zip, s};

use super::{EmbeddingKind, Head, HeadParams};
use crate::linalg::{normalise, product, slices_mut};

/// Working memory of [`Head::embed`]; it grows on the first call, and later calls allocate nothing.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// The pooled latent of a grid.
    pooled: Vec<f32>,
    /// `f - mu`
    centred: Vec<f32>,
    /// `y`
    slow: Vec<f32>,
    /// Hidden units of the residual.
    hidden: Vec<f32>,
    /// Output of the residual.
    residual: Vec<f32>,
}

impl Scratch {
    /// Empty working memory.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Head {
    /// Embeds one unit latent: `f: [d]` to `out: [dim_out]`, unit length.
    ///
    /// If the embedding has no direction (the sum before the last `normalise` is zero or not finite, `f` contains
    /// values that are not finite, or `f` or `out` does not have the length of the head), `out` is all zeros, never
    /// NaN.
    pub fn embed(&self, f: &[f32], out: &mut [f32], scratch: &mut Scratch) {
        let fits = f.len() == self.dim_in() && out.len() == self.dim_out() && f.iter().all(|x| x.is_finite());
        let found = fits
            && match self {
                Head::Identity { .. } => {
                    out.copy_from_slice(f);
                    true
                }
                Head::Learned(learned) => learned.embed(f, out, scratch),
                Head::Pooled { grid, head } => {
                    let mut pooled = std::mem::take(&mut scratch.pooled);
                    pooled.resize(grid.dim, 0.0);
                    let found = grid.pool(f, &mut pooled);
                    head.embed(&pooled, out, scratch);
                    scratch.pooled = pooled;
                    found
                }
                Head::Grid(head) => {
                    let row = ArrayView2::from_shape((1, f.len()), f);
                    row.is_ok_and(|row| {
                        let embedded = head.embed_rows(row);
                        out.iter_mut().zip(&embedded).for_each(|(out, z)| *out = *z);
                        embedded.iter().any(|z| *z != 0.0)
                    })
                }
            };
        if !found {
            out.fill(0.0);
        }
    }

    /// [`Head::embed`] for every row: `f: [n, d]` to `[n, dim_out]`. The two agree to 1e-6.
    ///
    /// # Panics
    /// If the rows do not have the length [`Head::dim_in`].
    pub fn embed_rows(&self, f: ArrayView2<f32>) -> Array2<f32> {
        assert_eq!(f.ncols(), self.dim_in(), "length of the latents");
        let mut out = match self {
            Head::Identity { .. } => f.to_owned(),
            Head::Learned(learned) => learned.embed_rows(f),
            Head::Pooled { grid, head } => head.embed_rows(grid.pooled(f).view()),
            Head::Grid(head) => head.embed_rows(f),
        };
        Zip::from(out.rows_mut()).and(f.rows()).for_each(|mut out, f| {
            if !f.iter().all(|x| x.is_finite()) {
                out.fill(0.0);
            }
        });
        out
    }
}

impl HeadParams {
    /// Returns false if there is no direction; the contents of `out` are then meaningless.
    fn embed(&self, f: &[f32], out: &mut [f32], scratch: &mut Scratch) -> bool {
        let Scratch { centred, slow, hidden, residual, .. } = scratch;
        centred.clear();
        centred.extend(f.iter().zip(&self.mean).map(|(f, mu)| f - mu));
        slow.clear();
        slow.resize(self.slow.ncols(), 0.0);
        add_rows(centred, self.slow.view(), slow);
        let (frozen, s) = out.split_at_mut(out.len() - slow.len());
        frozen.copy_from_slice(&f[..frozen.len()]);
        s.copy_from_slice(slow);
        if let Some(mlp) = &self.mlp {
            mlp.apply(slow, hidden, residual);
            s.iter_mut().zip(residual.iter()).for_each(|(s, r)| *s += self.alpha * r);
        }
        self.finish(frozen, s, slow)
    }

    /// Number of entries of the frozen latent that precede `s` in the embedding.
    pub(super) fn beside(&self) -> usize {
        if self.form == EmbeddingKind::BesideFrozen { self.mean.len() } else { 0 }
    }

    fn embed_rows(&self, f: ArrayView2<f32>) -> Array2<f32> {
        let mut y = product((&f - &self.mean).view(), self.slow.view());
        let before = self.beside();
        let mut out = Array2::zeros((f.nrows(), before + y.ncols()));
        out.slice_mut(s![.., before..]).assign(&y);
        if let Some(mlp) = &self.mlp {
            out.slice_mut(s![.., before..]).scaled_add(self.alpha, &mlp.rows(y.view()));
        }
        if before > 0 {
            out.slice_mut(s![.., ..before]).assign(&f);
        }
        for (row, y) in slices_mut(&mut out).zip(slices_mut(&mut y)) {
            let (frozen, s) = row.split_at_mut(before);
            if !self.finish(frozen, s, y) {
                row.fill(0.0);
            }
        }
        out
    }

    /// Normalises `s` and, if the form requires it, `y`, and combines them into `z`; `y` is used as working memory.
    /// Returns false if there is no direction.
    fn finish(&self, frozen: &mut [f32], s: &mut [f32], y: &mut [f32]) -> bool {
        let directed = |norm: f32| norm > 0.0 && norm.is_finite();
        let mut found = directed(normalise(s));
        match self.form {
            EmbeddingKind::Single => {}
            EmbeddingKind::BesideFrozen => {
                frozen.iter_mut().chain(s).for_each(|x| *x *= std::f32::consts::FRAC_1_SQRT_2)
            }
            EmbeddingKind::Mean if self.mlp.is_none() => {}
            EmbeddingKind::Mean => {
                found &= directed(normalise(y));
                s.iter_mut().zip(&*y).for_each(|(s, y)| *s += y);
                found &= directed(normalise(s));
            }
        }
        found
    }
}

/// `out += rows' x`: `x: [d]`, `rows: [d, k]`, `out: [k]`. Processes four rows at a time, so that `out` is read and
/// written a quarter as often.
fn add_rows(x: &[f32], rows: ArrayView2<f32>, out: &mut [f32]) {
    let k = out.len().max(1);
    let fours = rows.as_slice().map_or(0, |rows| {
        for (rows, x) in rows.chunks_exact(4 * k).zip(x.chunks_exact(4)) {
            let (r0, rest) = rows.split_at(k);
            let (r1, rest) = rest.split_at(k);
            let (r2, r3) = rest.split_at(k);
            for ((((out, r0), r1), r2), r3) in out.iter_mut().zip(r0).zip(r1).zip(r2).zip(r3) {
                *out += (x[0] * r0 + x[1] * r1) + (x[2] * r2 + x[3] * r3);
            }
        }
        x.len() / 4 * 4
    });
    // The remaining rows, or all rows if the matrix is not row-major.
    for (x, row) in x.iter().zip(rows.rows()).skip(fours) {
        out.iter_mut().zip(row).for_each(|(out, w)| *out += x * w);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::{Array1, ShapeBuilder};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::head::Mlp;
    use crate::linalg::random::uniform;
    use crate::linalg::unit_rows;

    fn random(shape: (usize, usize), rng: &mut ChaCha8Rng) -> Array2<f32> {
        Array2::from_shape_fn(shape, |_| (uniform(rng) - 0.5) as f32)
    }

    fn head(d: usize, k: usize, residual: bool, form: EmbeddingKind) -> Head {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut mlp = Mlp::start(k, 2 * k + 1, &mut rng);
        mlp.w2 = random(mlp.w2.dim(), &mut rng);
        mlp.b2 = random((1, k), &mut rng).remove_axis(ndarray::Axis(0));
        let mean = random((1, d), &mut rng).remove_axis(ndarray::Axis(0)) * 0.1;
        let slow = random((d, k), &mut rng);
        Head::Learned(HeadParams { mean, slow, mlp: residual.then_some(mlp), alpha: 0.7, form })
    }

    #[test]
    fn one_at_a_time_equals_many_at_once() {
        let mut scratch = Scratch::new();
        for (d, k) in [(1, 1), (5, 3), (130, 18), (1280, 192)] {
            let f = unit_rows(&random((7, d), &mut ChaCha8Rng::seed_from_u64(4))).0;
            let forms = [EmbeddingKind::Single, EmbeddingKind::BesideFrozen, EmbeddingKind::Mean];
            for (residual, form) in forms.into_iter().flat_map(|form| [(false, form), (true, form)]) {
                let head = head(d, k, residual, form);
                head.check().unwrap();
                let rows = head.embed_rows(f.view());
                assert_eq!(rows.dim(), (7, head.dim_out()));
                assert_eq!(rows.ncols(), if form == EmbeddingKind::BesideFrozen { d + k } else { k });
                for (f, right) in f.rows().into_iter().zip(rows.rows()) {
                    let mut out = vec![f32::NAN; head.dim_out()];
                    head.embed(f.as_slice().unwrap(), &mut out, &mut scratch);
                    assert!(out.iter().zip(right).all(|(a, b)| (a - b).abs() < 1e-6), "{d} {k} {residual} {form:?}");
                    assert!((out.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn allocates_on_the_first_call_only() {
        let head = head(40, 12, true, EmbeddingKind::BesideFrozen);
        let f = unit_rows(&random((2, 40), &mut ChaCha8Rng::seed_from_u64(9))).0;
        let (mut scratch, mut out) = (Scratch::new(), vec![0.0; 52]);
        let memory = |s: &Scratch| [&s.centred, &s.slow, &s.hidden, &s.residual].map(|x| (x.as_ptr(), x.capacity()));
        head.embed(f.row(0).as_slice().unwrap(), &mut out, &mut scratch);
        let first = memory(&scratch);
        head.embed(f.row(1).as_slice().unwrap(), &mut out, &mut scratch);
        assert_eq!(memory(&scratch), first);
    }

    #[test]
    fn follows_its_formula_in_f64() {
        let (d, k) = (40, 6);
        let Head::Learned(mut learned) = head(d, k, true, EmbeddingKind::BesideFrozen) else { unreachable!() };
        let mlp = learned.mlp.clone().unwrap();
        let f: Vec<f64> =
            unit_rows(&random((1, d), &mut ChaCha8Rng::seed_from_u64(5))).0.iter().map(|&x| f64::from(x)).collect();
        let wide = |x: &Array1<f32>| x.mapv(f64::from);
        let y = learned.slow.mapv(f64::from).t().dot(&(Array1::from(f.clone()) - wide(&learned.mean)));
        let pre = mlp.w1.mapv(f64::from).dot(&y) + wide(&mlp.b1);
        let (mean, variance) = (pre.mean().unwrap(), pre.var(0.0));
        let u = (pre - mean) / (variance + 1e-5).sqrt() * wide(&mlp.gamma) + wide(&mlp.beta);
        let act = u.mapv(|u| 0.5 * u * (1.0 + crate::linalg::Scalar::erf(u / 2f64.sqrt())));
        let s = &y + 0.7f32 as f64 * (mlp.w2.mapv(f64::from).dot(&act) + wide(&mlp.b2));
        let norm = s.dot(&s).sqrt();
        let right: Vec<f64> = f.iter().copied().chain(s.iter().map(|s| s / norm)).map(|x| x / 2f64.sqrt()).collect();
        let mut out = vec![0.0; d + k];
        let narrow: Vec<f32> = f.iter().map(|&x| x as f32).collect();
        Head::Learned(learned.clone()).embed(&narrow, &mut out, &mut Scratch::new());
        assert!(out.iter().zip(&right).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-6));
        // The mean of the slow head and the residual, each of unit length.
        let sum = &y / y.dot(&y).sqrt() + &s / norm;
        let right = &sum / sum.dot(&sum).sqrt();
        learned.form = EmbeddingKind::Mean;
        let mut out = vec![0.0; k];
        Head::Learned(learned).embed(&narrow, &mut out, &mut Scratch::new());
        assert!(out.iter().zip(&right).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-6));
        assert!((right - s / norm).iter().any(|x| x.abs() > 1e-3), "the two differ, or this shows nothing");
    }

    #[test]
    fn what_has_no_direction_gives_zeros() {
        let mut scratch = Scratch::new();
        for form in [EmbeddingKind::Single, EmbeddingKind::BesideFrozen, EmbeddingKind::Mean] {
            let head = head(8, 3, form == EmbeddingKind::Mean, form);
            let Head::Learned(learned) = &head else { unreachable!() };
            let mean = learned.mean.to_vec();
            let nan = vec![f32::NAN; 8];
            let infinite = vec![f32::INFINITY; 8];
            for f in [&mean, &nan, &infinite] {
                let mut out = vec![1.0; head.dim_out()];
                head.embed(f, &mut out, &mut scratch);
                assert!(out.iter().all(|&x| x == 0.0), "{out:?}");
                let rows = head.embed_rows(ArrayView2::from_shape((1, 8), f).unwrap());
                assert!(rows.iter().all(|&x| x == 0.0), "{rows:?}");
            }
            let mut short = vec![1.0; 2];
            head.embed(&mean, &mut short, &mut scratch);
            assert_eq!(short, [0.0; 2]);
        }
        let mut out = [1.0; 2];
        Head::Identity { dim: 2 }.embed(&[f32::NAN, 0.0], &mut out, &mut scratch);
        assert_eq!(out, [0.0; 2]);
    }

    #[test]
    fn identity_changes_nothing() {
        let head = Head::Identity { dim: 4 };
        let f = unit_rows(&random((3, 4), &mut ChaCha8Rng::seed_from_u64(6))).0;
        assert_eq!(head.embed_rows(f.view()), f);
        let mut out = [0.0; 4];
        head.embed(f.row(1).as_slice().unwrap(), &mut out, &mut Scratch::new());
        assert_eq!(out, f.row(1).as_slice().unwrap());
        assert_eq!((head.dim_in(), head.dim_out(), head.finite()), (4, 4, true));
    }

    #[test]
    fn layouts_do_not_matter_to_the_sum_of_rows() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let rows = random((11, 5), &mut rng);
        let mut columns = Array2::zeros((11, 5).f());
        columns.assign(&rows);
        let x: Vec<f32> = (0..11).map(|i| i as f32 * 0.1).collect();
        let (mut a, mut b) = (vec![0.0; 5], vec![0.0; 5]);
        add_rows(&x, rows.view(), &mut a);
        add_rows(&x, columns.view(), &mut b);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn check_names_what_does_not_fit() {
        let broken = |change: fn(&mut HeadParams)| {
            let Head::Learned(mut learned) = head(8, 3, true, EmbeddingKind::Single) else { unreachable!() };
            change(&mut learned);
            Head::Learned(learned).check().unwrap_err().to_string()
        };
        assert!(broken(|l| l.mean = Array1::zeros(7)).contains("mean of 7"));
        assert!(broken(|l| l.slow[[1, 1]] = f32::NAN).contains("not finite"));
        assert!(broken(|l| l.mlp.as_mut().unwrap().b1[0] = f32::INFINITY).contains("not finite"));
        assert!(broken(|l| l.mlp.as_mut().unwrap().b2 = Array1::zeros(9)).contains("b2"));
    }
}
