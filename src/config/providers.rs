//! Options of the execution providers, `[encoder.tensorrt]` and so on: what each means, its default, what it costs.
//!
//! Defaults are for boards of 4 to 8 GB that share their memory between CPU and GPU: arenas grow by what is needed,
//! algorithms are chosen without trying all, and nothing trades accuracy for speed unless asked.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ArenaExtend, ConvSearch, Precision};

/// `[encoder.tensorrt]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TensorRt {
    /// Which GPU, from 0.
    pub device: u32,
    /// `fp32`, `fp16` (layers may run in 16-bit floats: about twice as fast, half the memory; the parity gate says whether
    /// the model bears it) or `int8` (for models with QDQ nodes, `tools/quantize.py`; other layers in 16-bit floats).
    pub precision: Precision,
    /// Keep built engines on disk. Off, every start builds anew: minutes on a board.
    pub engine_cache: bool,
    /// Folder of engines and timing caches; empty: `afterimage/tensorrt` in the cache folder. Safe to delete; an engine
    /// has the size of the model or so.
    pub cache_folder: String,
    /// Keep the timings of layers on disk: a further engine builds faster.
    pub timing_cache: bool,
    /// Least batch that an engine takes. We run one image at a time.
    pub min_batch: u32,
    /// Batch that an engine is fastest at.
    pub opt_batch: u32,
    /// Most images that an engine takes; memory is laid out for so many.
    pub max_batch: u32,
    /// Run on a deep learning accelerator (Jetson Orin, Xavier) what it can, the rest on the GPU. Needs `fp16` or `int8`;
    /// slower than the GPU, at less power.
    pub dla: bool,
    /// Which accelerator.
    pub dla_core: u32,
    /// How hard the builder looks for fast kernels, 0 to 5: each step longer to build and at best faster to run.
    pub builder_level: u32,
    /// Memory that the builder may try out kernels in, megabytes. Too little leaves out fast kernels; a board shares it with
    /// everything else.
    pub workspace_megabytes: u32,
    /// Streams beside the main one for parts that can run at once: faster for wide models, more memory each.
    pub auxiliary_streams: u32,
    /// Layer normalisation in 32-bit floats under `fp16`: transformers overflow without, the cost is small.
    pub layer_norm_fp32: bool,
    /// Replay the whole model as one CUDA graph: less work for the CPU at each frame. The whole model must run on TensorRT.
    pub cuda_graph: bool,
    /// Write each part of the model that TensorRT takes as an ONNX file into the current folder, to look at.
    pub dump_subgraphs: bool,
    /// Log every step of a build (long), with the placement of every layer.
    pub detailed_build_log: bool,
}

/// `[encoder.cuda]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cuda {
    /// Which GPU, from 0.
    pub device: u32,
    /// Most memory of the arena (weights and layer outputs), megabytes; 0: no limit. CUDA itself and cuDNN take more
    /// beside it. A model that needs more fails to open and says so.
    pub arena_megabytes: u32,
    /// How the arena grows: `same-as-requested` (by what is needed) or `next-power-of-two` (fewer, larger steps: up to twice
    /// the memory).
    pub arena_extend: ArenaExtend,
    /// How cuDNN chooses algorithms of convolutions: `heuristic`, `default` (the one that always works; least memory) or
    /// `exhaustive` (tries all: fastest afterwards, seconds and memory at the first frame).
    pub conv_search: ConvSearch,
    /// Convolutions may take as much scratch memory as they like, instead of 32 MB.
    pub conv_max_workspace: bool,
    /// Products in TF32 (10 bits of mantissa): faster from Ampere on, latents differ in the third digit.
    pub tf32: bool,
    /// Convolutions in the layout `[n, h, w, c]`: may be faster on tensor cores.
    pub nhwc: bool,
    /// Replay the whole model as one CUDA graph: less work for the CPU at each frame. The whole model must run on CUDA.
    pub cuda_graph: bool,
}

/// `[encoder.cpu]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cpu {
    /// Threads spin while they wait for work: some percent faster, and takes whole cores from capture and learning.
    pub spinning: bool,
    /// Keep one block of memory for all layer outputs. Off, each is asked of the system anew: slower, and memory goes back
    /// between frames.
    pub arena: bool,
}

/// `[encoder.xnnpack]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Xnnpack {
    /// Threads of its own pool; 0: as `encoder.threads`. ONNX Runtime's own pool then has one thread.
    pub threads: u32,
}

/// `[encoder.openvino]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OpenVino {
    /// `CPU`, `GPU`, `GPU.0`, `NPU`, or several as OpenVINO names them (`AUTO:GPU,CPU`).
    pub device: String,
    /// Keep compiled models on disk: later starts are faster, at about the size of the model.
    pub cache: bool,
    /// Folder of compiled models; empty: `afterimage/openvino` in the cache folder.
    pub cache_folder: String,
    /// Threads on the CPU; 0: as `encoder.threads`.
    pub threads: u32,
}

/// `[encoder.acl]` (Arm Compute Library)
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Acl {
    /// Products in 16-bit floats where the processor has them: faster, less exact.
    pub fast_math: bool,
}

/// `[encoder.parity]`: latents of fixed frames against those of 32-bit floats on the CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Parity {
    /// Least mean cosine between the latents of the two, both less their means over the frames; 0 turns the gate off.
    /// It is asked wherever another provider than the CPU runs, and for quantised models.
    pub min_cosine: f64,
    /// Frames that are compared; the reference encodes each once on the CPU before the first real frame.
    pub frames: usize,
}

impl Default for TensorRt {
    fn default() -> Self {
        Self {
            device: 0,
            precision: Precision::Fp32,
            engine_cache: true,
            cache_folder: String::new(),
            timing_cache: true,
            min_batch: 1,
            opt_batch: 1,
            max_batch: 1,
            dla: false,
            dla_core: 0,
            builder_level: 3,
            workspace_megabytes: 512,
            auxiliary_streams: 0,
            layer_norm_fp32: true,
            cuda_graph: false,
            dump_subgraphs: false,
            detailed_build_log: false,
        }
    }
}

impl Default for Cuda {
    fn default() -> Self {
        Self {
            device: 0,
            arena_megabytes: 2048,
            arena_extend: ArenaExtend::SameAsRequested,
            conv_search: ConvSearch::Heuristic,
            conv_max_workspace: false,
            tf32: false,
            nhwc: false,
            cuda_graph: false,
        }
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self { spinning: false, arena: true }
    }
}

impl Default for OpenVino {
    fn default() -> Self {
        Self { device: "CPU".into(), cache: true, cache_folder: String::new(), threads: 0 }
    }
}

impl Default for Parity {
    fn default() -> Self {
        Self { min_cosine: 0.9, frames: 16 }
    }
}

/// What does not fit together in `encoder`.
pub(super) fn check(encoder: &super::Encoder, problems: &mut Vec<String>) {
    let trt = &encoder.tensorrt;
    if !(trt.min_batch <= trt.opt_batch && trt.opt_batch <= trt.max_batch) {
        problems.push(format!(
            "encoder.tensorrt: min_batch = {}, opt_batch = {}, max_batch = {}: each must be at least the one before",
            trt.min_batch, trt.opt_batch, trt.max_batch
        ));
    }
    if trt.min_batch > 1 {
        problems.push(format!(
            "encoder.tensorrt.min_batch = {}: must be 1, since frames are encoded one at a time",
            trt.min_batch
        ));
    }
    if trt.dla && trt.precision == Precision::Fp32 {
        problems.push(
            "encoder.tensorrt.dla = true: the accelerator has no 32-bit floats; set encoder.tensorrt.precision to fp16 or \
             int8"
                .into(),
        );
    }
    for (key, text) in [
        ("encoder.tensorrt.cache_folder", &trt.cache_folder),
        ("encoder.openvino.cache_folder", &encoder.openvino.cache_folder),
        ("encoder.openvino.device", &encoder.openvino.device),
    ] {
        if text.contains('\0') {
            problems.push(format!("{key}: must not have a zero byte"));
        }
    }
    if encoder.openvino.device.trim().is_empty() {
        problems.push("encoder.openvino.device = \"\": must name a device, such as CPU, GPU or NPU".into());
    }
    let twice = (1..encoder.providers.len()).find(|i| encoder.providers[..*i].contains(&encoder.providers[*i]));
    if let Some(name) = twice.map(|i| &encoder.providers[i]) {
        problems.push(format!("encoder.providers has \"{name}\" twice"));
    }
}
