//! The parts together: threads and bounded channels. The only place that knows all parts.
//!
//! ```text
//! capture thread             this thread (hot path)                  export thread
//! source, prepare ──slots──> encoder, segment, head ──rows──────────> files
//!                                     │        ^
//!                                latents     snapshots
//!                                     v        │
//!                               learner thread (niced, bounded share of a core on live sources)
//! ```
//! Buffers go round: each channel has one that brings the empty buffers back, so that nothing is allocated after the
//! first frames. A live source drops what the learner or the disk cannot take (counted) and never waits for them; a
//! bounded source waits, so that a run over it is complete and the same every time.
mod batcher;
pub mod box_encoder;
mod capture_thread;
pub mod box_service;
pub mod export_thread;
pub mod run_dir;
mod first_fault;
mod inference_loop;
pub mod learner_thread;
mod cpu_throttle;
pub mod stats;
pub mod run_state;
mod progress_barrier;
mod workers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use crate::config::Config;
use crate::encoder::{Augmenter, Encoder, Preprocessor};
use crate::error::{Error, Result};
use crate::head::{Grid, Scratch};
use crate::host::{ThermalMonitor, Watchdog};
use crate::learner::Snapshot;
use crate::metrics::Metrics;
use crate::sampling::shot_detector::ShotDetector;
use crate::shutdown::Part;
use crate::source::Source;

use batcher::Batcher;
use box_service::BoxService;
use capture_thread::{BoxInput, PreparedFrame, StopFlags};
use export_thread::Exporter;
use first_fault::{FirstFault, Noted};
use inference_loop::InferenceLoop;
use learner_thread::LearnerMode;
use progress_barrier::ProgressBarrier;
use stats::RunStats;
use workers::{ExporterEnd, LearnerEnd};

/// Prepared frames on their way at most, live: one in the encoder, one being filled or waiting. A frame is taken when
/// the one before it goes into the encoder, so that none is older than it must be.
const SLOTS_LIVE: usize = 2;
/// Bounded: a few more, since age does not count and decoders are uneven.
const SLOTS_BOUNDED: usize = 4;
/// Faults of live sources that may wait for the journal.
const EVENTS: usize = 64;
/// Rows that may wait for the disk.
const ROWS: usize = 256;

/// Everything that one run of the pipeline needs.
pub struct Pipeline<'a> {
    /// Where frames come from; already skipped to `next_index` on a resumed run.
    pub source: Box<dyn Source>,
    /// From frame to tensor; with the background of a fixed camera, where windows are cut.
    pub prepare: Preprocessor,
    /// The frozen encoder.
    pub encoder: &'a mut Encoder,
    /// Frames that go through the encoder together (bounded sources without learning); 1: each by itself.
    pub batch: usize,
    /// The configuration.
    pub config: &'a Config,
    /// Names of the cameras, for the records, by their numbers.
    pub cameras: Vec<Arc<str>>,
    /// The head in use and those to come, by `activate_at`, oldest first; at least one.
    pub snapshots: Vec<Arc<Snapshot>>,
    /// The space of the frozen latents.
    pub frozen_space: Arc<str>,
    /// First frame of this run (0, or where a resumed run goes on).
    pub next_index: u64,
    /// Where the segments stand.
    pub segmenter: ShotDetector,
    /// The learner, where there is learning.
    pub learner: Option<LearnerMode<'a>>,
    /// The files, where there are exports.
    pub exporter: Option<Exporter>,
    /// Where detectors ask for embeddings of boxes; live sources only.
    pub box_service: Option<BoxService>,
    /// Figures for a monitoring system.
    pub metrics: Arc<Metrics>,
    /// Tells those who ask that the pipeline lives.
    pub watchdog: Watchdog,
    /// Set from outside to end the run in order.
    pub stop: Arc<AtomicBool>,
    /// Start of the process, for the time to the first embedding.
    pub started: Instant,
    /// Called with the number of frames done, after each.
    pub progress: Box<dyn FnMut(u64) + 'a>,
}

/// Runs until the source ends or `stop` is set; then saves the state.
///
/// # Errors
/// The first worker that failed, with its reason; the other workers are ended in order.
pub fn run(job: Pipeline<'_>) -> Result<RunStats> {
    let Pipeline {
        source,
        prepare,
        encoder,
        batch,
        config,
        cameras,
        snapshots,
        frozen_space,
        next_index,
        segmenter,
        ..
    } = job;
    let Pipeline {
        learner: learning,
        exporter,
        box_service: desk,
        metrics,
        watchdog: heart,
        stop,
        started,
        mut progress,
        ..
    } = job;
    let (live, names) = (source.live(), cameras.iter().map(|name| name.as_ref().to_owned()).collect::<Vec<String>>());
    // Twice a batch: one is encoded while the next fills.
    let slots = if live { SLOTS_LIVE } else { SLOTS_BOUNDED.max(2 * batch) };
    let (filled_in, filled) = bounded(slots);
    let (empty_in, empty) = bounded(slots);
    for _ in 0..slots {
        empty_in.send(PreparedFrame::new(encoder.size())).map_err(|_| Error::runtime("the slots of the pipeline"))?;
    }
    let (turnstile, fault) = (ProgressBarrier::default(), &FirstFault::default());
    // Ends the capture thread when the hot path has ended, for whatever reason.
    let halt = AtomicBool::new(false);
    let ends = StopFlags { stop: &stop, halt: &halt };
    // A camera counts its frames from 0 each time it is opened; a run that goes on counts on.
    let first = if live { next_index } else { 0 };
    let background = prepare.background().cloned().map(Arc::new);
    metrics.encoder_open(encoder);
    metrics.running(live.then(|| Duration::from_secs_f64(config.source.stall_secs)));
    let figures = &*metrics;
    let shutdown = heart.shutdown().clone();
    std::thread::scope(|scope| {
        let (events_in, events) = bounded(EVENTS);
        let ways = capture_thread::CaptureChannels { filled: filled_in, empty, events: events_in };
        let views = if learning.is_some() { Augmenter::new(&config.learn) } else { None };
        let keep = desk.as_ref().map_or(BoxInput::Nothing, BoxService::keeps);
        let making = capture_thread::FramePreparer { prepare, views, first, keep };
        let capture =
            spawn(scope, "capture", move || fault.note(capture_thread::run(source, making, &ways, ends, figures)))?;
        let (learner_end, learner) = match learning {
            Some(learning) => {
                let (whole, queue) = match &learning {
                    LearnerMode::Learn(worker) => (worker.learner().takes_grids(), worker.learner().queue()),
                    LearnerMode::Record(_) => (true, config.learn.queue_latents),
                };
                let (out, inbox) = bounded(queue);
                let (spare_in, spare) = bounded(queue);
                // At most one snapshot comes of each waiting latent, so that the learner never waits here.
                let (snapshots_in, snapshots) = bounded(queue + 64);
                let ways = learner_thread::LearnerChannels {
                    inbox,
                    spare: spare_in,
                    snapshots: snapshots_in,
                    barrier: &turnstile,
                    metrics: figures,
                };
                let cores = config.host.cores().map_err(Error::config)?;
                let strain = if live { Some(ThermalMonitor::open(&config.host)?) } else { None };
                let conduct = learner_thread::LearnerLimits {
                    live,
                    share: config.learn.cpu_share,
                    stop: &stop,
                    cores,
                    thermal: strain,
                };
                let thread = spawn(scope, "learner", move || match learning {
                    LearnerMode::Learn(worker) => fault.note(learner_thread::run(worker, &ways, conduct)),
                    LearnerMode::Record(recording) => {
                        learner_thread::record(recording, &ways);
                        Ok(())
                    }
                })?;
                let lag = config.learn.promote_lag_frames;
                let checkpoint_every = config.checkpoint.every_frames;
                (
                    Some(LearnerEnd { out, spare, snapshots, barrier: &turnstile, lag, whole, checkpoint_every }),
                    Some(thread),
                )
            }
            None => (None, None),
        };
        let (exporter_end, exporting) = match exporter {
            Some(exporter) => {
                let (out, rows) = bounded(ROWS);
                let (spare_in, spare) = bounded(ROWS);
                let (latents, grids) = (exporter.wants_latents(), exporter.wants_grids());
                let thread =
                    spawn(scope, "export", move || export_thread::run(exporter, &rows, &spare_in, fault, figures))?;
                (Some(ExporterEnd { out, spare, latents, grids }), Some(thread))
            }
            None => (None, None),
        };
        let (desk_end, asked) = match desk {
            Some(desk) => {
                let (end, ways) = box_service::ways(keep == BoxInput::Pixels);
                (Some(end), Some(spawn(scope, "boxes", move || fault.note(desk.run(&ways, figures)))?))
            }
            None => (None, None),
        };
        let next_checkpoint = next_index + config.checkpoint.every_frames;
        let mut hot = InferenceLoop {
            live,
            cameras,
            frozen_space,
            snapshots: snapshots.into(),
            segmenter,
            next_checkpoint,
            deferred: false,
            over: false,
            next_index,
            learner: learner_end,
            events,
            exporter: exporter_end,
            box_service: desk_end,
            started,
            totals: RunStats::default(),
            metrics: figures,
            watchdog: heart,
            reported_head: None,
            sent: VecDeque::new(),
            sent_count: 0,
            latent: vec![0.0; encoder.dim()],
            view: Vec::new(),
            background,
            grid: encoder.grid().map(Grid::new),
            pooled: Vec::new(),
            embedding: Vec::new(),
            scratch: Scratch::default(),
            batch: Batcher::new(batch),
            encoder,
        };
        let ran = hot.run(&filled, &empty_in, ends, &mut *progress);
        halt.store(true, Ordering::Relaxed);
        shutdown.begin();
        let wait = |part| shutdown.waits_for(part);
        wait(Part::Export);
        // A source that has ended has no thread any more; what came of it says whether the run can end too. After a stop
        // it may be stuck in its source: what must be saved does not wait for it.
        let (early, late) = if matches!(ran, Ok(true)) { (Some(capture), None) } else { (None, Some(capture)) };
        let early = early.map(|thread| joined("capture", thread.join(), fault));
        // A source that broke has not ended: the run can go on with a whole one.
        let sound = early.as_ref().is_none_or(Option::is_some);
        fault.note(ran.and_then(|ended| hot.end(ended && sound))).ok();
        let mut totals = std::mem::take(&mut hot.totals);
        // Hanging up ends the workers once they have done what was sent.
        drop((hot, filled, empty_in));
        let exports = exporting.and_then(|thread| joined("export", thread.join(), fault));
        wait(Part::Learner);
        learner.and_then(|thread| joined("learner", thread.join(), fault));
        wait(Part::Boxes);
        totals.boxes = asked.and_then(|thread| joined("boxes", thread.join(), fault));
        wait(Part::Capture);
        let late = late.map(|thread| joined("capture", thread.join(), fault));
        wait(Part::Doors);
        // The reason of the thread that failed first, not the complaint of another that it is gone.
        fault.result()?;
        totals.exports = exports.unwrap_or_default();
        let (source, each) = early.or(late).flatten().unwrap_or_default();
        (totals.source, totals.cameras) = (source, names.into_iter().zip(each).collect());
        Ok(totals)
    })
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
fn joined<T>(what: &str, result: std::thread::Result<std::result::Result<T, Noted>>, fault: &FirstFault) -> Option<T> {
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref().cloned());
        fault.note(Err(Error::runtime(format!("the {what} thread panicked: {}", text.unwrap_or_default()))))
    };
    result.unwrap_or_else(panicked).ok()
}
