//! A learner and the files of its run.
use std::path::Path;
use std::sync::Arc;

use super::cpu_throttle::CpuThrottle;
use super::run_dir::StreamPosition;
use super::run_store::{LossCounts, RunStore};
use crate::checkpoint::Owner;
use crate::encoder::BackgroundModel;
use crate::error::Result;
use crate::frame::Timestamp;
use crate::journal::{Journal, SharedJournal};
use crate::learner::{CpuGovernor, FitOutcome, Learner, Snapshot};
use crate::sampling::Sample;

/// Learns, and keeps in a run what comes of it.
pub struct RunLearner {
    learner: Learner,
    store: RunStore,
    /// Since the start of the process.
    demotions: u64,
    /// First frame that this process did not get, once it gets no more.
    stopped_at: Option<u64>,
}

impl RunLearner {
    /// In the folder `run`, which exists.
    ///
    /// # Errors
    /// As [`RunStore::open`].
    pub fn open(mut learner: Learner, owner: Owner, run: &Path, journal: Journal) -> Result<Self> {
        learner.set_governor(Box::new(CpuThrottle::full()));
        let store = RunStore::open(run, owner, journal, learner.head_bytes())?;
        Ok(Self { learner, store, demotions: 0, stopped_at: None })
    }

    /// The learner.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// The journal, for another thread.
    pub(super) fn journal(&self) -> SharedJournal {
        self.store.journal()
    }

    /// What found no room on the disk.
    pub fn lost(&self) -> LossCounts {
        self.store.lost()
    }

    /// Returns to the frozen latents since the start of the process.
    pub(super) fn demotions(&self) -> u64 {
        self.demotions
    }

    /// Behaves towards the machine as `governor` says.
    pub(super) fn set_governor(&mut self, governor: impl CpuGovernor + 'static) {
        self.learner.set_governor(Box::new(governor));
    }

    /// Goes on after this frame, which the learner knows already.
    pub fn resume_after(&mut self, frame: u64, stamp: Timestamp) {
        self.store.at(frame, stamp);
    }

    /// Writes promoted heads again whose files are damaged or gone.
    ///
    /// # Errors
    /// As [`RunStore::mend_heads`].
    pub fn mend_heads(&mut self) -> Result<()> {
        self.store.mend_heads(&self.learner)
    }

    /// Learns from one latent; the snapshot that a fit brought.
    ///
    /// # Errors
    /// The latent does not fit the encoder, or a file cannot be written for a reason other than a full disk.
    pub fn sample(&mut self, sample: &Sample) -> Result<Option<Arc<Snapshot>>> {
        self.store.at(sample.index, sample.stamp);
        let outcome = self.learner.learn(sample)?;
        self.keep(outcome)
    }

    /// The end of a bounded source: the last fit.
    ///
    /// # Errors
    /// As [`RunLearner::sample`].
    pub fn finish(&mut self) -> Result<Option<Arc<Snapshot>>> {
        let Some(frame) = self.store.last_frame() else { return Ok(None) };
        let outcome = self.learner.finish(frame)?;
        self.keep(outcome)
    }

    fn keep(&mut self, outcome: Option<FitOutcome>) -> Result<Option<Arc<Snapshot>>> {
        self.store.learner_events(self.learner.take_events())?;
        let Some(outcome) = outcome else { return Ok(None) };
        self.demotions += u64::from(outcome.report.demotion.is_some());
        self.store.fit_outcome(outcome, &self.learner).map(Some)
    }

    /// The learner pauses (`pause`) or goes on (`resume-learning`) for the sake of the machine.
    ///
    /// # Errors
    /// As [`RunStore::throttle_event`].
    pub(super) fn throttle_event(&mut self, event: &str, reason: &str) -> Result<()> {
        self.store.throttle_event(event, reason)
    }

    /// No frame from `frame` on comes to this process.
    pub(super) fn stopped_at(&mut self, frame: u64) {
        self.stopped_at = Some(frame);
    }

    /// Saves the state.
    ///
    /// # Errors
    /// As [`RunStore::checkpoint`].
    pub fn checkpoint(&mut self, position: StreamPosition, background: Option<&BackgroundModel>) -> Result<()> {
        self.store.checkpoint(&mut self.learner, position, background)
    }

    /// After the last checkpoint: nothing may be left in memory only.
    ///
    /// # Errors
    /// As [`RunStore::close`].
    pub fn close(&mut self) -> Result<()> {
        self.store.close()
    }

    /// Writes the last line of the journal: the source ended, or the run was stopped, after `frames` frames.
    ///
    /// # Errors
    /// As [`RunStore::end`].
    pub fn end(&mut self, ended: bool, frames: u64) -> Result<()> {
        self.store.end(&self.learner, ended, frames)
    }

    /// Writes the last line of the journal after a fault, where the frames before it are known: they went through the
    /// inference loop in order, as where the source broke.
    pub fn end_after_fault(&mut self) {
        if let Some(frames) = self.stopped_at
            && let Err(error) = self.end(false, frames)
        {
            // Why the run ends is another error.
            tracing::warn!("the journal has no last line: {}", error.chain());
        }
    }
}
