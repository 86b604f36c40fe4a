//! The learner thread: samples in, snapshots out. It pauses for a strained machine, and on a live source takes only its
//! share of a core.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::cpu_throttle::CpuThrottle;
use super::export_thread::FilePositions;
use super::progress_barrier::{ProgressBarrier, ReleaseOnDrop};
use super::run_dir::StreamPosition;
use super::run_learner::RunLearner;
use crate::encoder::BackgroundModel;
use crate::error::{Error, Result};
use crate::host::{self, ThermalMonitor, ThrottleEvent};
use crate::journal::SharedJournal;
use crate::learner::Snapshot;
use crate::metrics::Metrics;
use crate::sampling::{Sample, ShotDetectorState};

/// What goes to the learner thread.
pub(super) enum ToLearner {
    /// One unit latent.
    Sample(Sample),
    /// Save the state here.
    Checkpoint(Box<CheckpointMarker>),
    /// The source is at its end: last fit.
    Finish,
}

/// A place in the stream from which everything can go on.
pub(super) struct CheckpointMarker {
    /// First frame that is not in the state.
    pub(super) next_index: u64,
    /// The source has ended.
    pub(super) ended: bool,
    /// No frame follows in this process.
    pub(super) last: bool,
    /// Where the segments stand.
    pub(super) segmenter: ShotDetectorState,
    /// The background of a fixed camera there, where windows are cut.
    pub(super) background: Option<Arc<BackgroundModel>>,
    /// Answers once the exports up to here are closed; `None` without exports.
    pub(super) rotated: Option<Receiver<FilePositions>>,
}

/// To and from the learner thread.
pub(super) struct LearnerChannels<'a> {
    pub(super) inbox: Receiver<ToLearner>,
    /// Samples go back here, for their buffers.
    pub(super) spare: Sender<Sample>,
    pub(super) snapshots: Sender<Arc<Snapshot>>,
    pub(super) barrier: &'a ProgressBarrier,
    pub(super) metrics: &'a Metrics,
}

/// What the learner thread may take of the machine.
pub(super) struct LearnerLimits<'a> {
    /// A live source is never waited for: bounded share of the CPU, lowest priority.
    pub(super) live: bool,
    /// Share of one core, live only.
    pub(super) share: f64,
    /// Set: end soon.
    pub(super) stop: &'a Arc<AtomicBool>,
    /// Cores that it may run on; empty: all.
    pub(super) cores: Vec<usize>,
    /// What it pauses for, live only.
    pub(super) thermal: Option<ThermalMonitor>,
}

impl LearnerLimits<'_> {
    /// Whether learning pauses now; a change goes to the log, the journal and the metrics.
    fn pauses(&mut self, run: &mut RunLearner, metrics: &Metrics) -> Result<bool> {
        let Some(thermal) = &mut self.thermal else { return Ok(false) };
        match thermal.poll(Instant::now()) {
            Some(ThrottleEvent::Pause(reason)) => {
                tracing::warn!("learning pauses: {reason}; embeddings go on");
                run.throttle_event("pause", &reason)?;
            }
            Some(ThrottleEvent::Resume(reason)) => {
                tracing::info!("learning goes on, after a pause: {reason}");
                run.throttle_event("resume-learning", &reason)?;
            }
            None => {}
        }
        let paused = thermal.paused().is_some();
        metrics.pause(paused);
        Ok(paused)
    }
}

/// What the samples are for.
pub(super) enum LearnerMode<'a> {
    /// To learn from.
    Learn(&'a mut RunLearner),
    /// To keep.
    Record(&'a mut Recording),
}

impl LearnerMode<'_> {
    /// Where the run is written down that it learns for.
    pub(super) fn journal(&self) -> Option<SharedJournal> {
        match self {
            Self::Learn(run) => Some(run.journal()),
            Self::Record(_) => None,
        }
    }
}

/// A stream as the learner gets it.
#[derive(Debug, Default)]
pub struct Recording {
    /// The samples, in order.
    pub samples: Vec<Sample>,
    /// The background of a fixed camera at the end, where windows are cut.
    pub background: Option<Arc<BackgroundModel>>,
}

/// Keeps what comes until the inference loop hangs up.
pub(super) fn record(recording: &mut Recording, channels: &LearnerChannels<'_>) {
    let _release = ReleaseOnDrop(channels.barrier);
    for message in &channels.inbox {
        match message {
            ToLearner::Sample(sample) => {
                recording.samples.push(sample);
                channels.barrier.set(recording.samples.len() as u64);
            }
            ToLearner::Checkpoint(marker) => recording.background = marker.background,
            ToLearner::Finish => {}
        }
    }
}

/// Learns from what comes until the inference loop hangs up.
///
/// # Errors
/// A latent does not fit, a worker has ended, or a file cannot be written; what the disk had no room for, at the end.
pub(super) fn run(run: &mut RunLearner, channels: &LearnerChannels<'_>, mut limits: LearnerLimits<'_>) -> Result<()> {
    let _release = ReleaseOnDrop(channels.barrier);
    host::pin(&limits.cores)?;
    if limits.live {
        host::lower_priority();
        run.set_governor(CpuThrottle::new(limits.share, limits.stop.clone()));
    }
    let LearnerChannels { inbox, spare, snapshots, barrier, metrics } = channels;
    let (mut done, room) = (0, inbox.capacity().unwrap_or(0));
    metrics.learner(run.learner(), 0, room);
    for message in inbox {
        let snapshot = match message {
            ToLearner::Sample(sample) => {
                let paused = limits.pauses(run, metrics)?;
                // A live stream that is stopped does not wait for its backlog.
                let skip = paused || limits.live && limits.stop.load(Ordering::Relaxed);
                let snapshot = if skip { None } else { run.sample(&sample)? };
                done += 1;
                // Full only when there are more than the inference loop needs; then this one is let go.
                spare.try_send(sample).ok();
                snapshot
            }
            ToLearner::Checkpoint(marker) => {
                checkpoint(run, *marker)?;
                None
            }
            ToLearner::Finish => run.finish()?,
        };
        if let Some(snapshot) = snapshot {
            // Fails only when the inference loop has ended.
            snapshots.send(snapshot).ok();
        }
        barrier.set(done);
        report(run, metrics, inbox.len(), room);
        run.learner().rest();
    }
    run.set_governor(CpuThrottle::full());
    run.close()
}

/// Saves the state once the exports before it are closed.
fn checkpoint(run: &mut RunLearner, marker: CheckpointMarker) -> Result<()> {
    let CheckpointMarker { next_index, ended, last, segmenter, background, rotated } = marker;
    if last {
        run.stopped_at(next_index);
    }
    let exports = match rotated {
        Some(answer) => answer.recv().map_err(|_| Error::runtime("the export thread has ended"))?,
        None => FilePositions::default(),
    };
    let position = StreamPosition { next_index, ended, segmenter: Some(segmenter), exports };
    run.checkpoint(position, background.as_deref())
}

fn report(run: &RunLearner, metrics: &Metrics, waiting: usize, room: usize) {
    metrics.learner(run.learner(), waiting, room);
    metrics.demotions.set(run.demotions());
    let lost = run.lost();
    metrics.unsaved_states.set(lost.unsaved_states);
    metrics.lost_journal_lines.set(lost.journal_lines);
}

#[cfg(test)]
#[path = "learner_thread_tests.rs"]
mod tests;
