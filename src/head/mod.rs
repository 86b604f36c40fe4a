//! The head: what turns a latent into an embedding. See [`Head`].
use ndarray::{Array1, Array2};

/// `f: [d]` (unit length) in, `z` (unit length) out.
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// `z = f`: the frozen encoder as it is. `[d]`.
    Identity {
        /// `d`.
        dim: usize,
    },
    /// `y = W' (f - mu)`, `s = normalise(y + alpha * mlp(y))`, `z = s` or `[f, s] / sqrt(2)`.
    Learned(Learned),
}

/// The parameters of a learned head.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// `mu: [d]`, mean of the unit latents.
    pub mean: Array1<f32>,
    /// `W: [d, k]`, the slow head.
    pub slow: Array2<f32>,
    /// The residual, where there is one.
    pub mlp: Option<Mlp<f32>>,
    /// Weight of the residual.
    pub alpha: f32,
    /// The embedding is `[f, s] / sqrt(2)`, `[d + k]`, instead of `s`, `[k]`.
    pub beside_frozen: bool,
}

/// `mlp(y) = W2 gelu(layer_norm(W1 y + b1) * gamma + beta) + b2`, GELU exact (erf), epsilon of the norm 1e-5.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp<T> {
    /// `[h, k]`
    pub w1: Array2<T>,
    /// `[h]`
    pub b1: Array1<T>,
    /// `[h]`
    pub gamma: Array1<T>,
    /// `[h]`
    pub beta: Array1<T>,
    /// `[k, h]`
    pub w2: Array2<T>,
    /// `[k]`
    pub b2: Array1<T>,
}
