//! Stand-ins for the parts of a pipeline that tests do without: models and cameras.
use std::time::{Duration, Instant};

use super::latent_encoder::LatentEncoder;
use crate::error::{Error, Result};
use crate::frame::{Frame, Timestamp};
use crate::learner::LatentSpec;
use crate::source::{Pull, Source, SourceCounts, SourceEvent};

/// Values of a latent of [`FakeEncoder`].
pub(super) const DIM: usize = 4;

/// What [`FakeEncoder`] gives.
pub(super) fn latents() -> LatentSpec {
    LatentSpec { encoder_sha256: "encoder".into(), card_hash: "card".into(), dim: DIM, ..LatentSpec::default() }
}

/// Takes the first values of a tensor as its latent.
#[derive(Debug, Default)]
pub(super) struct FakeEncoder {
    /// How many frames went through in each pass.
    pub(super) passes: Vec<usize>,
    /// Fails from this pass on.
    pub(super) fails_at: Option<usize>,
}

impl LatentEncoder for FakeEncoder {
    fn encode(&mut self, tensor: &[f32], latent: &mut [f32]) -> Result<()> {
        self.encode_batch(tensor, latent)
    }

    fn encode_batch(&mut self, tensors: &[f32], latents: &mut [f32]) -> Result<()> {
        let frames = latents.len() / DIM;
        if self.fails_at.is_some_and(|pass| self.passes.len() >= pass) {
            return Err(Error::runtime("the fake encoder fails"));
        }
        self.passes.push(frames);
        let each = tensors.chunks_exact(tensors.len() / frames);
        latents.chunks_exact_mut(DIM).zip(each).for_each(|(latent, tensor)| latent.copy_from_slice(&tensor[..DIM]));
        Ok(())
    }
}

/// Grey frames of 8 x 8 pixels, ten a second.
#[derive(Debug, Default)]
pub(super) struct FakeSource {
    pub(super) live: bool,
    pub(super) frames: u64,
    pub(super) next: u64,
    /// Breaks before this frame.
    pub(super) breaks_at: Option<u64>,
    /// What happens to it before its first frame.
    pub(super) events: Vec<SourceEvent>,
}

impl Source for FakeSource {
    fn next(&mut self, frame: &mut Frame, _: Duration) -> Result<Pull> {
        if self.breaks_at == Some(self.next) {
            return Err(Error::runtime("the fake source broke"));
        }
        if self.next == self.frames {
            return Ok(Pull::End);
        }
        (frame.width, frame.height, frame.index) = (8, 8, self.next);
        frame.stamp = Timestamp(self.next as i64 * 100_000_000);
        frame.pixels.clear();
        frame.pixels.resize(8 * 8 * 3, 100 + (self.next % 50) as u8);
        frame.arrived = self.live.then(Instant::now);
        self.next += 1;
        Ok(Pull::Frame)
    }

    fn skip_to(&mut self, index: u64) -> Result<()> {
        self.next = index;
        Ok(())
    }

    fn live(&self) -> bool {
        self.live
    }

    fn counts(&self) -> SourceCounts {
        SourceCounts { frames: self.next, ..SourceCounts::default() }
    }

    fn take_events(&mut self) -> Vec<SourceEvent> {
        std::mem::take(&mut self.events)
    }
}
