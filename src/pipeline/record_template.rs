//! The records of frames.
use std::sync::Arc;

use super::capture_thread::PreparedFrame;
use crate::error::{Error, Result};
use crate::export::{Granularity, Provenance, Record, SCHEMA};
use crate::learner::{LatentSpec, Snapshot};

/// What all records of a run have in common.
pub(super) struct RecordTemplate {
    /// Names of the cameras, by their numbers.
    cameras: Vec<Arc<str>>,
    provenance: Provenance,
    /// The space of the frozen latents.
    frozen_space: Arc<str>,
}

impl RecordTemplate {
    pub(super) fn new(cameras: Vec<Arc<str>>, latents: &LatentSpec) -> Self {
        Self {
            cameras,
            provenance: Provenance::new(&latents.encoder_sha256, &latents.card_hash),
            frozen_space: Snapshot::frozen(latents).space,
        }
    }

    /// The space of the frozen latents.
    pub(super) fn frozen_space(&self) -> &Arc<str> {
        &self.frozen_space
    }

    /// The record of `frame`, embedded with `snapshot`; all but its novelty, which costs a pass over the references.
    ///
    /// # Errors
    /// The frame is of a camera without a name.
    pub(super) fn record(
        &self,
        frame: &PreparedFrame,
        segment: u64,
        snapshot: &Snapshot,
        learner: Option<&'static str>,
    ) -> Result<Record> {
        let Some(camera) = self.cameras.get(usize::from(frame.camera)).cloned() else {
            let camera = frame.camera;
            return Err(Error::runtime(format!("the source gave a frame of camera {camera}, which has no name")));
        };
        Ok(Record {
            schema: SCHEMA,
            camera,
            frame: frame.index,
            file: frame.file.clone(),
            stamp_ns: frame.stamp.0,
            wall_ns: frame.wall_ns,
            segment,
            level: Granularity::Frame,
            space: snapshot.space.clone(),
            head: snapshot.number,
            provenance: Some(self.provenance.clone()),
            learner: learner.map(Into::into),
            novelty: None,
            novel: false,
            window: frame.window,
            track: None,
            class: None,
            score: None,
            migrated_from: None,
        })
    }
}
