//! The measured pipeline and encoder, and the load for them.
//!
//! The frames are played as a live scene in real time ([`crate::source::memory::LoopedSource`]), so that
//! `learn.frames_per_sec` and `learn.cpu_share` take effect as with a camera: most frames are only embedded.
//!
//! With a camera, fits are minutes or hours apart, so an interval of seconds would hardly ever contain one. Therefore,
//! before each interval with learning, the learner is fed the recorded latents of the frames, through the same code, up
//! to the sample before a fit: the interval begins with gradient steps and a fit. For this purpose only, the fit
//! schedule is made even (`learn.refit_max_frames` not above `learn.first_fit_frames`). The figures are those of a
//! learner in its busiest seconds.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ndarray::Array2;
use serde_json::{Value, json};

use super::super::common::{FrameEncoder, LoadedEncoder};
use super::super::labelled_probe;
use crate::checkpoint::Owner;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::export::sinks::LiveSinks;
use crate::frame::Timestamp;
use crate::journal::Journal;
use crate::latency_histogram::LatencyHistogram;
use crate::learner::{Learner, Snapshot};
use crate::pipeline::Pipeline;
use crate::pipeline::export_thread::{Exporter, FilePositions};
use crate::pipeline::run_learner::RunLearner;
use crate::sampling::{Sample, ShotDetector, ShotDetectorState};
use crate::source::address::Address;
use crate::source::looped_clip::{Clip, LoopedSource};
use crate::{process_stats, signals, source};

/// Maximum number of frames held in memory.
const FRAMES: usize = 256;
/// Maximum bytes of their pixels.
const BYTES: usize = 200_000_000;
/// Tensors that the raw loop cycles through: a few, since the pipeline too has only a few.
const TENSORS: usize = 4;
/// Time between the learner's samples of two intervals, in nanoseconds: longer than any block.
const APART_NS: i64 = 3600 * 1_000_000_000;

/// Measurements of one pipeline over one interval.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(super) struct Interval {
    /// Frames per second.
    pub(super) fps: f64,
    /// Median latency from a frame's arrival to its embedding.
    pub(super) p50_ms: f64,
    /// The 99th percentile of that latency.
    pub(super) p99_ms: f64,
    /// CPU time of the encoding thread per frame, the figure least affected by the noise of a busy machine.
    pub(super) cpu_ms: f64,
    /// Rows that the export thread had no room for.
    pub(super) dropped_rows: u64,
}

/// What the learner did within the intervals, and the CPU time it took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Learned {
    pub(super) steps: u64,
    /// Mean time of a step; if there was none within the intervals, of the steps between them.
    pub(super) step_ms: Option<f64>,
    pub(super) fits: u64,
    /// Mean time of a fit with its evaluation.
    pub(super) fit_ms: Option<f64>,
    pub(super) dropped_latents: u64,
}

/// Encoder, frames and learner, ready to measure.
pub(super) struct BenchHarness {
    opened: LoadedEncoder,
    config: Config,
    clip: Arc<Clip>,
    /// Some preprocessed frames.
    tensors: Vec<Vec<f32>>,
    /// Unit latents of all frames, `[n, d]`.
    latents: Array2<f32>,
    worker: RunLearner,
    folder: Folder,
    interrupted: Arc<AtomicBool>,
    started: Instant,
    /// Where the learner's stream continues.
    next: BenchDir,
    within: Within,
    dropped_latents: u64,
}

/// A position in the learner's stream.
#[derive(Debug, Clone, Copy, Default)]
struct BenchDir {
    index: u64,
    stamp: i64,
    segment: u64,
}

/// Sums over the intervals with learning.
#[derive(Debug, Clone, Copy, Default)]
struct Within {
    steps: u64,
    step_time: Duration,
    fits: u64,
    fit_time: Duration,
}

impl BenchHarness {
    /// Opens everything, reads the frames and encodes each once.
    pub(super) fn open(encoder: &Path, uri: &Address, mut config: Config, started: Instant) -> Result<Self> {
        config.export.embeddings = true;
        config.learn.refit_max_frames = config.learn.refit_max_frames.min(config.learn.first_fit_frames);
        let interrupted = signals::stop_on_signals()?;
        let mut opened = LoadedEncoder::open(encoder, &config)?;
        let mut source = source::open(uri, &config.source)?;
        let clip = Clip::read(&mut *source, FRAMES, BYTES, || !interrupted.load(Ordering::Relaxed))?;
        drop(source);
        tracing::info!("{} frames of {} held in memory ({} MB)", clip.frames().len(), uri, clip.bytes() >> 20);
        let mut single = FrameEncoder::new(&opened)?;
        let mut latents = Array2::zeros((clip.frames().len(), opened.origin.dim));
        let mut tensors = Vec::new();
        for (frame, mut row) in clip.frames().iter().zip(latents.rows_mut()) {
            let latent = single.latent(&mut opened, frame)?;
            row.iter_mut().zip(latent).for_each(|(out, x)| *out = *x);
            if tensors.len() < TENSORS {
                tensors.push(single.tensor().to_vec());
            }
        }
        let folder = Folder::create()?;
        let probe = labelled_probe::open(&config.promotion.probe, &mut opened)?;
        let learner = Learner::new(&config.learner(), opened.origin.clone(), probe)?;
        let journal = Journal::open(&folder.0, config.host.journal_megabytes)?;
        let worker = RunLearner::open(learner, Owner::new(&opened.origin, "bench"), &folder.0, journal)?;
        let clip = Arc::new(clip);
        let (next, within) = (BenchDir::default(), Within::default());
        let dropped_latents = 0;
        Ok(Self {
            opened,
            config,
            clip,
            tensors,
            latents,
            worker,
            folder,
            interrupted,
            started,
            next,
            within,
            dropped_latents,
        })
    }

    /// Measures the bare encoder; the latency is the time of one frame.
    pub(super) fn raw(&mut self, secs: Duration) -> Result<Interval> {
        let mut latent = vec![0.0; self.opened.origin.dim];
        let mut latency = LatencyHistogram::default();
        let (begun, used) = (Instant::now(), process_stats::thread_cpu_time());
        let mut frames = 0;
        while begun.elapsed() < secs {
            let frame = Instant::now();
            self.opened.encoder.encode(&self.tensors[frames % self.tensors.len()], &mut latent)?;
            latency.record(frame.elapsed());
            frames += 1;
        }
        let fps = frames as f64 / begun.elapsed().as_secs_f64();
        self.go_on()?;
        let (p50_ms, p99_ms) = (latency.percentile_ms(0.5), latency.percentile_ms(0.99));
        Ok(Interval { fps, p50_ms, p99_ms, cpu_ms: cpu_ms(used, frames as u64), dropped_rows: 0 })
    }

    /// Checks that the encoder accepts this batch size.
    pub(super) fn allow_batch(&mut self, batch: usize) -> Result<()> {
        self.opened.encoder.allow_batch(batch)
    }

    /// Measures `Encoder::encode_batch` on `batch` of the same tensors at a time, copied next to each other as in the
    /// pipeline. The latency is that of one frame: its share of a batch.
    pub(super) fn batched(&mut self, secs: Duration, batch: usize) -> Result<Interval> {
        let mut latents = vec![0.0; batch * self.opened.origin.dim];
        let (mut latency, mut together) = (LatencyHistogram::default(), Vec::new());
        let (begun, used) = (Instant::now(), process_stats::thread_cpu_time());
        let mut frames = 0;
        while begun.elapsed() < secs {
            let run = Instant::now();
            together.clear();
            for at in frames..frames + batch {
                together.extend_from_slice(&self.tensors[at % self.tensors.len()]);
            }
            self.opened.encoder.encode_batch(&together, &mut latents)?;
            (0..batch).for_each(|_| latency.record(run.elapsed() / batch as u32));
            frames += batch;
        }
        let fps = frames as f64 / begun.elapsed().as_secs_f64();
        self.go_on()?;
        let (p50_ms, p99_ms) = (latency.percentile_ms(0.5), latency.percentile_ms(0.99));
        Ok(Interval { fps, p50_ms, p99_ms, cpu_ms: cpu_ms(used, frames as u64), dropped_rows: 0 })
    }

    /// Measures the pipeline with the frozen encoder, without learning.
    pub(super) fn embed(&mut self, secs: Duration) -> Result<Interval> {
        let exporter = self.exporter(&self.config, None)?;
        self.embed_into(secs, exporter)
    }

    /// Like `embed`, with other exports.
    pub(super) fn embed_into(&mut self, secs: Duration, exporter: Option<Exporter>) -> Result<Interval> {
        let frozen = Arc::new(self.opened.frozen());
        self.pipeline(secs, vec![frozen], false, exporter)
    }

    /// The exports of `config`, which overwrite those of the previous interval, and the sinks `live`.
    pub(super) fn exporter(&self, config: &Config, live: Option<LiveSinks>) -> Result<Option<Exporter>> {
        let (next, origin) = (FilePositions::default(), &self.opened.origin);
        Exporter::open(&self.folder.0, &config.export, &config.host, origin, next, live)
    }

    /// A path in the folder of the benchmark.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    /// Measures the pipeline with a learner that is about to fit.
    pub(super) fn learn(&mut self, secs: Duration) -> Result<Interval> {
        self.feed()?;
        let (counts, spent) = (self.worker.learner().counts().clone(), self.worker.learner().cpu_time());
        let snapshots = self.worker.learner().snapshots_from(self.next.index, true);
        let exporter = self.exporter(&self.config, None)?;
        let stretch = self.pipeline(secs, snapshots, true, exporter)?;
        let learner = self.worker.learner();
        self.within.steps += learner.counts().steps - counts.steps;
        self.within.fits += learner.counts().fits - counts.fits;
        self.within.step_time += learner.cpu_time().steps - spent.steps;
        self.within.fit_time += learner.cpu_time().fits - spent.fits;
        Ok(stretch)
    }

    fn pipeline(
        &mut self,
        secs: Duration,
        snapshots: Vec<Arc<Snapshot>>,
        learn: bool,
        exporter: Option<Exporter>,
    ) -> Result<Interval> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut segmenter = ShotDetector::new(&self.config.learn.sampling);
        segmenter.restore(ShotDetectorState { next: self.next.segment, ..ShotDetectorState::default() });
        let (mut begun, halt, interrupted) = (None, stop.clone(), self.interrupted.clone());
        let progress = move |_| {
            let now = Instant::now();
            if now.duration_since(*begun.get_or_insert(now)) >= secs || interrupted.load(Ordering::Relaxed) {
                halt.store(true, Ordering::Relaxed);
            }
        };
        let prepare = self.opened.prepare()?;
        let (began, used) = (Instant::now(), process_stats::thread_cpu_time());
        let source = LoopedSource::new(self.clip.clone(), self.next.index, Timestamp(self.next.stamp));
        let LoadedEncoder { encoder, origin, .. } = &mut self.opened;
        let pipeline = Pipeline::builder(Box::new(source), prepare, encoder, origin.clone(), &self.config);
        let pipeline = if learn { pipeline.learner(&mut self.worker) } else { pipeline };
        let totals = pipeline
            .cameras(vec!["bench".into()])
            .snapshots(snapshots)
            .resume(self.next.index, segmenter)
            .exporter(exporter)
            .stop(stop)
            .started(self.started)
            .on_progress(progress)
            .run()?;
        self.go_on()?;
        self.pass(totals.source.frames, began.elapsed(), totals.segments);
        self.dropped_latents += totals.dropped_latents;
        let speed = totals.speed();
        Ok(Interval {
            fps: speed.frames_per_sec,
            p50_ms: speed.latency_p50_ms,
            p99_ms: speed.latency_p99_ms,
            cpu_ms: cpu_ms(used, totals.frames),
            dropped_rows: totals.dropped_rows,
        })
    }

    /// Feeds recorded latents to the learner until the end of its open block leads to a fit that is not the first.
    fn feed(&mut self) -> Result<()> {
        let mut step = 0;
        let first = self.next;
        while self.worker.learner().counts().fits == 0 || self.worker.learner().samples_to_fit() > 0 {
            self.go_on()?;
            if step > 0 && self.clip.cut(step) {
                self.next.segment += 1;
            }
            let stamp = Timestamp(first.stamp.saturating_add(self.clip.begins(step)));
            let latent = self.latents.row(step % self.latents.nrows()).to_vec();
            let (index, segment) = (first.index + step as u64, self.next.segment);
            self.worker.sample(&Sample { camera: 0, index, stamp, segment, latent, ..Sample::default() })?;
            step += 1;
        }
        if self.worker.learner().pairs() == 0 {
            return Err(Error::runtime(
                "the first frames of the source hold no pair to learn from: they stand still, or each is a scene of its \
                 own; name a source that moves",
            ));
        }
        let nanos = u64::try_from(self.clip.begins(step)).unwrap_or_default();
        self.pass(step as u64, Duration::from_nanos(nanos), 1);
        Ok(())
    }

    /// Moves the learner's stream past what it has seen.
    fn pass(&mut self, frames: u64, time: Duration, segments: u64) {
        let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        self.next.index += frames;
        self.next.segment += segments;
        self.next.stamp = self.next.stamp.saturating_add(nanos).saturating_add(APART_NS);
    }

    fn go_on(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::runtime("the bench was stopped by a signal before it had figures"));
        }
        Ok(())
    }

    pub(super) fn learned(&self) -> Learned {
        let mean = |time: Duration, count: u64| (count > 0).then(|| time.as_secs_f64() * 1e3 / count as f64);
        let Within { steps, step_time, fits, fit_time } = self.within;
        let (counts, spent) = (self.worker.learner().counts(), self.worker.learner().cpu_time());
        Learned {
            steps,
            step_ms: mean(step_time, steps).or_else(|| mean(spent.steps, counts.steps)),
            fits,
            fit_ms: mean(fit_time, fits),
            dropped_latents: self.dropped_latents,
        }
    }

    pub(super) fn clip_bytes(&self) -> usize {
        self.clip.bytes()
    }

    pub(super) fn clip_frames(&self) -> usize {
        self.clip.frames().len()
    }

    pub(super) fn encoder(&self) -> Value {
        let encoder = &self.opened.encoder;
        json!({ "provider": encoder.provider(), "threads": encoder.threads(), "input_size": encoder.size() })
    }
}

/// CPU time of this thread per frame, in milliseconds, since it had used `used`.
fn cpu_ms(used: Duration, frames: u64) -> f64 {
    process_stats::thread_cpu_time().saturating_sub(used).as_secs_f64() * 1e3 / frames.max(1) as f64
}

/// A temporary folder, removed when this value is dropped.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        let base = std::env::temp_dir();
        let mut number = 0;
        loop {
            let path = base.join(format!("afterimage-bench-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left behind by a killed process.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && number < 100 => number += 1,
                Err(e) => return Err(Error::io("cannot make the folder", &path, e)),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("cannot remove {}: {e}", self.0.display());
        }
    }
}
