//! The desk where detectors ask: boxes of a frame of the last moments, embedded beside the hot path.
//!
//! Out of grids boxes are pooled here (RoIAlign), and the hot path only hands its latents over. Else each box is cut out and
//! prepared here, and the hot path encodes it while no frame waits.
mod embed;
mod ways;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};
use serde::Serialize;

use super::boxed::{Method, of_boxes};
use super::capture::Keep;
use crate::config::{Config, Size};
use crate::encoder::Prepare;
use crate::error::Result;
use crate::export::Maker;
use crate::export::asked::{At, REQUESTS, Reason, Request};
use crate::export::outlets::mqtt::in_topic;
use crate::frame::Frame;
use crate::head::{Grid, Scratch};
use crate::learner::{Origin, Snapshot};
use crate::metrics::Metrics;

pub(super) use ways::{Crop, DeskEnd, Ways, ways};
pub(super) use window::Kept;
use window::{Found, Kepts};

/// Boxes of one request that are embedded before it is another's turn.
const TURN: usize = 8;
/// Between two looks at what waits.
const WAIT: Duration = Duration::from_millis(20);

/// What became of boxes that were asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeskCounts {
    /// Requests that could be read.
    pub requests: u64,
    /// Boxes answered with an embedding.
    pub embedded: u64,
    /// Boxes answered with a reason.
    pub refused: u64,
}

impl DeskCounts {
    /// For people.
    pub fn told(&self) -> String {
        let Self { requests, embedded, refused } = self;
        format!("boxes      {embedded} embedded for who asked, {refused} refused, in {requests} requests")
    }
}

/// Embeds boxes for who asks.
pub struct Desk {
    requests: Receiver<Request>,
    cameras: Vec<Arc<str>>,
    method: Method,
    prepare: Prepare,
    grid: Option<Grid>,
    size: Size,
    latent_dim: usize,
    /// Of boxes.
    origin: Origin,
    maker: Maker,
    least: f64,
    score_above: f32,
    wait: Duration,
    kepts: Kepts,
    /// The head to embed with; `None`: that of the frame.
    own: Option<Arc<Snapshot>>,
    /// Heads of frames, made ready for boxes: the last one.
    ready: Option<(Arc<Snapshot>, Arc<Snapshot>)>,
    waiting: VecDeque<InHand>,
    crop: Crop,
    cut: Frame,
    embedding: Vec<f32>,
    scratch: Scratch,
    counts: DeskCounts,
}

/// A request that waits for its frame, or for its turn.
struct InHand {
    request: Request,
    /// Its frame, once that is there.
    kept: Option<Arc<Kept>>,
    /// The first of its boxes that has no answer.
    next: usize,
}

impl Desk {
    /// For the frames of `cameras`, whose latents are of `origin`. `own`: the head to embed boxes with, instead of that of
    /// their frame.
    pub fn new(
        requests: Receiver<Request>,
        cameras: Vec<Arc<str>>,
        (method, prepare, size): (Method, Prepare, Size),
        config: &Config,
        of_frames: &Origin,
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
            maker: Maker::new(&origin.encoder_sha256, &origin.card_hash),
            own: own.map(|snapshot| Arc::new(of_boxes(&snapshot, &origin))),
            origin,
            least: config.boxes.least_pixels,
            score_above: config.boxes.score_above as f32,
            wait: Duration::from_secs_f64(config.live.boxes_wait_secs.clamp(0.0, 3600.0)),
            kepts: Kepts::new((config.live.boxes_window_megabytes * 1e6) as usize),
            ready: None,
            waiting: VecDeque::new(),
            crop: Crop::default(),
            cut: Frame::default(),
            embedding: Vec::new(),
            scratch: Scratch::default(),
            counts: DeskCounts::default(),
        }
    }

    /// What it needs of frames.
    pub(super) fn keeps(&self) -> Keep {
        match self.method {
            Method::Crop => Keep::Pixels,
            Method::Roi(..) => Keep::Size,
        }
    }

    /// Until the hot path ends; then what still waits is told so.
    pub(super) fn run(mut self, ways: &Ways, metrics: &Metrics) -> Result<DeskCounts> {
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
        let new = self.requests.try_iter().map(|request| InHand { request, kept: None, next: 0 });
        let rest: Vec<InHand> = self.waiting.drain(..).chain(new).collect();
        for InHand { request, next, .. } in rest {
            self.refuse(&request, next, Reason::Ended, "the program ends");
        }
        Ok(self.counts)
    }

    fn keep(&mut self, kept: Kept, ways: &Ways) {
        for gone in self.kepts.push(kept) {
            ways.spare.try_send(gone).ok();
        }
    }

    fn take(&mut self, request: Request) {
        self.counts.requests += 1;
        if self.waiting.len() >= REQUESTS {
            return self.refuse(&request, 0, Reason::Busy, "too many requests wait for their frames already");
        }
        self.waiting.push_back(InHand { request, kept: None, next: 0 });
    }

    fn refuse(&mut self, request: &Request, first: usize, reason: Reason, why: &str) {
        self.counts.refused += request.boxes.len().saturating_sub(first) as u64;
        request.refuse(first, reason, why);
    }

    /// Answers some boxes of a request, or has it wait again. True where more of it can be answered at once.
    fn serve(&mut self, mut in_hand: InHand, ways: &Ways) -> bool {
        if in_hand.kept.is_none() {
            match self.frame(&in_hand.request) {
                Ok(Some(kept)) => in_hand.kept = Some(kept),
                Ok(None) => {
                    self.waiting.push_back(in_hand);
                    return false;
                }
                Err((Reason::NoCamera, why)) => {
                    self.counts.refused += in_hand.request.boxes.len() as u64;
                    in_hand.request.refuse_whole(Reason::NoCamera, &why);
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
    fn frame(&self, request: &Request) -> std::result::Result<Option<Arc<Kept>>, (Reason, String)> {
        let camera = self.camera(request.camera.as_deref()).map_err(|why| (Reason::NoCamera, why))?;
        let late = request.came.elapsed() >= self.wait;
        match self.kepts.find(camera, request.at, late) {
            Found::Here(kept) => Ok(Some(kept)),
            Found::NotYet if !late => Ok(None),
            Found::NotYet => {
                let why = format!("no such frame has come within {} s", self.wait.as_secs_f64());
                Err((Reason::NoFrame, why))
            }
            Found::Never => {
                let why = match request.at {
                    At::Wall(_) => "no frame was captured within half a second of that moment",
                    _ => "that frame was dropped, or had no latent",
                };
                Err((Reason::NoFrame, why.to_owned()))
            }
            Found::Gone(oldest) => {
                let why = format!(
                    "that frame is remembered no longer; frame {oldest} is the oldest (live.boxes_window_megabytes)"
                );
                Err((Reason::Gone, why))
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
