//! What a run keeps on the disk: journal, promoted heads with their maps, and state. It decides what becomes of them on a
//! full disk, and knows of no thread.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::head_store::HeadStore;
use super::run_dir::StreamPosition;
use super::run_state;
use crate::checkpoint::{DiskReserve, Owner};
use crate::encoder::BackgroundModel;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::frame::Timestamp;
use crate::journal::{self, Journal, SharedJournal};
use crate::learner::{FitOutcome, Learner, LearnerEvent, LearnerStatus, Snapshot, SpaceTransition};

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

/// The files of a run. On a full disk learning goes on in memory: heads and journal lines are written into the room that
/// is held in reserve, or wait; the state before stays.
pub struct RunStore {
    run: PathBuf,
    owner: Owner,
    journal: SharedJournal,
    reserve: DiskReserve,
    heads: HeadStore,
    /// The frame that journal lines are about.
    last: Option<(u64, Timestamp)>,
    /// Something could not be written; it was reported, and no state was saved since.
    failing: bool,
    /// Why the state of the last checkpoint is in memory only.
    not_saved: Option<Error>,
    /// Checkpoints of this process whose state could not be saved.
    unsaved_states: u64,
    /// First frame that is not in the newest state on the disk.
    saved_to: Option<u64>,
}

impl RunStore {
    /// The files in the folder `run`, which exists. Holds `head_bytes` in reserve: room for a promoted head and some
    /// journal lines.
    ///
    /// # Errors
    /// The reserve cannot be made for a reason other than a full disk.
    pub fn open(run: &Path, owner: Owner, journal: Journal, head_bytes: u64) -> Result<Self> {
        // The lock has swept the run's own folder; heads and maps are written in theirs.
        ["heads", "maps"].iter().for_each(|folder| files::sweep(&run.join(folder)));
        let mut store = Self {
            run: run.to_owned(),
            heads: HeadStore::new(run, owner.clone()),
            owner,
            journal: SharedJournal::new(journal),
            reserve: DiskReserve::new(run, head_bytes),
            last: None,
            failing: false,
            not_saved: None,
            unsaved_states: 0,
            saved_to: None,
        };
        store.refill()?;
        Ok(store)
    }

    /// The journal, for another thread.
    pub fn journal(&self) -> SharedJournal {
        self.journal.clone()
    }

    /// Journal lines are about this frame from now on.
    pub fn at(&mut self, frame: u64, stamp: Timestamp) {
        self.last = Some((frame, stamp));
    }

    /// The last frame.
    pub fn last_frame(&self) -> Option<u64> {
        self.last.map(|(frame, _)| frame)
    }

    /// What found no room in this process.
    pub fn lost(&self) -> LossCounts {
        let (journal_lines, waiting_journal_lines) = (self.journal.lost(), self.journal.waiting() as u64);
        LossCounts { unsaved_states: self.unsaved_states, journal_lines, waiting_journal_lines }
    }

    /// Writes promoted heads again whose files are damaged or gone, out of the learner's state (without the statistics
    /// that they were fitted on, which the state does not hold).
    ///
    /// # Errors
    /// The journal cannot be read, or a file cannot be written for a reason other than a full disk.
    pub fn mend_heads(&mut self, learner: &Learner) -> Result<()> {
        let damaged = self.heads.damaged(learner.promoted())?;
        if damaged.is_empty() {
            return Ok(());
        }
        let mut made = BTreeMap::new();
        journal::for_each(&self.run, |event| {
            if let (Some(number), Some(frame)) = (event["promoted"].as_u64(), event["frame"].as_u64()) {
                made.entry(number).or_insert(frame);
            }
        })?;
        let lag = learner.config().learn.promote_lag_frames;
        for (damage, snapshot) in damaged {
            let number = snapshot.number;
            let reason = format!("{}; it is written again, as head {number} of the state", damage.chain());
            tracing::warn!("{reason}");
            self.journal.write("fault", json!({ "reason": reason }))?;
            let made_at = made.get(&number).copied().unwrap_or(snapshot.activate_at.saturating_sub(lag));
            let activate_at = made_at + lag;
            self.heads.push(&Snapshot { activate_at, ..(*snapshot).clone() }, made_at, None, None);
        }
        self.save_heads()
    }

    /// The learner pauses (`pause`), or goes on (`resume-learning`), for the sake of the machine.
    ///
    /// # Errors
    /// The journal cannot be written for a reason other than a full disk.
    pub fn throttle_event(&mut self, event: &str, reason: &str) -> Result<()> {
        self.journal.write(event, json!({ "reason": reason, "stamp_ns": self.stamp() }))
    }

    /// What happened in the learner; changes of state also to the log.
    ///
    /// # Errors
    /// The journal cannot be written for a reason other than a full disk.
    pub fn learner_events(&mut self, events: Vec<LearnerEvent>) -> Result<()> {
        for event in events {
            let name = match &event {
                LearnerEvent::Health { .. } => "health",
                LearnerEvent::State { frame, to: LearnerStatus::RolledBack, reason, rate, .. } => {
                    tracing::warn!(
                        "frame {frame}: residual rolled back to its last sound weights: {reason}; rate x {rate:.3}"
                    );
                    "state"
                }
                LearnerEvent::State { frame, to, reason, .. } => {
                    tracing::debug!("frame {frame}: {to:?}: {reason}");
                    "state"
                }
            };
            let mut fields = fields_of(&event)?;
            if let Some(map) = fields.as_object_mut() {
                map.insert("stamp_ns".into(), self.stamp().into());
            }
            self.journal.write(name, fields)?;
        }
        Ok(())
    }

    /// What a fit of `learner` came to: a promoted head and the map into its space, and a line of the journal.
    ///
    /// # Errors
    /// A file cannot be written for a reason other than a full disk.
    pub fn fit_outcome(&mut self, outcome: FitOutcome, learner: &Learner) -> Result<Arc<Snapshot>> {
        let FitOutcome { snapshot, report, transition } = outcome;
        if report.promoted.is_some() {
            self.heads.push(&snapshot, report.frame, Some(learner.scatter().clone()), transition.as_ref());
        }
        self.save_heads()?;
        tracing::info!("frame {}: {}", report.frame, report.reason);
        let event = match (&report.demotion, report.promoted) {
            (Some(_), _) => "demotion",
            (None, Some(_)) => "promotion",
            (None, None) => "fit",
        };
        let mut fields = fields_of(&report)?;
        if let Some(map) = fields.as_object_mut() {
            map.insert("stamp_ns".into(), self.stamp().into());
            map.insert("space".into(), snapshot.space.as_ref().into());
            map.insert("activate_at".into(), snapshot.activate_at.into());
            if let Some(SpaceTransition { from, from_head, fitted }) = &transition {
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

    /// Saves the state of `learner` at `position`. Where that fails, for whatever reason, the state before stays, learning
    /// goes on in memory, and the next checkpoint tries again.
    ///
    /// # Errors
    /// The journal cannot be written for a reason other than a full disk.
    pub fn checkpoint(
        &mut self,
        learner: &mut Learner,
        position: StreamPosition,
        background: Option<&BackgroundModel>,
    ) -> Result<()> {
        self.save_heads()?;
        // What the learner said of these frames is on the disk before the state that will not say it again.
        self.sync()?;
        let next_index = position.next_index;
        match run_state::store(&self.run, &self.owner, learner, position, background) {
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

    /// Writes the last line of the journal: the source ended, or the run was stopped, after `frames` frames.
    ///
    /// # Errors
    /// The journal cannot be written for a reason other than a full disk.
    pub fn end(&mut self, learner: &Learner, ended: bool, frames: u64) -> Result<()> {
        let fields = json!({
            "stamp_ns": self.stamp(), "ended": ended, "frames": frames, "learned": learner.counts(),
            "exported": learner.exported().number,
        });
        self.journal.write(if ended { "end" } else { "stop" }, fields)?;
        self.sync()
    }

    /// After the last checkpoint: nothing may be left in memory only.
    ///
    /// # Errors
    /// A promoted head or the last state could not be written.
    pub fn close(&mut self) -> Result<()> {
        self.save_heads()?;
        self.sync()?;
        let run = self.run.display();
        if let Some(number) = self.heads.unsaved() {
            let what =
                format!("head {number} was promoted but {run} has no room for it; make room and go on with --resume");
            return Err(Error::new(ErrorKind::DiskFull, what));
        }
        let Some(error) = self.not_saved.take() else { return Ok(()) };
        let since = self.saved_to.map_or_else(|| "the start".to_owned(), |frame| format!("frame {frame}"));
        let what = format!(
            "the state of run {run} is not saved, and what was learned since {since} is lost; remove the cause and go on \
             from there with --resume"
        );
        Err(Error::new(error.kind(), what).with_source(error))
    }

    fn stamp(&self) -> i64 {
        self.last.map_or(0, |(_, stamp)| stamp.0)
    }

    /// Promoted heads to the disk; what does not fit stays in memory and is tried again.
    fn save_heads(&mut self) -> Result<()> {
        while let Some(number) = self.heads.unsaved() {
            if let Err(e) = self.heads.save_first(&self.reserve) {
                return self.fault(&format!("head {number} stays in memory and is written again later"), &e);
            }
        }
        Ok(())
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

    /// The journal to the disk; on a full one its lines wait in memory, or take the reserve's room.
    fn sync(&mut self) -> Result<()> {
        match self.reserve.spend_on(|| self.journal.sync()) {
            Err(e) if e.kind() == ErrorKind::DiskFull => self.fault("its lines wait in memory until there is room", &e),
            Err(e) => Err(e),
            // Room may have come back, also where no state is saved.
            Ok(()) => self.refill(),
        }
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
}

fn fields_of(event: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(event).map_err(|e| Error::runtime("an event cannot be written to the journal").with_source(e))
}
