//! The head maps a latent to an embedding. See [`Head`].
mod pixelcnn;
mod embed;
mod grid;
mod mlp;
pub mod sfa;
mod rotate;

use ndarray::{Array1, Array2};

pub use embed::Scratch;
pub use grid::{Grid, GridHead};
pub use mlp::{Cache, Mlp};
pub use pixelcnn::{Context, ContextCache, GridShape, equalised};
pub use sfa::{ScatterStats, SfaFit, slow_from};

use crate::error::{Error, Result};

/// Maximum length of a (pooled) latent and of an embedding. The statistics of the slow head grow with its square: at
/// this length, each triangle takes 4 GB. It also bounds the size of head and space map files.
pub const MAX_DIM: usize = 1 << 15;

/// Maps `f: [d]` (unit length) to `z` (unit length).
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "a run holds a handful of heads, each with a matrix of a megabyte")]
pub enum Head {
    /// `z = f`: the unchanged frozen latent, `[d]`.
    Identity {
        /// `d`.
        dim: usize,
    },
    /// `y = W' (f - mu)`, `s = normalise(y + alpha * mlp(y))`, and `z` combined from them as its [`EmbeddingKind`]
    /// says.
    Learned(HeadParams),
    /// One of the two above, applied to the pooled latent of a grid; the input is the whole grid, `[h w d]`.
    Pooled {
        /// Shape of the latents.
        grid: Grid,
        /// The head that takes the pooled latent.
        head: Box<Head>,
    },
    /// A head over the cells of a grid, with input `[h w d]`.
    Grid(Box<GridHead>),
}

/// The parameters of a learned head.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadParams {
    /// `mu: [d]`, mean of the unit latents.
    pub mean: Array1<f32>,
    /// `W: [d, k]`, the slow head.
    pub slow: Array2<f32>,
    /// The residual, if there is one.
    pub mlp: Option<Mlp<f32>>,
    /// Weight of the residual.
    pub alpha: f32,
    /// How the embedding combines `y` and `s`.
    pub form: EmbeddingKind,
}

/// How a learned head forms its embedding, with `y` and `s` as in [`Head::Learned`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EmbeddingKind {
    /// `z = s`, `[k]`.
    #[default]
    Single,
    /// `z = [f, s] / sqrt(2)`, `[d + k]`: the frozen latent keeps equal weight.
    BesideFrozen,
    /// `z = normalise(normalise(y) + s)`, `[k]`: the slow head and the head with residual in equal parts. Without a
    /// residual it is the same as [`EmbeddingKind::Single`].
    Mean,
}

impl Head {
    /// Length of the input: `d`, or `h w d` for a head that takes whole grids.
    pub fn dim_in(&self) -> usize {
        match self {
            Head::Identity { dim } => *dim,
            Head::Learned(learned) => learned.mean.len(),
            Head::Pooled { grid, .. } => grid.numbers(),
            Head::Grid(head) => head.grid.numbers(),
        }
    }

    /// `d`, the length of a (pooled) latent.
    pub fn latent_dim(&self) -> usize {
        match self {
            Head::Identity { dim } => *dim,
            Head::Learned(learned) => learned.mean.len(),
            Head::Pooled { head, .. } => head.latent_dim(),
            Head::Grid(head) => head.grid.dim,
        }
    }

    /// Length of an embedding: `d`, `k` or `d + k`.
    pub fn dim_out(&self) -> usize {
        match self {
            Head::Identity { dim } => *dim,
            Head::Learned(learned) => learned.slow.ncols() + learned.beside(),
            Head::Pooled { head, .. } => head.dim_out(),
            Head::Grid(head) => head.learned.slow.ncols(),
        }
    }

    /// True if the embedding is the unchanged (pooled) latent.
    pub fn is_frozen(&self) -> bool {
        match self {
            Head::Identity { .. } => true,
            Head::Pooled { head, .. } => head.is_frozen(),
            Head::Learned(_) | Head::Grid(_) => false,
        }
    }

    /// True if every parameter is finite.
    pub fn finite(&self) -> bool {
        match self {
            Head::Identity { .. } => true,
            Head::Learned(learned) => learned.finite(),
            Head::Pooled { head, .. } => head.finite(),
            Head::Grid(head) => head.finite(),
        }
    }

    /// Checks that the parameters match each other and are finite, for heads read from a file. [`Head::embed`] and
    /// [`Head::embed_rows`] do not panic on a head that passes.
    ///
    /// # Errors
    /// Names what does not match.
    pub fn check(&self) -> Result<()> {
        let learned = match self {
            Head::Identity { .. } => return Ok(()),
            Head::Learned(learned) => learned,
            Head::Pooled { head, .. } => return head.check(),
            Head::Grid(head) => {
                head.check()?;
                &head.learned
            }
        };
        let (d, k) = learned.slow.dim();
        if learned.mean.len() != d || k == 0 || !learned.slow.is_standard_layout() {
            return Err(Error::runtime(format!(
                "the head has a mean of {} but a slow matrix {d} x {k}",
                learned.mean.len()
            )));
        }
        if let Some(mlp) = &learned.mlp {
            mlp.check(k, k)?;
        }
        if self.finite() { Ok(()) } else { Err(Error::runtime("the head holds numbers that are not finite")) }
    }
}

impl HeadParams {
    fn finite(&self) -> bool {
        let mlp = self.mlp.iter().flat_map(Mlp::parts).flat_map(|(_, part)| part);
        self.alpha.is_finite() && self.mean.iter().chain(&self.slow).chain(mlp).all(|x| x.is_finite())
    }
}
