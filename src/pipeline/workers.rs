//! The inference loop's ends of the channels to its workers.
use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::capture_thread::PreparedFrame;
use super::export_thread::{FilePositions, Row, ToExporter};
use super::head_stage::HeadStage;
use super::learner_thread::{CheckpointMarker, ToLearner};
use super::progress_barrier::ProgressBarrier;
use super::spare::Spare;
use crate::error::{Error, Result};
use crate::learner::Snapshot;
use crate::sampling::Sample;

/// Prepared frames come, and go back for their buffers.
pub(super) struct CaptureEnd {
    pub(super) filled: Receiver<PreparedFrame>,
    pub(super) empty: Sender<PreparedFrame>,
}

/// To the learner and back.
pub(super) struct LearnerEnd<'a> {
    pub(super) out: Sender<ToLearner>,
    /// Samples coming back, for their buffers.
    pub(super) spare: Spare<Sample>,
    pub(super) snapshots: Receiver<Arc<Snapshot>>,
    /// It learns from whole grids, not only from pooled latents.
    pub(super) grids: bool,
    pub(super) pace: LearnerPace<'a>,
}

/// How far the learner may fall behind.
pub(super) enum LearnerPace<'a> {
    /// It is never waited for: what it has no room for is dropped.
    Live,
    /// It is waited for, so that a head is used from the same frame on every time.
    Bounded {
        barrier: &'a ProgressBarrier,
        /// Frames from the last one that a head learned from to the first one that it embeds.
        lag: u64,
        /// `(number, frame)` of samples sent and not yet known to be done.
        sent: VecDeque<(u64, u64)>,
        count: u64,
    },
}

impl LearnerEnd<'_> {
    pub(super) fn live(&self) -> bool {
        matches!(self.pace, LearnerPace::Live)
    }

    /// Sends a sample that `fill` fills in; false where there is no room.
    ///
    /// # Errors
    /// The learner has ended.
    pub(super) fn send(&mut self, fill: impl FnOnce(&mut Sample)) -> Result<bool> {
        let mut sample = self.spare.take();
        fill(&mut sample);
        let index = sample.index;
        match send(&self.out, ToLearner::Sample(sample), self.live()) {
            SendOutcome::Yes => {
                if let LearnerPace::Bounded { sent, count, .. } = &mut self.pace {
                    *count += 1;
                    sent.push_back((*count, index));
                }
                Ok(true)
            }
            SendOutcome::Full(message) => {
                if let ToLearner::Sample(sample) = message {
                    self.spare.keep(sample);
                }
                Ok(false)
            }
            SendOutcome::Gone => Err(worker_gone("learner")),
        }
    }

    /// Takes the head into use that embeds frame `index`; on a bounded source once the learner is done with all samples
    /// that it may have learned from.
    pub(super) fn take_snapshots(&mut self, index: u64, heads: &mut HeadStage) {
        if let LearnerPace::Bounded { barrier, lag, sent, .. } = &mut self.pace {
            let mut must = None;
            while let Some((number, frame)) = sent.front().copied()
                && frame + *lag <= index
            {
                must = Some(number);
                sent.pop_front();
            }
            if let Some(number) = must {
                barrier.wait(number);
            }
        }
        while let Ok(snapshot) = self.snapshots.try_recv() {
            heads.push(snapshot);
        }
        heads.activate(index, self.live());
    }
}

/// To the exporter and back.
pub(super) struct ExporterEnd {
    pub(super) out: Sender<ToExporter>,
    /// Empty rows coming back.
    pub(super) spare: Spare<Box<Row>>,
    /// Export the frozen latents too.
    pub(super) latents: bool,
    /// Rows need the whole latent of a grid.
    pub(super) grids: bool,
    /// It is never waited for: what it has no room for is dropped.
    pub(super) live: bool,
}

impl ExporterEnd {
    /// Sends a row that `fill` fills in; false where there is no room.
    ///
    /// # Errors
    /// The exporter has ended.
    pub(super) fn send(&mut self, fill: impl FnOnce(&mut Row)) -> Result<bool> {
        let mut row = self.spare.take();
        fill(&mut row);
        match send(&self.out, ToExporter::Row(row), self.live) {
            SendOutcome::Yes => Ok(true),
            SendOutcome::Full(message) => {
                if let ToExporter::Row(row) = message {
                    self.spare.keep(row);
                }
                Ok(false)
            }
            SendOutcome::Gone => Err(worker_gone("export")),
        }
    }
}

/// What became of a message.
pub(super) enum SendOutcome<T> {
    Yes,
    Full(T),
    Gone,
}

/// `live`: never waits. Else waits for room.
pub(super) fn send<T>(out: &Sender<T>, message: T, live: bool) -> SendOutcome<T> {
    if live {
        match out.try_send(message) {
            Ok(()) => SendOutcome::Yes,
            Err(TrySendError::Full(message)) => SendOutcome::Full(message),
            Err(TrySendError::Disconnected(_)) => SendOutcome::Gone,
        }
    } else if out.send(message).is_ok() {
        SendOutcome::Yes
    } else {
        SendOutcome::Gone
    }
}

/// Only ends the inference loop: what the user sees is the worker's own error.
pub(super) fn worker_gone(what: &str) -> Error {
    Error::runtime(format!("the {what} thread has ended"))
}

/// Asks the exporter to close its files and the learner to save its state, or neither of them: false where one has no
/// room. Without `wait` the learner's room is looked at first: nobody else sends to it, so what is free stays free. Were
/// the files closed without a state to belong to, a learner that is behind would have each frame close another file of
/// one row.
///
/// # Errors
/// A worker has ended.
pub(super) fn ask_checkpoint(
    learner: &LearnerEnd<'_>,
    exporter: Option<&ExporterEnd>,
    wait: bool,
    marker: impl FnOnce(Option<Receiver<FilePositions>>) -> CheckpointMarker,
) -> Result<bool> {
    if !wait && learner.out.is_full() {
        return Ok(false);
    }
    let mut rotated = None;
    if let Some(exporter) = exporter {
        let (reply, answer) = bounded(1);
        match send(&exporter.out, ToExporter::Rotate(reply), !wait) {
            SendOutcome::Yes => rotated = Some(answer),
            SendOutcome::Full(_) => return Ok(false),
            SendOutcome::Gone => return Err(worker_gone("export")),
        }
    }
    match send(&learner.out, ToLearner::Checkpoint(Box::new(marker(rotated))), !wait) {
        SendOutcome::Yes => Ok(true),
        SendOutcome::Full(_) => Ok(false),
        SendOutcome::Gone => Err(worker_gone("learner")),
    }
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
