//! Latents that are a grid of cells, and heads over those cells.
use std::borrow::Cow;

use ndarray::{Array1, Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use super::pixelcnn::equalised;
use super::{Context, EmbeddingKind, GridShape, Head, HeadParams};
use crate::error::{Error, Result};
use crate::linalg::{NORM_FLOOR, norm, normalise, product, slices_mut};

/// Shape of a grid latent: one row of `h * w * d` numbers, `[h, w, d]` row-major, with unit length as a whole. Cells
/// keep their relative lengths, so the mean of the cells is what average pooling makes of the grid. (Normalising the
/// cells first would discard the information in their strength: docs/design/014-grids.md.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// `h`
    pub rows: usize,
    /// `w`
    pub columns: usize,
    /// `d`, channels of a cell: the length of the pooled latent.
    pub dim: usize,
}

impl Grid {
    /// `[h, w, d]`
    pub fn new([rows, columns, dim]: [usize; 3]) -> Self {
        Self { rows, columns, dim }
    }

    /// `h w`
    pub fn cells(self) -> usize {
        self.rows * self.columns
    }

    /// `h w d`, the length of a row.
    pub fn numbers(self) -> usize {
        self.cells() * self.dim
    }

    /// Computes the pooled latent: the mean of the cells, normalised, `[h w d]` to `[d]`. Returns false if there is
    /// no direction; `out` is then zero.
    pub fn pool(self, row: &[f32], out: &mut [f32]) -> bool {
        out.fill(0.0);
        for cell in row.chunks_exact(self.dim.max(1)) {
            out.iter_mut().zip(cell).for_each(|(sum, x)| *sum += x);
        }
        let length = normalise(out);
        length > 0.0 && length.is_finite()
    }

    /// [`Grid::pool`] for every row: `[n, h w d]` to `[n, d]`.
    ///
    /// # Panics
    /// If the rows have another length.
    pub fn pooled(self, rows: ArrayView2<f32>) -> Array2<f32> {
        assert_eq!(rows.ncols(), self.numbers(), "numbers of a grid latent");
        let mut out = Array2::zeros((rows.nrows(), self.dim));
        for (row, out) in rows.rows().into_iter().zip(slices_mut(&mut out)) {
            match row.as_slice() {
                Some(row) => self.pool(row, out),
                None => self.pool(&row.to_vec(), out),
            };
        }
        out
    }

    /// The cells of every row, `[n, h w d]` to `[n h w, d]`; those of a row are scaled together so that their mean is
    /// the pooled latent. The mean over cells of any linear function of a latent is then its value at the pooled
    /// latent.
    ///
    /// # Panics
    /// If the rows have another length.
    pub fn cells_of(self, rows: ArrayView2<f32>) -> Array2<f32> {
        assert_eq!(rows.ncols(), self.numbers(), "numbers of a grid latent");
        let mut out = Array2::zeros((rows.nrows() * self.cells(), self.dim));
        let cells = out.exact_chunks_mut((self.cells().max(1), self.dim.max(1)));
        for (row, mut cells) in rows.rows().into_iter().zip(cells) {
            cells.iter_mut().zip(row).for_each(|(to, from)| *to = *from);
            let mean = cells.mean_axis(Axis(0)).unwrap_or_default();
            let length = mean.as_slice().map_or(0.0, norm).max(NORM_FLOOR);
            cells.mapv_inplace(|x| (f64::from(x) / length) as f32);
        }
        out
    }

    fn of_frames(self, frames: usize) -> GridShape {
        GridShape { frames, rows: self.rows, columns: self.columns }
    }
}

/// A head over the cells of a grid latent (CPC): `z_c = y_c + alpha mlp(y_c)` with `y_c = W' (f_c - mu)` for the
/// cells `f_c` of [`Grid::cells_of`], then
///
/// - *projected*: `normalise(mean over cells of z_c)`. Before training `mlp` is zero, so this is the slow head at the
///   pooled latent;
/// - *context*: `normalise(mean over cells of context(z)_c)`, where all cells are first scaled to the same length
///   ([`equalised`]).
///
/// Embedding allocates working memory for every frame (a few hundred kilobytes); heads over vectors do not.
#[derive(Debug, Clone, PartialEq)]
pub struct GridHead {
    /// Shape of the latents.
    pub grid: Grid,
    /// Mean, slow head and residual for the cells; never combined with the frozen latent.
    pub learned: HeadParams,
    /// The context network, if the embedding is the pooled context.
    pub context: Option<Context<f32>>,
}

impl GridHead {
    /// The embeddings of all cells before normalisation and pooling: `[n, h w d]` to `[n h w, k]`.
    fn values(&self, rows: ArrayView2<f32>) -> Array2<f32> {
        let mut z = product((self.grid.cells_of(rows) - &self.learned.mean).view(), self.learned.slow.view());
        if let Some(mlp) = &self.learned.mlp {
            let residual = mlp.rows(z.view());
            z.scaled_add(self.learned.alpha, &residual);
        }
        match &self.context {
            Some(context) => context.rows(equalised(z.view()).0.view(), self.grid.of_frames(rows.nrows())),
            None => z,
        }
    }

    /// Unit embedding of every row: `[n, h w d]` to `[n, k]`; zeros if there is no direction.
    pub(super) fn embed_rows(&self, rows: ArrayView2<f32>) -> Array2<f32> {
        let mut out = Array2::zeros((rows.nrows(), self.learned.slow.ncols()));
        for (row, mut out) in rows.axis_chunks_iter(Axis(0), 8).zip(out.axis_chunks_iter_mut(Axis(0), 8)) {
            let values = self.values(row);
            for (cells, mut out) in values.axis_chunks_iter(Axis(0), self.grid.cells()).zip(out.rows_mut()) {
                let mut mean: Array1<f32> = cells.mean_axis(Axis(0)).unwrap_or_default();
                let length = mean.as_slice_mut().map_or(0.0, normalise);
                if length > 0.0 && length.is_finite() {
                    out.assign(&mean);
                }
            }
        }
        out
    }

    /// Unit embedding of every cell: `[h w d]` to `[h w, k]`; zeros for a cell without a direction.
    pub(super) fn embed_cells(&self, row: ArrayView2<f32>) -> Array2<f32> {
        let mut cells = self.values(row);
        for cell in slices_mut(&mut cells) {
            let length = normalise(cell);
            if !(length > 0.0 && length.is_finite()) {
                cell.fill(0.0);
            }
        }
        cells
    }

    pub(super) fn check(&self) -> Result<()> {
        let (d, k) = self.learned.slow.dim();
        if self.grid.dim != d || self.grid.cells() == 0 || self.learned.form != EmbeddingKind::Single {
            return Err(Error::runtime(format!("a head for latents of {d} does not fit a grid {:?}", self.grid)));
        }
        self.context.as_ref().map_or(Ok(()), |context| context.check(k))
    }

    pub(super) fn finite(&self) -> bool {
        let mut parts = self.context.iter().flat_map(Context::parts).flat_map(|(_, part)| part);
        self.learned.finite() && parts.all(|x| x.is_finite())
    }
}

impl Head {
    /// Wraps this head over pooled grid latents so that it takes whole grids, for callers in which all heads must
    /// take the same rows.
    #[must_use]
    pub fn pooling(self, grid: Grid) -> Self {
        match self {
            Head::Identity { .. } | Head::Learned(_) => Head::Pooled { grid, head: Box::new(self) },
            Head::Pooled { .. } | Head::Grid(_) => self,
        }
    }

    /// Embeds the latents of an encoder, `[n, d]`, or `[n, h w d]` if they are a `grid`: a head over vectors gets the
    /// pooled grids.
    ///
    /// # Panics
    /// If the latents have another length.
    pub fn embed_latents(&self, grid: Option<Grid>, latents: ArrayView2<f32>) -> Array2<f32> {
        match grid {
            Some(grid) if self.dim_in() == grid.dim => self.embed_rows(grid.pooled(latents).view()),
            _ => self.embed_rows(latents),
        }
    }

    /// The head for one cell or a pooled latent: a head over vectors.
    #[must_use]
    pub fn of_cells(&self) -> Cow<'_, Head> {
        match self {
            Head::Identity { .. } | Head::Learned(_) => Cow::Borrowed(self),
            Head::Pooled { head, .. } => head.of_cells(),
            Head::Grid(head) => Cow::Owned(Head::Learned(head.learned.clone())),
        }
    }

    /// Unit embedding of every cell of a grid latent, `[h w d]` to `[h w, dim]`, treating each cell as a latent.
    /// `None` for a row of another length.
    pub fn embed_cells(&self, grid: Grid, row: &[f32]) -> Option<Array2<f32>> {
        let row = ArrayView2::from_shape((1, grid.numbers()), row).ok()?;
        match self {
            Head::Pooled { head, .. } => head.embed_cells(grid, row.as_slice()?),
            Head::Grid(head) => (head.grid == grid).then(|| head.embed_cells(row)),
            Head::Identity { .. } | Head::Learned(_) => {
                let mut cells = row.to_shape((grid.cells(), grid.dim)).ok()?.into_owned();
                slices_mut(&mut cells).for_each(|cell| {
                    normalise(cell);
                });
                (self.dim_in() == grid.dim).then(|| self.embed_rows(cells.view()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
