//! The residual: a small MLP with LayerNorm, forward and backward.
use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::linalg::random::uniform;
use crate::linalg::{Scalar, inner, matmul, product, slices, slices_mut, sum};

/// Added to the variance under the square root of the LayerNorm (PyTorch's default).
const EPSILON: f64 = 1e-5;

/// `mlp(y) = W2 gelu(layer_norm(W1 y + b1) * gamma + beta) + b2`, with exact GELU (erf) and epsilon 1e-5 in the norm.
/// In the head both input and output have `k` dimensions; elsewhere the two may differ. All arrays are in standard
/// (row-major) layout.
///
/// LayerNorm: Ba, Kiros, Hinton 2016; GELU: Hendrycks, Gimpel 2016. No part of it depends on other rows of the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp<T> {
    /// `[h, k in]`
    pub w1: Array2<T>,
    /// `[h]`
    pub b1: Array1<T>,
    /// `[h]`
    pub gamma: Array1<T>,
    /// `[h]`
    pub beta: Array1<T>,
    /// `[k out, h]`
    pub w2: Array2<T>,
    /// `[k out]`
    pub b2: Array1<T>,
}

/// The cache of a forward pass over `n` rows that [`Mlp::backward`] needs.
#[derive(Debug, Clone)]
pub struct Cache<T> {
    /// The input, `[n, k in]`.
    input: Array2<T>,
    /// The normalised values before `gamma` and `beta`, `[n, h]`.
    normal: Array2<T>,
    /// 1 / standard deviation, `[n]`.
    inverse: Array1<T>,
    /// `Phi(u) = (1 + erf(u / sqrt 2)) / 2` at the input `u: [n, h]` of the GELU.
    phi: Array2<T>,
    /// `gelu(u) = u Phi(u)`, `[n, h]`.
    act: Array2<T>,
}

impl<T: Scalar> Mlp<T> {
    /// Initialises a residual: `w1` and `b1` uniform in `+-1 / sqrt(k)` (as PyTorch's `Linear`), `gamma` 1, and the
    /// rest zero, so that the residual starts at zero. Takes `h * (k + 1)` draws of `rng`.
    pub fn start(k: usize, hidden: usize, rng: &mut ChaCha8Rng) -> Self {
        let bound = 1.0 / (k.max(1) as f64).sqrt();
        let mut draw = || T::of((2.0 * uniform(rng) - 1.0) * bound);
        Self {
            w1: Array2::from_shape_simple_fn((hidden, k), &mut draw),
            b1: Array1::from_shape_simple_fn(hidden, &mut draw),
            gamma: Array1::ones(hidden),
            beta: Array1::zeros(hidden),
            w2: Array2::zeros((k, hidden)),
            b2: Array1::zeros(k),
        }
    }

    /// Initialises every layer uniformly in `+-1 / sqrt(inputs)` (as PyTorch's `Linear`), for networks that are not a
    /// residual.
    pub fn random(k_in: usize, hidden: usize, k_out: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut mlp = Self::start(k_in, hidden, rng);
        let bound = 1.0 / (hidden.max(1) as f64).sqrt();
        let mut draw = || T::of((2.0 * uniform(rng) - 1.0) * bound);
        mlp.w2 = Array2::from_shape_simple_fn((k_out, hidden), &mut draw);
        mlp.b2 = Array1::from_shape_simple_fn(k_out, &mut draw);
        mlp
    }

    /// An all-zero network with the same shapes, for gradients and moments.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        Self {
            w1: Array2::zeros(self.w1.dim()),
            b1: Array1::zeros(self.b1.dim()),
            gamma: Array1::zeros(self.gamma.dim()),
            beta: Array1::zeros(self.beta.dim()),
            w2: Array2::zeros(self.w2.dim()),
            b2: Array1::zeros(self.b2.dim()),
        }
    }

    /// The six arrays with their names, in a fixed order.
    pub fn parts(&self) -> [(&'static str, &[T]); 6] {
        [
            ("w1", self.w1.as_slice_memory_order().unwrap_or_default()),
            ("b1", self.b1.as_slice_memory_order().unwrap_or_default()),
            ("gamma", self.gamma.as_slice_memory_order().unwrap_or_default()),
            ("beta", self.beta.as_slice_memory_order().unwrap_or_default()),
            ("w2", self.w2.as_slice_memory_order().unwrap_or_default()),
            ("b2", self.b2.as_slice_memory_order().unwrap_or_default()),
        ]
    }

    /// [`Mlp::parts`], mutably.
    pub fn parts_mut(&mut self) -> [(&'static str, &mut [T]); 6] {
        [
            ("w1", self.w1.as_slice_memory_order_mut().unwrap_or_default()),
            ("b1", self.b1.as_slice_memory_order_mut().unwrap_or_default()),
            ("gamma", self.gamma.as_slice_memory_order_mut().unwrap_or_default()),
            ("beta", self.beta.as_slice_memory_order_mut().unwrap_or_default()),
            ("w2", self.w2.as_slice_memory_order_mut().unwrap_or_default()),
            ("b2", self.b2.as_slice_memory_order_mut().unwrap_or_default()),
        ]
    }

    /// Checks shapes and layouts against `k_in` and `k_out`.
    ///
    /// # Errors
    /// Names the array that does not match.
    pub fn check(&self, k_in: usize, k_out: usize) -> Result<()> {
        let h = self.b1.len();
        let fits = [
            ("w1", self.w1.dim() == (h, k_in) && self.w1.is_standard_layout()),
            ("b1", h > 0),
            ("gamma", self.gamma.len() == h),
            ("beta", self.beta.len() == h),
            ("w2", self.w2.dim() == (k_out, h) && self.w2.is_standard_layout()),
            ("b2", self.b2.len() == k_out),
        ];
        match fits.iter().find(|(_, fits)| !fits) {
            None => Ok(()),
            Some((part, _)) => Err(Error::runtime(format!(
                "part {part} of the residual does not fit {h} hidden units, {k_in} dimensions in and {k_out} out"
            ))),
        }
    }

    /// Applies `mlp` to every row: `y: [n, k in]` to `[n, k out]`, and the cache for [`Mlp::backward`].
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn forward(&self, y: ArrayView2<T>) -> (Array2<T>, Cache<T>) {
        let input = y.as_standard_layout().into_owned();
        let mut normal = product(input.view(), self.w1.t());
        let mut inverse = Array1::zeros(normal.nrows());
        normal += &self.b1;
        for (row, inverse) in slices_mut(&mut normal).zip(&mut inverse) {
            *inverse = layer_norm(row);
        }
        let mut act = &normal * &self.gamma + &self.beta;
        let root_half = T::of(std::f64::consts::FRAC_1_SQRT_2);
        let half = T::of(0.5);
        let phi = act.mapv(|u| half * (T::one() + (u * root_half).erf()));
        act *= &phi;
        let out = product(act.view(), self.w2.t()) + &self.b2;
        (out, Cache { input, normal, inverse, phi, act })
    }

    /// Computes the gradients of a scalar with respect to the parameters, where `grad_out: [n, k out]` is its
    /// gradient with respect to the output of [`Mlp::forward`]. Overwrites `grads`.
    ///
    /// With `x` the normalised row, `u = gamma x + beta`, `g = dL/dx` and `sigma` the standard deviation: `gelu'(u) =
    /// Phi(u) + u phi(u)` and `dL/d(row) = (g - mean(g) - x mean(g x)) / sigma`.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn backward(&self, cache: &Cache<T>, grad_out: ArrayView2<T>, grads: &mut Mlp<T>) {
        self.backward_to_norm(cache, grad_out, grads);
    }

    /// [`Mlp::backward`], and also returns the gradient with respect to the input, `[n, k in]`.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn backward_to_input(&self, cache: &Cache<T>, grad_out: ArrayView2<T>, grads: &mut Mlp<T>) -> Array2<T> {
        product(self.backward_to_norm(cache, grad_out, grads).view(), self.w1.view())
    }

    /// Computes the gradients of the parameters, and returns that with respect to the input of the norm, `[n, h]`.
    fn backward_to_norm(&self, cache: &Cache<T>, grad_out: ArrayView2<T>, grads: &mut Mlp<T>) -> Array2<T> {
        matmul(T::one(), grad_out.t(), cache.act.view(), T::zero(), grads.w2.view_mut());
        grads.b2.assign(&grad_out.sum_axis(Axis(0)));
        let mut slope = &cache.normal * &self.gamma + &self.beta;
        gelu_slope(&mut slope, &cache.phi);
        let mut grad = product(grad_out, self.w2.view());
        grad *= &slope;
        grads.beta.assign(&grad.sum_axis(Axis(0)));
        grads.gamma.assign(&(&grad * &cache.normal).sum_axis(Axis(0)));
        grad *= &self.gamma;
        let count = T::of(self.b1.len() as f64);
        for ((g, x), &inverse) in slices_mut(&mut grad).zip(slices(&cache.normal)).zip(&cache.inverse) {
            let (mean, along) = (sum(g) / count, inner(g, x) / count);
            g.iter_mut().zip(x).for_each(|(g, &x)| *g = (*g - mean - x * along) * inverse);
        }
        matmul(T::one(), grad.t(), cache.input.view(), T::zero(), grads.w1.view_mut());
        grads.b1.assign(&grad.sum_axis(Axis(0)));
        grad
    }

    /// [`Mlp::forward`] without the cache.
    pub fn rows(&self, y: ArrayView2<T>) -> Array2<T> {
        let mut act = product(y, self.w1.t());
        act += &self.b1;
        slices_mut(&mut act).for_each(|row| self.activate(row));
        product(act.view(), self.w2.t()) + &self.b2
    }

    /// `mlp` of one row, with reused buffers.
    pub(super) fn apply(&self, y: &[T], hidden: &mut Vec<T>, out: &mut Vec<T>) {
        affine(&self.w1, y, &self.b1, hidden);
        self.activate(hidden);
        affine(&self.w2, hidden, &self.b2, out);
    }

    /// Applies the norm, `gamma`, `beta` and GELU in place.
    fn activate(&self, row: &mut [T]) {
        layer_norm(row);
        let (half, root_half) = (T::of(0.5), T::of(std::f64::consts::FRAC_1_SQRT_2));
        for ((x, &gamma), &beta) in row.iter_mut().zip(&self.gamma).zip(&self.beta) {
            let u = *x * gamma + beta;
            *x = u * half * (T::one() + (u * root_half).erf());
        }
    }
}

/// `out = w x + b`.
fn affine<T: Scalar>(w: &Array2<T>, x: &[T], b: &Array1<T>, out: &mut Vec<T>) {
    out.clear();
    out.extend(w.rows().into_iter().zip(b).map(|(row, &b)| {
        let along = row.as_slice().map(|row| inner(row, x));
        b + along.unwrap_or_else(|| row.iter().zip(x).fold(T::zero(), |s, (&w, &x)| s + w * x))
    }));
}

/// Subtracts the mean and divides by the standard deviation in place; returns 1 / standard deviation.
fn layer_norm<T: Scalar>(row: &mut [T]) -> T {
    let count = T::of(row.len() as f64);
    let mean = sum(row) / count;
    row.iter_mut().for_each(|x| *x -= mean);
    let inverse = T::one() / (inner(row, row) / count + T::of(EPSILON)).sqrt();
    row.iter_mut().for_each(|x| *x *= inverse);
    inverse
}

/// Replaces `u` by `gelu'(u) = Phi(u) + u exp(-u^2 / 2) / sqrt(2 pi)`; `phi` holds `Phi(u)`.
fn gelu_slope<T: Scalar>(u: &mut Array2<T>, phi: &Array2<T>) {
    let half = T::of(0.5);
    let peak = T::of(std::f64::consts::FRAC_1_SQRT_2 * std::f64::consts::FRAC_2_SQRT_PI * 0.5);
    let mut bell = u.mapv(|u| -half * u * u);
    bell.as_slice_mut().into_iter().for_each(T::exp_in_place);
    Zip::from(u).and(phi).and(&bell).for_each(|u, &phi, &bell| *u = phi + *u * bell * peak);
}

#[cfg(test)]
mod tests;
