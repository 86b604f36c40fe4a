//! A block that is still growing.
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{Block, Sample, Views};
use crate::Timestamp;
use crate::error::{Error, Result};

/// The samples of one segment so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OpenBlock {
    pub(super) state: OpenBlockState,
    /// Latents of the samples, row after row.
    pub(super) rows: Vec<f32>,
    /// Latents of the augmented views.
    pub(super) view_rows: Vec<f32>,
}

/// The state of an open block, without its latents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBlockState {
    /// The block's segment.
    pub segment: u64,
    /// Capture time of its first frame in the stream, kept or not, in nanoseconds.
    pub since: i64,
    /// Indices of the frames in the source.
    pub index: Vec<u64>,
    /// Capture times of the frames, in nanoseconds.
    pub stamps: Vec<i64>,
    /// For each augmented view, the row of its frame in the block.
    pub views: Vec<u32>,
    /// When the next sample is due, in nanoseconds.
    pub due: i64,
    /// Length of a latent.
    pub dim: usize,
}

impl OpenBlock {
    /// Starts a block with `sample`; the next sample is due one period later.
    pub(super) fn begin(sample: &Sample, period_ns: i64) -> Self {
        let state = OpenBlockState {
            segment: sample.segment,
            since: sample.stamp.0,
            due: sample.stamp.0.saturating_add(period_ns),
            dim: sample.latent.len(),
            ..OpenBlockState::default()
        };
        let mut open = Self { state, rows: Vec::new(), view_rows: Vec::new() };
        open.keep(sample);
        open
    }

    pub(super) fn keep(&mut self, sample: &Sample) {
        self.state.index.push(sample.index);
        self.state.stamps.push(sample.stamp.0);
        self.rows.extend_from_slice(&sample.latent);
        if !sample.view.is_empty() && sample.view.len() == self.state.dim {
            self.state.views.push(self.state.index.len() as u32 - 1);
            self.view_rows.extend_from_slice(&sample.view);
        }
    }

    /// First and last timestamp.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        Some((*self.state.stamps.first()?, *self.state.stamps.last()?))
    }

    pub(super) fn last_row(&self) -> &[f32] {
        &self.rows[self.rows.len().saturating_sub(self.state.dim)..]
    }

    pub(super) fn close(self, camera: u16, turn: u64, number: u64) -> Option<Block> {
        let Self { state, rows, view_rows } = self;
        let stamps: Vec<Timestamp> = state.stamps.into_iter().map(Timestamp).collect();
        if stamps.is_empty() {
            return None;
        }
        let latents = Array2::from_shape_vec((stamps.len(), state.dim), rows).ok()?;
        let views = match state.views.len() {
            0 => Views::default(),
            m => Views { rows: state.views, latents: Array2::from_shape_vec((m, state.dim), view_rows).ok()? },
        };
        Some(Block {
            camera,
            number,
            camera_block_index: turn,
            segment: state.segment,
            index: state.index,
            stamps,
            latents,
            views,
        })
    }

    /// Restores a block. `rows` and `views` start with its rows, which are removed from them.
    pub(super) fn restore(state: OpenBlockState, rows: &mut Vec<f32>, views: &mut Vec<f32>) -> Result<Self> {
        let (n, d) = (state.index.len(), state.dim);
        let rising = state.views.windows(2).all(|w| w[0] < w[1]);
        let inside = state.views.last().is_none_or(|last| (*last as usize) < n);
        let numbers = |n: usize, rows: &[f32]| n.checked_mul(d).filter(|&numbers| numbers <= rows.len());
        match (numbers(n, rows), numbers(state.views.len(), views)) {
            (Some(all), Some(of_views)) if state.stamps.len() == n && rising && inside => {
                let (rest, others) = (rows.split_off(all), views.split_off(of_views));
                Ok(Self { state, rows: std::mem::replace(rows, rest), view_rows: std::mem::replace(views, others) })
            }
            _ => Err(Error::runtime(format!(
                "saved open block: {n} positions, {} stamps, {} numbers for latents of {d}, {} for {} views: these do not \
                 fit",
                state.stamps.len(),
                rows.len(),
                views.len(),
                state.views.len()
            ))),
        }
    }
}
