//! The desk where detectors ask: boxes of a frame of the last moments, embedded beside the hot path.
//!
//! Out of grids boxes are pooled here (RoIAlign), and the hot path only hands its latents over. Else each box is cut out and
//! prepared here, and the hot path encodes it while no frame waits.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use serde::Serialize;

use super::boxed::{Method, cut, of_boxes, pooled};
use super::capture::Keep;
use super::window::{Found, Kept, Kepts};
use crate::boxes::{Detection, Fault, Rect, RoiAlign};
use crate::config::Config;
use crate::encoder::Prepare;
use crate::error::Result;
use crate::export::asked::{Answer, At, Reason, Request};
use crate::export::outlets::mqtt::in_topic;
use crate::export::{Level, Maker, Record, SCHEMA};
use crate::frame::Frame;
use crate::head::{Grid, Scratch};
use crate::learner::{Origin, Snapshot};
use crate::linalg::normalise;
use crate::metrics::Metrics;

/// Frames on their way here; the hot path waits for none of them.
const KEPT: usize = 4;
/// Requests that may wait for their frames, beside those in the queue.
const WAITING: usize = 64;
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

/// The hot path's end.
pub(super) struct DeskEnd {
    pub(super) kept: Sender<Kept>,
    /// Empty ones coming back, for their buffers.
    pub(super) spare: Receiver<Kept>,
    pub(super) crops: Receiver<Crop>,
    pub(super) latents: Sender<Crop>,
    /// Boxes are cut out of frames, not pooled out of grids.
    pub(super) pixels: bool,
}

/// The desk's end.
pub(super) struct Ways {
    kept: Receiver<Kept>,
    spare: Sender<Kept>,
    crops: Sender<Crop>,
    /// A crop that nobody has begun with can be taken back.
    withdrawn: Receiver<Crop>,
    latents: Receiver<Crop>,
}

/// A prepared box on its way to the encoder and back.
#[derive(Debug, Default)]
pub(super) struct Crop {
    pub(super) tensor: Vec<f32>,
    pub(super) latent: Vec<f32>,
}

/// Both ends.
pub(super) fn ways(pixels: bool) -> (DeskEnd, Ways) {
    let (kept_in, kept) = bounded(KEPT);
    let (spare_in, spare) = bounded(KEPT);
    let (crops, crops_out) = bounded(1);
    let (latents_in, latents) = bounded(1);
    let withdrawn = crops_out.clone();
    (
        DeskEnd { kept: kept_in, spare, crops: crops_out, latents: latents_in, pixels },
        Ways { kept, spare: spare_in, crops, withdrawn, latents },
    )
}

/// Embeds boxes for who asks.
pub struct Desk {
    requests: Receiver<Request>,
    cameras: Vec<Arc<str>>,
    method: Method,
    prepare: Prepare,
    grid: Option<Grid>,
    side: u32,
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
    waiting: VecDeque<Request>,
    crop: Crop,
    cut: Frame,
    embedding: Vec<f32>,
    scratch: Scratch,
    counts: DeskCounts,
}

/// Why there is no embedding.
type Refusal = (Reason, String);

impl Desk {
    /// For the frames of `cameras`, whose latents are of `origin`. `own`: the head to embed boxes with, instead of that of
    /// their frame.
    pub fn new(
        requests: Receiver<Request>,
        cameras: Vec<Arc<str>>,
        (method, prepare, side): (Method, Prepare, u32),
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
            side,
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
                default(WAIT) => {}
            }
            for _ in 0..self.waiting.len() {
                let Some(request) = self.waiting.pop_front() else { break };
                self.serve(request, ways);
            }
            metrics.boxes.set(self.counts.embedded);
            metrics.refused_boxes.set(self.counts.refused);
        }
        let rest: Vec<Request> = self.waiting.drain(..).chain(self.requests.try_iter()).collect();
        for request in rest {
            self.refuse(&request, 0, Reason::Ended, "the program ends");
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
        if self.waiting.len() >= WAITING {
            return self.refuse(&request, 0, Reason::Busy, "too many requests wait for their frames already");
        }
        self.waiting.push_back(request);
    }

    fn refuse(&mut self, request: &Request, first: usize, reason: Reason, why: &str) {
        self.counts.refused += request.boxes.len().saturating_sub(first) as u64;
        request.refuse(first, reason, why);
    }

    /// Answers a request, or has it wait again.
    fn serve(&mut self, request: Request, ways: &Ways) {
        let camera = match self.camera(request.camera.as_deref()) {
            Ok(camera) => camera,
            Err(why) => return self.refuse(&request, 0, Reason::NoCamera, &why),
        };
        let late = request.came.elapsed() >= self.wait;
        match self.kepts.find(camera, request.at, late) {
            Found::Here(kept) => self.answer(&request, &kept, ways),
            Found::NotYet if !late => self.waiting.push_back(request),
            Found::NotYet => {
                let why = format!("no such frame has come within {} s", self.wait.as_secs_f64());
                self.refuse(&request, 0, Reason::NoFrame, &why);
            }
            Found::Never => {
                let why = match request.at {
                    At::Wall(_) => "no frame was captured within half a second of that moment",
                    _ => "that frame was dropped, or had no latent",
                };
                self.refuse(&request, 0, Reason::NoFrame, why);
            }
            Found::Gone(oldest) => {
                let why = format!(
                    "that frame is remembered no longer; frame {oldest} is the oldest (live.boxes_window_megabytes)"
                );
                self.refuse(&request, 0, Reason::Gone, &why);
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

    fn answer(&mut self, request: &Request, kept: &Kept, ways: &Ways) {
        let until = Instant::now() + self.wait;
        for (at, detection) in request.boxes.iter().enumerate() {
            match self.embed(detection, kept, until, ways) {
                Ok(record) => {
                    self.counts.embedded += 1;
                    request.reply.send(&Answer::embedded(request.id, at, &record, &self.embedding));
                }
                Err((reason @ (Reason::Busy | Reason::Ended), why)) => return self.refuse(request, at, reason, &why),
                Err((reason, why)) => {
                    self.counts.refused += 1;
                    request.reply.send(&Answer::refused(request.id, Some(at), reason, &why));
                }
            }
        }
    }

    /// The embedding of one box, left in its place, and its record.
    fn embed(
        &mut self,
        detection: &Detection,
        kept: &Kept,
        until: Instant,
        ways: &Ways,
    ) -> std::result::Result<Record, Refusal> {
        let rect = self.usable(detection, &kept.frame)?;
        let latent = match self.method {
            Method::Crop => self.crop_latent(rect, kept, until, ways)?,
            Method::Roi(grid, cells) => RoiAlign::POOL.pool(grid, &kept.latent, cells.of(rect, kept.region, self.side)),
        };
        let (Some(latent), Some(snapshot)) = (latent, self.snapshot(kept)) else {
            return Err((Reason::NoLatent, "the encoder gives nothing for it".into()));
        };
        self.embedding.resize(snapshot.head.dim_out(), 0.0);
        snapshot.head.embed(&latent, &mut self.embedding, &mut self.scratch);
        let camera = self.cameras.get(usize::from(kept.frame.camera)).cloned().unwrap_or_default();
        Ok(Record {
            schema: SCHEMA,
            camera,
            frame: kept.frame.index,
            stamp_ns: kept.frame.stamp.0,
            wall_ns: kept.wall_ns,
            segment: kept.segment,
            level: Level::Box,
            space: snapshot.space.clone(),
            head: snapshot.number,
            maker: Some(self.maker.clone()),
            learner: None,
            novelty: None,
            novel: false,
            // Sides are at most 16,384 pixels.
            window: Some(rect.pixels().map(|x| x as i32)),
            track: detection.track,
            class: detection.class,
            score: detection.score,
        })
    }

    /// The part of a box that lies in its frame.
    fn usable(&self, detection: &Detection, frame: &Frame) -> std::result::Result<Rect, Refusal> {
        if let Some(score) = detection.score.filter(|score| *score <= self.score_above) {
            let why = format!("its score is {score}, wanted is more than {} (boxes.score_above)", self.score_above);
            return Err((Reason::LowScore, why));
        }
        detection.rect.clipped(frame.width, frame.height, self.least).map_err(|fault| match fault {
            Fault::Empty => (Reason::Empty, "it has no width or no height".into()),
            Fault::Outside => {
                (Reason::Outside, format!("it lies outside of {} x {} pixels", frame.width, frame.height))
            }
            Fault::Small => {
                (Reason::Small, format!("less than {} pixels of it lie in the frame (boxes.least_pixels)", self.least))
            }
        })
    }

    /// Cuts the box out and has it encoded, by `until` or not at all.
    fn crop_latent(
        &mut self,
        rect: Rect,
        kept: &Kept,
        until: Instant,
        ways: &Ways,
    ) -> std::result::Result<Option<Vec<f32>>, Refusal> {
        let ended = || (Reason::Ended, "the program ends".to_owned());
        cut(&kept.frame, rect.pixels(), &mut self.cut);
        let mut crop = std::mem::take(&mut self.crop);
        crop.tensor.resize(3 * self.side as usize * self.side as usize, 0.0);
        crop.latent.resize(self.latent_dim, 0.0);
        if let Err(error) = self.prepare.run(&self.cut, &mut crop.tensor) {
            self.crop = crop;
            return Err((Reason::NoLatent, error.chain()));
        }
        ways.crops.send(crop).map_err(|_| ended())?;
        self.crop = loop {
            select! {
                recv(ways.latents) -> crop => break crop.map_err(|_| ended())?,
                recv(ways.kept) -> kept => self.keep(kept.map_err(|_| ended())?, ways),
                default(WAIT) => {}
            }
            // One that is being encoded already comes back soon.
            if Instant::now() >= until
                && let Ok(crop) = ways.withdrawn.try_recv()
            {
                self.crop = crop;
                let why = "the encoder has no time beside the frames (live.boxes_wait_secs)";
                return Err((Reason::Busy, why.into()));
            }
        };
        let length = normalise(&mut self.crop.latent);
        Ok((length > 0.0 && length.is_finite()).then(|| pooled(self.grid, &self.crop.latent)).flatten())
    }

    /// The head for boxes of a frame.
    fn snapshot(&mut self, kept: &Kept) -> Option<Arc<Snapshot>> {
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
