//! Figures of a running pipeline for a monitoring system, in the text format of Prometheus, and whether all is well.
//!
//! Every thread raises its own numbers: atomics, so that neither a lock nor a reader can hold the hot path. What is known
//! once is set once. `docs/metrics.md` lists what is told, under which name.
mod page;
mod text;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::encoder::Encoder;
use crate::export::sinks::SinkStats;
use crate::learner::{Learner, LearnerCounts, LearnerStatus, Snapshot};
use crate::source::SourceCounts;
use crate::process_stats;

pub use page::Page;

/// Upper bounds of the classes of [`LatencyTimes`], seconds: from an encoder on a GPU to a stalled camera.
const BOUNDS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// A number that only rises, or that is set to what another place has counted.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    /// What was counted elsewhere.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }
    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Times by classes.
#[derive(Debug, Default)]
struct LatencyTimes {
    /// One more than there are bounds, the last for what is longer; not cumulative.
    classes: [Counter; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl LatencyTimes {
    fn record(&self, time: Duration) {
        let secs = time.as_secs_f64();
        let class = BOUNDS.iter().position(|bound| secs <= *bound).unwrap_or(BOUNDS.len());
        self.classes[class].inc();
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// What is known of the encoder once it is open.
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

/// All figures of one process.
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
    /// ... and left out because the next frame waited.
    pub skipped_views: Counter,
    /// Latents that the learner had no room for.
    pub dropped_latents: Counter,
    /// Rows that the export thread had no room for.
    pub dropped_rows: Counter,
    /// Rows that the disk had no room for.
    pub lost_rows: Counter,
    /// Checkpoints whose state found no room on the disk.
    pub unsaved_states: Counter,
    /// Journal lines that were given up because the disk stayed full.
    pub lost_journal_lines: Counter,
    /// Checkpoints that had to wait for room at a worker.
    pub deferred_checkpoints: Counter,
    /// Rows handed to the export thread.
    pub rows: Counter,
    /// Boxes embedded for detectors that asked ...
    pub boxes: Counter,
    /// ... and answered with a reason.
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
    /// Latents not learned from because the machine was strained.
    paused_latents: Counter,
    queue: [Counter; 2],
    encoder: OnceLock<OpenEncoder>,
    head: Mutex<HeadInUse>,
    live: OnceLock<SinkStats>,
    /// Milliseconds after `started`, plus one, of the last embedding, or of the start of the pipeline; 0: not yet.
    last_frame: AtomicU64,
    /// Milliseconds without a frame that a live source is allowed; 0: it is no live source.
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
    /// The encoder is open. Of several calls the first counts.
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

    /// Records go to `live` too. Of several calls the first counts.
    pub fn live(&self, live: Option<SinkStats>) {
        if let Some(live) = live {
            self.live.get_or_init(|| live);
        }
    }

    /// Frames may come from now on; a live source that gives none for longer than `patience` is not well.
    pub fn running(&self, patience: Option<Duration>) {
        let millis = patience.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
        self.patience.store(millis, Ordering::Relaxed);
        self.touch();
    }

    fn touch(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last_frame.store(millis + 1, Ordering::Relaxed);
    }

    /// The encoder took `time` for a frame.
    pub fn encoded(&self, time: Duration) {
        self.encode.record(time);
    }

    /// An embedding left, `age` after its frame had arrived; so many segments were seen.
    pub fn embedded(&self, age: Duration, segments: u64) {
        self.frames.inc();
        self.segments.set(segments);
        self.age.record(age);
        self.touch();
    }

    /// The source's own counts.
    pub fn source(&self, counts: &SourceCounts) {
        let SourceCounts { frames, dropped, lost, unreadable, stalls, failures, reopens, .. } = *counts;
        let all = [frames, dropped, unreadable, lost, stalls, failures, reopens];
        for (counter, count) in self.source.iter().zip(all) {
            counter.set(count);
        }
    }

    /// Tells the head in use; false where a reader looks at it just now, and it has to be told again later.
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

    /// Where the learner stands; `waiting` latents of at most `room` wait for it.
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

    /// Whether the next latent is left out for the sake of the machine.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
        if paused {
            self.paused_latents.inc();
        }
    }

    /// What the learner does, by the name that the journal gives it, or `paused`; `None` without learning.
    pub fn learner_state(&self) -> Option<&'static str> {
        let learns = self.learns.load(Ordering::Relaxed);
        if learns && self.paused.load(Ordering::Relaxed) {
            return Some("paused");
        }
        STATES.get(self.state.load(Ordering::Relaxed)).filter(|_| learns).map(|(_, name)| *name)
    }

    /// Whether all is well: `Ok` with a line that says so, or the reason why not.
    ///
    /// # Errors
    /// The encoder is not open yet, or a live source gives no frames.
    pub fn health(&self) -> Result<String, String> {
        let last = self.last_frame.load(Ordering::Relaxed);
        if last == 0 {
            return Err(format!("starting for {} s: the encoder is not open yet", self.started.elapsed().as_secs()));
        }
        let since = self.started.elapsed().saturating_sub(Duration::from_millis(last - 1));
        let patience = self.patience.load(Ordering::Relaxed);
        if patience > 0 && since > Duration::from_millis(patience) {
            return Err(format!("no frame for {:.1} s", since.as_secs_f64()));
        }
        Ok(format!("ok: {} frames", self.frames.get()))
    }

    /// Health and the main figures, in one line.
    pub fn summary(&self) -> String {
        let health = self.health().unwrap_or_else(|reason| reason);
        let [_, dropped, unreadable, _, stalls, failures, reopens] = self.source.each_ref().map(Counter::get);
        let mut line = format!(
            "{health}, {} segments; dropped {dropped}, unreadable {unreadable}; stalls {stalls}, failures {failures}, \
             reopened {reopens}",
            self.segments.get()
        );
        if let Some(state) = self.learner_state() {
            let [samples, _, _, fits, promotions, _] = self.learner.each_ref().map(Counter::get);
            line += &format!("; learner {state}: {samples} samples, {fits} fits, {promotions} promotions");
        }
        if let Some(megabytes) = process_stats::resident_megabytes() {
            line += &format!("; {megabytes:.0} MB");
        }
        line
    }

    /// Seconds since 1970 of the last embedding, or of the start of the pipeline.
    fn last_frame_unix(&self) -> Option<f64> {
        let last = self.last_frame.load(Ordering::Relaxed).checked_sub(1)?;
        let since = self.started.elapsed().saturating_sub(Duration::from_millis(last));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some(now.saturating_sub(since).as_secs_f64())
    }
}

/// The states of the learner, by the names that the journal gives them.
const STATES: [(LearnerStatus, &str); 4] = [
    (LearnerStatus::Warming, "warming"),
    (LearnerStatus::Learning, "learning"),
    (LearnerStatus::Holding, "holding"),
    (LearnerStatus::RolledBack, "rolled-back"),
];

#[cfg(test)]
mod tests;
