//! From samples to blocks: what is worth learning from, cut into pieces that are held out or learned as a whole.
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{Block, Sample, Views};
use crate::config::{Judge, Learn};
use crate::error::{Error, Result};
use crate::frame::Stamp;
use crate::linalg::dot;

/// Gathers samples into [`Block`]s.
///
/// - *Rate*: at most `learn.frames_per_sec` samples a second. A sample is kept when its stamp is not more than a
///   quarter of a period before it is due, and the next is due one period after this one was (or, after a late sample,
///   three quarters of a period after its stamp). So with a limit of 10, 30 frames a second keep every third, 10 keep
///   all, jitter included, and 25 keep 10 on average (two or three frames apart); over `t` seconds of a segment never
///   more than `10 t + 1.25` are kept.
/// - *Still scenes*: a sample whose cosine distance to the last kept one of its segment is below `learn.still_distance`
///   is skipped.
/// - *Blocks* end where the segment changes, before a sample `judge.block_secs` or more after the block's first, or so
///   long after the last kept one, and where the stamp steps back. The first sample of a segment, and the one after a
///   step back, is always kept.
#[derive(Debug, Clone)]
pub struct Blocks {
    period_ns: i64,
    block_ns: i64,
    still_distance: f64,
    state: BlocksState,
    /// Latents of the open block, row after row.
    rows: Vec<f32>,
    /// Latents of the views in it.
    view_rows: Vec<f32>,
}

/// What became of the samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCounts {
    /// In a block.
    pub kept: u64,
    /// Skipped: too soon after the one before.
    pub rate_limited: u64,
    /// Skipped: the scene stood still.
    pub still: u64,
}

/// What a [`Blocks`] remembers beside the latents of its open block, for a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksState {
    /// Blocks closed so far: the number of the open one.
    pub number: u64,
    /// Camera of the open block.
    pub camera: u16,
    /// Segment of the open block.
    pub segment: u64,
    /// Positions of the frames in the open block.
    pub index: Vec<u64>,
    /// Their capture times, nanoseconds.
    pub stamps: Vec<i64>,
    /// For each view of one of them the place of its frame in the block.
    pub views: Vec<u32>,
    /// When the next sample is due, nanoseconds.
    pub due: i64,
    /// Length of a latent.
    pub dim: usize,
    /// The counts.
    pub counts: BlockCounts,
}

/// True for the blocks that are judged on and never learned from: every `hold_every`th, block 0 among them.
pub fn held(number: u64, hold_every: u64) -> bool {
    hold_every > 0 && number.is_multiple_of(hold_every)
}

impl Blocks {
    /// Nothing gathered yet.
    pub fn new(learn: &Learn, judge: &Judge) -> Self {
        Self {
            period_ns: nanos(1.0 / learn.frames_per_sec),
            block_ns: nanos(judge.block_secs),
            still_distance: learn.still_distance,
            state: BlocksState::default(),
            rows: Vec::new(),
            view_rows: Vec::new(),
        }
    }

    /// Takes the next sample of the stream; the block that ends before it, where one does.
    ///
    /// A latent of another length than those of the open block ends it like a cut.
    pub fn push(&mut self, sample: &Sample) -> Option<Block> {
        let stamp = sample.stamp.0;
        let Some((first, last)) = self.span() else {
            self.begin(sample);
            return None;
        };
        let cut = sample.segment != self.state.segment || sample.latent.len() != self.state.dim || stamp < last;
        if cut {
            let closed = self.close();
            self.begin(sample);
            return closed;
        }
        let quarter = self.period_ns / 4;
        if stamp < self.state.due.saturating_sub(quarter) {
            self.state.counts.rate_limited += 1;
            return None;
        }
        if 1.0 - f64::from(dot(self.last_row(), &sample.latent)) < self.still_distance {
            self.state.counts.still += 1;
            return None;
        }
        let ends = stamp.saturating_sub(first) >= self.block_ns || stamp.saturating_sub(last) >= self.block_ns;
        let closed = if ends { self.close() } else { None };
        self.state.due = self.state.due.max(stamp.saturating_sub(quarter)).saturating_add(self.period_ns);
        self.keep(sample);
        closed
    }

    /// The open block, at the end of the stream.
    pub fn finish(&mut self) -> Option<Block> {
        self.close()
    }

    /// The counts so far.
    pub fn counts(&self) -> BlockCounts {
        self.state.counts
    }

    /// Samples in the open block.
    pub fn open(&self) -> u64 {
        self.state.index.len() as u64
    }

    /// What to save: the state, the latents of the open block and those of its views, row after row.
    pub fn save(&self) -> (&BlocksState, &[f32], &[f32]) {
        (&self.state, &self.rows, &self.view_rows)
    }

    /// Goes on where `state` and the two lists of rows were saved.
    ///
    /// # Errors
    /// The parts do not fit together.
    pub fn restore(&mut self, state: BlocksState, rows: Vec<f32>, view_rows: Vec<f32>) -> Result<()> {
        let (n, d, views) = (state.index.len(), state.dim, &state.views);
        let fits = |n: usize, rows: &[f32]| n.checked_mul(d) == Some(rows.len());
        let rising = views.windows(2).all(|w| w[0] < w[1]) && views.last().is_none_or(|last| (*last as usize) < n);
        if state.stamps.len() != n || !fits(n, &rows) || !fits(views.len(), &view_rows) || !rising {
            return Err(Error::work(format!(
                "saved open block: {n} positions, {} stamps, {} numbers for latents of {d}, {} for {} views: these do \
                 not fit",
                state.stamps.len(),
                rows.len(),
                view_rows.len(),
                views.len()
            )));
        }
        (self.state, self.rows, self.view_rows) = (state, rows, view_rows);
        Ok(())
    }

    /// First and last stamp of the open block; `None` where none is open.
    fn span(&self) -> Option<(i64, i64)> {
        Some((*self.state.stamps.first()?, *self.state.stamps.last()?))
    }

    fn last_row(&self) -> &[f32] {
        &self.rows[self.rows.len() - self.state.dim..]
    }

    /// Begins a block with `sample`, and the schedule with its stamp.
    fn begin(&mut self, sample: &Sample) {
        self.state.due = sample.stamp.0.saturating_add(self.period_ns);
        self.state.dim = sample.latent.len();
        self.keep(sample);
    }

    fn keep(&mut self, sample: &Sample) {
        (self.state.camera, self.state.segment) = (sample.camera, sample.segment);
        self.state.index.push(sample.index);
        self.state.stamps.push(sample.stamp.0);
        self.rows.extend_from_slice(&sample.latent);
        if !sample.view.is_empty() && sample.view.len() == self.state.dim {
            self.state.views.push(self.state.index.len() as u32 - 1);
            self.view_rows.extend_from_slice(&sample.view);
        }
        self.state.counts.kept += 1;
    }

    fn close(&mut self) -> Option<Block> {
        let stamps: Vec<Stamp> = std::mem::take(&mut self.state.stamps).into_iter().map(Stamp).collect();
        let index = std::mem::take(&mut self.state.index);
        let rows = std::mem::take(&mut self.rows);
        let (of, view_rows) = (std::mem::take(&mut self.state.views), std::mem::take(&mut self.view_rows));
        if stamps.is_empty() {
            return None;
        }
        let latents = Array2::from_shape_vec((stamps.len(), self.state.dim), rows).ok()?;
        let views = match of.len() {
            0 => Views::default(),
            m => Views { rows: of, latents: Array2::from_shape_vec((m, self.state.dim), view_rows).ok()? },
        };
        let number = self.state.number;
        self.state.number += 1;
        Some(Block { camera: self.state.camera, number, segment: self.state.segment, index, stamps, latents, views })
    }
}

/// Seconds in whole nanoseconds.
fn nanos(secs: f64) -> i64 {
    (secs * 1e9).round() as i64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "blocks_tests.rs"]
mod tests;
