//! Where built engines are cached, and under which name. An engine belongs to one model, input, precision, version of
//! TensorRT and GPU; a name without all of these would load the wrong engine (ONNX Runtime names engines by the graph
//! only).
use std::path::{Path, PathBuf};

use super::dependencies;
use crate::config::{self, Size};
use crate::encoder::runtime::{self, Runtime};
use crate::files::sha256_hex;

/// Number of hexadecimal digits in the prefix: enough to rule out collisions.
const DIGITS: usize = 16;

/// The folder of TensorRT engines; `None` if caching is off or no folder is known.
pub(super) fn engines(config: &config::Encoder) -> Option<PathBuf> {
    let wanted = config.tensorrt.engine_cache || config.tensorrt.timing_cache;
    folder(&config.tensorrt.cache_folder, "tensorrt").filter(|_| wanted)
}

/// The folder of compiled OpenVINO models.
pub(super) fn blobs(config: &config::Encoder) -> Option<PathBuf> {
    folder(&config.openvino.cache_folder, "openvino").filter(|_| config.openvino.cache)
}

fn folder(named: &str, own: &str) -> Option<PathBuf> {
    if named.is_empty() {
        return Some(runtime::cache_folder()?.join(own));
    }
    // Absolute, because ONNX Runtime would resolve it against the working directory.
    std::path::absolute(named).ok()
}

/// Prefix of the names of engines: `afterimage-` and the digits of a hash of the model's bytes, its input, the
/// precision and the options that the engine depends on, the version of TensorRT, and the GPU.
pub(super) fn prefix(runtime: &Runtime, bytes: &[u8], input: &str, size: Size, config: &config::Encoder) -> String {
    let trt = &config.tensorrt;
    let options = format!(
        "{input} {}\n{} {} {} {}\n{} {} {} {} {}",
        size.written(),
        trt.precision,
        trt.layer_norm_fp32,
        trt.dla,
        trt.dla_core,
        trt.min_batch,
        trt.opt_batch,
        trt.max_batch,
        trt.builder_level,
        trt.auxiliary_streams
    );
    let version = dependencies::tensorrt_version().unwrap_or_default();
    let text = format!(
        "{}\n{options}\nONNX Runtime {}\nTensorRT {version}\nGPU {} {}",
        sha256_hex(bytes),
        runtime.version,
        trt.device,
        gpus(Path::new("/"))
    );
    let digest = sha256_hex(text.as_bytes());
    format!("afterimage-{}", &digest[..DIGITS])
}

/// Names of the GPUs as the system below `root` (`/`) reports them: graphics cards from the driver, boards from the
/// device tree; empty if neither reports any.
pub fn gpus(root: &Path) -> String {
    let mut found = Vec::new();
    let cards = std::fs::read_dir(root.join("proc/driver/nvidia/gpus")).into_iter().flatten().flatten();
    for card in cards {
        let text = std::fs::read_to_string(card.path().join("information")).unwrap_or_default();
        let model = text.lines().find_map(|line| line.strip_prefix("Model:"));
        found.extend(model.map(|model| model.trim().to_owned()));
    }
    found.sort();
    if found.is_empty() {
        let board = std::fs::read_to_string(root.join("proc/device-tree/model")).unwrap_or_default();
        found.push(board.trim_matches(['\0', '\n']).to_owned());
    }
    found.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_prefix_follows_all_that_an_engine_belongs_to() {
        let runtime = crate::encoder::tests::runtime();
        let config = config::Encoder::default();
        let one = prefix(&runtime, b"model", "image", Size::square(96), &config);
        assert_eq!(one, prefix(&runtime, b"model", "image", Size::square(96), &config));
        assert_eq!(one.len(), "afterimage-".len() + DIGITS);
        let mut others = vec![
            prefix(&runtime, b"another", "image", Size::square(96), &config),
            prefix(&runtime, b"model", "pixels", Size::square(96), &config),
            prefix(&runtime, b"model", "image", Size::square(128), &config),
        ];
        for set in ["precision=fp16", "builder_level=5", "max_batch=2", "layer_norm_fp32=false", "device=1"] {
            let changed = config::loader::load(None, &[format!("encoder.tensorrt.{set}")]).unwrap().encoder;
            others.push(prefix(&runtime, b"model", "image", Size::square(96), &changed));
        }
        let mut newer = runtime.clone();
        newer.version = "1.99.0".into();
        others.push(prefix(&newer, b"model", "image", Size::square(96), &config));
        others.push(one);
        let count = others.len();
        others.sort();
        others.dedup();
        assert_eq!(others.len(), count, "two of them are the same");
    }

    #[test]
    fn gpus_are_named_by_driver_or_device_tree() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(gpus(root.path()), "");
        let card = root.path().join("proc/driver/nvidia/gpus/0000:01:00.0");
        std::fs::create_dir_all(root.path().join("proc/device-tree")).unwrap();
        std::fs::write(root.path().join("proc/device-tree/model"), "NVIDIA Jetson Orin Nano\0").unwrap();
        assert_eq!(gpus(root.path()), "NVIDIA Jetson Orin Nano");
        std::fs::create_dir_all(&card).unwrap();
        std::fs::write(card.join("information"), "Model: \t\t NVIDIA H100\nIRQ: 5\n").unwrap();
        assert_eq!(gpus(root.path()), "NVIDIA H100");
    }

    #[test]
    fn a_named_folder_is_made_absolute_and_none_is_kept_where_nothing_shall_be() {
        let mut config = config::Encoder::default();
        assert!(engines(&config).unwrap().ends_with("afterimage/tensorrt"));
        config.tensorrt.cache_folder = "engines".into();
        assert_eq!(engines(&config).unwrap(), std::env::current_dir().unwrap().join("engines"));
        (config.tensorrt.engine_cache, config.tensorrt.timing_cache) = (false, false);
        assert_eq!(engines(&config), None);
        assert!(blobs(&config).unwrap().ends_with("afterimage/openvino"));
        config.openvino.cache = false;
        assert_eq!(blobs(&config), None);
    }
}
