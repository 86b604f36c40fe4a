//! Starts the threads of a run, and joins them in the order in which they save.
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use crossbeam_channel::bounded;

use super::box_service::{self, BoxService, BoxServiceCounts, BoxServiceInput};
use super::builder::Pipeline;
use super::capture_thread::{self, BoxInput, CaptureChannels, Counted, FramePreparer, PreparedFrame, StopFlags};
use super::checkpoint_schedule::CheckpointSchedule;
use super::encoder_stage::EncoderStage;
use super::export_thread::{self, ExportCounts, Exporter};
use super::first_fault::{FirstFault, Noted};
use super::head_stage::HeadStage;
use super::inference_loop::InferenceLoop;
use super::learner_thread::{self, LearnerChannels, LearnerLimits, LearnerMode};
use super::progress_barrier::ProgressBarrier;
use super::record_template::RecordTemplate;
use super::spare::Spare;
use super::stats::RunStats;
use super::workers::{CaptureEnd, ExporterEnd, LearnerEnd, LearnerPace};
use crate::config::Config;
use crate::encoder::Augmenter;
use crate::error::{Error, Result};
use crate::host::ThermalMonitor;
use crate::journal::SharedJournal;
use crate::metrics::Metrics;
use crate::shutdown::Part;
use crate::source::Source;

/// Prepared frames under way at most, live: one in the encoder, one being filled or waiting. A frame is taken when the
/// one before it goes into the encoder, so that none is older than it must be.
pub(super) const SLOTS_LIVE: usize = 2;
/// Bounded: a few more, since age does not count and decoders are uneven.
const SLOTS_BOUNDED: usize = 4;
/// Rows that may wait for the disk.
const ROWS: usize = 256;
/// Snapshots that may wait beyond one for each latent in the learner's queue.
const SPARE_SNAPSHOTS: usize = 64;

/// What a worker came to; an error is known to [`FirstFault`].
type Outcome<T> = std::result::Result<T, Noted>;
type Worker<'scope, T> = ScopedJoinHandle<'scope, Outcome<T>>;

/// What all threads of a run share.
struct RunContext<'a> {
    config: &'a Config,
    /// Names of the cameras, by their numbers.
    cameras: &'a [Arc<str>],
    live: bool,
    metrics: &'a Metrics,
    /// From outside: a signal.
    stop: &'a Arc<AtomicBool>,
    /// From inside: the inference loop has ended.
    halt: AtomicBool,
    fault: FirstFault,
    barrier: ProgressBarrier,
}

impl RunContext<'_> {
    fn stop_flags(&self) -> StopFlags<'_> {
        StopFlags { stop: self.stop, halt: &self.halt }
    }
}

/// Ends the capture thread when it goes: the scope of the threads waits for it, also after an error or a panic.
struct HaltOnDrop<'a>(&'a AtomicBool);

impl Drop for HaltOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The threads of a run.
struct Workers<'scope> {
    capture: Worker<'scope, Counted>,
    learner: Option<Worker<'scope, ()>>,
    exporter: Option<Worker<'scope, ExportCounts>>,
    boxes: Option<Worker<'scope, BoxServiceCounts>>,
}

/// Runs `pipeline` on this thread and its workers.
pub(super) fn run(pipeline: Pipeline<'_>) -> Result<RunStats> {
    let Pipeline { source, preprocessor, encoder, latents, config, batch, .. } = pipeline;
    let Pipeline { cameras, snapshots, next_index, shots, learner, exporter, box_service, .. } = pipeline;
    let Pipeline { metrics, watchdog, stop, started, mut on_progress, .. } = pipeline;
    let live = source.live();
    metrics.running(live.then(|| Duration::from_secs_f64(config.source.stall_secs)));
    let (fault, barrier) = (FirstFault::default(), ProgressBarrier::default());
    let (metrics, stop, halt) = (&*metrics, &stop, AtomicBool::new(false));
    let context = &RunContext { config, cameras: &cameras, live, metrics, stop, halt, fault, barrier };
    let background = preprocessor.background().cloned().map(Arc::new);
    std::thread::scope(|scope| {
        let _halt = HaltOnDrop(&context.halt);
        let preparer = FramePreparer {
            preprocessor,
            augmenter: if learner.is_some() { Augmenter::new(&config.learn) } else { None },
            // A camera counts its frames from 0 each time it is opened; a run that goes on counts on.
            first: if live { next_index } else { 0 },
            for_boxes: box_service.as_ref().map_or(BoxInput::Nothing, BoxService::keeps),
        };
        let journal = learner.as_ref().and_then(LearnerMode::journal);
        let (frames, capture) = start_capture(scope, context, source, preparer, batch, journal)?;
        let (learner_end, learner) = learner.map(|mode| start_learner(scope, context, mode)).transpose()?.unzip();
        let (exporter_end, exporter) = exporter.map(|open| start_exporter(scope, context, open)).transpose()?.unzip();
        let (boxes_end, boxes) = box_service.map(|open| start_boxes(scope, context, open)).transpose()?.unzip();
        let every = if learner.is_some() { config.checkpoint.every_frames } else { 0 };
        let inference = InferenceLoop {
            live,
            frames,
            latents: EncoderStage::new(encoder, &latents, batch),
            shots,
            heads: HeadStage::new(snapshots),
            records: RecordTemplate::new(cameras.clone(), &latents),
            learner: learner_end,
            exporter: exporter_end,
            box_service: boxes_end,
            checkpoints: CheckpointSchedule::new(every, next_index),
            next_index,
            background,
            started,
            stats: RunStats::default(),
            metrics,
            watchdog,
        };
        let workers = Workers { capture, learner, exporter, boxes };
        drive(inference, workers, context, &mut *on_progress)
    })
}

/// Runs the inference loop, then ends the workers in the order in which they save.
fn drive(
    mut inference: InferenceLoop<'_>,
    workers: Workers<'_>,
    run: &RunContext<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<RunStats> {
    let Workers { capture, learner, exporter, boxes } = workers;
    let shutdown = inference.watchdog.shutdown().clone();
    let ran = inference.run(run.stop_flags(), progress);
    run.halt.store(true, Ordering::Relaxed);
    shutdown.begin();
    let fault = &run.fault;
    shutdown.waits_for(Part::Export);
    // A source that has ended has no thread any more; what came of it says whether the run can end too. After a stop the
    // thread may hang in its source: what must be saved does not wait for it.
    let (early, late) = if matches!(ran, Ok(true)) { (Some(capture), None) } else { (None, Some(capture)) };
    let early = early.map(|thread| joined("capture", thread.join(), fault));
    // A source that broke has not ended: the run can go on with a whole one.
    let sound = early.as_ref().is_none_or(Option::is_some);
    fault.note(ran.and_then(|ended| inference.end(ended && sound))).ok();
    let mut stats = std::mem::take(&mut inference.stats);
    // Hanging up ends the workers once they have done what was sent.
    drop(inference);
    let exports = exporter.and_then(|thread| joined("export", thread.join(), fault));
    shutdown.waits_for(Part::Learner);
    learner.and_then(|thread| joined("learner", thread.join(), fault));
    shutdown.waits_for(Part::Boxes);
    stats.boxes = boxes.and_then(|thread| joined("boxes", thread.join(), fault));
    shutdown.waits_for(Part::Capture);
    let late = late.map(|thread| joined("capture", thread.join(), fault));
    shutdown.waits_for(Part::Doors);
    // The reason of the thread that failed first, not the complaint of another that it is gone.
    fault.result()?;
    stats.exports = exports.unwrap_or_default();
    let (source, each) = early.or(late).flatten().unwrap_or_default();
    (stats.source, stats.cameras) = (source, run.cameras.iter().map(ToString::to_string).zip(each).collect());
    Ok(stats)
}

fn start_capture<'scope>(
    scope: &'scope Scope<'scope, '_>,
    run: &'scope RunContext<'_>,
    source: Box<dyn Source>,
    preparer: FramePreparer,
    batch: usize,
    journal: Option<SharedJournal>,
) -> Result<(CaptureEnd, Worker<'scope, Counted>)> {
    // Twice a batch: one is encoded while the next fills.
    let slots = if run.live { SLOTS_LIVE } else { SLOTS_BOUNDED.max(2 * batch) };
    let (filled_in, filled) = bounded(slots);
    let (empty_in, empty) = bounded(slots);
    for _ in 0..slots {
        let frame = PreparedFrame::new(preparer.preprocessor.size());
        empty_in.send(frame).map_err(|_| Error::runtime("the buffers of the capture thread"))?;
    }
    let channels = CaptureChannels { filled: filled_in, empty, journal };
    let work = move || capture_thread::run(source, preparer, &channels, run.stop_flags(), run.metrics);
    let thread = spawn(scope, "capture", move || run.fault.note(work()))?;
    Ok((CaptureEnd { filled, empty: empty_in }, thread))
}

fn start_learner<'scope>(
    scope: &'scope Scope<'scope, '_>,
    run: &'scope RunContext<'_>,
    mode: LearnerMode<'scope>,
) -> Result<(LearnerEnd<'scope>, Worker<'scope, ()>)> {
    let (grids, queue) = match &mode {
        LearnerMode::Learn(run) => (run.learner().takes_grids(), run.learner().queue()),
        LearnerMode::Record(_) => (true, run.config.learn.queue_latents),
    };
    let (out, inbox) = bounded(queue);
    let (spare_in, spare) = bounded(queue);
    // At most one snapshot comes of each waiting sample, so that the learner never waits here.
    let (snapshots_in, snapshots) = bounded(queue + SPARE_SNAPSHOTS);
    let channels = LearnerChannels {
        inbox,
        spare: spare_in,
        snapshots: snapshots_in,
        barrier: &run.barrier,
        metrics: run.metrics,
    };
    let limits = LearnerLimits {
        live: run.live,
        share: run.config.learn.cpu_share,
        stop: run.stop,
        cores: run.config.host.cores().map_err(Error::config)?,
        thermal: if run.live { Some(ThermalMonitor::open(&run.config.host)?) } else { None },
    };
    let thread = spawn(scope, "learner", move || match mode {
        LearnerMode::Learn(learner) => run.fault.note(learner_thread::run(learner, &channels, limits)),
        LearnerMode::Record(recording) => {
            learner_thread::record(recording, &channels);
            Ok(())
        }
    })?;
    let pace = if run.live {
        LearnerPace::Live
    } else {
        let lag = run.config.learn.promote_lag_frames;
        LearnerPace::Bounded { barrier: &run.barrier, lag, sent: VecDeque::new(), count: 0 }
    };
    Ok((LearnerEnd { out, spare: Spare::new(spare), snapshots, grids, pace }, thread))
}

fn start_exporter<'scope>(
    scope: &'scope Scope<'scope, '_>,
    run: &'scope RunContext<'_>,
    exporter: Exporter,
) -> Result<(ExporterEnd, Worker<'scope, ExportCounts>)> {
    let (out, rows) = bounded(ROWS);
    let (spare_in, spare) = bounded(ROWS);
    let (latents, grids) = (exporter.wants_latents(), exporter.wants_grids());
    let work = move || export_thread::run(exporter, &rows, &spare_in, &run.fault, run.metrics);
    let thread = spawn(scope, "export", work)?;
    Ok((ExporterEnd { out, spare: Spare::new(spare), latents, grids, live: run.live }, thread))
}

fn start_boxes<'scope>(
    scope: &'scope Scope<'scope, '_>,
    run: &'scope RunContext<'_>,
    service: BoxService,
) -> Result<(BoxServiceInput, Worker<'scope, BoxServiceCounts>)> {
    let (end, channels) = box_service::channels(service.keeps() == BoxInput::Pixels);
    let thread = spawn(scope, "boxes", move || run.fault.note(service.run(&channels, run.metrics)))?;
    Ok((end, thread))
}

/// A worker with a name, for `top -H` and debuggers.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work);
    thread.map_err(|e| Error::runtime(format!("cannot start the {name} thread")).with_source(e))
}

/// What a worker came to; `None` where it failed, which `fault` knows. A panic is an error like any other.
fn joined<T>(what: &str, result: std::thread::Result<Outcome<T>>, fault: &FirstFault) -> Option<T> {
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref().cloned());
        fault.note(Err(Error::runtime(format!("the {what} thread panicked: {}", text.unwrap_or_default()))))
    };
    result.unwrap_or_else(panicked).ok()
}

#[cfg(test)]
#[path = "threads_tests.rs"]
mod tests;
