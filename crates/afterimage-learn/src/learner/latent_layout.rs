//! How the learner handles latents that are grids.
use std::borrow::Cow;

use ndarray::{Array2, ArrayView2, s};

use super::LatentSpec;
use super::training::REFERENCE_FRAMES;
use crate::config::{CpcEmbedding, LearnerConfig, Promotion};
use crate::error::{Error, Result};
use crate::gate::probe::Probe;
use crate::head::{Grid, Head};
use crate::sampling::{Block, Sample, Views};

/// Minimum number of held-out frames kept per block.
const LEAST_HELD: usize = 4;

/// Vector latents stay as they are. Grids are pooled on arrival, so that everything downstream handles vectors. Only an
/// objective that predicts rows keeps the grids whole: then the replay buffer and the held-out blocks hold whole grids,
/// every head takes whole grids, and the statistics per frame (slow-head statistics, references for novelty) pool them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LatentLayout {
    dim: usize,
    grid: Option<Grid>,
    whole: bool,
}

impl LatentLayout {
    /// `whole`: learn from grids as grids.
    pub(super) fn new(origin: &LatentSpec, whole: bool) -> Self {
        Self { dim: origin.pooled_dim(), grid: origin.shape(), whole }
    }

    /// Length of a latent, after pooling if it is a grid.
    pub(super) fn dim(self) -> usize {
        self.dim
    }

    /// The shape of the grids, if whole grids are learned from.
    pub(super) fn whole(self) -> Option<Grid> {
        self.grid.filter(|_| self.whole)
    }

    /// Number of values per latent in memory.
    pub(super) fn numbers(self) -> usize {
        self.whole().map_or(self.dim, Grid::numbers)
    }

    /// Sets the number of held-out frames to `promotion.max_frames`, but for whole grids to no more than
    /// `learn.replay.megabytes` can hold as f32.
    ///
    /// # Errors
    /// That number is too small for the promotion gate.
    pub(super) fn judge(self, config: &LearnerConfig) -> Result<Promotion> {
        let judge = config.promotion.clone();
        let Some(grid) = self.whole() else { return Ok(judge) };
        let megabytes = config.learn.replay.megabytes;
        let row = 4 * grid.numbers();
        let (held, least) = ((megabytes * 1e6) as usize / row.max(1), judge.min_blocks * LEAST_HELD);
        if held < least {
            let Grid { rows, columns, dim } = grid;
            return Err(Error::config(format!(
                "learn.replay.megabytes = {megabytes}: cpc keeps grids of {rows} x {columns} x {dim}, and as many \
                 megabytes again hold those that are judged on: {held}; at least {least} are needed, that is {:.0} \
                 megabytes",
                (least * row) as f64 * 1e-6 + 0.5
            )));
        }
        Ok(Promotion { max_frames: judge.max_frames.min(held), ..judge })
    }

    /// A held-out block as it is kept. Of whole grids, only every Nth frame is kept, so that twice the blocks that the
    /// gate needs fit into memory.
    pub(super) fn held(self, mut block: Block, judge: &Promotion) -> Block {
        block.views = Views::default();
        let most = (judge.max_frames / (2 * judge.min_blocks)).max(LEAST_HELD);
        let step = block.stamps.len().div_ceil(most);
        if self.whole().is_some() && step > 1 {
            block.index = block.index.into_iter().step_by(step).collect();
            block.stamps = block.stamps.into_iter().step_by(step).collect();
            block.latents = block.latents.slice(s![..;step, ..]).to_owned();
        }
        block
    }

    /// Number of held-out frames that are kept for good to measure forgetting; for whole grids, half as many as the
    /// gate uses.
    pub(super) fn reference_frames(self, judge: &Promotion) -> usize {
        if self.whole().is_some() { REFERENCE_FRAMES.min(judge.max_frames / 2) } else { REFERENCE_FRAMES }
    }

    /// Converts a sample to the layout that is learned from.
    pub(super) fn sample(self, sample: &Sample) -> Cow<'_, Sample> {
        match self.grid {
            Some(grid) if !self.whole => {
                let pool = |row: &[f32]| {
                    if row.len() != grid.numbers() {
                        return row.to_vec();
                    }
                    let mut out = vec![0.0; grid.dim];
                    grid.pool(row, &mut out);
                    out
                };
                Cow::Owned(Sample { latent: pool(&sample.latent), view: pool(&sample.view), ..*sample })
            }
            _ => Cow::Borrowed(sample),
        }
    }

    /// A block of samples with pooled latents.
    pub(super) fn pooled(self, block: &Block) -> Cow<'_, Block> {
        let Some(grid) = self.whole() else { return Cow::Borrowed(block) };
        let pool = |rows: &Array2<f32>| {
            if rows.ncols() == grid.numbers() { grid.pooled(rows.view()) } else { rows.clone() }
        };
        let views = Views { rows: block.views.rows.clone(), latents: pool(&block.views.latents) };
        let (index, stamps) = (block.index.clone(), block.stamps.clone());
        Cow::Owned(Block { latents: pool(&block.latents), index, stamps, views, ..*block })
    }

    /// Converts rows in memory to latents of frames.
    pub(super) fn latents(self, rows: ArrayView2<'_, f32>) -> Array2<f32> {
        self.whole().map_or_else(|| rows.to_owned(), |grid| grid.pooled(rows))
    }

    /// Converts a labelled probe to the layout that the heads take.
    pub(super) fn probe(self, probe: Probe) -> Probe {
        match self.grid {
            Some(grid) if !self.whole => probe.mapped(|rows| grid.pooled(rows)),
            _ => probe,
        }
    }

    /// Size in bytes of a context network in a head file.
    pub(super) fn context_bytes(self, channels: u64, config: &LearnerConfig) -> u64 {
        let learn = &config.learn;
        if self.whole().is_none() || learn.cpc.embedding != CpcEmbedding::Context {
            return 0;
        }
        let (width, blocks) = (learn.cpc.width as u64, learn.cpc.blocks as u64);
        4 * blocks * (2 * width * channels + 5 * width * width + 3 * width + channels)
    }

    /// Wraps `head`, which takes (pooled) latents, so that it takes rows in memory.
    pub(super) fn head(self, head: Head) -> Head {
        match self.whole() {
            Some(grid) => head.pooling(grid),
            None => head,
        }
    }
}

/// Rejects an objective that does not fit the latents.
pub(super) fn fits(config: &LearnerConfig, form: LatentLayout) -> Result<()> {
    let learn = &config.learn;
    if !learn.has_cpc() {
        return Ok(());
    }
    let first = learn.cpc.first;
    if let Some(Grid { rows, columns, dim }) = form.whole() {
        return if first < rows {
            Ok(())
        } else {
            Err(Error::config(format!(
                "learn.objective.name has cpc: a grid of {rows} x {columns} x {dim} has no cell learn.cpc.first = {first} rows \
                 below another. Take a larger encoder.input_size (more rows), a tensor of the model before the last \
                 pooling, or learn.cpc.first = 1 where there are 2 rows; for latents without rows make the card \
                 kind = \"vector\" (cpc then predicts in time) or take another objective, as nt-xent"
            )))
        };
    }
    let frames = (config.promotion.block_secs * learn.frames_per_sec + 1e-6) as usize;
    let (moments, least) = (learn.cpc.moments, learn.cpc.steps + 1);
    let problem = if moments < least {
        format!(
            "learn.cpc.moments = {moments}: at least learn.cpc.steps + 1 = {least} are needed to predict so far ahead"
        )
    } else if frames < moments {
        let (secs, rate) = (config.promotion.block_secs, learn.frames_per_sec);
        format!(
            "learn.cpc.moments = {moments}: a block has promotion.block_secs * learn.frames_per_sec = {secs} * {rate} = \
             {frames} learned frames at most; take fewer moments (and learn.cpc.steps), or a larger promotion.block_secs"
        )
    } else {
        return Ok(());
    };
    Err(Error::config(format!("learn.objective.name has cpc over vectors, which predicts in time: {problem}")))
}
