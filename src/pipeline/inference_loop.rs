//! The hot path: prepared frame to embedding. No lock, no allocation after the first frames, no wait for the learner
//! on a live source.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, select};

use super::batcher::Batcher;
use super::box_service::BoxServiceInput;
use super::capture_thread::{PreparedFrame, StopFlags};
use super::export_thread::ToExporter;
use super::learner_thread::{CheckpointMarker, ToLearner};
use super::stats::RunStats;
use super::workers::{ExporterEnd, LearnerEnd, SendOutcome, StopRequest, ask_checkpoint, send, worker_gone};
use crate::encoder::{BackgroundModel, Encoder};
use crate::error::{Error, Result};
use crate::export::{Granularity, Record, SCHEMA};
use crate::head::{Grid, Scratch};
use crate::host::Watchdog;
use crate::learner::Snapshot;
use crate::linalg::normalise;
use crate::metrics::Metrics;
use crate::sampling::{ShotDetector, ShotInput};

/// How long the hot path waits for a frame before it looks whether to stop.
const WAIT: Duration = Duration::from_millis(50);
/// So many frames in a row without a usable latent end the run: the model is broken, not the frame.
const MAX_BAD_LATENTS: u64 = 50;

/// State of the hot path.
pub(super) struct InferenceLoop<'a> {
    pub(super) encoder: &'a mut Encoder,
    pub(super) live: bool,
    /// Names of the cameras, by their numbers.
    pub(super) cameras: Vec<Arc<str>>,
    pub(super) frozen_space: Arc<str>,
    /// The one in use first, then those to come.
    pub(super) snapshots: VecDeque<Arc<Snapshot>>,
    pub(super) segmenter: ShotDetector,
    pub(super) next_checkpoint: u64,
    /// The checkpoint that is due waits for room at a worker.
    pub(super) deferred: bool,
    /// No frame follows.
    pub(super) over: bool,
    pub(super) next_index: u64,
    pub(super) learner: Option<LearnerEnd<'a>>,
    pub(super) exporter: Option<ExporterEnd>,
    /// Where detectors ask for embeddings of boxes.
    pub(super) box_service: Option<BoxServiceInput>,
    /// What happens to a live source, for the journal.
    pub(super) events: Receiver<crate::source::SourceEvent>,
    pub(super) started: Instant,
    pub(super) totals: RunStats,
    pub(super) metrics: &'a Metrics,
    pub(super) watchdog: Watchdog,
    /// The head that the figures name.
    pub(super) reported_head: Option<u64>,
    /// `(number, frame)` of latents sent to the learner and not yet known to be done (bounded sources).
    pub(super) sent: VecDeque<(u64, u64)>,
    pub(super) sent_count: u64,
    pub(super) latent: Vec<f32>,
    /// The latent of the frame's view; empty where it has none.
    pub(super) view: Vec<f32>,
    /// The background after the last frame.
    pub(super) background: Option<Arc<BackgroundModel>>,
    /// The shape of latents that are grids.
    pub(super) grid: Option<Grid>,
    /// The pooled latent, where latents are grids.
    pub(super) pooled: Vec<f32>,
    pub(super) embedding: Vec<f32>,
    pub(super) scratch: Scratch,
    /// Frames that are encoded together.
    pub(super) batch: Batcher,
}

impl InferenceLoop<'_> {
    /// Until the source ends or `ends` says so. True when the source ended by itself.
    pub(super) fn run(
        &mut self,
        filled: &Receiver<PreparedFrame>,
        empty: &Sender<PreparedFrame>,
        ends: StopFlags<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool> {
        let mut bad = 0;
        self.watchdog.ready();
        loop {
            self.watchdog.beat(|| self.metrics.summary());
            if ends.now() {
                return Ok(false);
            }
            self.pass_events()?;
            let next = match self.batch.take() {
                Some(slot) => Ok(slot),
                None => self.wait(filled)?,
            };
            let mut slot = match next {
                Ok(slot) => slot,
                Err(RecvTimeoutError::Timeout) => continue,
                // A stop ends the capture thread too.
                Err(RecvTimeoutError::Disconnected) => return Ok(!ends.now()),
            };
            if self.checkpoint_due(slot.index) {
                self.checkpoint(slot.index, false, self.live)?;
            }
            let began = Instant::now();
            let go_on = || {
                self.watchdog.beat(|| self.metrics.summary());
                !ends.now()
            };
            self.batch.latent(self.encoder, &slot, filled, go_on, &mut self.latent)?;
            self.metrics.encoded(began.elapsed());
            self.totals.encoded(slot.arrived, began);
            let norm = normalise(&mut self.latent);
            if let Some(grid) = self.grid {
                self.pooled.resize(grid.dim, 0.0);
                grid.pool(&self.latent, &mut self.pooled);
            }
            if norm.is_finite() && norm > 0.0 {
                bad = 0;
                let segment = self.embed(&slot)?;
                self.encode_view(&slot, filled)?;
                self.learn(&slot, segment)?;
                self.remember_for_boxes(&mut slot, segment);
            } else {
                bad += 1;
                self.totals.bad_latents += 1;
                self.metrics.unusable_latents.inc();
                if bad >= MAX_BAD_LATENTS {
                    return Err(Error::runtime(format!(
                        "the encoder gave {bad} latents in a row that are zero or not finite (last at frame {}); \
                         check the model with `afterimage check`",
                        slot.index
                    )));
                }
            }
            self.next_index = slot.index + 1;
            if slot.background.is_some() {
                self.background = slot.background.take();
            }
            progress(self.next_index);
            // Fails only when the capture thread is done.
            empty.send(slot).ok();
        }
    }

    /// The next frame. A box is encoded while none waits: it holds up the next one by one pass at most.
    fn wait(
        &mut self,
        filled: &Receiver<PreparedFrame>,
    ) -> Result<std::result::Result<PreparedFrame, RecvTimeoutError>> {
        let Some(desk) = &self.box_service else { return Ok(filled.recv_timeout(WAIT)) };
        match filled.try_recv() {
            Err(TryRecvError::Empty) => {}
            ready => return Ok(ready.map_err(|_| RecvTimeoutError::Disconnected)),
        }
        select! {
            recv(filled) -> slot => Ok(slot.map_err(|_| RecvTimeoutError::Disconnected)),
            recv(desk.crops) -> crop => {
                if let Ok(mut crop) = crop {
                    self.encoder.encode(&crop.tensor, &mut crop.latent)?;
                    // Fails only when nobody asks any more.
                    desk.latents.send(crop).ok();
                }
                Ok(Err(RecvTimeoutError::Timeout))
            }
            default(WAIT) => Ok(Err(RecvTimeoutError::Timeout)),
        }
    }

    /// Hands a frame over to the desk, which remembers it for a while; where that has no room, boxes of it are not embedded.
    fn remember_for_boxes(&mut self, slot: &mut PreparedFrame, segment: u64) {
        let (Some(desk), Some(snapshot)) = (&self.box_service, self.snapshots.front()) else { return };
        let mut kept = desk.spare.try_recv().unwrap_or_default();
        std::mem::swap(&mut kept.frame, &mut slot.frame);
        (kept.frame.index, kept.frame.stamp, kept.frame.camera) = (slot.index, slot.stamp, slot.camera);
        kept.latent.clear();
        if !desk.pixels {
            kept.latent.extend_from_slice(&self.latent);
        }
        (kept.region, kept.wall_ns, kept.segment) = (slot.region, slot.wall_ns, segment);
        kept.snapshot = Some(snapshot.clone());
        desk.kept.try_send(kept).ok();
    }

    /// What happened to a live source, to the journal; where the learner has no room, the log has it alone.
    fn pass_events(&self) -> Result<()> {
        let Some(learner) = &self.learner else { return Ok(()) };
        while let Ok(event) = self.events.try_recv() {
            if matches!(send(&learner.out, ToLearner::Source(Box::new(event)), self.live), SendOutcome::Gone) {
                return Err(worker_gone("learner"));
            }
        }
        Ok(())
    }

    /// From unit latent to embedding, and on to the exporter; the segment.
    fn embed(&mut self, slot: &PreparedFrame) -> Result<u64> {
        let segment = self.segmenter.step(ShotInput {
            camera: slot.camera,
            stamp: slot.stamp,
            latent: frame_of(&self.latent, &self.pooled),
            luma: &slot.luma,
            source_cut: slot.cut,
            marks_cuts: slot.marks_cuts,
        });
        self.take_snapshots(slot.index);
        let Some(snapshot) = self.snapshots.front() else { return Err(Error::runtime("no head to embed with")) };
        self.embedding.resize(snapshot.head.dim_out(), 0.0);
        // A head takes what it was made for: latents of frames, or whole grids.
        let whole = snapshot.head.dim_in() == self.latent.len();
        let latent = if whole { &self.latent } else { &self.pooled };
        snapshot.head.embed(latent, &mut self.embedding, &mut self.scratch);
        let snapshot = snapshot.clone();
        self.totals.embedded(slot.arrived, self.started, segment);
        self.metrics.embedded(slot.arrived.elapsed(), self.totals.segments);
        if self.reported_head != Some(snapshot.number) && self.metrics.head(&snapshot) {
            self.reported_head = Some(snapshot.number);
        }
        let Some(camera) = self.cameras.get(usize::from(slot.camera)).cloned() else {
            return Err(Error::runtime(format!(
                "the source gave a frame of camera {}, which has no name",
                slot.camera
            )));
        };
        let record = Record {
            schema: SCHEMA,
            camera,
            frame: slot.index,
            file: slot.file.clone(),
            stamp_ns: slot.stamp.0,
            wall_ns: slot.wall_ns,
            segment,
            level: Granularity::Frame,
            space: snapshot.space.clone(),
            head: snapshot.number,
            provenance: None,
            // Of a bounded source it would be another one in every run.
            learner: if self.live { self.metrics.learner_state().map(Into::into) } else { None },
            novelty: None,
            novel: false,
            window: slot.window,
            track: None,
            class: None,
            score: None,
            migrated_from: None,
        };
        self.export(record, snapshot)?;
        Ok(segment)
    }

    /// The latent of the frame's view, where it has one. Its embedding has left already; a live source goes on without
    /// the view where the next frame waits.
    fn encode_view(&mut self, slot: &PreparedFrame, filled: &Receiver<PreparedFrame>) -> Result<()> {
        self.view.clear();
        if slot.view.is_empty() || self.learner.is_none() {
            return Ok(());
        }
        if self.live && !filled.is_empty() {
            self.totals.skipped_views += 1;
            self.metrics.skipped_views.inc();
            return Ok(());
        }
        self.view.resize(self.latent.len(), 0.0);
        self.encoder.encode(&slot.view, &mut self.view)?;
        let norm = normalise(&mut self.view);
        if norm.is_finite() && norm > 0.0 {
            self.totals.views += 1;
            self.metrics.views.inc();
        } else {
            self.view.clear();
        }
        Ok(())
    }

    /// Makes the newest snapshot that may be used at `index` the one in use.
    fn take_snapshots(&mut self, index: u64) {
        let Some(learner) = &self.learner else { return };
        if !self.live {
            let mut must = None;
            while let Some((number, frame)) = self.sent.front().copied() {
                if frame + learner.lag > index {
                    break;
                }
                must = Some(number);
                self.sent.pop_front();
            }
            if let Some(number) = must {
                learner.barrier.wait(number);
            }
        }
        while let Ok(snapshot) = learner.snapshots.try_recv() {
            self.snapshots.push_back(snapshot);
        }
        while self.snapshots.get(1).is_some_and(|next| self.live || next.activate_at <= index) {
            self.snapshots.pop_front();
        }
    }

    fn export(&mut self, record: Record, snapshot: Arc<Snapshot>) -> Result<()> {
        let Some(exporter) = &self.exporter else { return Ok(()) };
        let mut row = exporter.spare.try_recv().unwrap_or_default();
        row.embedding.clear();
        row.embedding.extend_from_slice(&self.embedding);
        row.latent.clear();
        row.pooled.clear();
        row.pooled.extend_from_slice(&self.pooled);
        if self.grid.is_none() || exporter.grids {
            row.latent.extend_from_slice(&self.latent);
        }
        row.frozen_space = exporter.latents.then(|| self.frozen_space.clone());
        (row.record, row.snapshot) = (Some(record), Some(snapshot));
        let sent = send(&exporter.out, ToExporter::Row(row), self.live);
        match sent {
            SendOutcome::Yes => {
                self.metrics.rows.inc();
                Ok(())
            }
            SendOutcome::Full => {
                self.totals.dropped_rows += 1;
                self.metrics.dropped_rows.inc();
                Ok(())
            }
            SendOutcome::Gone => Err(worker_gone("export")),
        }
    }

    fn learn(&mut self, slot: &PreparedFrame, segment: u64) -> Result<()> {
        let Some(learner) = &self.learner else { return Ok(()) };
        let mut sample = learner.spare.try_recv().unwrap_or_default();
        (sample.camera, sample.index, sample.stamp) = (slot.camera, slot.index, slot.stamp);
        sample.segment = segment;
        let latent = if learner.whole { &self.latent } else { frame_of(&self.latent, &self.pooled) };
        for (to, from) in [(&mut sample.latent, latent), (&mut sample.view, &self.view)] {
            to.clear();
            to.extend_from_slice(from);
        }
        match send(&learner.out, ToLearner::Sample(sample), self.live) {
            SendOutcome::Yes => {
                self.sent_count += 1;
                if !self.live {
                    self.sent.push_back((self.sent_count, slot.index));
                }
                Ok(())
            }
            SendOutcome::Full => {
                self.totals.dropped_latents += 1;
                self.metrics.dropped_latents.inc();
                Ok(())
            }
            SendOutcome::Gone => Err(worker_gone("learner")),
        }
    }

    fn checkpoint_due(&self, index: u64) -> bool {
        self.learner.as_ref().is_some_and(|l| l.checkpoint_every > 0) && index >= self.next_checkpoint
    }

    /// After the last frame: the last fit where the source ended by itself, and the state in any case.
    pub(super) fn end(&mut self, ended: bool) -> Result<()> {
        (self.totals.ended, self.totals.next_index) = (ended, self.next_index);
        self.over = true;
        self.watchdog.stopping();
        let Some(learner) = &self.learner else { return Ok(()) };
        if ended {
            learner.out.send(ToLearner::Finish).map_err(|_| worker_gone("learner"))?;
        }
        self.checkpoint(self.next_index, ended, false)
    }

    /// Asks the learner to save its state as it is after all frames before `next_index`; the exports up to there are
    /// closed first. Costs the hot path two messages. `hurry`: where a worker has no room now, both are asked again at
    /// the next frame, and nothing is closed before.
    fn checkpoint(&mut self, next_index: u64, ended: bool, hurry: bool) -> Result<()> {
        let Some(learner) = &self.learner else { return Ok(()) };
        let marker = |rotated| CheckpointMarker {
            next_index,
            ended,
            last: self.over,
            segmenter: self.segmenter.save().clone(),
            background: self.background.clone(),
            rotated,
        };
        match ask_checkpoint(learner, self.exporter.as_ref(), hurry, marker)? {
            StopRequest::Both => {
                self.next_checkpoint = next_index + learner.checkpoint_every;
                self.deferred = false;
            }
            StopRequest::Later if !std::mem::replace(&mut self.deferred, true) => {
                self.totals.deferred_checkpoints += 1;
                self.metrics.deferred_checkpoints.inc();
            }
            StopRequest::Later => {}
        }
        Ok(())
    }
}

/// The latent of a frame: the pooled one, where latents are grids.
fn frame_of<'a>(latent: &'a [f32], pooled: &'a [f32]) -> &'a [f32] {
    if pooled.is_empty() { latent } else { pooled }
}
