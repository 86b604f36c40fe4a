//! The desk where detectors ask: boxes of a frame of the last moments, embedded beside the hot path.
//!
//! Out of grids boxes are pooled here (RoIAlign), and the hot path only hands its latents over. Else each box is cut out and
//! prepared here, and the hot path encodes it while no frame waits.
mod embed;
mod channels;
mod frame_cache;

use std::collections::VecDeque;
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

/// Boxes of one request that are embedded before it is another's turn.
const TURN: usize = 8;
/// Between two looks at what waits.
const WAIT: Duration = Duration::from_millis(20);

/// What became of boxes that were asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BoxServiceCounts {
    /// Requests that could be read.
    pub requests: u64,
    /// Boxes answered with an embedding.
    pub embedded: u64,
    /// Boxes answered with a reason.
    pub refused: u64,
}

impl BoxServiceCounts {
    /// For people.
    pub fn told(&self) -> String {
        let Self { requests, embedded, refused } = self;
        format!("boxes      {embedded} embedded for who asked, {refused} refused, in {requests} requests")
    }
}

/// Embeds boxes for who asks.
pub struct BoxService {
    requests: Receiver<BoxRequest>,
    cameras: Vec<Arc<str>>,
    method: BoxMethod,
    prepare: Preprocessor,
    grid: Option<Grid>,
    size: Size,
    latent_dim: usize,
    /// Of boxes.
    origin: LatentSpec,
    provenance: Provenance,
    least: f64,
    score_above: f32,
    wait: Duration,
    kepts: FrameCache,
    /// The head to embed with; `None`: that of the frame.
    own: Option<Arc<Snapshot>>,
    /// Heads of frames, made ready for boxes: the last one.
    ready: Option<(Arc<Snapshot>, Arc<Snapshot>)>,
    waiting: VecDeque<PendingRequest>,
    crop: Crop,
    cut: Frame,
    embedding: Vec<f32>,
    scratch: Scratch,
    counts: BoxServiceCounts,
}

/// A request that waits for its frame, or for its turn.
struct PendingRequest {
    request: BoxRequest,
    /// Its frame, once that is there.
    kept: Option<Arc<CachedFrame>>,
    /// The first of its boxes that has no answer.
    next: usize,
}

impl BoxService {
    /// For the frames of `cameras`, whose latents are of `origin`. `own`: the head to embed boxes with, instead of that of
    /// their frame.
    pub fn new(
        requests: Receiver<BoxRequest>,
        cameras: Vec<Arc<str>>,
        (method, prepare, size): (BoxMethod, Preprocessor, Size),
        config: &Config,
        of_frames: &LatentSpec,
        own: Option<Snapshot>,
    ) -> Self {
        let origin = method.origin(of_frames);
        Self {
            requests,
            cameras,
            method,
            prepare,
            grid: of_frames.shape(),
            size,
            latent_dim: of_frames.dim,
            provenance: Provenance::new(&origin.encoder_sha256, &origin.card_hash),
            own: own.map(|snapshot| Arc::new(of_boxes(&snapshot, &origin))),
            origin,
            least: config.boxes.min_pixels,
            score_above: config.boxes.score_above as f32,
            wait: Duration::from_secs_f64(config.box_server.wait_secs.clamp(0.0, 3600.0)),
            kepts: FrameCache::new((config.box_server.window_megabytes * 1e6) as usize),
            ready: None,
            waiting: VecDeque::new(),
            crop: Crop::default(),
            cut: Frame::default(),
            embedding: Vec::new(),
            scratch: Scratch::default(),
            counts: BoxServiceCounts::default(),
        }
    }

    /// What it needs of frames.
    pub(super) fn keeps(&self) -> BoxInput {
        match self.method {
            BoxMethod::Crop => BoxInput::Pixels,
            BoxMethod::Roi(..) => BoxInput::Size,
        }
    }

    /// Until the hot path ends; then what still waits is told so.
    pub(super) fn run(mut self, ways: &BoxChannels, metrics: &Metrics) -> Result<BoxServiceCounts> {
        let mut requests = self.requests.clone();
        let mut more = false;
        loop {
            select! {
                recv(ways.kept) -> kept => match kept {
                    Ok(kept) => self.keep(kept, ways),
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
                let Some(in_hand) = self.waiting.pop_front() else { break };
                more |= self.serve(in_hand, ways);
            }
            metrics.boxes.set(self.counts.embedded);
            metrics.refused_boxes.set(self.counts.refused);
        }
        let new = self.requests.try_iter().map(|request| PendingRequest { request, kept: None, next: 0 });
        let rest: Vec<PendingRequest> = self.waiting.drain(..).chain(new).collect();
        for PendingRequest { request, next, .. } in rest {
            self.refuse(&request, next, ErrorCode::Ended, "the program ends");
        }
        Ok(self.counts)
    }

    fn keep(&mut self, kept: CachedFrame, ways: &BoxChannels) {
        for gone in self.kepts.push(kept) {
            ways.spare.try_send(gone).ok();
        }
    }

    fn take(&mut self, request: BoxRequest) {
        self.counts.requests += 1;
        if self.waiting.len() >= REQUESTS {
            return self.refuse(&request, 0, ErrorCode::Busy, "too many requests wait for their frames already");
        }
        self.waiting.push_back(PendingRequest { request, kept: None, next: 0 });
    }

    fn refuse(&mut self, request: &BoxRequest, first: usize, reason: ErrorCode, why: &str) {
        self.counts.refused += request.boxes.len().saturating_sub(first) as u64;
        request.refuse(first, reason, why);
    }

    /// Answers some boxes of a request, or has it wait again. True where more of it can be answered at once.
    fn serve(&mut self, mut in_hand: PendingRequest, ways: &BoxChannels) -> bool {
        if in_hand.kept.is_none() {
            match self.frame(&in_hand.request) {
                Ok(Some(kept)) => in_hand.kept = Some(kept),
                Ok(None) => {
                    self.waiting.push_back(in_hand);
                    return false;
                }
                Err((ErrorCode::NoCamera, why)) => {
                    self.counts.refused += in_hand.request.boxes.len() as u64;
                    in_hand.request.refuse_whole(ErrorCode::NoCamera, &why);
                    return false;
                }
                Err((reason, why)) => {
                    self.refuse(&in_hand.request, 0, reason, &why);
                    return false;
                }
            }
        }
        let Some(kept) = in_hand.kept.clone() else { return false };
        let until = (in_hand.next + TURN).min(in_hand.request.boxes.len());
        if !self.answer(&in_hand.request, in_hand.next..until, &kept, ways) || until == in_hand.request.boxes.len() {
            return false;
        }
        in_hand.next = until;
        self.waiting.push_back(in_hand);
        true
    }

    /// The frame of a request; `None` while it may still come.
    fn frame(&self, request: &BoxRequest) -> std::result::Result<Option<Arc<CachedFrame>>, (ErrorCode, String)> {
        let camera = self.camera(request.camera.as_deref()).map_err(|why| (ErrorCode::NoCamera, why))?;
        let late = request.came.elapsed() >= self.wait;
        match self.kepts.find(camera, request.at, late) {
            CacheLookup::Here(kept) => Ok(Some(kept)),
            CacheLookup::NotYet if !late => Ok(None),
            CacheLookup::NotYet => {
                let why = format!("no such frame has come within {} s", self.wait.as_secs_f64());
                Err((ErrorCode::NoFrame, why))
            }
            CacheLookup::Never => {
                let why = match request.at {
                    FrameSelector::Wall(_) => "no frame was captured within half a second of that moment",
                    _ => "that frame was dropped, or had no latent",
                };
                Err((ErrorCode::NoFrame, why.to_owned()))
            }
            CacheLookup::Gone(oldest) => {
                let why = format!(
                    "that frame is remembered no longer; frame {oldest} is the oldest (box_server.window_megabytes)"
                );
                Err((ErrorCode::Gone, why))
            }
        }
    }

    /// The number of a camera; names as they are in topics of MQTT do too.
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
