//! The latents of boxes: each box is encoded by itself, or pooled from the grid of its frame.
use std::sync::Arc;

use serde::Serialize;

use crate::config::{self, BoxPooling, Config, Size};
use crate::detection::{BBox, BoxError, Detection, GridGeometry, RoiAlign};
use crate::encoder::{Encoder, ModelCard, Preprocessor};
use crate::error::{Error, Result};
use crate::export::{Granularity, Provenance, Record, SCHEMA};
use crate::files::sha256_hex;
use crate::frame::{Frame, Timestamp};
use crate::head::Grid;
use crate::learner::{LatentSpec, Snapshot};
use crate::linalg::normalise;
use crate::spaces::space_of;

/// How a box becomes a latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BoxMethod {
    /// Cut out of the frame and encoded: one pass of the encoder per box.
    Crop,
    /// Pooled from the grid of the frame ([`RoiAlign::POOL`]): one pass per frame that has boxes.
    Roi(Grid, GridGeometry),
}

/// What became of boxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BoxCounts {
    /// Embedded boxes.
    pub embedded: u64,
    /// Boxes whose score is not above `boxes.score_above`.
    pub low_score: u64,
    /// Boxes outside their frame.
    pub outside: u64,
    /// Boxes without width or height.
    pub empty: u64,
    /// Boxes of which fewer than `boxes.min_pixels` pixels lie in the frame.
    pub small: u64,
    /// Boxes for which the encoder gave no usable latent.
    pub without_latent: u64,
    /// Boxes of frames that the source does not have or could not read.
    pub without_frame: u64,
}

impl BoxMethod {
    /// The method that `boxes.method` asks for, or that fits the encoder.
    ///
    /// # Errors
    /// `roi` without a grid.
    pub fn new(config: &config::Boxes, card: &ModelCard, origin: &LatentSpec, size: Size) -> Result<Self> {
        match (config.method, origin.shape()) {
            (BoxPooling::Crop, _) | (BoxPooling::Auto, None) => Ok(BoxMethod::Crop),
            (_, Some(grid)) => {
                let cells = card.cells.map(|[first, step]| GridGeometry { first: [first; 2], step: [step; 2] });
                Ok(BoxMethod::Roi(grid, cells.unwrap_or_else(|| GridGeometry::even(grid, size))))
            }
            (_, None) => Err(Error::config(format!(
                "boxes.method = \"roi\": the latents of {} are vectors, there is no grid to pool boxes from; use \"crop\", \
                 or a model card of kind = \"grid\"",
                card.name
            ))),
        }
    }

    /// What latents of boxes are: those pooled from a grid have the length of a cell, and belong to a space of their own.
    pub fn origin(self, of_frames: &LatentSpec) -> LatentSpec {
        let what = match self {
            BoxMethod::Crop => "crop".to_owned(),
            BoxMethod::Roi(_, GridGeometry { first, step }) => {
                let bits = [first, step].concat().into_iter().map(|x| format!(" {:016x}", x.to_bits()));
                format!("roi{}", bits.collect::<String>())
            }
        };
        LatentSpec {
            card_hash: sha256_hex(format!("{}\nboxes {what}\n", of_frames.card_hash).as_bytes()),
            dim: of_frames.pooled_dim(),
            grid: None,
            ..of_frames.clone()
        }
    }
}

/// Encodes boxes, and counts those that cannot be used.
#[derive(Debug)]
pub struct BoxEncoder {
    method: BoxMethod,
    grid: Option<Grid>,
    size: Size,
    min_pixels: f64,
    score_above: f32,
    preprocessor: Preprocessor,
    tensor: Vec<f32>,
    latent: Vec<f32>,
    crop: Frame,
    counts: BoxCounts,
}

impl BoxEncoder {
    /// `preprocessor`: of whole frames; `origin`: of their latents.
    pub fn new(
        method: BoxMethod,
        config: &Config,
        preprocessor: Preprocessor,
        origin: &LatentSpec,
        size: Size,
    ) -> Self {
        Self {
            method,
            grid: origin.shape(),
            size,
            min_pixels: config.boxes.min_pixels,
            score_above: config.boxes.score_above as f32,
            preprocessor,
            tensor: vec![0.0; size.values()],
            latent: vec![0.0; origin.dim],
            crop: Frame::default(),
            counts: BoxCounts::default(),
        }
    }

    /// What became of the boxes so far.
    pub fn counts(&self) -> BoxCounts {
        self.counts
    }

    /// Counts boxes of a frame that the source does not have.
    pub fn without_frame(&mut self, boxes: u64) {
        self.counts.without_frame += boxes;
    }

    /// Calls `each` with every usable box of `frame`, the part of it that lies in the frame, and its unit latent.
    ///
    /// # Errors
    /// Those of the encoder and of `each`.
    pub fn frame(
        &mut self,
        encoder: &mut Encoder,
        frame: &Frame,
        boxes: &[Detection],
        mut each: impl FnMut(&Detection, BBox, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let mut encoded = None;
        for detection in boxes {
            let Some(rect) = self.usable(frame, detection) else { continue };
            let latent = match self.method {
                BoxMethod::Crop => {
                    cut(frame, rect.pixels(), &mut self.crop);
                    let crop = std::mem::take(&mut self.crop);
                    let found = self.encode(encoder, &crop)?.then(|| pooled(self.grid, &self.latent));
                    self.crop = crop;
                    found.flatten()
                }
                BoxMethod::Roi(grid, cells) => {
                    let found = match encoded {
                        Some(found) => found,
                        None => *encoded.insert(self.encode(encoder, frame)?),
                    };
                    let rect = cells.of(rect, self.preprocessor.region(), self.size);
                    found.then(|| RoiAlign::POOL.pool(grid, &self.latent, rect)).flatten()
                }
            };
            match latent {
                Some(latent) => {
                    self.counts.embedded += 1;
                    each(detection, rect, &latent)?;
                }
                None => self.counts.without_latent += 1,
            }
        }
        Ok(())
    }

    /// The part of a box that lies in its frame. Counts boxes that have none, and logs the first of each kind.
    fn usable(&mut self, frame: &Frame, detection: &Detection) -> Option<BBox> {
        if detection.score.is_some_and(|score| score <= self.score_above) {
            self.counts.low_score += 1;
            return None;
        }
        let error = match detection.rect.clipped(frame.width, frame.height, self.min_pixels) {
            Ok(rect) => return Some(rect),
            Err(error) => error,
        };
        let (count, what) = match error {
            BoxError::Empty => (&mut self.counts.empty, "has no width or height".to_owned()),
            BoxError::Outside => (
                &mut self.counts.outside,
                format!("lies outside its frame of {} x {} pixels", frame.width, frame.height),
            ),
            BoxError::Small => {
                (&mut self.counts.small, format!("has fewer than {} pixels in its frame", self.min_pixels))
            }
        };
        *count += 1;
        if *count == 1 {
            tracing::warn!("the box in line {} {what}; such boxes are left out and counted", detection.line);
        }
        None
    }

    /// The unit latent of a frame or a crop; false where it is zero or not finite.
    fn encode(&mut self, encoder: &mut Encoder, frame: &Frame) -> Result<bool> {
        self.preprocessor.run(frame, &mut self.tensor)?;
        encoder.encode(&self.tensor, &mut self.latent)?;
        let length = normalise(&mut self.latent);
        Ok(length > 0.0 && length.is_finite())
    }
}

/// The latent of a crop, pooled where it is a grid.
pub(super) fn pooled(grid: Option<Grid>, latent: &[f32]) -> Option<Vec<f32>> {
    let Some(grid) = grid else { return Some(latent.to_vec()) };
    let mut out = vec![0.0; grid.dim];
    grid.pool(latent, &mut out).then_some(out)
}

/// The frame of a box.
#[derive(Debug, Clone)]
pub struct FrameRef {
    /// Name of the camera.
    pub camera: Arc<str>,
    /// Its position in the source.
    pub frame: u64,
    /// The file that the frame comes from.
    pub file: Option<Arc<str>>,
    /// Its capture time.
    pub stamp: Timestamp,
    /// Wall-clock time of the capture; live sources only.
    pub wall_ns: Option<i64>,
    /// The segment of the frame.
    pub segment: u64,
}

/// The record of a box of which `rect` lies in its frame, embedded with `snapshot`; complete but for its novelty.
pub fn record(of: FrameRef, detection: &Detection, rect: BBox, snapshot: &Snapshot, provenance: Provenance) -> Record {
    Record {
        schema: SCHEMA,
        camera: of.camera,
        frame: of.frame,
        file: of.file,
        stamp_ns: of.stamp.0,
        wall_ns: of.wall_ns,
        segment: of.segment,
        level: Granularity::Box,
        space: snapshot.space.clone(),
        head: snapshot.number,
        provenance: Some(provenance),
        learner: None,
        novelty: None,
        novel: false,
        // Sides are at most 16,384 pixels.
        window: Some(rect.pixels().map(|x| x as i32)),
        track: detection.track,
        class: detection.class,
        score: detection.score,
        migrated_from: None,
    }
}

/// The head of `snapshot`, of a run over frames or boxes, for latents of boxes of `origin`: over vectors, in the space of
/// boxes.
pub fn of_boxes(snapshot: &Snapshot, origin: &LatentSpec) -> Snapshot {
    let head = snapshot.head.of_cells().into_owned();
    let space = space_of(&origin.encoder_sha256, &origin.card_hash, &head).into();
    Snapshot { head: Arc::new(head), space, ..snapshot.clone() }
}

/// Cuts the pixels left, top, right, bottom, which lie in `frame`, out of it.
pub(crate) fn cut(frame: &Frame, [left, top, right, bottom]: [u32; 4], out: &mut Frame) {
    (out.width, out.height, out.index, out.stamp) = (right - left, bottom - top, frame.index, frame.stamp);
    out.pixels.clear();
    for y in top..bottom {
        let start = 3 * (y as usize * frame.width as usize + left as usize);
        out.pixels.extend_from_slice(&frame.pixels[start..start + 3 * (right - left) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crop_has_the_pixels_of_its_box() {
        let pixels = (0..5 * 4).flat_map(|i| [i, 100 + i, 200 + i]).collect();
        let frame = Frame { width: 5, height: 4, pixels, index: 7, ..Frame::default() };
        let mut out = Frame::default();
        cut(&frame, [3, 1, 5, 4], &mut out);
        assert_eq!((out.width, out.height, out.index), (2, 3, 7));
        let reds: Vec<u8> = out.pixels.chunks_exact(3).map(|pixel| pixel[0]).collect();
        assert_eq!(reds, [8, 9, 13, 14, 18, 19]);
        assert_eq!(&out.pixels[..3], [8, 108, 208]);
    }

    #[test]
    fn latents_of_boxes_are_of_another_origin_than_those_of_frames() {
        let frames = LatentSpec { card_hash: "c".into(), dim: 49 * 8, grid: Some([7, 7, 8]), ..LatentSpec::default() };
        let grid = Grid::new([7, 7, 8]);
        let even = BoxMethod::Roi(grid, GridGeometry::even(grid, Size::square(256))).origin(&frames);
        let overlapping = BoxMethod::Roi(grid, GridGeometry { first: [32.0; 2], step: [32.0; 2] }).origin(&frames);
        let crop = BoxMethod::Crop.origin(&frames);
        assert_eq!((crop.dim, crop.grid, even.dim), (8, None, 8));
        let hashes = [&frames, &even, &overlapping, &crop].map(|origin| origin.card_hash.clone());
        assert!((0..4).all(|i| (0..i).all(|j| hashes[i] != hashes[j])));
    }
}
