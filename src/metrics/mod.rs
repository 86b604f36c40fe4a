//! Metrics of a running pipeline for Prometheus, and its health.
//!
//! Every thread updates its own atomics, so that neither a lock nor a scraper can hold up the inference loop. Facts that do
//! not change are set once. `docs/metrics.md` lists the names.
mod counter;
mod encode;
mod health;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::encoder::Encoder;
use crate::export::sinks::SinkStats;
use crate::learner::{Learner, LearnerCounts, LearnerStatus, Snapshot};
use crate::source::SourceCounts;

pub use counter::Counter;
pub use encode::CONTENT_TYPE;

use counter::LatencyTimes;

/// Facts about an open encoder.
#[derive(Debug, Clone, Default)]
struct OpenEncoder {
    provider: String,
    fallback: bool,
    first_secs: f64,
    cosine: Option<f64>,
    /// Nodes by provider, as ONNX Runtime names it.
    nodes: Vec<(String, usize)>,
}

/// The head in use.
#[derive(Debug, Clone, Default)]
struct HeadInUse {
    number: u64,
    dim: usize,
    space: String,
}

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    /// Embedded frames.
    frames: Counter,
    segments: Counter,
    /// Latents that were zero or not finite.
    pub unusable_latents: Counter,
    /// Views encoded ...
    pub views: Counter,
    /// ... and skipped because the next frame was waiting.
    pub skipped_views: Counter,
    /// Latents that the learner's queue had no room for.
    pub dropped_latents: Counter,
    /// Rows that the export thread's queue had no room for.
    pub dropped_rows: Counter,
    /// Rows lost because the disk was full.
    pub lost_rows: Counter,
    /// Checkpoints whose state was not saved because the disk was full.
    pub unsaved_states: Counter,
    /// Journal lines lost because the disk stayed full.
    pub lost_journal_lines: Counter,
    /// Checkpoints delayed by a full queue.
    pub deferred_checkpoints: Counter,
    /// Rows handed to the export thread.
    pub rows: Counter,
    /// Boxes embedded for detectors ...
    pub boxes: Counter,
    /// ... and answered with an error.
    pub refused_boxes: Counter,
    source: [Counter; 7],
    age: LatencyTimes,
    encode: LatencyTimes,
    learner: [Counter; 6],
    /// Returns to the frozen latents.
    pub demotions: Counter,
    state: AtomicUsize,
    learns: AtomicBool,
    paused: AtomicBool,
    /// Latents not learned from because learning paused.
    paused_latents: Counter,
    queue: [Counter; 2],
    encoder: OnceLock<OpenEncoder>,
    head: Mutex<HeadInUse>,
    live: OnceLock<SinkStats>,
    /// When the last embedding left or the pipeline started, milliseconds after `started` plus one; 0: not yet.
    last_frame: AtomicU64,
    /// Longest time without a frame of a healthy live source, milliseconds; 0: the source is not live.
    patience: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            frames: Counter::default(),
            segments: Counter::default(),
            unusable_latents: Counter::default(),
            views: Counter::default(),
            skipped_views: Counter::default(),
            dropped_latents: Counter::default(),
            dropped_rows: Counter::default(),
            lost_rows: Counter::default(),
            unsaved_states: Counter::default(),
            lost_journal_lines: Counter::default(),
            deferred_checkpoints: Counter::default(),
            rows: Counter::default(),
            boxes: Counter::default(),
            refused_boxes: Counter::default(),
            source: Default::default(),
            age: LatencyTimes::default(),
            encode: LatencyTimes::default(),
            learner: Default::default(),
            demotions: Counter::default(),
            state: AtomicUsize::new(0),
            learns: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            paused_latents: Counter::default(),
            queue: Default::default(),
            encoder: OnceLock::new(),
            head: Mutex::default(),
            live: OnceLock::new(),
            last_frame: AtomicU64::new(0),
            patience: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Sets the facts about the encoder. Only the first call counts.
    pub fn encoder_open(&self, encoder: &Encoder) {
        let nodes = encoder.placement().map(|placement| &placement.providers).into_iter().flatten();
        let open = OpenEncoder {
            provider: encoder.provider().to_owned(),
            fallback: encoder.fallback().is_some(),
            first_secs: encoder.first_millis() / 1e3,
            cosine: encoder.parity().map(|parity| parity.cosine),
            nodes: nodes.map(|(name, share)| (name.clone(), share.nodes)).collect(),
        };
        self.encoder.get_or_init(|| open);
    }

    /// Sets the live sinks. Only the first call counts.
    pub fn live(&self, live: Option<SinkStats>) {
        if let Some(live) = live {
            self.live.get_or_init(|| live);
        }
    }

    /// The pipeline has started; a live source that gives no frame for longer than `patience` is unhealthy.
    pub fn running(&self, patience: Option<Duration>) {
        let millis = patience.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
        self.patience.store(millis, Ordering::Relaxed);
        self.touch();
    }

    fn touch(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last_frame.store(millis + 1, Ordering::Relaxed);
    }

    /// Records the time of the encoder for one frame.
    pub fn encoded(&self, time: Duration) {
        self.encode.record(time);
    }

    /// Counts an embedding that left `age` after its frame arrived; `segments` were seen so far.
    pub fn embedded(&self, age: Duration, segments: u64) {
        self.frames.inc();
        self.segments.set(segments);
        self.age.record(age);
        self.touch();
    }

    /// Copies the counts of the source.
    pub fn source(&self, counts: &SourceCounts) {
        let SourceCounts { frames, dropped, lost, unreadable, stalls, failures, reopens, .. } = *counts;
        let all = [frames, dropped, unreadable, lost, stalls, failures, reopens];
        for (counter, count) in self.source.iter().zip(all) {
            counter.set(count);
        }
    }

    /// Sets the head in use; false where a scraper is just reading it, and the caller has to try again later.
    pub fn head(&self, snapshot: &Snapshot) -> bool {
        let mut head = match self.head.try_lock() {
            Ok(head) => head,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        *head =
            HeadInUse { number: snapshot.number, dim: snapshot.head.dim_out(), space: snapshot.space.as_ref().into() };
        true
    }

    /// Copies the learner's counts and state; `waiting` of at most `room` latents wait for it.
    pub fn learner(&self, learner: &Learner, waiting: usize, room: usize) {
        let LearnerCounts { samples, held_out: held, steps, fits, promotions, rollbacks, .. } = *learner.counts();
        for (counter, count) in self.learner.iter().zip([samples, held, steps, fits, promotions, rollbacks]) {
            counter.set(count);
        }
        for (counter, count) in self.queue.iter().zip([waiting, room]) {
            counter.set(count as u64);
        }
        let state = STATES.iter().position(|(state, _)| *state == learner.state()).unwrap_or(0);
        self.state.store(state, Ordering::Relaxed);
        self.learns.store(true, Ordering::Relaxed);
    }

    /// Sets whether learning pauses, and counts the latent that a pause leaves out.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
        if paused {
            self.paused_latents.inc();
        }
    }

    /// When the last embedding left or the pipeline started, seconds since 1970.
    fn last_frame_unix(&self) -> Option<f64> {
        let last = self.last_frame.load(Ordering::Relaxed).checked_sub(1)?;
        let since = self.started.elapsed().saturating_sub(Duration::from_millis(last));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some(now.saturating_sub(since).as_secs_f64())
    }
}

/// The states of the learner, as the journal names them.
const STATES: [(LearnerStatus, &str); 4] = [
    (LearnerStatus::Warming, "warming"),
    (LearnerStatus::Learning, "learning"),
    (LearnerStatus::Holding, "holding"),
    (LearnerStatus::RolledBack, "rolled-back"),
];

#[cfg(test)]
mod tests;
