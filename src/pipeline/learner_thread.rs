//! The learner thread: latents to the learner, its decisions to the journal, its heads and its state to the disk.
use std::collections::BTreeMap;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use serde_json::json;

use super::cpu_throttle::CpuThrottle;
use super::export_thread::FilePositions;
use super::progress_barrier::{ProgressBarrier, ReleaseOnDrop};
use super::run_dir::StreamPosition;
use super::run_state;
use crate::checkpoint::{
    DiskReserve, HeadCheckpoint, Owner, SpaceMapCheckpoint, head_path, load_own_head, save_head, save_map,
};
use crate::encoder::BackgroundModel;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::frame::Timestamp;
use crate::host::{self, ThermalMonitor, ThrottleEvent};
use crate::journal::{self, Journal};
use crate::learner::{FitOutcome, Learner, LearnerEvent, LearnerStatus, Snapshot, SpaceTransition};
use crate::metrics::Metrics;
use crate::sampling::{Sample, ShotDetectorState};
use crate::source;

/// What goes to the learner thread.
pub(super) enum ToLearner {
    /// One unit latent.
    Sample(Sample),
    /// Save the state here.
    Checkpoint(Box<CheckpointMarker>),
    /// Something happened to a live source: a line for the journal.
    Source(Box<source::SourceEvent>),
    /// The source is at its end: last fit.
    Finish,
}

/// The ways to and from the learner thread.
pub(super) struct LearnerChannels<'a> {
    pub(super) inbox: Receiver<ToLearner>,
    /// Samples go back here, for their buffers.
    pub(super) spare: Sender<Sample>,
    pub(super) snapshots: Sender<Arc<Snapshot>>,
    pub(super) barrier: &'a ProgressBarrier,
    pub(super) metrics: &'a Metrics,
}

/// How the learner thread behaves.
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
    /// Whether the machine is strained; a change goes to the log, the journal and the figures.
    fn pauses(&mut self, worker: &mut RunStore, metrics: &Metrics) -> Result<bool> {
        let Some(strain) = &mut self.thermal else { return Ok(false) };
        match strain.poll(Instant::now()) {
            Some(ThrottleEvent::Pause(reason)) => {
                tracing::warn!("learning pauses: {reason}; embeddings go on");
                worker.strained("pause", &reason)?;
            }
            Some(ThrottleEvent::Resume(reason)) => {
                tracing::info!("learning goes on, after a pause: {reason}");
                worker.strained("resume-learning", &reason)?;
            }
            None => {}
        }
        let paused = strain.paused().is_some();
        metrics.pause(paused);
        Ok(paused)
    }
}

/// What the samples are for.
pub enum LearnerMode<'a> {
    /// To be learned from.
    Learn(&'a mut RunStore),
    /// To be kept as they are, in order, for learners later on. Bounded sources only: nothing limits the memory.
    Record(&'a mut Recording),
}

/// A stream as the learner gets it.
#[derive(Debug, Default)]
pub struct Recording {
    /// The samples, in order.
    pub samples: Vec<Sample>,
    /// The background of a fixed camera at the end, where windows are cut.
    pub background: Option<Arc<BackgroundModel>>,
}

/// Keeps what comes until the hot path hangs up.
pub(super) fn record(recording: &mut Recording, ways: &LearnerChannels<'_>) {
    let _open = ReleaseOnDrop(ways.barrier);
    for message in &ways.inbox {
        match message {
            ToLearner::Sample(sample) => {
                recording.samples.push(sample);
                ways.barrier.set(recording.samples.len() as u64);
            }
            ToLearner::Checkpoint(marker) => recording.background = marker.background,
            ToLearner::Source(_) | ToLearner::Finish => {}
        }
    }
}

/// Learns from what comes until the hot path hangs up.
pub(super) fn run(worker: &mut RunStore, ways: &LearnerChannels<'_>, mut conduct: LearnerLimits<'_>) -> Result<()> {
    let _open = ReleaseOnDrop(ways.barrier);
    host::pin(&conduct.cores)?;
    if conduct.live {
        host::lower_priority();
        worker.learner.set_governor(Box::new(CpuThrottle::new(conduct.share, conduct.stop.clone())));
    }
    let (mut done, room) = (0, ways.inbox.capacity().unwrap_or(0));
    ways.metrics.learner(&worker.learner, 0, room);
    for message in &ways.inbox {
        let snapshot = match message {
            ToLearner::Sample(sample) => {
                let paused = conduct.pauses(worker, ways.metrics)?;
                // A live stream that is stopped does not wait for its backlog.
                let skip = paused || conduct.live && conduct.stop.load(Ordering::Relaxed);
                let snapshot = if skip { None } else { worker.sample(&sample)? };
                done += 1;
                // Full only when there are more than the hot path needs; then this one is let go.
                ways.spare.try_send(sample).ok();
                snapshot
            }
            ToLearner::Checkpoint(marker) => {
                worker.checkpoint(*marker)?;
                None
            }
            ToLearner::Source(event) => {
                worker.source(&event)?;
                None
            }
            ToLearner::Finish => worker.finish()?,
        };
        if let Some(snapshot) = snapshot {
            // Fails only when the hot path has ended.
            ways.snapshots.send(snapshot).ok();
        }
        ways.barrier.set(done);
        ways.metrics.learner(&worker.learner, ways.inbox.len(), room);
        ways.metrics.demotions.set(worker.demotions);
        ways.metrics.unsaved_states.set(worker.unsaved_states);
        ways.metrics.lost_journal_lines.set(worker.journal.lost());
        worker.learner.rest();
    }
    worker.learner.set_governor(Box::new(CpuThrottle::full()));
    worker.close()
}

/// A place in the stream at which everything can be taken up again.
pub struct CheckpointMarker {
    /// First frame that is not in the state.
    pub next_index: u64,
    /// Nothing follows.
    pub ended: bool,
    /// No frame follows in this process.
    pub last: bool,
    /// Where the segments stand.
    pub segmenter: ShotDetectorState,
    /// The background of a fixed camera there, where windows are cut.
    pub background: Option<Arc<BackgroundModel>>,
    /// Answers when the exports up to here are closed; `None` without exports.
    pub rotated: Option<Receiver<FilePositions>>,
}

/// What found no room on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LossCounts {
    /// Checkpoints whose state was not saved.
    pub unsaved_states: u64,
    /// Lines of the journal that are gone.
    pub journal_lines: u64,
    /// Lines of the journal that were still waiting at the end.
    pub waiting_journal_lines: u64,
}

/// The learner with its files.
pub struct RunStore {
    learner: Learner,
    owner: Owner,
    run: PathBuf,
    journal: Journal,
    reserve: DiskReserve,
    /// Promoted heads that the disk had no room for yet, each with the map into its space.
    unsaved: Vec<(Option<SpaceMapCheckpoint>, HeadCheckpoint)>,
    last: Option<(u64, Timestamp)>,
    /// Since the start of the process.
    demotions: u64,
    /// Something could not be written; it was reported, and nothing was saved since.
    failing: bool,
    /// Why the state of the last checkpoint is in memory only.
    not_saved: Option<Error>,
    /// Checkpoints of this process whose state could not be saved.
    unsaved_states: u64,
    /// First frame that is not in the newest state on the disk.
    saved_to: Option<u64>,
    /// First frame that this process did not get, once it gets no more.
    stopped_at: Option<u64>,
}

impl RunStore {
    /// On the run folder `run`, which exists. Keeps room for one head and some journal lines in reserve.
    ///
    /// # Errors
    /// The reserve cannot be made for another reason than a full disk.
    pub fn new(mut learner: Learner, owner: Owner, run: &Path, journal: Journal) -> Result<Self> {
        learner.set_governor(Box::new(CpuThrottle::full()));
        // The lock has looked after the run's own folder; heads and maps are written in theirs.
        ["heads", "maps"].iter().for_each(|folder| files::sweep(&run.join(folder)));
        let reserve = DiskReserve::new(run, learner.head_bytes());
        let run = run.to_owned();
        let mut worker = Self {
            learner,
            owner,
            run,
            journal,
            reserve,
            unsaved: Vec::new(),
            last: None,
            demotions: 0,
            failing: false,
            not_saved: None,
            unsaved_states: 0,
            saved_to: None,
            stopped_at: None,
        };
        worker.refill()?;
        Ok(worker)
    }

    /// Holds the reserve again; without room that is tried again later.
    fn refill(&mut self) -> Result<()> {
        match self.reserve.refill() {
            Err(e) if e.kind() == ErrorKind::DiskFull => {
                self.fault("no room for a promoted head is held in reserve", &e)
            }
            other => other,
        }
    }

    /// Writes promoted heads again whose files are damaged or gone, out of the learner's state (without the statistics
    /// that they were fitted on, which the state has no more).
    ///
    /// # Errors
    /// The journal cannot be read, or a file cannot be written for a reason other than a full disk.
    pub fn mend(&mut self) -> Result<()> {
        let promoted = self.learner.promoted();
        let damage = |number| load_own_head(&head_path(&self.run, number), &self.owner).err();
        let damaged: Vec<_> = promoted.into_iter().filter_map(|head| Some((damage(head.number)?, head))).collect();
        if damaged.is_empty() {
            return Ok(());
        }
        let mut made = BTreeMap::new();
        journal::for_each(&self.run, |event| {
            if let (Some(number), Some(frame)) = (event["promoted"].as_u64(), event["frame"].as_u64()) {
                made.entry(number).or_insert(frame);
            }
        })?;
        for (damage, snapshot) in damaged {
            let number = snapshot.number;
            // Only what is damaged or gone is written again: nothing is known of what cannot be read.
            let path = head_path(&self.run, number);
            if damage.kind() != ErrorKind::Damaged && !matches!(path.symlink_metadata(), Err(e) if e.kind() == NotFound)
            {
                return Err(damage);
            }
            let reason = format!("{}; it is written again, as head {number} of the state", damage.chain());
            tracing::warn!("{reason}");
            self.journal.write("fault", json!({ "reason": reason }))?;
            let lag = self.learner.config().learn.promote_lag_frames;
            let made_at = made.get(&number).copied().unwrap_or(snapshot.activate_at.saturating_sub(lag));
            let mut file = self.head_file(&snapshot, made_at);
            (file.activate_at, file.scatter) = (made_at + lag, None);
            self.unsaved.push((None, file));
        }
        self.save_heads()
    }

    /// The learner.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// One latent; the snapshot that a fit brought.
    ///
    /// # Errors
    /// The latent does not fit the encoder, or a file cannot be written for a reason other than a full disk.
    pub fn sample(&mut self, sample: &Sample) -> Result<Option<Arc<Snapshot>>> {
        let (index, stamp) = (sample.index, sample.stamp);
        self.last = Some((index, stamp));
        let outcome = self.learner.learn(sample)?;
        self.events()?;
        outcome.map(|outcome| self.outcome(outcome)).transpose()
    }

    /// Goes on after this frame, which the learner knows of already.
    pub fn after(&mut self, index: u64, stamp: Timestamp) {
        self.last = Some((index, stamp));
    }

    /// The end of a bounded source: the last fit.
    ///
    /// # Errors
    /// As [`RunStore::sample`].
    pub fn finish(&mut self) -> Result<Option<Arc<Snapshot>>> {
        let Some((index, _)) = self.last else { return Ok(None) };
        let outcome = self.learner.finish(index)?;
        self.events()?;
        outcome.map(|outcome| self.outcome(outcome)).transpose()
    }

    /// What happened to a live source, to the journal.
    fn source(&mut self, event: &source::SourceEvent) -> Result<()> {
        let fields = serde_json::to_value(event)
            .map_err(|e| Error::runtime("an event cannot be written to the journal").with_source(e))?;
        self.journal.write("source", fields)
    }

    /// The learner pauses, or goes on, for the sake of the machine: a line for the journal.
    fn strained(&mut self, event: &str, reason: &str) -> Result<()> {
        let stamp = self.last.map_or(0, |(_, stamp)| stamp.0);
        self.journal.write(event, json!({ "reason": reason, "stamp_ns": stamp }))
    }

    /// What happened in the learner, to the journal; changes of state also to the log.
    fn events(&mut self) -> Result<()> {
        let stamp = self.last.map_or(0, |(_, stamp)| stamp.0);
        for event in self.learner.take_events() {
            let name = match &event {
                LearnerEvent::Health { .. } => "health",
                LearnerEvent::State { frame, to: LearnerStatus::RolledBack, reason, rate, .. } => {
                    tracing::warn!(
                        "frame {frame}: residual put back to its last sound weights: {reason}; rate x {rate:.3}"
                    );
                    "state"
                }
                LearnerEvent::State { frame, to, reason, .. } => {
                    tracing::debug!("frame {frame}: {to:?}: {reason}");
                    "state"
                }
            };
            let mut fields = serde_json::to_value(&event)
                .map_err(|e| Error::runtime("an event cannot be written to the journal").with_source(e))?;
            if let Some(map) = fields.as_object_mut() {
                map.insert("stamp_ns".into(), stamp.into());
            }
            self.journal.write(name, fields)?;
        }
        Ok(())
    }

    fn outcome(&mut self, outcome: FitOutcome) -> Result<Arc<Snapshot>> {
        let FitOutcome { snapshot, report: decision, transition: passage } = outcome;
        let stamp = self.last.map_or(0, |(_, stamp)| stamp.0);
        if decision.promoted.is_some() {
            let map = passage.as_ref().map(|passage| self.map_file(&snapshot, passage));
            self.unsaved.push((map, self.head_file(&snapshot, decision.frame)));
        }
        self.save_heads()?;
        tracing::info!("frame {}: {}", decision.frame, decision.reason);
        let event = match (&decision.demotion, decision.promoted) {
            (Some(_), _) => "demotion",
            (None, Some(_)) => "promotion",
            (None, None) => "fit",
        };
        self.demotions += u64::from(decision.demotion.is_some());
        let mut fields = serde_json::to_value(&decision)
            .map_err(|e| Error::runtime("a decision cannot be written to the journal").with_source(e))?;
        if let Some(map) = fields.as_object_mut() {
            map.insert("stamp_ns".into(), stamp.into());
            map.insert("space".into(), snapshot.space.as_ref().into());
            map.insert("activate_at".into(), snapshot.activate_at.into());
            if let Some(SpaceTransition { from, from_head, fitted }) = &passage {
                let from = json!({
                    "space": from.as_ref(), "head": from_head, "kind": fitted.map.kind, "references": fitted.references,
                    "queries": fitted.queries, "hits": fitted.hits, "as_is": fitted.as_is,
                });
                map.insert("from".into(), from);
            }
        }
        self.journal.write(event, fields)?;
        self.sync()?;
        Ok(snapshot)
    }

    fn head_file(&self, snapshot: &Snapshot, made_at: u64) -> HeadCheckpoint {
        HeadCheckpoint {
            head: (*snapshot.head).clone(),
            number: snapshot.number,
            space: snapshot.space.to_string(),
            run: self.owner.run.clone(),
            encoder_sha256: self.owner.encoder_sha256.clone(),
            card_hash: self.owner.card_hash.clone(),
            activate_at: snapshot.activate_at,
            made_at,
            scatter: Some(self.learner.scatter().clone()),
        }
    }

    fn map_file(&self, snapshot: &Snapshot, passage: &SpaceTransition) -> SpaceMapCheckpoint {
        let fitted = &passage.fitted;
        SpaceMapCheckpoint {
            from: passage.from.to_string(),
            from_head: passage.from_head,
            to: snapshot.space.to_string(),
            to_head: snapshot.number,
            run: self.owner.run.clone(),
            encoder_sha256: self.owner.encoder_sha256.clone(),
            card_hash: self.owner.card_hash.clone(),
            map: fitted.map.clone(),
            references: fitted.references,
            queries: fitted.queries,
            hits: fitted.hits,
            as_is: fitted.as_is,
        }
    }

    /// Promoted heads to the disk; what does not fit stays in memory and is tried again. A map comes before its head: where
    /// a head is in use, there is the way into its space.
    fn save_heads(&mut self) -> Result<()> {
        while let Some((map, head)) = self.unsaved.first() {
            let write = || {
                map.iter().try_for_each(|map| save_map(&self.run, map))?;
                save_head(&self.run, head)
            };
            match self.reserve.spend_on(write) {
                Ok(()) => {
                    self.unsaved.remove(0);
                }
                Err(e) => {
                    let number = head.number;
                    return self.fault(&format!("head {number} stays in memory and is written again later"), &e);
                }
            }
        }
        Ok(())
    }

    /// Saves the state at `marker`. Where that fails, for whatever reason, the state before stays, learning goes on in
    /// memory, and the next checkpoint tries again.
    ///
    /// # Errors
    /// The export thread has ended, or the journal cannot be written for another reason than a full disk.
    pub fn checkpoint(&mut self, marker: CheckpointMarker) -> Result<()> {
        self.stopped_at = marker.last.then_some(marker.next_index);
        let rotated = match &marker.rotated {
            Some(reply) => reply.recv().map_err(|_| Error::runtime("the export thread has ended"))?,
            None => FilePositions::default(),
        };
        self.save_heads()?;
        // What the learner said of these frames is on the disk before the state that will not say it again.
        self.sync()?;
        let place = StreamPosition {
            next_index: marker.next_index,
            ended: marker.ended,
            segmenter: Some(marker.segmenter),
            exports: rotated,
        };
        let next_index = marker.next_index;
        let background = marker.background.as_deref();
        match run_state::store(&self.run, &self.owner, &mut self.learner, place, background) {
            Ok(()) => {
                self.not_saved = None;
                self.saved_to = Some(next_index);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the state is saved again, at frame {next_index}");
                }
            }
            Err(e) => {
                self.unsaved_states += 1;
                self.fault("the state is not saved; learning goes on in memory, the next checkpoint tries again", &e)?;
                self.not_saved = Some(e);
            }
        }
        self.sync()
    }

    /// What could not be written in this process.
    pub fn lost(&self) -> LossCounts {
        let (journal_lines, waiting_journal_lines) = (self.journal.lost(), self.journal.waiting() as u64);
        LossCounts { unsaved_states: self.unsaved_states, journal_lines, waiting_journal_lines }
    }

    /// Something is in memory only: one message, and one line of the journal, until a state is saved again.
    fn fault(&mut self, what: &str, error: &Error) -> Result<()> {
        if std::mem::replace(&mut self.failing, true) {
            return Ok(());
        }
        let reason = format!("{}: {what}", error.chain());
        tracing::error!("{reason}");
        let (frame, stamp) = self.last.map_or((0, 0), |(frame, stamp)| (frame, stamp.0));
        self.journal.write("fault", json!({ "frame": frame, "stamp_ns": stamp, "reason": reason }))
    }

    /// The journal to the disk; on a full one its lines wait in memory, or take the reserve's room.
    fn sync(&mut self) -> Result<()> {
        match self.reserve.spend_on(|| self.journal.sync()) {
            Err(e) if e.kind() == ErrorKind::DiskFull => self.fault("its lines wait in memory until there is room", &e),
            Err(e) => Err(e),
            // Room may have come back, also where no state is saved.
            Ok(()) => self.refill(),
        }
    }

    /// Writes the last line of the journal.
    ///
    /// # Errors
    /// The I/O error.
    pub fn end(&mut self, ended: bool, frames: u64) -> Result<()> {
        let stamp = self.last.map_or(0, |(_, stamp)| stamp.0);
        let fields = json!({
            "stamp_ns": stamp, "ended": ended, "frames": frames, "learned": self.learner.counts(),
            "exported": self.learner.exported().number,
        });
        self.journal.write(if ended { "end" } else { "stop" }, fields)?;
        self.sync()
    }

    /// Writes the last line of the journal after a fault, where the frames before it are known: they went through the hot
    /// path in order, as where the source broke.
    pub fn broke(&mut self) {
        if let Some(frames) = self.stopped_at
            && let Err(error) = self.end(false, frames)
        {
            // Why the run ends is another error.
            tracing::warn!("the journal has no last line: {}", error.chain());
        }
    }

    /// After the last message: nothing may be left in memory only.
    ///
    /// # Errors
    /// A promoted head or the last state could not be written.
    pub fn close(&mut self) -> Result<()> {
        self.save_heads()?;
        self.sync()?;
        let run = self.run.display();
        if let Some((_, head)) = self.unsaved.first() {
            return Err(Error::new(
                ErrorKind::DiskFull,
                format!(
                    "head {} was promoted but {run} has no room for it; make room and go on with --resume",
                    head.number,
                ),
            ));
        }
        let Some(error) = self.not_saved.take() else { return Ok(()) };
        let since = self.saved_to.map_or_else(|| "it began here".to_owned(), |frame| format!("frame {frame}"));
        Err(Error::new(
            error.kind(),
            format!(
                "the state of run {run} is not saved, and what was learned since {since} is lost; see to the reason and go on \
                 from there with --resume"
            ),
        )
        .with_source(error))
    }
}
