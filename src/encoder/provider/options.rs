//! Converts the configuration to ONNX Runtime's option strings (`*_provider_options.h`, `docs/providers.md`).
//!
//! Only text is produced here, so that the options can be listed, compared with what ONNX Runtime reports that it
//! understood (`tests/gpu_library.rs`), and shown by `doctor`.
use std::path::PathBuf;

use crate::config::{self, Size};

/// Names and values, in a fixed order.
pub type Options = Vec<(&'static str, String)>;

/// Everything else that the options depend on: the model's input, and where and under which name engines are cached.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionContext {
    /// Name of the input.
    pub input: String,
    /// Size of the input in pixels.
    pub size: Size,
    /// Threads on the CPU.
    pub threads: usize,
    /// Folder of TensorRT engines; `None` turns caching off.
    pub engines: Option<PathBuf>,
    /// Folder of compiled OpenVINO models.
    pub blobs: Option<PathBuf>,
    /// Prefix of the names of engines: a hash of everything that an engine depends on.
    pub prefix: String,
}

fn flag(on: bool) -> String {
    if on { "1".into() } else { "0".into() }
}

/// Converts megabytes (10^6 bytes) to bytes.
fn bytes(megabytes: u32) -> String {
    (u64::from(megabytes) * 1_000_000).to_string()
}

/// Options for TensorRT (`OrtTensorRTProviderOptionsV2`).
pub(super) fn tensorrt(options: &config::providers::TensorRt, about: &SessionContext) -> Options {
    let shape = |batch: u32| format!("{}:{batch}x3x{}x{}", about.input, about.size.height, about.size.width);
    let half = options.precision != config::Precision::Fp32;
    let mut all = vec![
        ("device_id", options.device.to_string()),
        ("trt_max_workspace_size", bytes(options.workspace_megabytes)),
        ("trt_fp16_enable", flag(half)),
        ("trt_int8_enable", flag(options.precision == config::Precision::Int8)),
        ("trt_layer_norm_fp32_fallback", flag(options.layer_norm_fp32 && half)),
        ("trt_dla_enable", flag(options.dla)),
        ("trt_dla_core", options.dla_core.to_string()),
        ("trt_builder_optimization_level", options.builder_level.to_string()),
        ("trt_auxiliary_streams", options.auxiliary_streams.to_string()),
        ("trt_cuda_graph_enable", flag(options.cuda_graph)),
        ("trt_dump_subgraphs", flag(options.dump_subgraphs)),
        ("trt_detailed_build_log", flag(options.detailed_build_log)),
        ("trt_profile_min_shapes", shape(options.min_batch)),
        ("trt_profile_opt_shapes", shape(options.opt_batch)),
        ("trt_profile_max_shapes", shape(options.max_batch)),
    ];
    let folder = about.engines.as_ref().map(|folder| folder.display().to_string());
    let (engines, timings) = (options.engine_cache && folder.is_some(), options.timing_cache && folder.is_some());
    all.push(("trt_engine_cache_enable", flag(engines)));
    all.push(("trt_timing_cache_enable", flag(timings)));
    if let Some(folder) = folder.filter(|_| engines || timings) {
        all.push(("trt_engine_cache_path", folder.clone()));
        all.push(("trt_timing_cache_path", folder));
        all.push(("trt_engine_cache_prefix", about.prefix.clone()));
    }
    all
}

/// Options for CUDA (`OrtCUDAProviderOptionsV2`).
pub(super) fn cuda(options: &config::providers::Cuda) -> Options {
    let extend = if options.arena_extend == config::ArenaExtend::NextPowerOfTwo {
        "kNextPowerOfTwo"
    } else {
        "kSameAsRequested"
    };
    let mut all = vec![
        ("device_id", options.device.to_string()),
        ("arena_extend_strategy", extend.into()),
        ("cudnn_conv_algo_search", options.conv_search.as_str().to_uppercase()),
        ("cudnn_conv_use_max_workspace", flag(options.conv_max_workspace)),
        ("enable_cuda_graph", flag(options.cuda_graph)),
        ("use_tf32", flag(options.tf32)),
        ("prefer_nhwc", flag(options.nhwc)),
    ];
    // If the option is left out, ONNX Runtime's default is no limit.
    if options.arena_megabytes > 0 {
        all.push(("gpu_mem_limit", bytes(options.arena_megabytes)));
    }
    all
}

/// Options for XNNPACK: its own thread pool does the work, so ONNX Runtime's pool is made small.
pub(super) fn xnnpack(options: &config::providers::Xnnpack, about: &SessionContext) -> Options {
    vec![("intra_op_num_threads", pool(options.threads, about).to_string())]
}

/// Options for OpenVINO.
pub(super) fn openvino(options: &config::providers::OpenVino, about: &SessionContext) -> Options {
    let mut all =
        vec![("device_type", options.device.clone()), ("num_of_threads", pool(options.threads, about).to_string())];
    if let Some(folder) = about.blobs.as_ref().filter(|_| options.cache) {
        all.push(("cache_dir", folder.display().to_string()));
    }
    all
}

fn pool(threads: u32, about: &SessionContext) -> usize {
    if threads == 0 { about.threads } else { threads as usize }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{Encoder, Size};

    fn subject() -> SessionContext {
        let folder = Some(PathBuf::from("/cache"));
        let (engines, blobs, prefix) = (folder.clone(), folder, "abc".to_owned());
        SessionContext { input: "image".into(), size: Size::square(96), threads: 3, engines, blobs, prefix }
    }

    fn value<'o>(options: &'o Options, key: &str) -> Option<&'o str> {
        options.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn every_key_of_tensorrt_changes_what_is_handed_over() {
        let defaults = tensorrt(&config::providers::TensorRt::default(), &subject());
        assert_eq!(value(&defaults, "trt_profile_max_shapes"), Some("image:1x3x96x96"));
        assert_eq!(value(&defaults, "trt_max_workspace_size"), Some("512000000"));
        assert_eq!(value(&defaults, "trt_engine_cache_prefix"), Some("abc"));
        // Each key of the configuration with a changed value, and the option that must follow it.
        for (set, option, becomes) in [
            ("device=2", "device_id", "2"),
            ("precision=fp16", "trt_fp16_enable", "1"),
            ("precision=int8", "trt_int8_enable", "1"),
            ("engine_cache=false", "trt_engine_cache_enable", "0"),
            ("timing_cache=false", "trt_timing_cache_enable", "0"),
            ("opt_batch=2", "trt_profile_opt_shapes", "image:2x3x96x96"),
            ("max_batch=8", "trt_profile_max_shapes", "image:8x3x96x96"),
            ("dla=true", "trt_dla_enable", "1"),
            ("dla_core=1", "trt_dla_core", "1"),
            ("builder_level=5", "trt_builder_optimization_level", "5"),
            ("workspace_megabytes=64", "trt_max_workspace_size", "64000000"),
            ("auxiliary_streams=2", "trt_auxiliary_streams", "2"),
            ("cuda_graph=true", "trt_cuda_graph_enable", "1"),
            ("dump_subgraphs=true", "trt_dump_subgraphs", "1"),
            ("detailed_build_log=true", "trt_detailed_build_log", "1"),
        ] {
            let mut sets = vec![format!("encoder.tensorrt.{set}"), "encoder.tensorrt.max_batch=8".into()];
            sets.extend((set == "dla=true").then(|| "encoder.tensorrt.precision=fp16".into()));
            let config = crate::config::loader::load(None, &sets).unwrap().encoder;
            assert_ne!(value(&defaults, option), Some(becomes), "{option}");
            assert_eq!(value(&tensorrt(&config.tensorrt, &subject()), option), Some(becomes), "{set}");
        }
        let half = config::providers::TensorRt { precision: config::Precision::Fp16, ..Default::default() };
        assert_eq!(value(&tensorrt(&half, &subject()), "trt_layer_norm_fp32_fallback"), Some("1"));
        let plain = config::providers::TensorRt { layer_norm_fp32: false, ..half };
        assert_eq!(value(&tensorrt(&plain, &subject()), "trt_layer_norm_fp32_fallback"), Some("0"));
        let nowhere = tensorrt(&plain, &SessionContext { engines: None, ..subject() });
        assert_eq!(value(&nowhere, "trt_engine_cache_enable"), Some("0"));
        assert_eq!(value(&nowhere, "trt_engine_cache_path"), None);
    }

    #[test]
    fn every_key_of_cuda_changes_what_is_handed_over() {
        let defaults = cuda(&config::providers::Cuda::default());
        assert_eq!(value(&defaults, "gpu_mem_limit"), Some("2048000000"));
        for (set, option, becomes) in [
            ("device=1", "device_id", Some("1")),
            ("arena_megabytes=512", "gpu_mem_limit", Some("512000000")),
            ("arena_megabytes=0", "gpu_mem_limit", None),
            ("arena_extend=next-power-of-two", "arena_extend_strategy", Some("kNextPowerOfTwo")),
            ("conv_search=exhaustive", "cudnn_conv_algo_search", Some("EXHAUSTIVE")),
            ("conv_search=default", "cudnn_conv_algo_search", Some("DEFAULT")),
            ("conv_max_workspace=true", "cudnn_conv_use_max_workspace", Some("1")),
            ("tf32=true", "use_tf32", Some("1")),
            ("nhwc=true", "prefer_nhwc", Some("1")),
            ("cuda_graph=true", "enable_cuda_graph", Some("1")),
        ] {
            let config = crate::config::loader::load(None, &[format!("encoder.cuda.{set}")]).unwrap().encoder;
            assert_ne!(value(&defaults, option), becomes, "{option}");
            assert_eq!(value(&cuda(&config.cuda), option), becomes, "{set}");
        }
    }

    #[test]
    fn threads_follow_the_encoders_unless_they_are_given() {
        let mut encoder = Encoder::default();
        assert_eq!(value(&xnnpack(&encoder.xnnpack, &subject()), "intra_op_num_threads"), Some("3"));
        encoder.xnnpack.threads = 5;
        assert_eq!(value(&xnnpack(&encoder.xnnpack, &subject()), "intra_op_num_threads"), Some("5"));
        let all = openvino(&encoder.openvino, &subject());
        assert_eq!(
            (value(&all, "device_type"), value(&all, "cache_dir"), value(&all, "num_of_threads")),
            (Some("CPU"), Some("/cache"), Some("3"))
        );
        encoder.openvino.cache = false;
        assert_eq!(value(&openvino(&encoder.openvino, &subject()), "cache_dir"), None);
    }
}
