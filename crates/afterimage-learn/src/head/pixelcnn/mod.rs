//! The context network of CPC: summarises everything up to a row of cells, causal by row.
mod forward;
mod masked_shift;
#[cfg(test)]
mod tests;

use ndarray::{Array1, Array2, Array3, ArrayView2};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::linalg::random::uniform;
use crate::linalg::{Scalar, unit_rows};

pub use forward::ContextCache;

/// Scales the rows of `x: [n, c]` to the length `sqrt(c)`, and returns their original lengths, `[n]`. The targets and
/// the context network of CPC see these rows, so that the scale of a head does not matter. A row shorter than the
/// minimum length stays short.
pub fn equalised<T: Scalar>(x: ArrayView2<T>) -> (Array2<T>, Array1<T>) {
    let (mut rows, lengths) = unit_rows(&x.to_owned());
    rows *= T::of((x.ncols() as f64).sqrt());
    (rows, lengths)
}

/// How the `n` rows of a matrix map to cells: by frame, then by grid row, then by column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GridShape {
    /// Number of frames or sequences.
    pub frames: usize,
    /// Rows of the grid, or time steps of a sequence.
    pub rows: usize,
    /// Columns of the grid; 1 for a sequence.
    pub columns: usize,
}

impl GridShape {
    /// Total number of cells.
    pub fn count(self) -> usize {
        self.frames * self.per_frame()
    }

    /// Number of cells in one frame.
    pub fn per_frame(self) -> usize {
        self.rows * self.columns
    }
}

/// A PixelCNN-style stack of `n` residual blocks (van den Oord et al. 2016, 1606.05328; in this form the context
/// network of CPC v2, Henaff et al. 2019, 1905.09272, page 15). Each block computes, over cells with `c` channels:
///
/// `x = x + W_out relu(W_down * (W_across * relu(W_in x + b_in) + b_across) + b_down) + b_out`
///
/// with `W_in` 1x1 (`c` to `m` channels), `W_across` 1x3 (the cells left, here and right, zeros beyond the edges),
/// `W_down` 2x1 (the cell above and here, zeros above the first row) and `W_out` 1x1 (`m` to `c`). So the output at
/// row `r` depends on rows `r - n ..= r` and on `n` columns to either side, never on a row below.
///
/// There is no normalisation, so nothing depends on other frames of a batch (batch statistics tell a cell which batch
/// it is in, which CPC v2 found to be used as a shortcut), and the residual keeps the scale of the input.
///
/// The paper's code ends with a ReLU; this network does not, because the stream that the blocks add to has both
/// signs, and the linear maps that follow would lose half of it. PyTorch Lightning Bolts pads the row above the first
/// with ones instead of zeros; this network does not copy that.
///
/// The parameters of one kind are in one array over all blocks, in standard layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Context<T> {
    /// `[n, m, c]`
    pub w_in: Array3<T>,
    /// `[n, m]`
    pub b_in: Array2<T>,
    /// `[n, m, 3 m]`: from the cells left, here and right.
    pub w_across: Array3<T>,
    /// `[n, m]`
    pub b_across: Array2<T>,
    /// `[n, m, 2 m]`: from the cells above and here.
    pub w_down: Array3<T>,
    /// `[n, m]`
    pub b_down: Array2<T>,
    /// `[n, c, m]`
    pub w_out: Array3<T>,
    /// `[n, c]`
    pub b_out: Array2<T>,
}

impl<T: Scalar> Context<T> {
    /// `blocks` blocks over `channels` channels, with `width` channels inside: weights and biases uniform in `+-1 /
    /// sqrt(fan in)`, as in PyTorch's `Conv2d`.
    pub fn start(channels: usize, width: usize, blocks: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut context = Self::zeros(channels, width, blocks);
        let fans = [channels, channels, 3 * width, 3 * width, 2 * width, 2 * width, width, width];
        for ((_, part), fan) in context.parts_mut().into_iter().zip(fans) {
            let bound = 1.0 / (fan.max(1) as f64).sqrt();
            part.iter_mut().for_each(|x| *x = T::of((2.0 * uniform(rng) - 1.0) * bound));
        }
        context
    }

    /// An all-zero network with the same shapes.
    pub fn zeros(channels: usize, width: usize, blocks: usize) -> Self {
        let (n, m, c) = (blocks, width, channels);
        Self {
            w_in: Array3::zeros((n, m, c)),
            b_in: Array2::zeros((n, m)),
            w_across: Array3::zeros((n, m, 3 * m)),
            b_across: Array2::zeros((n, m)),
            w_down: Array3::zeros((n, m, 2 * m)),
            b_down: Array2::zeros((n, m)),
            w_out: Array3::zeros((n, c, m)),
            b_out: Array2::zeros((n, c)),
        }
    }

    /// Channels of the input and the output, `c`.
    pub fn channels(&self) -> usize {
        self.b_out.ncols()
    }

    /// Channels inside a block, `m`.
    pub fn width(&self) -> usize {
        self.b_in.ncols()
    }

    /// Number of blocks, `n`.
    pub fn blocks(&self) -> usize {
        self.b_in.nrows()
    }

    /// The eight arrays with their names, in a fixed order; the names of matrices begin with `w`.
    pub fn parts(&self) -> [(&'static str, &[T]); 8] {
        [
            ("w_in", self.w_in.as_slice().unwrap_or_default()),
            ("b_in", self.b_in.as_slice().unwrap_or_default()),
            ("w_across", self.w_across.as_slice().unwrap_or_default()),
            ("b_across", self.b_across.as_slice().unwrap_or_default()),
            ("w_down", self.w_down.as_slice().unwrap_or_default()),
            ("b_down", self.b_down.as_slice().unwrap_or_default()),
            ("w_out", self.w_out.as_slice().unwrap_or_default()),
            ("b_out", self.b_out.as_slice().unwrap_or_default()),
        ]
    }

    /// [`Context::parts`], mutably.
    pub fn parts_mut(&mut self) -> [(&'static str, &mut [T]); 8] {
        [
            ("w_in", self.w_in.as_slice_mut().unwrap_or_default()),
            ("b_in", self.b_in.as_slice_mut().unwrap_or_default()),
            ("w_across", self.w_across.as_slice_mut().unwrap_or_default()),
            ("b_across", self.b_across.as_slice_mut().unwrap_or_default()),
            ("w_down", self.w_down.as_slice_mut().unwrap_or_default()),
            ("b_down", self.b_down.as_slice_mut().unwrap_or_default()),
            ("w_out", self.w_out.as_slice_mut().unwrap_or_default()),
            ("b_out", self.b_out.as_slice_mut().unwrap_or_default()),
        ]
    }

    /// Checks shapes and layouts, for networks read from a file.
    ///
    /// # Errors
    /// Names the array that does not match.
    pub fn check(&self, channels: usize) -> Result<()> {
        let (n, m, c) = (self.blocks(), self.width(), channels);
        let fits = [
            ("w_in", self.w_in.dim() == (n, m, c) && self.w_in.is_standard_layout()),
            ("b_in", n > 0 && m > 0 && self.b_in.is_standard_layout()),
            ("w_across", self.w_across.dim() == (n, m, 3 * m) && self.w_across.is_standard_layout()),
            ("b_across", self.b_across.dim() == (n, m) && self.b_across.is_standard_layout()),
            ("w_down", self.w_down.dim() == (n, m, 2 * m) && self.w_down.is_standard_layout()),
            ("b_down", self.b_down.dim() == (n, m) && self.b_down.is_standard_layout()),
            ("w_out", self.w_out.dim() == (n, c, m) && self.w_out.is_standard_layout()),
            ("b_out", self.b_out.dim() == (n, c) && self.b_out.is_standard_layout()),
        ];
        match fits.iter().find(|(_, fits)| !fits) {
            None => Ok(()),
            Some((part, _)) => Err(Error::runtime(format!(
                "part {part} of the context network does not fit {n} blocks, {m} channels inside and {c} outside"
            ))),
        }
    }
}
