//! One run of the pipeline, and how to set it up.
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::box_service::BoxService;
use super::export_thread::Exporter;
use super::latent_encoder::LatentEncoder;
use super::learner_thread::{LearnerMode, Recording};
use super::run_learner::RunLearner;
use super::stats::RunStats;
use super::threads;
use crate::config::Config;
use crate::encoder::Preprocessor;
use crate::error::{Error, Result};
use crate::host::Watchdog;
use crate::learner::{LatentSpec, Snapshot};
use crate::metrics::Metrics;
use crate::sampling::ShotDetector;
use crate::source::Source;

/// Frames to embeddings, and on to a learner and to files.
///
/// ```no_run
/// use std::path::Path;
///
/// use afterimage::config::Config;
/// use afterimage::encoder::{Encoder, ModelCard, Preprocessor, runtime};
/// use afterimage::pipeline::Pipeline;
/// use afterimage::pipeline::export_thread::{Exporter, FilePositions};
/// use afterimage::source;
///
/// # fn main() -> afterimage::error::Result<()> {
/// let (config, model) = (Config::default(), Path::new("model.onnx"));
/// let card = ModelCard::beside(model)?;
/// let mut encoder = Encoder::open(&runtime::load("")?, model, &card, &config.encoder)?;
/// let latents = encoder.latent_spec(&card);
/// let preprocessor = Preprocessor::new(&card, encoder.size())?;
/// let exporter = Exporter::open(
///     Path::new("embedded"),
///     &config.export,
///     &config.host,
///     &latents,
///     FilePositions::default(),
///     None,
/// )?;
/// let stats = Pipeline::builder(source::open("frames/", &config.source)?, preprocessor, &mut encoder, latents, &config)
///     .cameras(vec!["door".into()])
///     .exporter(exporter)
///     .on_progress(|frames| eprintln!("{frames} frames"))
///     .run()?;
/// println!("{} frames in {} segments", stats.frames, stats.segments);
/// # Ok(())
/// # }
/// ```
pub struct Pipeline<'a> {
    pub(super) source: Box<dyn Source>,
    pub(super) preprocessor: Preprocessor,
    pub(super) encoder: &'a mut dyn LatentEncoder,
    pub(super) latents: LatentSpec,
    pub(super) config: &'a Config,
    pub(super) batch: usize,
    /// Names of the cameras, by their numbers.
    pub(super) cameras: Vec<Arc<str>>,
    /// The head in use and those to come, oldest first; at least one.
    pub(super) snapshots: Vec<Arc<Snapshot>>,
    pub(super) next_index: u64,
    pub(super) shots: ShotDetector,
    pub(super) learner: Option<LearnerMode<'a>>,
    pub(super) exporter: Option<Exporter>,
    pub(super) box_service: Option<BoxService>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) watchdog: Watchdog,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) started: Instant,
    pub(super) on_progress: Box<dyn FnMut(u64) + 'a>,
}

impl<'a> Pipeline<'a> {
    /// A run over `source` with the frozen encoder: `preprocessor` makes the input of `encoder`, which gives `latents`.
    /// Without more, embeddings are only counted.
    pub fn builder(
        source: Box<dyn Source>,
        preprocessor: Preprocessor,
        encoder: &'a mut dyn LatentEncoder,
        latents: LatentSpec,
        config: &'a Config,
    ) -> PipelineBuilder<'a> {
        PipelineBuilder(Self {
            source,
            preprocessor,
            encoder,
            snapshots: vec![Arc::new(Snapshot::frozen(&latents))],
            latents,
            config,
            batch: 1,
            cameras: vec!["camera".into()],
            next_index: 0,
            shots: ShotDetector::new(&config.learn.sampling),
            learner: None,
            exporter: None,
            box_service: None,
            metrics: Arc::default(),
            watchdog: Watchdog::default(),
            stop: Arc::default(),
            started: Instant::now(),
            on_progress: Box::new(|_| {}),
        })
    }
}

/// Sets up a [`Pipeline`].
pub struct PipelineBuilder<'a>(Pipeline<'a>);

impl<'a> PipelineBuilder<'a> {
    /// Encodes so many frames in one pass. For bounded sources without a learner. Default: 1.
    pub fn batch(mut self, frames: usize) -> Self {
        self.0.batch = frames;
        self
    }

    /// Names the cameras of the source, by their numbers, in records. Default: one, `camera`.
    pub fn cameras(mut self, names: Vec<Arc<str>>) -> Self {
        self.0.cameras = names;
        self
    }

    /// Embeds with the first of these heads, and with each later one from its `activate_at` on. Default: the frozen
    /// latents.
    pub fn snapshots(mut self, snapshots: Vec<Arc<Snapshot>>) -> Self {
        self.0.snapshots = snapshots;
        self
    }

    /// Goes on with an earlier stream: its next frame and where its segments stand. A bounded source must have been
    /// skipped to that frame.
    pub fn resume(mut self, next_index: u64, shots: ShotDetector) -> Self {
        (self.0.next_index, self.0.shots) = (next_index, shots);
        self
    }

    /// Learns on the way, and keeps what comes of it in a run.
    pub fn learner(mut self, run: &'a mut RunLearner) -> Self {
        self.0.learner = Some(LearnerMode::Learn(run));
        self
    }

    /// Keeps the samples, in order, for learners later on. For bounded sources only: nothing limits the memory.
    pub fn record(mut self, recording: &'a mut Recording) -> Self {
        self.0.learner = Some(LearnerMode::Record(recording));
        self
    }

    /// Exports the embeddings.
    pub fn exporter(mut self, exporter: impl Into<Option<Exporter>>) -> Self {
        self.0.exporter = exporter.into();
        self
    }

    /// Embeds boxes that detectors ask for. For live sources only.
    pub fn box_service(mut self, service: impl Into<Option<BoxService>>) -> Self {
        self.0.box_service = service.into();
        self
    }

    /// Counts into these metrics.
    pub fn metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.0.metrics = metrics;
        self
    }

    /// Beats this watchdog once a frame, and while none comes.
    pub fn watchdog(mut self, watchdog: Watchdog) -> Self {
        self.0.watchdog = watchdog;
        self
    }

    /// Ends the run in order once `stop` is set.
    pub fn stop(mut self, stop: Arc<AtomicBool>) -> Self {
        self.0.stop = stop;
        self
    }

    /// When the process started, for the time to the first embedding. Default: now.
    pub fn started(mut self, started: Instant) -> Self {
        self.0.started = started;
        self
    }

    /// Calls `progress` after each frame with the number of frames done.
    pub fn on_progress(mut self, progress: impl FnMut(u64) + 'a) -> Self {
        self.0.on_progress = Box::new(progress);
        self
    }

    /// Runs until the source ends or is stopped, then saves the state.
    ///
    /// # Errors
    /// A head that does not fit the latents, or the error of the thread that failed first; the others end in order.
    pub fn run(self) -> Result<RunStats> {
        let Pipeline { latents, snapshots, .. } = &self.0;
        let fits = |dim: usize| dim == latents.dim || dim == latents.pooled_dim();
        if snapshots.is_empty() || !snapshots.iter().all(|snapshot| fits(snapshot.head.dim_in())) {
            let found: Vec<_> = snapshots.iter().map(|snapshot| snapshot.head.dim_in()).collect();
            let dim = latents.dim;
            return Err(Error::runtime(format!("heads for latents of {found:?} values, but the encoder gives {dim}")));
        }
        threads::run(self.0)
    }
}
