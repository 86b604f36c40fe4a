//! How well a head finds the neighbours of held-out frames, in two measures that need no labels.
use std::ops::Range;

use ndarray::{Array2, ArrayView2, s};

use super::Holdout;
use crate::Timestamp;
use crate::head::Head;
use crate::linalg::{dot, product, slices};

/// One entry per held-out block, oldest first; NaN for blocks that are too short for a score.
///
/// All entries are NaN for a head with an embedding that is not finite or not of unit length.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Next-frame retrieval (detail kept): how well the next frame is found among all others. 0 to 1, larger is better.
    pub next_frame: Vec<f64>,
    /// Within-segment AUC (invariance gained): how often a distant frame of the same block is nearer than frames of
    /// other blocks. 0 to 1, larger is better.
    pub auc: Vec<f64>,
}

/// Rows of the cosine matrix that are in memory at once.
const CHUNK: usize = 64;

/// The next-frame score and the within-segment AUC of every held-out block under `head`.
///
/// Let `e` be the embeddings, `N(i)` the held-out frames of all blocks but that of frame `i`, and `T` the distractors:
/// - `next_frame` is the mean over the frames `i` and their neighbours `p` (the previous and the next sample of the
///   block) of `1 / (1 + #{j in N(i) and T: e_j . e_i >= e_p . e_i})`, the reciprocal rank of the neighbour;
/// - `auc` is the mean over the frames `i` and their far frames `p` of `1 - #{j in N(i): e_j . e_i >= e_p . e_i} /
///   #N(i)`, the area under the ROC curve. A far frame is the sample of the block nearest to `far_gap_secs` before or
///   after `i`, provided that it lies between half and one and a half times that gap away.
///
/// Ties count against the head. `distractors: [t, d]` are latents of training frames: every fifth, at most 2048. Blocks
/// of one sample have no next-frame score; blocks shorter than half of `far_gap_secs` have no AUC.
///
/// Costs `h (h + t) k` multiplications and `4 k (h + t) + 256 (h + t)` bytes for `h` held-out frames and embeddings of
/// length `k`.
pub fn scores(held: &Holdout, distractors: ArrayView2<f32>, far_gap_secs: f64, head: &Head) -> Scores {
    let count = held.blocks().len();
    let unknown = Scores { next_frame: vec![f64::NAN; count], auc: vec![f64::NAN; count] };
    let fits = |x: ArrayView2<f32>| x.ncols() == head.dim_in() || x.nrows() == 0;
    if !fits(distractors) || !held.blocks().iter().all(|b| fits(b.latents.view())) {
        return unknown;
    }
    let mut frames = Array2::zeros((held.frames(), head.dim_out()));
    let mut ends = Vec::with_capacity(count);
    let mut at = 0;
    for block in held.blocks() {
        let end = at + block.latents.nrows();
        frames.slice_mut(s![at..end, ..]).assign(&head.embed_rows(block.latents.view()));
        ends.push(at..end);
        at = end;
    }
    let others = if distractors.nrows() == 0 {
        Array2::zeros((0, head.dim_out()))
    } else {
        head.embed_rows(distractors).as_standard_layout().into_owned()
    };
    if !all_unit(&frames) || !all_unit(&others) {
        return unknown;
    }
    let far_ns = (far_gap_secs * 1e9).round() as i64;
    let mut out = Scores { next_frame: Vec::with_capacity(count), auc: Vec::with_capacity(count) };
    for (block, range) in held.blocks().iter().zip(ends) {
        let (near, far) = block_scores(&frames, &others, range, &block.stamps, far_ns);
        out.next_frame.push(near);
        out.auc.push(far);
    }
    out
}

/// The two scores of the block whose frames are `range`.
fn block_scores(
    frames: &Array2<f32>,
    others: &Array2<f32>,
    range: Range<usize>,
    stamps: &[Timestamp],
    far_ns: i64,
) -> (f64, f64) {
    let outside = frames.nrows() - range.len();
    let (mut near, mut far) = (Mean::default(), Mean::default());
    for begin in range.clone().step_by(CHUNK) {
        let rows = frames.slice(s![begin..range.end.min(begin + CHUNK), ..]);
        let held = product(rows, frames.t());
        let distract = product(rows, others.t());
        // Without distractors, the second matrix has no columns and therefore no slices.
        let mut distract = slices(&distract);
        for (k, cosines) in slices(&held).enumerate() {
            let row = begin + k - range.start;
            let distract = distract.next().unwrap_or_default();
            let beating = |partner: usize| {
                let least = cosines[range.start + partner];
                let held = at_least(&cosines[..range.start], least) + at_least(&cosines[range.end..], least);
                (held, at_least(distract, least))
            };
            let neighbours = [row.checked_sub(1), (row + 1 < range.len()).then_some(row + 1)];
            for partner in neighbours.into_iter().flatten() {
                if outside + others.nrows() > 0 {
                    let (held, distract) = beating(partner);
                    near.add(1.0 / f64::from(1 + held + distract));
                }
            }
            for partner in far_frames(stamps, row, far_ns).into_iter().flatten() {
                if outside > 0 {
                    far.add(1.0 - f64::from(beating(partner).0) / outside as f64);
                }
            }
        }
    }
    (near.value(), far.value())
}

/// The samples nearest to `gap` before and after sample `row`, provided that they are half to one and a half times that
/// gap away. Of two equally near samples, takes the earlier one. Allows one microsecond for rounded timestamps.
fn far_frames(stamps: &[Timestamp], row: usize, gap: i64) -> [Option<usize>; 2] {
    const ROUNDING: i64 = 1000;
    let Some(Timestamp(here)) = stamps.get(row).copied() else { return [None, None] };
    let find = |target: i64, side: Range<usize>| {
        let off = |j: &usize| stamps[*j].0.saturating_sub(target).saturating_abs();
        let after = stamps.partition_point(|s| s.0 < target);
        let near = after.saturating_sub(1)..(after + 1).min(stamps.len());
        near.filter(|j| side.contains(j) && off(j) <= gap / 2 + ROUNDING).min_by_key(off)
    };
    [find(here.saturating_sub(gap), 0..row), find(here.saturating_add(gap), row + 1..stamps.len())]
}

/// Counts the values that are not below `least`.
fn at_least(x: &[f32], least: f32) -> u32 {
    x.iter().map(|x| u32::from(*x >= least)).sum()
}

fn all_unit(x: &Array2<f32>) -> bool {
    slices(x).all(|row| (dot(row, row) - 1.0).abs() < 1e-3)
}

/// A running mean; NaN if empty.
#[derive(Default)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn add(&mut self, x: f64) {
        self.sum += x;
        self.count += 1;
    }

    fn value(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.sum / self.count as f64 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "scores_tests.rs"]
mod tests;
