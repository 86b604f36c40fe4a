//! From a box of a cached frame to its embedding.
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::select;

use super::channels::BoxChannels;
use super::frame_cache::CachedFrame;
use super::{BoxService, WAIT};
use crate::detection::{BBox, BoxError, Detection, RoiAlign};
use crate::export::Record;
use crate::export::box_api::{BoxRequest, BoxResponse, ErrorCode};
use crate::frame::Frame;
use crate::learner::Snapshot;
use crate::linalg::normalise;
use crate::pipeline::box_encoder::{BoxMethod, FrameRef, cut, of_boxes, pooled, record};

/// Why there is no embedding.
type Refusal = (ErrorCode, String);

impl BoxService {
    /// Answers the boxes at `places`; false once all that are left were refused.
    pub(super) fn answer(
        &mut self,
        request: &BoxRequest,
        places: Range<usize>,
        kept: &CachedFrame,
        channels: &BoxChannels,
    ) -> bool {
        for at in places {
            match self.embed(&request.boxes[at], kept, channels) {
                Ok(record) => {
                    self.counts.embedded += 1;
                    request.reply.send(&BoxResponse::embedded(request.id, at, &record, &self.embedding));
                }
                Err((reason @ (ErrorCode::Busy | ErrorCode::Ended), why)) => {
                    self.refuse(request, at, reason, &why);
                    return false;
                }
                Err((reason, why)) => {
                    self.counts.refused += 1;
                    request.reply.send(&BoxResponse::refused(request.id, Some(at), reason, &why));
                }
            }
        }
        true
    }

    /// Embeds one box into `self.embedding`; its record.
    fn embed(
        &mut self,
        detection: &Detection,
        kept: &CachedFrame,
        channels: &BoxChannels,
    ) -> std::result::Result<Record, Refusal> {
        let rect = self.usable(detection, &kept.frame)?;
        let latent = match self.method {
            BoxMethod::Crop => self.crop_latent(rect, kept, channels)?,
            BoxMethod::Roi(grid, cells) => {
                RoiAlign::POOL.pool(grid, &kept.latent, cells.of(rect, kept.region, self.size))
            }
        };
        let (Some(latent), Some(snapshot)) = (latent, self.snapshot(kept)) else {
            return Err((ErrorCode::NoLatent, "the encoder gives no latent for it".into()));
        };
        self.embedding.resize(snapshot.head.dim_out(), 0.0);
        snapshot.head.embed(&latent, &mut self.embedding, &mut self.scratch);
        let camera = self.cameras.get(usize::from(kept.frame.camera)).cloned().unwrap_or_default();
        let frame = &kept.frame;
        let (wall_ns, segment) = (kept.wall_ns, kept.segment);
        let of = FrameRef { camera, frame: frame.index, file: None, stamp: frame.stamp, wall_ns, segment };
        Ok(record(of, detection, rect, &snapshot, self.provenance.clone()))
    }

    /// The part of a box that lies in its frame.
    fn usable(&self, detection: &Detection, frame: &Frame) -> std::result::Result<BBox, Refusal> {
        if let Some(score) = detection.score.filter(|score| *score <= self.score_above) {
            let why = format!("its score of {score} is not above {} (boxes.score_above)", self.score_above);
            return Err((ErrorCode::LowScore, why));
        }
        detection.rect.clipped(frame.width, frame.height, self.min_pixels).map_err(|error| match error {
            BoxError::Empty => (ErrorCode::Empty, "it has no width or no height".into()),
            BoxError::Outside => {
                (ErrorCode::Outside, format!("it lies outside the frame of {} x {} pixels", frame.width, frame.height))
            }
            BoxError::Small => (
                ErrorCode::Small,
                format!("fewer than {} pixels of it lie in the frame (boxes.min_pixels)", self.min_pixels),
            ),
        })
    }

    /// Has the inference loop encode the box, soon or not at all.
    fn crop_latent(
        &mut self,
        rect: BBox,
        kept: &CachedFrame,
        channels: &BoxChannels,
    ) -> std::result::Result<Option<Vec<f32>>, Refusal> {
        let ended = || (ErrorCode::Ended, "the program is shutting down".to_owned());
        cut(&kept.frame, rect.pixels(), &mut self.cut);
        let mut crop = std::mem::take(&mut self.crop);
        crop.tensor.resize(self.size.values(), 0.0);
        crop.latent.resize(self.latent_dim, 0.0);
        if let Err(error) = self.preprocessor.run(&self.cut, &mut crop.tensor) {
            self.crop = crop;
            return Err((ErrorCode::NoLatent, error.chain()));
        }
        let until = Instant::now() + self.wait;
        // There is room, unless the inference loop has ended and left a crop behind.
        channels.crops.try_send(crop).map_err(|_| ended())?;
        self.crop = loop {
            select! {
                recv(channels.latents) -> crop => break crop.map_err(|_| ended())?,
                recv(channels.kept) -> kept => self.keep(kept.map_err(|_| ended())?, channels),
                default(WAIT) => {}
            }
            // A crop that is being encoded comes back soon.
            if Instant::now() >= until
                && let Ok(crop) = channels.withdrawn.try_recv()
            {
                self.crop = crop;
                let why = "the encoder has no time beside the frames (box_server.wait_secs)";
                return Err((ErrorCode::Busy, why.into()));
            }
        };
        let length = normalise(&mut self.crop.latent);
        Ok((length > 0.0 && length.is_finite()).then(|| pooled(self.grid, &self.crop.latent)).flatten())
    }

    /// The head that embeds boxes of a frame.
    fn snapshot(&mut self, kept: &CachedFrame) -> Option<Arc<Snapshot>> {
        if let Some(own) = &self.own {
            return Some(own.clone());
        }
        let of_frame = kept.snapshot.as_ref()?;
        if let Some((_, ready)) = self.ready.as_ref().filter(|(from, _)| Arc::ptr_eq(from, of_frame)) {
            return Some(ready.clone());
        }
        let ready = Arc::new(of_boxes(of_frame, &self.origin));
        self.ready = Some((of_frame.clone(), ready.clone()));
        Some(ready)
    }
}
