//! The InfoNCE loss of CPC.
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

use crate::head::GridShape;
use crate::linalg::{Scalar, largest, matmul, slices_mut, sum};

/// Cross-entropy of finding the right cell among all cells of the batch (InfoNCE, 1807.03748, equation 4, with a
/// scaled inner product in place of the density ratio), averaged over offsets. For the prediction `q` made at row
/// `r`, column `j` of frame `i` for offset `k`, and targets `t`:
///
/// `loss_k = mean over i, j, r < h - k of -log( exp(s q . t_(i, r + k, j)) / sum over cells of exp(s q . t_cell) )`
///
/// The sum runs over all `b h w` cells of the batch, including those of the same frame: the task consists in telling
/// a cell from its neighbours. Nothing is normalised; `s` keeps the logits small at first.
///
/// *False negatives.* A frame of the same segment may show the very same thing at the same place. No prediction can
/// then tell the two cells apart, and the loss could fall only by fitting the noise between the two frames. With
/// `segments`, the sum leaves out the cells of other frames of the same segment; those of the same frame stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InfoNce {
    /// `s`
    pub scale: f64,
}

impl InfoNce {
    /// Computes the loss of one offset `k`, from `1` to `rows - 1`. `predictions` and `targets` are `[b h w, p]`; of
    /// `predictions` only rows that have a row `k` below are read. Adds `weight` times the gradients to
    /// `grad_predictions` and `grad_targets`, `[b h w, p]`. `segments: [b]` holds one entry per frame.
    ///
    /// # Panics
    /// If the shapes do not match or no row has one `k` below.
    #[allow(clippy::too_many_arguments, reason = "two inputs, two gradients, and what they mean")]
    pub fn offset<T: Scalar>(
        &self,
        predictions: ArrayView2<T>,
        targets: ArrayView2<T>,
        cells: GridShape,
        k: usize,
        segments: Option<&[u64]>,
        weight: f64,
        mut grad_predictions: ArrayViewMut2<T>,
        grad_targets: &mut Array2<T>,
    ) -> f64 {
        let count = cells.count();
        assert!(predictions.dim() == targets.dim() && targets.nrows() == count, "cells of the loss");
        assert!(segments.is_none_or(|of| of.len() == cells.frames), "segments of the loss");
        assert!(0 < k && k < cells.rows && cells.frames > 0 && cells.columns > 0, "offset {k} of {} rows", cells.rows);
        let (per, below) = (cells.per_frame(), k * cells.columns);
        let each = per - below;
        let scale = T::of(self.scale);
        let factor = T::of(weight * self.scale / (cells.frames * each) as f64);
        let mut logits = Array2::zeros((each, count));
        let mut total = 0.0;
        for frame in 0..cells.frames {
            // The predictions of a frame that have a target are contiguous.
            let rows = s![frame * per..frame * per + each, ..];
            let q = predictions.slice(rows);
            matmul(scale, q, targets.t(), T::zero(), logits.view_mut());
            for (i, row) in slices_mut(&mut logits).enumerate() {
                if let Some(segments) = segments {
                    leave_out(row, segments, frame, per);
                }
                total += cross_entropy(row, frame * per + below + i);
            }
            matmul(factor, logits.view(), targets, T::one(), grad_predictions.slice_mut(rows));
            matmul(factor, logits.t(), q, T::one(), grad_targets.view_mut());
        }
        total / (cells.frames * each) as f64
    }
}

/// Removes the cells of other frames in the segment of `frame` from a row of logits.
fn leave_out<T: Scalar>(logits: &mut [T], segments: &[u64], frame: usize, per_frame: usize) {
    for (other, cells) in logits.chunks_exact_mut(per_frame).enumerate() {
        if other != frame && segments[other] == segments[frame] {
            cells.fill(T::neg_infinity());
        }
    }
}

/// Cross-entropy of a row of logits with `label`; replaces the logits by the softmax minus one at the label.
fn cross_entropy<T: Scalar>(logits: &mut [T], label: usize) -> f64 {
    let right = logits[label];
    let top = largest(logits);
    logits.iter_mut().for_each(|x| *x -= top);
    T::exp_in_place(logits);
    let whole = sum(logits);
    let inverse = T::one() / whole;
    logits.iter_mut().for_each(|x| *x *= inverse);
    logits[label] -= T::one();
    whole.ln().as_f64() + (top - right).as_f64()
}
