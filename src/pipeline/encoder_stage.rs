//! Prepared frame to unit latent.
use crossbeam_channel::Receiver;

use super::batcher::Batcher;
use super::box_service::Crop;
use super::capture_thread::PreparedFrame;
use super::latent_encoder::LatentEncoder;
use crate::error::{Error, Result};
use crate::head::Grid;
use crate::learner::LatentSpec;
use crate::linalg::normalise;

/// So many frames in a row without a usable latent end the run: the model is broken, not the frame.
const MAX_BAD_LATENTS: u64 = 50;

/// The encoder with its buffers: the latents of the last frame and of its augmented view.
pub(super) struct EncoderStage<'a> {
    encoder: &'a mut dyn LatentEncoder,
    batcher: Batcher,
    /// The shape of latents that are grids.
    grid: Option<Grid>,
    latent: Vec<f32>,
    /// Empty unless latents are grids.
    pooled: Vec<f32>,
    /// Empty where the frame has no view.
    view: Vec<f32>,
    /// Frames in a row without a usable latent.
    bad: u64,
}

impl<'a> EncoderStage<'a> {
    /// Encodes `batch` frames in one pass.
    pub(super) fn new(encoder: &'a mut dyn LatentEncoder, latents: &LatentSpec, batch: usize) -> Self {
        let grid = latents.shape();
        Self {
            encoder,
            batcher: Batcher::new(batch),
            grid,
            latent: vec![0.0; latents.dim],
            pooled: vec![0.0; grid.map_or(0, |grid| grid.dim)],
            view: Vec::with_capacity(latents.dim),
            bad: 0,
        }
    }

    /// The next frame of a batch that went through the encoder already.
    pub(super) fn encoded(&mut self) -> Option<PreparedFrame> {
        self.batcher.take()
    }

    /// Encodes `frame`; the rest of its batch comes from `filled`, while `go_on` says so. False where the latent is zero
    /// or not finite.
    ///
    /// # Errors
    /// The inference fails, or too many frames in a row have no usable latent.
    pub(super) fn encode(
        &mut self,
        frame: &PreparedFrame,
        filled: &Receiver<PreparedFrame>,
        go_on: impl FnMut() -> bool,
    ) -> Result<bool> {
        self.view.clear();
        self.batcher.latent(self.encoder, frame, filled, go_on, &mut self.latent)?;
        let norm = normalise(&mut self.latent);
        if let Some(grid) = self.grid {
            grid.pool(&self.latent, &mut self.pooled);
        }
        if norm.is_finite() && norm > 0.0 {
            self.bad = 0;
            return Ok(true);
        }
        self.bad += 1;
        if self.bad < MAX_BAD_LATENTS {
            return Ok(false);
        }
        Err(Error::runtime(format!(
            "the encoder gave {} latents in a row that are zero or not finite (last at frame {}); check the model with \
             `afterimage check`",
            self.bad, frame.index
        )))
    }

    /// Encodes the augmented view of `frame`. False where its latent is zero or not finite.
    ///
    /// # Errors
    /// The inference fails.
    pub(super) fn encode_view(&mut self, frame: &PreparedFrame) -> Result<bool> {
        self.view.resize(self.latent.len(), 0.0);
        self.encoder.encode(&frame.view, &mut self.view)?;
        let norm = normalise(&mut self.view);
        let usable = norm.is_finite() && norm > 0.0;
        if !usable {
            self.view.clear();
        }
        Ok(usable)
    }

    /// Encodes the crop of a box.
    ///
    /// # Errors
    /// The inference fails.
    pub(super) fn encode_crop(&mut self, crop: &mut Crop) -> Result<()> {
        self.encoder.encode(&crop.tensor, &mut crop.latent)
    }

    /// The latent as the encoder gives it: a vector or a whole grid, of unit length.
    pub(super) fn whole(&self) -> &[f32] {
        &self.latent
    }

    /// The pooled latent; empty unless latents are grids.
    pub(super) fn pooled(&self) -> &[f32] {
        &self.pooled
    }

    /// The latent of the frame: pooled, where latents are grids.
    pub(super) fn frame(&self) -> &[f32] {
        if self.pooled.is_empty() { &self.latent } else { &self.pooled }
    }

    /// The latent of the augmented view; empty where there is none.
    pub(super) fn view(&self) -> &[f32] {
        &self.view
    }
}
