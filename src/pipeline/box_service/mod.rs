//! Embeds boxes of recent frames for detectors that ask, next to the inference loop.
//!
//! Where latents are grids, boxes are pooled from them here (RoIAlign), and the inference loop only hands its latents over.
//! Otherwise each box is cut out and preprocessed here, and the inference loop encodes it while no frame waits.
mod embed;
mod channels;
mod frame_cache;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};
use serde::Serialize;

use super::box_encoder::{BoxMethod, of_boxes};
use super::capture_thread::BoxInput;
use crate::config::{Config, Size};
use crate::encoder::Preprocessor;
use crate::error::Result;
use crate::export::Provenance;
use crate::export::box_api::{BoxRequest, ErrorCode, FrameSelector, REQUESTS};
use crate::export::sinks::mqtt::in_topic;
use crate::frame::Frame;
use crate::head::{Grid, Scratch};
use crate::learner::{LatentSpec, Snapshot};
use crate::metrics::Metrics;

pub(super) use channels::{BoxChannels, BoxServiceInput, Crop, channels};
pub(super) use frame_cache::CachedFrame;
use frame_cache::{CacheLookup, FrameCache};

/// Boxes of one request that are embedded before it is the turn of the next.
const TURN: usize = 8;
/// Time between two looks at the requests that wait.
const WAIT: Duration = Duration::from_millis(20);

/// What became of the boxes that detectors asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BoxServiceCounts {
    /// Well-formed requests.
    pub requests: u64,
    /// Boxes answered with an embedding.
    pub embedded: u64,
    /// Boxes answered with a reason.
    pub refused: u64,
}

impl fmt::Display for BoxServiceCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, embedded, refused } = self;
        write!(f, "boxes      {embedded} embedded, {refused} refused, in {requests} requests")
    }
}

/// Embeds boxes for detectors that ask.
pub struct BoxService {
    requests: Receiver<BoxRequest>,
    cameras: Vec<Arc<str>>,
    method: BoxMethod,
    preprocessor: Preprocessor,
    grid: Option<Grid>,
    size: Size,
    latent_dim: usize,
    /// What latents of boxes are.
    origin: LatentSpec,
    provenance: Provenance,
    min_pixels: f64,
    score_above: f32,
    wait: Duration,
    cache: FrameCache,
    /// The head to embed with; `None`: the head of the frame.
    own: Option<Arc<Snapshot>>,
    /// The last head of frames, and what it is for boxes.
    ready: Option<(Arc<Snapshot>, Arc<Snapshot>)>,
    waiting: VecDeque<PendingRequest>,
    crop: Crop,
    cut: Frame,
    embedding: Vec<f32>,
    scratch: Scratch,
    counts: BoxServiceCounts,
}

/// A request that waits for its frame or for its turn.
struct PendingRequest {
    request: BoxRequest,
    /// The frame, once it is there.
    kept: Option<Arc<CachedFrame>>,
    /// The first box without an answer.
    next: usize,
}

impl BoxService {
    /// `of_frames`: what latents of frames are; `own`: the head to embed boxes with, instead of the head of their frame.
    pub fn new(
        requests: Receiver<BoxRequest>,
        cameras: Vec<Arc<str>>,
        (method, preprocessor, size): (BoxMethod, Preprocessor, Size),
        config: &Config,
        of_frames: &LatentSpec,
        own: Option<Snapshot>,
    ) -> Self {
        let origin = method.origin(of_frames);
        Self {
            requests,
            cameras,
            method,
            preprocessor,
            grid: of_frames.shape(),
            size,
            latent_dim: of_frames.dim,
            provenance: Provenance::new(&origin.encoder_sha256, &origin.card_hash),
            own: own.map(|snapshot| Arc::new(of_boxes(&snapshot, &origin))),
            origin,
            min_pixels: config.boxes.min_pixels,
            score_above: config.boxes.score_above as f32,
            wait: Duration::from_secs_f64(config.box_server.wait_secs.clamp(0.0, 3600.0)),
            cache: FrameCache::new((config.box_server.window_megabytes * 1e6) as usize),
            ready: None,
            waiting: VecDeque::new(),
            crop: Crop::default(),
            cut: Frame::default(),
            embedding: Vec::new(),
            scratch: Scratch::default(),
            counts: BoxServiceCounts::default(),
        }
    }

    /// What the service needs of frames.
    pub(super) fn keeps(&self) -> BoxInput {
        match self.method {
            BoxMethod::Crop => BoxInput::Pixels,
            BoxMethod::Roi(..) => BoxInput::Size,
        }
    }

    /// Serves until the inference loop ends; then refuses what still waits.
    pub(super) fn run(mut self, channels: &BoxChannels, metrics: &Metrics) -> Result<BoxServiceCounts> {
        let mut requests = self.requests.clone();
        let mut more = false;
        loop {
            select! {
                recv(channels.kept) -> kept => match kept {
                    Ok(kept) => self.keep(kept, channels),
                    Err(_) => break,
                },
                recv(requests) -> request => match request {
                    Ok(request) => self.take(request),
                    Err(_) => requests = crossbeam_channel::never(),
                },
                default(if more { Duration::ZERO } else { WAIT }) => {}
            }
            more = false;
            for _ in 0..self.waiting.len() {
                let Some(pending) = self.waiting.pop_front() else { break };
                more |= self.serve(pending, channels);
            }
            metrics.boxes.set(self.counts.embedded);
            metrics.refused_boxes.set(self.counts.refused);
        }
        let new = self.requests.try_iter().map(|request| PendingRequest { request, kept: None, next: 0 });
        let rest: Vec<PendingRequest> = self.waiting.drain(..).chain(new).collect();
        for PendingRequest { request, next, .. } in rest {
            self.refuse(&request, next, ErrorCode::Ended, "the program is shutting down");
        }
        Ok(self.counts)
    }

    fn keep(&mut self, kept: CachedFrame, channels: &BoxChannels) {
        for gone in self.cache.push(kept) {
            channels.spare.try_send(gone).ok();
        }
    }

    fn take(&mut self, request: BoxRequest) {
        self.counts.requests += 1;
        if self.waiting.len() >= REQUESTS {
            return self.refuse(&request, 0, ErrorCode::Busy, "too many requests wait for their frames");
        }
        self.waiting.push_back(PendingRequest { request, kept: None, next: 0 });
    }

    fn refuse(&mut self, request: &BoxRequest, first: usize, reason: ErrorCode, why: &str) {
        self.counts.refused += request.boxes.len().saturating_sub(first) as u64;
        request.refuse(first, reason, why);
    }

    /// Answers some boxes of a request, or queues it again. True where more of it can be answered at once.
    fn serve(&mut self, mut pending: PendingRequest, channels: &BoxChannels) -> bool {
        if pending.kept.is_none() {
            match self.frame(&pending.request) {
                Ok(Some(kept)) => pending.kept = Some(kept),
                Ok(None) => {
                    self.waiting.push_back(pending);
                    return false;
                }
                Err((ErrorCode::NoCamera, why)) => {
                    self.counts.refused += pending.request.boxes.len() as u64;
                    pending.request.refuse_whole(ErrorCode::NoCamera, &why);
                    return false;
                }
                Err((reason, why)) => {
                    self.refuse(&pending.request, 0, reason, &why);
                    return false;
                }
            }
        }
        let Some(kept) = pending.kept.clone() else { return false };
        let until = (pending.next + TURN).min(pending.request.boxes.len());
        if !self.answer(&pending.request, pending.next..until, &kept, channels) || until == pending.request.boxes.len()
        {
            return false;
        }
        pending.next = until;
        self.waiting.push_back(pending);
        true
    }

    /// The frame of a request; `None` while it may still come.
    fn frame(&self, request: &BoxRequest) -> std::result::Result<Option<Arc<CachedFrame>>, (ErrorCode, String)> {
        let camera = self.camera(request.camera.as_deref()).map_err(|why| (ErrorCode::NoCamera, why))?;
        let late = request.came.elapsed() >= self.wait;
        match self.cache.find(camera, request.at, late) {
            CacheLookup::Here(kept) => Ok(Some(kept)),
            CacheLookup::NotYet if !late => Ok(None),
            CacheLookup::NotYet => {
                let why = format!("no such frame came within {} s", self.wait.as_secs_f64());
                Err((ErrorCode::NoFrame, why))
            }
            CacheLookup::Never => {
                let why = match request.at {
                    FrameSelector::Wall(_) => "no frame was captured within half a second of that time",
                    _ => "that frame was dropped, or had no latent",
                };
                Err((ErrorCode::NoFrame, why.to_owned()))
            }
            CacheLookup::Gone(oldest) => {
                let why =
                    format!("that frame is no longer kept; frame {oldest} is the oldest (box_server.window_megabytes)");
                Err((ErrorCode::Gone, why))
            }
        }
    }

    /// The number of a camera; its name in MQTT topics works too.
    fn camera(&self, name: Option<&str>) -> std::result::Result<u16, String> {
        let at = match name {
            None if self.cameras.len() == 1 => Some(0),
            None => None,
            Some(name) => (self.cameras.iter().position(|camera| **camera == *name))
                .or_else(|| self.cameras.iter().position(|camera| in_topic(camera) == name)),
        };
        let none = || format!("\"camera\" is {name:?}; there are {}", self.cameras.join(", "));
        at.and_then(|at| u16::try_from(at).ok()).ok_or_else(none)
    }
}
