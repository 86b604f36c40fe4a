//! CPC: rows of a grid, or moments of a sequence, predict the following ones.
use rand_chacha::ChaCha8Rng;

use super::{BatchKind, ForwardBatch, LossGrad, TrainingObjective};
use crate::config::{CpcEmbedding, CpcSettings};
use crate::error::Result;
use crate::head::{Grid, GridHead, GridShape, Head, HeadParams};
use crate::objective::{CpcNetwork, CpcSizes, InfoNce};
use crate::optimizer::Parameters;
use crate::state_dict::{LoadedTensors, StateDict};

/// The objective of [`crate::objective::CpcNetwork`] on the residual's outputs for cells or moments.
///
/// Over grids (`learn.cpc.batch` of them, each from a different block if there are enough), the rows are those of the
/// image; over vectors, they are the moments of `learn.cpc.batch` sequences. Either way, the residual gets the
/// gradients of both targets and contexts: its output for a cell should be predictable and should help to predict.
#[derive(Debug, Clone)]
pub(super) struct Cpc {
    network: CpcNetwork<f32>,
    grads: CpcNetwork<f32>,
    grid: Option<Grid>,
    first: usize,
    loss: InfoNce,
    mask_segments: bool,
    moments: usize,
    batch: usize,
    pooled_context: bool,
}

impl Cpc {
    /// Creates new networks over rows of `channels` values. `grid` is the shape of the latents if they are grids.
    pub(super) fn new(config: &CpcSettings, grid: Option<Grid>, channels: usize, rng: &mut ChaCha8Rng) -> Self {
        let rows = grid.map_or(config.moments, |grid| grid.rows);
        let last = config.steps.min(rows.saturating_sub(1));
        let sizes = CpcSizes {
            channels,
            targets: config.dim,
            width: config.width,
            blocks: config.blocks,
            offsets: (last + 1).saturating_sub(config.first),
        };
        let network = CpcNetwork::start(sizes, rng);
        Self {
            grads: network.zeros_like(),
            network,
            grid,
            first: config.first,
            loss: InfoNce { scale: config.scale },
            mask_segments: config.mask_segments,
            moments: config.moments,
            batch: config.batch,
            pooled_context: config.embedding == CpcEmbedding::Context,
        }
    }
}

impl TrainingObjective for Cpc {
    fn name(&self) -> &'static str {
        "cpc"
    }

    fn need(&self) -> BatchKind {
        match self.grid {
            Some(_) => BatchKind::Grids { count: self.batch },
            None => BatchKind::Sequences { count: self.batch, len: self.moments },
        }
    }

    fn turn(&mut self, rows: &ForwardBatch<'_>) -> LossGrad {
        let segments = rows.drawn.segments.as_slice();
        let (rows_of_frame, columns) = self.grid.map_or((self.moments, 1), |grid| (grid.rows, grid.columns));
        let cells = GridShape { frames: segments.len(), rows: rows_of_frame, columns };
        let masked = self.mask_segments.then_some(segments);
        let pass = self.network.pass(rows.out, cells, self.first, self.loss, masked, &mut self.grads);
        LossGrad { value: pass.value as f32, grad: pass.grad }
    }

    fn networks(&mut self) -> Option<[&mut dyn Parameters<f32>; 2]> {
        Some([&mut self.network, &mut self.grads])
    }

    fn head(&self, learned: HeadParams) -> Head {
        match self.grid {
            Some(grid) => {
                let context = self.pooled_context.then(|| self.network.context.clone());
                Head::Grid(Box::new(GridHead { grid, learned, context }))
            }
            None => Head::Learned(learned),
        }
    }

    fn save<'a>(&'a self, contents: &mut StateDict<'a>, prefix: &str) {
        contents.array(format!("{prefix}target"), &self.network.target);
        contents.array(format!("{prefix}predict"), &self.network.predict);
        contents.context(&format!("{prefix}context."), &self.network.context);
    }

    fn restore(&mut self, stored: &mut LoadedTensors, prefix: &str) -> Result<()> {
        let ((targets, channels), predictions) = (self.network.target.dim(), self.network.predict.nrows());
        let network = CpcNetwork {
            target: stored.take_matrix(&format!("{prefix}target"), targets, channels)?,
            predict: stored.take_matrix(&format!("{prefix}predict"), predictions, channels)?,
            context: stored.take_context(&format!("{prefix}context."), channels)?,
        };
        let (ours, theirs) = (&self.network.context, &network.context);
        if (ours.width(), ours.blocks()) != (theirs.width(), theirs.blocks()) {
            return Err(stored.wrong("has a context network of another size than learn.cpc.width and cpc_blocks say"));
        }
        self.network = network;
        Ok(())
    }

    fn boxed(&self) -> Box<dyn TrainingObjective> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
#[path = "cpc_tests.rs"]
mod tests;
