//! Detection boxes from a file next to a source: `embed --boxes`, `learn --boxes`, `bench reid`.
mod embed;
mod learn;
mod tracks;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) use embed::run as embed;
pub(super) use learn::{run as learn, same_track};
pub(super) use tracks::{TrackSample, collect, in_order};

use super::common::{LoadedEncoder, Progress};
use crate::config::Config;
use crate::detection::{BBox, Detection, mot};
use crate::error::{Error, Result};
use crate::files::read_bounded;
use crate::frame::{Frame, Timestamp};
use crate::learner::{LatentSpec, Snapshot};
use crate::pipeline::box_encoder::{BoxEncoder, BoxMethod, of_boxes};
use crate::source::{Pull, Source};

/// Maximum size of a box file.
const MAX_BYTES: u64 = 1 << 30;
/// Longest wait for a frame of a file; the source has its own time limit.
const WAIT: Duration = Duration::from_secs(1);

/// A box file, and what turns its boxes into latents.
pub(super) struct BoxDataset {
    pub(super) detections: Vec<Detection>,
    pub(super) boxer: BoxEncoder,
    pub(super) method: BoxMethod,
    /// Describes the latents of boxes.
    pub(super) origin: LatentSpec,
}

/// One box with its latent.
pub(super) struct BoxSample<'a> {
    /// The file that its frame comes from.
    pub(super) file: Option<&'a Arc<str>>,
    pub(super) detection: &'a Detection,
    /// The part of the box inside the frame.
    pub(super) rect: BBox,
    pub(super) latent: &'a [f32],
    pub(super) stamp: Timestamp,
    /// Number of cuts that the source has marked so far.
    pub(super) segment: u64,
}

/// Totals of a walk over the boxes.
pub(super) struct WalkStats {
    pub(super) frames: u64,
    pub(super) segments: u64,
    /// True if the source came to its end, false if it was stopped.
    pub(super) ended: bool,
}

impl BoxDataset {
    /// Reads `file` and checks that boxes are compatible with the other settings.
    ///
    /// # Errors
    /// A usage or configuration error that names the conflict.
    pub(super) fn open(file: &Path, config: &Config, opened: &LoadedEncoder, sources: usize) -> Result<Self> {
        if sources != 1 {
            return Err(Error::usage(format!(
                "--boxes with {sources} times --source: the boxes of a file are of one source"
            )));
        }
        if config.preprocess.motion_crop {
            return Err(Error::config(
                "preprocess.motion_crop with --boxes: the window around what moves is no frame to find boxes in; leave one out",
            ));
        }
        if config.mqtt.boxes || !config.box_server.listen.is_empty() {
            return Err(Error::config(
                "box_server.listen or mqtt.boxes with --boxes: boxes come from a file or from detectors that ask; leave one out",
            ));
        }
        if config.export.grid {
            return Err(Error::config(
                "export.grid with --boxes: a box has one embedding, not one a cell; leave it out",
            ));
        }
        let size = opened.encoder.size();
        let method = BoxMethod::new(&config.boxes, &opened.card, &opened.origin, size)?;
        let what = file.display().to_string();
        let text = String::from_utf8(read_bounded(file, MAX_BYTES)?)
            .map_err(|error| Error::usage(format!("{what}: is no text")).with_source(error))?;
        let boxer = BoxEncoder::new(method, config, opened.prepare()?, &opened.origin, size);
        Ok(Self { detections: mot::parse(&text, &what)?, boxer, method, origin: method.origin(&opened.origin) })
    }

    /// Passes every usable box of `source` to `each`, in order, with its latent.
    ///
    /// # Errors
    /// The source is live, or the source, the encoder or `each` fails.
    pub(super) fn walk(
        &mut self,
        opened: &mut LoadedEncoder,
        source: &mut dyn Source,
        stop: &AtomicBool,
        mut progress: Progress,
        mut each: impl FnMut(BoxSample<'_>) -> Result<()>,
    ) -> Result<WalkStats> {
        let mut walked = WalkStats { frames: 0, segments: 0, ended: true };
        let (mut frame, mut next) = (Frame::default(), 0);
        loop {
            if stop.load(Ordering::Relaxed) {
                walked.ended = false;
                return Ok(walked);
            }
            match source.next(&mut frame, WAIT)? {
                Pull::Idle => continue,
                Pull::End => break,
                Pull::Frame => {}
            }
            walked.segments += u64::from(frame.cut || walked.frames == 0);
            walked.frames += 1;
            let before = self.detections[next..].partition_point(|detection| detection.frame < frame.index);
            self.boxer.without_frame(before as u64);
            next += before;
            let here = self.detections[next..].partition_point(|detection| detection.frame == frame.index);
            let (stamp, segment) = (frame.stamp, walked.segments - 1);
            let boxes = &self.detections[next..next + here];
            self.boxer.frame(&mut opened.encoder, &frame, boxes, |detection, rect, latent| {
                each(BoxSample { detection, rect, latent, file: frame.file.as_ref(), stamp, segment })
            })?;
            next += here;
            progress.set(frame.index + 1);
        }
        let after = self.detections.len() - next;
        self.boxer.without_frame(after as u64);
        if after > 0 {
            let frames = frame.index + 1;
            tracing::warn!("{after} boxes are of frames after the last of the source, which has {frames}");
        }
        Ok(walked)
    }

    /// Adapts `snapshot`, from a run on frames or on boxes, to the latents of boxes.
    pub(super) fn snapshot(&self, snapshot: &Snapshot) -> Snapshot {
        of_boxes(snapshot, &self.origin)
    }

    /// A summary of the boxes, for people.
    pub(super) fn told(&self) -> String {
        let counts = self.boxer.counts();
        format!(
            "boxes      {} by {}; left out: {} outside, {} empty, {} small, {} of low score, {} without latent, {} without frame",
            counts.embedded,
            match self.method {
                BoxMethod::Crop => "crop",
                BoxMethod::Roi(..) => "roi",
            },
            counts.outside,
            counts.empty,
            counts.small,
            counts.low_score,
            counts.without_latent,
            counts.without_frame
        )
    }
}

/// Rejects live sources: a box file refers to frames by number, which a live source does not have.
pub(super) fn bounded(source: &dyn Source) -> Result<()> {
    if source.live() {
        return Err(Error::usage(
            "--boxes with a live source: frames of a file of boxes are those of a folder or a video",
        ));
    }
    Ok(())
}
