//! The inference loop: prepared frame to embedding. No lock, no allocation after the first frames, and on a live source
//! no wait for anybody.
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, TryRecvError, TrySendError, select};

use super::box_service::BoxServiceInput;
use super::capture_thread::{PreparedFrame, StopFlags};
use super::checkpoint_schedule::CheckpointSchedule;
use super::encoder_stage::EncoderStage;
use super::head_stage::HeadStage;
use super::learner_thread::{CheckpointMarker, ToLearner};
use super::record_template::RecordTemplate;
use super::stats::RunStats;
use super::workers::{CaptureEnd, ExporterEnd, LearnerEnd, ask_checkpoint, worker_gone};
use crate::encoder::BackgroundModel;
use crate::error::Result;
use crate::export::Record;
use crate::host::Watchdog;
use crate::learner::Snapshot;
use crate::metrics::Metrics;
use crate::sampling::{ShotDetector, ShotInput};

/// How long it waits for a frame before it looks whether to stop.
const WAIT: Duration = Duration::from_millis(50);

/// Everything that a frame goes through between capture and workers.
pub(super) struct InferenceLoop<'a> {
    pub(super) live: bool,
    pub(super) frames: CaptureEnd,
    pub(super) latents: EncoderStage<'a>,
    pub(super) shots: ShotDetector,
    pub(super) heads: HeadStage,
    pub(super) records: RecordTemplate,
    pub(super) learner: Option<LearnerEnd<'a>>,
    pub(super) exporter: Option<ExporterEnd>,
    pub(super) box_service: Option<BoxServiceInput>,
    pub(super) checkpoints: CheckpointSchedule,
    /// First frame that is not done.
    pub(super) next_index: u64,
    /// The background of a fixed camera after the last frame.
    pub(super) background: Option<Arc<BackgroundModel>>,
    pub(super) started: Instant,
    pub(super) stats: RunStats,
    pub(super) metrics: &'a Metrics,
    pub(super) watchdog: Watchdog,
}

impl InferenceLoop<'_> {
    /// Until the source ends or `stop` says so. True when the source ended by itself.
    ///
    /// # Errors
    /// The encoder fails or gives nothing usable, or a worker has ended.
    pub(super) fn run(&mut self, stop: StopFlags<'_>, progress: &mut dyn FnMut(u64)) -> Result<bool> {
        self.watchdog.ready();
        loop {
            self.watchdog.beat(|| self.metrics.summary());
            if stop.now() {
                return Ok(false);
            }
            let next = match self.latents.encoded() {
                Some(frame) => Ok(frame),
                None => self.wait()?,
            };
            let mut frame = match next {
                Ok(frame) => frame,
                Err(RecvTimeoutError::Timeout) => continue,
                // A stop ends the capture thread too.
                Err(RecvTimeoutError::Disconnected) => return Ok(!stop.now()),
            };
            self.step(&mut frame, stop)?;
            progress(self.next_index);
            // Fails only when the capture thread is done.
            self.frames.empty.send(frame).ok();
        }
    }

    /// One frame.
    fn step(&mut self, frame: &mut PreparedFrame, stop: StopFlags<'_>) -> Result<()> {
        if self.checkpoints.due(frame.index) {
            self.checkpoint(frame.index, false, false, !self.live)?;
        }
        let began = Instant::now();
        let go_on = || {
            self.watchdog.beat(|| self.metrics.summary());
            !stop.now()
        };
        let usable = self.latents.encode(frame, &self.frames.filled, go_on)?;
        self.metrics.encoded(began.elapsed());
        self.stats.encoded(frame.arrived, began);
        if usable {
            let segment = self.shots.step(ShotInput {
                camera: frame.camera,
                stamp: frame.stamp,
                latent: self.latents.frame(),
                luma: &frame.luma,
                source_cut: frame.cut,
                marks_cuts: frame.marks_cuts,
            });
            let snapshot = self.embed(frame, segment)?;
            self.encode_view(frame)?;
            self.learn(frame, segment)?;
            self.remember_for_boxes(frame, segment, snapshot);
        } else {
            self.stats.bad_latents += 1;
            self.metrics.unusable_latents.inc();
        }
        self.next_index = frame.index + 1;
        if frame.background.is_some() {
            self.background = frame.background.take();
        }
        Ok(())
    }

    /// The next frame. While none is there, the crop of a box is encoded: it holds up the next frame by one pass at most.
    fn wait(&mut self) -> Result<std::result::Result<PreparedFrame, RecvTimeoutError>> {
        let filled = &self.frames.filled;
        let Some(boxes) = &self.box_service else { return Ok(filled.recv_timeout(WAIT)) };
        match filled.try_recv() {
            Err(TryRecvError::Empty) => {}
            ready => return Ok(ready.map_err(|_| RecvTimeoutError::Disconnected)),
        }
        select! {
            recv(filled) -> frame => Ok(frame.map_err(|_| RecvTimeoutError::Disconnected)),
            recv(boxes.crops) -> crop => {
                if let Ok(mut crop) = crop {
                    self.latents.encode_crop(&mut crop)?;
                    // Fails only when the box service has ended.
                    boxes.latents.send(crop).ok();
                }
                Ok(Err(RecvTimeoutError::Timeout))
            }
            default(WAIT) => Ok(Err(RecvTimeoutError::Timeout)),
        }
    }

    /// From unit latent to embedding, and on to the exporter; the head that embedded it.
    fn embed(&mut self, frame: &PreparedFrame, segment: u64) -> Result<Arc<Snapshot>> {
        if let Some(learner) = &mut self.learner {
            learner.take_snapshots(frame.index, &mut self.heads);
        }
        let snapshot = self.heads.embed(&self.latents)?;
        self.stats.embedded(frame.arrived, self.started, segment);
        self.metrics.embedded(frame.arrived.elapsed(), self.stats.segments);
        self.heads.report(&snapshot, self.metrics);
        // Of a bounded source it would be another one in every run.
        let learner_state = if self.live { self.metrics.learner_state() } else { None };
        let record = self.records.record(frame, segment, &snapshot, learner_state)?;
        self.export(record, &snapshot)?;
        Ok(snapshot)
    }

    fn export(&mut self, record: Record, snapshot: &Arc<Snapshot>) -> Result<()> {
        let Some(exporter) = &mut self.exporter else { return Ok(()) };
        let (latents, whole, frozen) = (&self.latents, exporter.grids, exporter.latents);
        let sent = exporter.send(|row| {
            row.embedding.clear();
            row.embedding.extend_from_slice(self.heads.embedding());
            row.pooled.clear();
            row.pooled.extend_from_slice(latents.pooled());
            row.latent.clear();
            if latents.pooled().is_empty() || whole {
                row.latent.extend_from_slice(latents.whole());
            }
            row.frozen_space = frozen.then(|| self.records.frozen_space().clone());
            (row.record, row.snapshot) = (Some(record), Some(snapshot.clone()));
        })?;
        if sent {
            self.metrics.rows.inc();
        } else {
            self.stats.dropped_rows += 1;
            self.metrics.dropped_rows.inc();
        }
        Ok(())
    }

    /// The latent of the frame's augmented view, where it has one. The embedding has left already; a live source goes on
    /// without the view where the next frame waits.
    fn encode_view(&mut self, frame: &PreparedFrame) -> Result<()> {
        if frame.view.is_empty() || self.learner.is_none() {
            return Ok(());
        }
        if self.live && !self.frames.filled.is_empty() {
            self.stats.skipped_views += 1;
            self.metrics.skipped_views.inc();
        } else if self.latents.encode_view(frame)? {
            self.stats.views += 1;
            self.metrics.views.inc();
        }
        Ok(())
    }

    fn learn(&mut self, frame: &PreparedFrame, segment: u64) -> Result<()> {
        let Some(learner) = &mut self.learner else { return Ok(()) };
        let latent = if learner.grids { self.latents.whole() } else { self.latents.frame() };
        let sent = learner.send(|sample| {
            (sample.camera, sample.index, sample.stamp) = (frame.camera, frame.index, frame.stamp);
            sample.segment = segment;
            for (to, from) in [(&mut sample.latent, latent), (&mut sample.view, self.latents.view())] {
                to.clear();
                to.extend_from_slice(from);
            }
        })?;
        if !sent {
            self.stats.dropped_latents += 1;
            self.metrics.dropped_latents.inc();
        }
        Ok(())
    }

    /// Hands the frame to the box service, which keeps it for a while; where that has no room, boxes of it are not
    /// embedded.
    fn remember_for_boxes(&mut self, frame: &mut PreparedFrame, segment: u64, snapshot: Arc<Snapshot>) {
        let Some(boxes) = &mut self.box_service else { return };
        let mut kept = boxes.spare.take();
        std::mem::swap(&mut kept.frame, &mut frame.frame);
        (kept.frame.index, kept.frame.stamp, kept.frame.camera) = (frame.index, frame.stamp, frame.camera);
        kept.latent.clear();
        if !boxes.pixels {
            kept.latent.extend_from_slice(self.latents.whole());
        }
        (kept.region, kept.wall_ns, kept.segment) = (frame.region, frame.wall_ns, segment);
        kept.snapshot = Some(snapshot);
        if let Err(TrySendError::Full(kept)) = boxes.kept.try_send(kept) {
            boxes.spare.keep(kept);
        }
    }

    /// After the last frame: the last fit where the source ended by itself, and the state in any case.
    ///
    /// # Errors
    /// A worker has ended.
    pub(super) fn end(&mut self, ended: bool) -> Result<()> {
        (self.stats.ended, self.stats.next_index) = (ended, self.next_index);
        self.watchdog.stopping();
        let Some(learner) = &self.learner else { return Ok(()) };
        if ended {
            learner.out.send(ToLearner::Finish).map_err(|_| worker_gone("learner"))?;
        }
        self.checkpoint(self.next_index, ended, true, true)
    }

    /// Has the learner save its state as it is after all frames before `next_index`; the exports up to there are closed
    /// first. Costs the inference loop two messages. Without `wait`: where a worker has no room now, both are asked again
    /// at the next frame, nothing is closed before, and the marker is not even made.
    fn checkpoint(&mut self, next_index: u64, ended: bool, last: bool, wait: bool) -> Result<()> {
        let Some(learner) = &self.learner else { return Ok(()) };
        let marker = |rotated| CheckpointMarker {
            next_index,
            ended,
            last,
            segmenter: self.shots.save().clone(),
            background: self.background.clone(),
            rotated,
        };
        if ask_checkpoint(learner, self.exporter.as_ref(), wait, marker)? {
            self.checkpoints.taken(next_index);
        } else if self.checkpoints.defer() {
            self.stats.deferred_checkpoints += 1;
            self.metrics.deferred_checkpoints.inc();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "inference_loop_tests.rs"]
mod tests;
