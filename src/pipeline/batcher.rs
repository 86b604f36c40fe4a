//! Frames of a bounded source that go through the encoder together.
use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::capture_thread::PreparedFrame;
use super::latent_encoder::LatentEncoder;
use crate::error::Result;

/// How long it waits for a frame before it asks whether to go on.
const WAIT: Duration = Duration::from_millis(50);

/// Makes latents of `most` frames at a time, and hands them out one by one. With 1 it only passes on.
///
/// It waits until so many are there (or the source has ended): which frames go together, and so the last bits of their
/// latents, do not depend on how fast they come.
#[derive(Default)]
pub(super) struct Batcher {
    most: usize,
    /// Encoded, and not handed out.
    waiting: VecDeque<PreparedFrame>,
    tensors: Vec<f32>,
    latents: Vec<f32>,
    /// Place of the next latent.
    next: usize,
}

impl Batcher {
    pub(super) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// The next frame that has been encoded already.
    pub(super) fn take(&mut self) -> Option<PreparedFrame> {
        self.waiting.pop_front()
    }

    /// The latent of `slot`, which came from [`Batcher::take`] or else is the first of the next frames; those behind it are
    /// taken from `filled`. `go_on` is asked while it waits.
    pub(super) fn latent(
        &mut self,
        encoder: &mut dyn LatentEncoder,
        slot: &PreparedFrame,
        filled: &Receiver<PreparedFrame>,
        go_on: impl FnMut() -> bool,
        latent: &mut [f32],
    ) -> Result<()> {
        if self.most <= 1 {
            return encoder.encode(&slot.tensor, latent);
        }
        if self.next * latent.len() >= self.latents.len() {
            self.gather(slot, filled, go_on);
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
        while 1 + self.waiting.len() < self.most {
            match filled.recv_timeout(WAIT) {
                Ok(slot) => {
                    self.tensors.extend_from_slice(&slot.tensor);
                    self.waiting.push_back(slot);
                }
                Err(RecvTimeoutError::Timeout) if go_on() => {}
                // The source has ended, or the run is to stop.
                Err(_) => break,
            }
        }
    }
}
