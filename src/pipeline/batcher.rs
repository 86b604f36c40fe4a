//! Frames of a bounded source that go through the encoder together.
use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::capture_thread::PreparedFrame;
use super::latent_encoder::LatentEncoder;
use crate::error::Result;

/// How long the batcher waits for a frame before it asks whether to go on.
const WAIT: Duration = Duration::from_millis(50);

/// Encodes `size` frames in one pass, and hands out their latents one by one.
///
/// It waits until so many frames are there, or the source has ended: which frames go together, and so the last bits of
/// their latents, do not depend on how fast frames come.
#[derive(Default)]
pub(super) struct Batcher {
    size: usize,
    /// Frames that are encoded and not handed out.
    waiting: VecDeque<PreparedFrame>,
    tensors: Vec<f32>,
    latents: Vec<f32>,
    /// Row of the next latent.
    next: usize,
}

impl Batcher {
    pub(super) fn new(size: usize) -> Self {
        Self { size, ..Self::default() }
    }

    /// The next frame that is encoded already.
    pub(super) fn take(&mut self) -> Option<PreparedFrame> {
        self.waiting.pop_front()
    }

    /// The latent of `frame`, which came from [`Batcher::take`] or else begins the next batch; the rest of that comes from
    /// `filled`. Stops waiting for it once `go_on` says no.
    pub(super) fn latent(
        &mut self,
        encoder: &mut dyn LatentEncoder,
        frame: &PreparedFrame,
        filled: &Receiver<PreparedFrame>,
        go_on: impl FnMut() -> bool,
        latent: &mut [f32],
    ) -> Result<()> {
        if self.size <= 1 {
            return encoder.encode(&frame.tensor, latent);
        }
        if self.next * latent.len() >= self.latents.len() {
            self.gather(frame, filled, go_on);
            self.latents.resize((1 + self.waiting.len()) * latent.len(), 0.0);
            encoder.encode_batch(&self.tensors, &mut self.latents)?;
            self.next = 0;
        }
        let start = self.next * latent.len();
        if let Some(row) = self.latents.get(start..start + latent.len()) {
            latent.copy_from_slice(row);
        }
        self.next += 1;
        Ok(())
    }

    fn gather(&mut self, first: &PreparedFrame, filled: &Receiver<PreparedFrame>, mut go_on: impl FnMut() -> bool) {
        self.tensors.clear();
        self.tensors.extend_from_slice(&first.tensor);
        while 1 + self.waiting.len() < self.size {
            match filled.recv_timeout(WAIT) {
                Ok(frame) => {
                    self.tensors.extend_from_slice(&frame.tensor);
                    self.waiting.push_back(frame);
                }
                Err(RecvTimeoutError::Timeout) if go_on() => {}
                // The source has ended, or the run is to stop.
                Err(_) => break,
            }
        }
    }
}
