//! Unit latent to embedding.
use std::collections::VecDeque;
use std::sync::Arc;

use super::encoder_stage::EncoderStage;
use crate::error::{Error, Result};
use crate::head::Scratch;
use crate::learner::Snapshot;
use crate::metrics::Metrics;

/// The head in use with its buffers, and the heads to come.
pub(super) struct HeadStage {
    /// The one in use first.
    snapshots: VecDeque<Arc<Snapshot>>,
    embedding: Vec<f32>,
    scratch: Scratch,
    /// The head that the metrics name.
    reported: Option<u64>,
}

impl HeadStage {
    /// Begins with the first of `snapshots`.
    pub(super) fn new(snapshots: Vec<Arc<Snapshot>>) -> Self {
        Self { snapshots: snapshots.into(), embedding: Vec::new(), scratch: Scratch::default(), reported: None }
    }

    /// A head to come.
    pub(super) fn push(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshots.push_back(snapshot);
    }

    /// Takes the newest head into use that may embed frame `index`; `at_once`: the newest of all.
    pub(super) fn activate(&mut self, index: u64, at_once: bool) {
        while self.snapshots.get(1).is_some_and(|next| at_once || next.activate_at <= index) {
            self.snapshots.pop_front();
        }
    }

    /// The head in use.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn in_use(&self) -> Result<&Arc<Snapshot>> {
        self.snapshots.front().ok_or_else(|| Error::runtime("no head to embed with"))
    }

    /// Embeds the last latent; the head that did.
    ///
    /// # Errors
    /// There is no head.
    pub(super) fn embed(&mut self, latents: &EncoderStage<'_>) -> Result<Arc<Snapshot>> {
        let snapshot = self.in_use()?.clone();
        self.embedding.resize(snapshot.head.dim_out(), 0.0);
        // A head takes what it was made for: latents of frames, or whole grids.
        let whole = snapshot.head.dim_in() == latents.whole().len();
        let latent = if whole { latents.whole() } else { latents.frame() };
        snapshot.head.embed(latent, &mut self.embedding, &mut self.scratch);
        Ok(snapshot)
    }

    /// Names a new head in the metrics.
    pub(super) fn report(&mut self, snapshot: &Snapshot, metrics: &Metrics) {
        if self.reported != Some(snapshot.number) && metrics.head(snapshot) {
            self.reported = Some(snapshot.number);
        }
    }

    /// The last embedding.
    pub(super) fn embedding(&self) -> &[f32] {
        &self.embedding
    }
}
