//! What describes a run: TOML text with a table per part of the system; every key has a default.
//!
//! Units are in the names. `check` reads text, reports every mistake at once and never opens a device. In a `run.json` of
//! an earlier version keys that it does not know yet have their defaults.
mod host;
mod schema;
mod box_server;
mod boxes;
mod choices;
pub mod document;
mod stream;
pub mod loader;
mod mqtt;
pub mod providers;
pub mod size;
pub mod taps;

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Mean brightness that frames may be brought to.
pub const EXPOSURES: std::ops::RangeInclusive<f32> = 0.05..=0.95;
pub use afterimage_learn::config::{Head, HeadKind, HeadSpec, LearnerConfig, Promotion, Training, objective};
pub use box_server::BoxServer;
pub use boxes::Boxes;
pub use choices::{
    ArenaExtend, BoxPooling, CameraPixels, ConvSearch, Decoder, Dtype, Format, Payload, Precision, Provider,
};
pub use host::Host;
pub use mqtt::{BrokerUrl, Mqtt};
pub use size::Size;
pub use stream::{ListenAddress, Stream};

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Where frames come from.
    pub source: Source,
    /// How a frame becomes the encoder's input.
    pub preprocess: Preprocess,
    /// The frozen encoder.
    pub encoder: Encoder,
    /// What is learned, from which pairs, at what pace.
    pub learn: Training,
    /// The shape of the head.
    pub head: Head,
    /// When a learned head may replace the exported one.
    pub promotion: Promotion,
    /// What is written while running.
    pub export: Export,
    /// How often the state is saved.
    pub checkpoint: Checkpoint,
    /// Boxes of a detector.
    pub boxes: Boxes,
    /// Records as they come, for programs of the same machine.
    pub stream: Stream,
    /// Embeddings of boxes for detectors that ask. A run does not keep it.
    pub box_server: BoxServer,
    /// The same for an MQTT broker. A run does not keep it either.
    pub mqtt: Mqtt,
    /// Where figures of a running pipeline can be read. A run does not keep it: it belongs to the machine.
    pub metrics: Metrics,
    /// How the run lives with the machine. A run does not keep it.
    pub host: Host,
}

impl Config {
    /// What the learner needs of it.
    pub fn learner(&self) -> LearnerConfig {
        LearnerConfig { learn: self.learn.clone(), head: self.head.clone(), promotion: self.promotion.clone() }
    }
}

/// `[source]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Source {
    /// Frames per second that a folder of images is taken to have (their capture times follow from it).
    pub frame_rate: f64,
    /// Seconds without a frame after which a live source counts as stalled and is opened again, and a video decoder is
    /// ended.
    pub stall_secs: f64,
    /// Video decoder: `auto` (ffmpeg where installed, else gst-launch-1.0), `ffmpeg` or `gst-launch-1.0`.
    pub decoder: Decoder,
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
    pub camera_pixels: CameraPixels,
    /// Take the nearest size, rate and format that a camera offers where it does not offer those asked for.
    pub camera_nearest: bool,
    /// Longest pause before a live source that broke is opened again, seconds.
    pub reopen_max_secs: f64,
}

/// `[preprocess]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Preprocess {
    /// Mean brightness (0.05 to 0.95) that every frame is brought to by a gain of at most 8: a number written as text,
    /// `card` (what the model card says) or `off`.
    pub exposure: String,
    /// Fixed cameras: encode the window around what moves instead of the whole frame.
    pub motion_crop: bool,
    /// What stands still for so many seconds becomes background (time constant of its mean).
    pub background_secs: f64,
}

/// `[encoder]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Encoder {
    /// Size of the input in pixels: a number for a square, `[height, width]` otherwise; 0 takes that of the model card.
    pub input_size: Size,
    /// What is read of the encoder, each `TENSOR:POOLING`, joined as unit vectors; empty takes the taps of
    /// the model card, `["output"]` the encoder's own output as it is.
    pub taps: Vec<String>,
    /// Execution providers in order of preference: `tensorrt`, `cuda`, `cpu`, and `xnnpack`, `openvino`, `acl` where the
    /// library has them. The first is required unless `fallback`.
    pub providers: Vec<Provider>,
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

/// `[export]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Export {
    /// Write embeddings while running.
    pub embeddings: bool,
    /// `npy`, `parquet` or `safetensors`.
    pub format: Format,
    /// `f32` or `f16`.
    pub dtype: Dtype,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Checkpoint {
    /// Frames between two saves of the state; 0 saves at the end only. Promoted heads are saved at once in any case.
    pub every_frames: u64,
}

/// `[metrics]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
            decoder: Decoder::Auto,
            certificates: "system".into(),
            camera_width: 640,
            camera_height: 480,
            camera_frame_rate: 30.0,
            camera_pixels: CameraPixels::Auto,
            camera_nearest: false,
            reopen_max_secs: 5.0,
        }
    }
}

impl Preprocess {
    /// The level of [`Preprocess::exposure`], where `card` is the one of the model card; `None`: frames stay as they are.
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
                    "preprocess.exposure = {text:?}: must be \"card\", \"off\" or a mean brightness from {} to {}",
                    EXPOSURES.start(),
                    EXPOSURES.end()
                )),
            },
        }
    }
}

impl Default for Preprocess {
    fn default() -> Self {
        Self { exposure: "card".into(), motion_crop: false, background_secs: 600.0 }
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            input_size: Size::UNSET,
            taps: Vec::new(),
            providers: vec![Provider::Cpu],
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
            format: Format::Npy,
            dtype: Dtype::F32,
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
