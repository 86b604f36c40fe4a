//! What describes a run: TOML text with a table per part of the system; every key has a default.
//!
//! Units are in the names. `check` reads text, reports every mistake at once and never opens a device. In a `run.json` of
//! an earlier version keys that it does not know yet have their defaults.
mod board;
mod bounds;
mod boxes;
mod candidates;
mod live;
pub mod load;
mod mqtt;
pub mod objective;
pub mod providers;
pub mod size;
pub mod taps;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Mean brightness that frames may be brought to.
pub const EXPOSURES: std::ops::RangeInclusive<f32> = 0.05..=0.95;
pub use board::Board;
pub use boxes::Boxes;
pub use candidates::{Candidate, Kind};
pub use live::{Live, LiveAddress};
pub use mqtt::{Broker, Mqtt};
pub use size::Size;

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where frames come from.
    pub source: Source,
    /// How a frame becomes the encoder's input.
    pub prepare: Prepare,
    /// The frozen encoder.
    pub encoder: Encoder,
    /// What is learned, from which pairs, at what pace.
    pub learn: Learn,
    /// The shape of the head.
    pub head: Head,
    /// When a learned head may replace the exported one.
    pub judge: Judge,
    /// What is written while running.
    pub export: Export,
    /// How often the state is saved.
    pub checkpoint: Checkpoint,
    /// Boxes of a detector.
    pub boxes: Boxes,
    /// Records as they come, for programs of the same machine.
    pub live: Live,
    /// The same for an MQTT broker. A run does not keep it either.
    pub mqtt: Mqtt,
    /// Where figures of a running pipeline can be read. A run does not keep it: it belongs to the machine.
    pub metrics: Metrics,
    /// How the run lives with the machine. A run does not keep it.
    pub board: Board,
}

/// `[source]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Frames per second that a folder of images is taken to have (their capture times follow from it).
    pub frame_rate: f64,
    /// Seconds without a frame after which a live source counts as stalled and is opened again, and a video decoder is
    /// ended.
    pub stall_secs: f64,
    /// Video decoder: `auto` (ffmpeg where installed, else gst-launch-1.0), `ffmpeg` or `gst-launch-1.0`.
    pub decoder: String,
    /// Whose certificates an `https:` source is trusted by: `system` (of the authorities that the system trusts), a PEM file,
    /// or `any`.
    pub certificates: String,
    /// Width in pixels asked of a camera.
    pub camera_width: u32,
    /// Height in pixels asked of a camera.
    pub camera_height: u32,
    /// Frames per second asked of a camera.
    pub camera_frame_rate: f64,
    /// Pixel format asked of a camera: `auto` (what costs least to decode), `rgb`, `bgr`, `nv12`, `yuyv`, `mjpeg` or
    /// `grey`.
    pub camera_pixels: String,
    /// Take the nearest size, rate and format that a camera offers where it does not offer those asked for.
    pub camera_nearest: bool,
    /// Longest pause before a live source that broke is opened again, seconds.
    pub reopen_max_secs: f64,
}

/// `[prepare]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prepare {
    /// Mean brightness (0.05 to 0.95) that every frame is brought to by a gain of at most 8: a number written as text,
    /// `card` (what the model card says) or `off`.
    pub exposure: String,
    /// Fixed cameras: encode the window around what moves instead of the whole frame.
    pub motion_crop: bool,
    /// What stands still for so many seconds becomes background (time constant of its mean).
    pub background_secs: f64,
}

/// `[encoder]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Encoder {
    /// Size of the input in pixels: a number for a square, `[height, width]` otherwise; 0 takes that of the model card.
    pub input_size: Size,
    /// What is read of the encoder, each `TENSOR:POOLING` ([`taps::Tap`]), joined as unit vectors; empty takes the taps of
    /// the model card, `["output"]` the encoder's own output as it is.
    pub taps: Vec<String>,
    /// Execution providers in order of preference: `tensorrt`, `cuda`, `cpu`, and `xnnpack`, `openvino`, `acl` where the
    /// library has them. The first is required unless `fallback`.
    pub providers: Vec<String>,
    /// Go on with the next provider of the list (and say so) where the first cannot be used.
    pub fallback: bool,
    /// Threads that one inference may use on the CPU; 0 leaves one core for capture and learning.
    pub threads: u32,
    /// Path of `libonnxruntime.so`; empty searches (see `afterimage doctor`).
    pub onnxruntime: String,
    /// Options of TensorRT.
    pub tensorrt: providers::TensorRt,
    /// Options of CUDA, also of what TensorRT leaves to it.
    pub cuda: providers::Cuda,
    /// Options of the CPU, also of what the others leave to it.
    pub cpu: providers::Cpu,
    /// Options of XNNPACK.
    pub xnnpack: providers::Xnnpack,
    /// Options of OpenVINO.
    pub openvino: providers::OpenVino,
    /// Options of the Arm Compute Library.
    pub acl: providers::Acl,
    /// When latents are near enough to those of the CPU.
    pub parity: providers::Parity,
}

/// `[learn]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learn {
    /// Seed of every random choice.
    pub seed: u64,
    /// At most so many frames a second are learned from (all are embedded): neighbours closer in time teach noise only.
    pub frames_per_sec: f64,
    /// Share of one core the learner may use on a live source. A bounded source is learned from completely.
    pub cpu_share: f64,
    /// Which frames make a pair: `range` (all whose gap lies in the range) or `adaptive` (for each the smallest gap of the
    /// range at which the latent has moved as much as latents usually do in a second).
    pub gap: String,
    /// Least time between the two frames of a pair, seconds.
    pub gap_min_secs: f64,
    /// Most time between the two frames of a pair, seconds.
    pub gap_max_secs: f64,
    /// Pairs that an anchor is part of in one batch.
    pub positives: usize,
    /// Which pairs of a batch are no negatives of each other: those of the same `block`; also those of the same camera
    /// within `false_negative_secs` (`window`), of the same `segment`, or near each other (`similar`).
    pub false_negatives: String,
    /// Seconds within which frames of one camera are no negatives (`window`).
    pub false_negative_secs: f64,
    /// Cosine of frozen latents above which frames are no negatives (`similar`); 0: 0.9 times the median of the pairs.
    pub false_negative_similarity: f64,
    /// A scene cut: cosine distance between neighbouring latents above this ...
    pub cut_latent_distance: f64,
    /// ... and mean difference of the luma thumbnails (0 to 1) above this.
    pub cut_luma_distance: f64,
    /// A jump that is undone within so many seconds, or by the next frame, is a flash and no cut.
    pub flash_secs: f64,
    /// Neighbouring latents nearer than this cosine distance are a still scene: nothing to learn, skipped.
    pub still_distance: f64,
    /// Samples after which a scene in which nothing but noise changes, of any level, is a still scene, too (see
    /// `pairs/stillness.rs`); 0: `still_distance` alone tells.
    pub still_frames: u64,
    /// Share of the frames that an augmented view is encoded of too: instance discrimination, as a third statistic of
    /// the slow head. Costs as many encoder passes; a live source skips views while frames wait.
    pub views: f64,
    /// What a view is made with: `flip`, `crop`, `colour`, `grey`, `blur`.
    pub view_kinds: Vec<String>,
    /// How loud the views are beside the pairs in the within-pair scatter (1: the same trace).
    pub view_weight: f64,
    /// Learned frames before the first fit; later fits come at `refit_growth` times as many, and so on.
    pub first_fit_frames: u64,
    /// Growth of the schedule of fits.
    pub refit_growth: f64,
    /// At the most so many learned frames lie between two fits.
    pub refit_max_frames: u64,
    /// Frames between a fit's data and the first frame it may be used on (bounded sources: exactly then).
    pub promote_lag_frames: u64,
    /// Memory for replayed latents (f16), megabytes.
    pub replay_megabytes: f64,
    /// What replay keeps of the past: `min-redundancy` (what has its like in memory goes first) or `reservoir` (an even
    /// sample).
    pub replay: String,
    /// Times that a latent may be drawn from replay until the memory has taken in as much as it holds.
    pub replay_uses: u32,
    /// Latents that may wait for the learner; a live source drops more (counted), a file waits.
    pub queue_latents: usize,
    /// Learned frames per gradient step; 0 trains no residual MLP.
    pub frames_per_step: u64,
    /// What the residual MLP is trained for: one objective or a weighted sum, such as `dcl + 0.1 vicreg`
    /// ([`objective::Objective`]).
    pub objective: String,
    /// Pairs in a batch, each of another segment where there are enough.
    pub batch_pairs: usize,
    /// Temperature of the contrastive objectives.
    pub temperature: f64,
    /// Memory of the slower head of moco and byol, per step.
    pub momentum: f64,
    /// What moco's queue holds: `latents` (projected again and again, never stale) or `keys` (as they once were).
    pub queue: String,
    /// Entries of moco's queue.
    pub queue_len: usize,
    /// Weight of the anchor, which keeps the angles within a batch as they are under the exported head; 0: none.
    pub anchor: f64,
    /// `adamw`, `sgd` (with momentum) or `lars`.
    pub optimizer: String,
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Memory of past gradients, of sgd and lars.
    pub sgd_momentum: f64,
    /// Weight decay (adamw and lars: of matrices only).
    pub weight_decay: f64,
    /// Steps of linear warm-up after each fit.
    pub warmup_steps: u64,
    /// The learning rate after the warm-up: `constant`, or `cosine` down to zero at `schedule_steps`.
    pub schedule: String,
    /// Steps of a cosine schedule, counted from each fit, the warm-up among them.
    pub schedule_steps: u64,
    /// Decay of the average of the weights that is judged in place of the last ones, per step; 0: the last ones.
    pub ema: f64,
    /// Gradients are scaled down to this norm.
    pub clip_norm: f64,
    /// Memory of the orthogonal gradient, which leaves out what each gradient shares with those before; 0: off.
    pub orthogonal_gradient: f64,
    /// First offset that `cpc` predicts, in rows (of a grid) or moments (of a sequence). Patches that overlap by half share
    /// pixels with the row below: 2 leaves that out.
    pub cpc_first: usize,
    /// Last offset that `cpc` predicts, at most the rows of a grid less one.
    pub cpc_steps: usize,
    /// Moments of a sequence of `cpc` over vectors: consecutive learned frames of one block.
    pub cpc_moments: usize,
    /// Grids, or sequences, in a batch of `cpc`.
    pub cpc_batch: usize,
    /// Dimensions of the space in which `cpc` compares predictions with targets.
    pub cpc_dim: usize,
    /// Channels inside a block of the context network of `cpc`.
    pub cpc_width: usize,
    /// Residual blocks of the context network: it sees as many rows (or moments) back.
    pub cpc_blocks: usize,
    /// Factor of the inner products of `cpc`.
    pub cpc_scale: f64,
    /// Other frames of the same segment are no negatives of `cpc`.
    pub cpc_mask_segments: bool,
    /// Embedding of `cpc` over grids: `projected` (pooled projected cells) or `context` (pooled context).
    pub cpc_embedding: String,
}

/// `[head]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Head {
    /// Dimensions of the slow head, where a candidate does not say otherwise.
    pub dim: usize,
    /// Heads to try at every fit, in this order; see [`Candidate`]. The first that passes the judge is promoted, or, with
    /// `judge.probe`, of those that pass the one that is best on the labelled images.
    pub candidates: Vec<String>,
    /// Shrinkage of the within-pair scatter towards a multiple of the identity.
    pub shrinkage: f64,
    /// Hidden units of the residual MLP.
    pub hidden: usize,
    /// Weight of the residual MLP in the embedding.
    pub alpha: f64,
    /// A promoted head is turned onto the one before it, so that old embeddings stay as near as they can to new ones.
    pub align: bool,
}

/// `[judge]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Judge {
    /// Every so-manyeth block of frames is held out: judged on, never learned from.
    pub hold_every: u64,
    /// A segment longer than this is held out or learned from in blocks of this length, seconds.
    pub block_secs: f64,
    /// Held-out blocks needed before anything is promoted.
    pub min_blocks: usize,
    /// Held-out frames kept; the oldest blocks go first.
    pub max_frames: usize,
    /// Draws of the paired bootstrap.
    pub resamples: usize,
    /// Quantile of the bootstrap that must be above zero.
    pub quantile: f64,
    /// Stream time between two promotions, seconds at least: each opens a new space of embeddings. The last fit of a
    /// bounded source and the return to the frozen latents do not wait.
    pub min_promotion_secs: f64,
    /// Gradient steps between two checks of the residual on held-out blocks.
    pub watch_steps: u64,
    /// Folder with labelled images (`CLASS/*.jpg`) that must also agree to a promotion, and choose among heads that pass
    /// the label-free gate; empty: none.
    pub probe: String,
}

/// `[export]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Export {
    /// Write embeddings while running.
    pub embeddings: bool,
    /// `npy`, `parquet` or `safetensors`.
    pub format: String,
    /// `f32` or `f16`.
    pub dtype: String,
    /// A file of embeddings is closed at this size, megabytes.
    pub rotate_megabytes: f64,
    /// Write the frozen latents too (f32), so that `replay` can learn from them again.
    pub latents: bool,
    /// Write the embedding of every cell of grid latents too: files in `grids/`, a row of `h * w * k` numbers a frame,
    /// `[h, w, k]` row by row, every cell of unit length.
    pub grid: bool,
    /// Records of a novelty above this are marked as novel; 0: none is.
    pub novel_above: f64,
}

/// `[checkpoint]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// Frames between two saves of the state; 0 saves at the end only. Promoted heads are saved at once in any case.
    pub every_frames: u64,
}

/// `[metrics]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Address and port of a web server with `/metrics` (Prometheus) and `/health`, such as `127.0.0.1:9090`; empty: none.
    pub listen: String,
}

impl Metrics {
    /// The address of [`Metrics::listen`]; `None` where there is to be no server.
    ///
    /// # Errors
    /// The key, what it is and what it must be.
    pub fn address(&self) -> std::result::Result<Option<SocketAddr>, String> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        self.listen.parse().map(Some).map_err(|_| {
            format!(
                "metrics.listen = {:?}: must be an IP address and a port, such as 127.0.0.1:9090 (this machine alone), \
                 0.0.0.0:9090 (everybody who reaches it) or [::1]:9090, or empty",
                self.listen
            )
        })
    }
}

impl Default for Source {
    fn default() -> Self {
        Self {
            frame_rate: 10.0,
            stall_secs: 10.0,
            decoder: "auto".into(),
            certificates: "system".into(),
            camera_width: 640,
            camera_height: 480,
            camera_frame_rate: 30.0,
            camera_pixels: "auto".into(),
            camera_nearest: false,
            reopen_max_secs: 5.0,
        }
    }
}

impl Prepare {
    /// The level of [`Prepare::exposure`], where `card` is the one of the model card; `None`: frames stay as they are.
    ///
    /// # Errors
    /// The key, what it is and what it must be.
    pub fn level(&self, card: Option<f32>) -> std::result::Result<Option<f32>, String> {
        match self.exposure.as_str() {
            "card" => Ok(card),
            "off" => Ok(None),
            text => match text.parse::<f32>() {
                Ok(level) if EXPOSURES.contains(&level) => Ok(Some(level)),
                _ => Err(format!(
                    "prepare.exposure = {text:?}: must be \"card\", \"off\" or a mean brightness from {} to {}",
                    EXPOSURES.start(),
                    EXPOSURES.end()
                )),
            },
        }
    }
}

impl Default for Prepare {
    fn default() -> Self {
        Self { exposure: "card".into(), motion_crop: false, background_secs: 600.0 }
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            input_size: Size::UNSET,
            taps: Vec::new(),
            providers: vec!["cpu".into()],
            fallback: false,
            threads: 0,
            onnxruntime: String::new(),
            tensorrt: providers::TensorRt::default(),
            cuda: providers::Cuda::default(),
            cpu: providers::Cpu::default(),
            xnnpack: providers::Xnnpack::default(),
            openvino: providers::OpenVino::default(),
            acl: providers::Acl::default(),
            parity: providers::Parity::default(),
        }
    }
}

impl Default for Learn {
    fn default() -> Self {
        Self {
            seed: 0,
            frames_per_sec: 10.0,
            cpu_share: 0.25,
            gap: "range".into(),
            gap_min_secs: 0.1,
            gap_max_secs: 1.2,
            positives: 1,
            false_negatives: "block".into(),
            false_negative_secs: 30.0,
            false_negative_similarity: 0.0,
            cut_latent_distance: 0.35,
            cut_luma_distance: 0.08,
            flash_secs: 0.25,
            still_distance: 1e-5,
            still_frames: 64,
            views: 0.0,
            view_kinds: vec!["colour".into()],
            view_weight: 1.0,
            first_fit_frames: 512,
            refit_growth: 2.0,
            refit_max_frames: 16384,
            promote_lag_frames: 256,
            replay_megabytes: 48.0,
            replay: "min-redundancy".into(),
            replay_uses: 64,
            queue_latents: 512,
            frames_per_step: 8,
            objective: "nt-xent".into(),
            batch_pairs: 64,
            temperature: 0.1,
            momentum: 0.996,
            queue: "latents".into(),
            queue_len: 4096,
            anchor: 0.0,
            optimizer: "adamw".into(),
            learning_rate: 2e-4,
            sgd_momentum: 0.9,
            weight_decay: 1e-4,
            warmup_steps: 50,
            schedule: "constant".into(),
            schedule_steps: 1000,
            ema: 0.0,
            clip_norm: 1.0,
            orthogonal_gradient: 0.0,
            cpc_first: 1,
            cpc_steps: 5,
            cpc_moments: 12,
            cpc_batch: 16,
            cpc_dim: 64,
            cpc_width: 64,
            cpc_blocks: 5,
            cpc_scale: 0.1,
            cpc_mask_segments: true,
            cpc_embedding: "projected".into(),
        }
    }
}

impl Learn {
    /// Rows or moments are predicted from those before: a term of the objective is `cpc`.
    pub fn has_cpc(&self) -> bool {
        objective::has(self, objective::Objective::Cpc)
    }
}

impl Default for Head {
    fn default() -> Self {
        let candidates = ["slow", "slow dim=192", "slow+mlp", "mean", "frozen+slow"].map(str::to_owned).to_vec();
        Self { dim: 256, candidates, shrinkage: 0.2, hidden: 512, alpha: 1.0, align: true }
    }
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            hold_every: 5,
            block_secs: 4.0,
            min_blocks: 14,
            max_frames: 2048,
            resamples: 1000,
            quantile: 0.05,
            min_promotion_secs: 20.0,
            watch_steps: 50,
            probe: String::new(),
        }
    }
}

impl Export {
    /// Kinds of files that are written: embeddings, latents, grids.
    pub fn kinds(&self) -> usize {
        [self.embeddings, self.latents, self.grid].into_iter().filter(|on| *on).count()
    }
}

impl Default for Export {
    fn default() -> Self {
        Self {
            embeddings: true,
            format: "npy".into(),
            dtype: "f32".into(),
            rotate_megabytes: 64.0,
            latents: false,
            grid: false,
            novel_above: 0.0,
        }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { every_frames: 10_000 }
    }
}
