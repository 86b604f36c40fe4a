//! The hot path's ends of the channels to its workers, and what is asked of both at once.
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::export_thread::{FilePositions, Row, ToExporter};
use super::learner_thread::{CheckpointMarker, ToLearner};
use super::progress_barrier::ProgressBarrier;
use crate::error::{Error, Result};
use crate::learner::Snapshot;
use crate::sampling::Sample;

/// The way to and from the learner.
pub(super) struct LearnerEnd<'a> {
    pub(super) out: Sender<ToLearner>,
    /// Samples coming back, for their buffers.
    pub(super) spare: Receiver<Sample>,
    pub(super) snapshots: Receiver<Arc<Snapshot>>,
    pub(super) barrier: &'a ProgressBarrier,
    /// A bounded source waits for the learner to be within so many frames.
    pub(super) lag: u64,
    /// It learns from whole grids, not only from pooled latents.
    pub(super) whole: bool,
    /// Frames between two saves of the state; 0: none.
    pub(super) checkpoint_every: u64,
}

/// The way to and from the exporter.
pub(super) struct ExporterEnd {
    pub(super) out: Sender<ToExporter>,
    /// Empty rows coming back.
    pub(super) spare: Receiver<Box<Row>>,
    /// Export the frozen latents too.
    pub(super) latents: bool,
    /// Rows need the whole latent of a grid.
    pub(super) grids: bool,
}

/// What became of a message.
pub(super) enum SendOutcome {
    Yes,
    Full,
    Gone,
}

/// In a hurry (live): never waits. Else (bounded): waits for room.
pub(super) fn send<T>(out: &Sender<T>, message: T, hurry: bool) -> SendOutcome {
    if hurry {
        match out.try_send(message) {
            Ok(()) => SendOutcome::Yes,
            Err(TrySendError::Full(_)) => SendOutcome::Full,
            Err(TrySendError::Disconnected(_)) => SendOutcome::Gone,
        }
    } else if out.send(message).is_ok() {
        SendOutcome::Yes
    } else {
        SendOutcome::Gone
    }
}

/// The worker's own error is what the user sees; this one only ends the hot path.
pub(super) fn worker_gone(what: &str) -> Error {
    Error::runtime(format!("the {what} thread has ended"))
}

/// Whether a checkpoint was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StopRequest {
    /// Of exporter and learner.
    Both,
    /// Of none: one of them has no room.
    Later,
}

/// Asks the exporter to close its files and the learner to save its state, or neither of them. In a hurry the learner's
/// room is looked at first: nobody else sends to it, so what is free stays free. Were the files closed without a state
/// to belong to, a learner that is behind would have each frame close another file of one row.
pub(super) fn ask_checkpoint(
    learner: &LearnerEnd<'_>,
    exporter: Option<&ExporterEnd>,
    hurry: bool,
    marker: impl FnOnce(Option<Receiver<FilePositions>>) -> CheckpointMarker,
) -> Result<StopRequest> {
    if hurry && learner.out.is_full() {
        return Ok(StopRequest::Later);
    }
    let rotated = match exporter {
        Some(exporter) => {
            let (reply, rotated) = bounded(1);
            match send(&exporter.out, ToExporter::Rotate(reply), hurry) {
                SendOutcome::Yes => Some(rotated),
                SendOutcome::Full => return Ok(StopRequest::Later),
                SendOutcome::Gone => return Err(worker_gone("export")),
            }
        }
        None => None,
    };
    match send(&learner.out, ToLearner::Checkpoint(Box::new(marker(rotated))), hurry) {
        SendOutcome::Yes => Ok(StopRequest::Both),
        SendOutcome::Full => Ok(StopRequest::Later),
        SendOutcome::Gone => Err(worker_gone("learner")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config;
    use crate::sampling::ShotDetector;

    /// Both workers with room for one message each, and what they would receive.
    struct OneSlot<'t> {
        learner: LearnerEnd<'t>,
        exporter: ExporterEnd,
        learned: Receiver<ToLearner>,
        exported: Receiver<ToExporter>,
    }

    impl<'t> OneSlot<'t> {
        fn new(turnstile: &'t ProgressBarrier) -> Self {
            let ((learn, learned), (export, exported)) = (bounded(1), bounded(1));
            let (_, spare) = bounded(1);
            let (_, snapshots) = bounded(1);
            let (lag, whole, checkpoint_every) = (1, false, 1);
            let learner = LearnerEnd { out: learn, spare, snapshots, barrier: turnstile, lag, whole, checkpoint_every };
            let (_, spare) = bounded(1);
            let exporter = ExporterEnd { out: export, spare, latents: false, grids: false };
            Self { learner, exporter, learned, exported }
        }

        fn ask(&self) -> Result<StopRequest> {
            let segmenter = ShotDetector::new(&config::Training::default().sampling).save().clone();
            ask_checkpoint(&self.learner, Some(&self.exporter), true, |rotated| CheckpointMarker {
                next_index: 7,
                ended: false,
                last: false,
                segmenter,
                background: None,
                rotated,
            })
        }
    }

    #[test]
    fn no_file_is_closed_while_the_learner_has_no_room() {
        let turnstile = ProgressBarrier::default();
        let ends = OneSlot::new(&turnstile);
        ends.learner.out.send(ToLearner::Sample(Sample::default())).unwrap();
        for _ in 0..3 {
            assert_eq!(ends.ask().unwrap(), StopRequest::Later);
            assert!(ends.exported.is_empty(), "the exporter was asked to close its files for nothing");
        }
        ends.learned.recv().unwrap();
        assert_eq!(ends.ask().unwrap(), StopRequest::Both);
        assert!(matches!(ends.exported.recv().unwrap(), ToExporter::Rotate(_)));
        assert!(matches!(ends.learned.recv().unwrap(), ToLearner::Checkpoint(marker) if marker.rotated.is_some()));
    }

    #[test]
    fn no_state_is_saved_while_the_exporter_has_no_room_and_a_worker_that_ended_is_named() {
        let turnstile = ProgressBarrier::default();
        let ends = OneSlot::new(&turnstile);
        ends.exporter.out.send(ToExporter::Row(Box::default())).unwrap();
        assert_eq!(ends.ask().unwrap(), StopRequest::Later);
        assert!(ends.learned.is_empty());
        let OneSlot { learner, exporter, learned, exported } = ends;
        drop(exported);
        let ends = OneSlot { learner, exporter, learned, exported: bounded(1).1 };
        assert!(ends.ask().unwrap_err().to_string().contains("export thread"));
    }
}
