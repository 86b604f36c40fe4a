//! CUDA and TensorRT on a real GPU: the same embeddings as on the CPU, nodes on the expected provider, and cached
//! engines.
//!
//! Skipped with a message without an NVIDIA driver, or without the GPU build of ONNX Runtime and its CUDA libraries
//! (`tools/fetch_onnxruntime.sh --gpu` fetches the build, or `AFTERIMAGE_GPU_ONNXRUNTIME` names it).
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use afterimage::encoder::missing_libraries;
use common::skip::{Needs, skip};
use common::{TestDir, gpu_library, heads, rows, tree};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/mobilenetv2.onnx");
const CLIP: &str = "pattern://7?frames=300&segments=30&width=160&height=120";

/// The library, on a machine that can run `provider`.
fn with_gpu(provider: &str) -> Option<PathBuf> {
    let driver = ["/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu"]
        .iter()
        .any(|mark| Path::new(mark).exists());
    if !driver {
        skip(Needs::Gpu, &format!("no NVIDIA driver here, so {provider} was not run"));
        return None;
    }
    let library = gpu_library()?;
    let missing = missing_libraries(&library, provider);
    if !missing.is_empty() {
        skip(Needs::Gpu, &format!("{provider} needs libraries that are not here: {missing:?}"));
        return None;
    }
    Some(library)
}

/// `args` with `library`.
fn run(place: &TestDir, library: &Path, args: &[&str]) -> serde_json::Value {
    let with = |command: &mut Command| {
        command.env("ORT_DYLIB_PATH", library);
    };
    place.start_with(args, with).end().ok().json()
}

/// Embeddings of the clip on `provider` must be those of the CPU, to `least` in cosine, each.
fn agrees_with_the_cpu(provider: &str, sets: &[&str], least: f32) {
    let Some(library) = with_gpu(provider) else { return };
    let place = TestDir::new();
    let providers = format!("encoder.providers=[\"{provider}\"]");
    let cache = format!("encoder.tensorrt.cache_folder={}", place.at("engines").display());
    let sets: Vec<&str> = [providers.as_str(), &cache].iter().chain(sets).flat_map(|set| ["--set", set]).collect();
    let learn = |out: &str, sets: &[&str]| {
        let args = ["learn", "--json", "--encoder", MODEL, "--source", CLIP, "--out", out];
        let with = |command: &mut Command| {
            command.env("ORT_DYLIB_PATH", &library);
        };
        let ran = place.start_with(&[&args[..], sets].concat(), with).end().ok();
        assert!(!ran.err.contains("fixed buffers are not used"), "{}", ran.err);
        ran.json()
    };
    learn("cpu", &[]);
    let report = learn("gpu", &sets);
    assert_eq!(report["encoder"]["provider"], provider, "{report}");
    assert!(report["encoder"]["fallback"].is_null(), "{report}");
    let start = afterimage::journal::read(&place.at("gpu")).unwrap().remove(0);
    let wanted = if provider == "cuda" { "CUDAExecutionProvider" } else { "TensorrtExecutionProvider" };
    assert!(start["placement"][wanted]["nodes"].as_u64().unwrap() > 0, "{start}");
    assert!(start["parity"].is_object(), "the gate was asked: {start}");
    let (ours, theirs) = (rows(&place.at("cpu/embeddings")), rows(&place.at("gpu/embeddings")));
    assert_eq!((ours.len(), theirs.len(), heads(&place.at("cpu")).len()), (300, 300, heads(&place.at("gpu")).len()));
    for ((record, a), (_, b)) in ours.iter().zip(&theirs) {
        let cosine: f32 = a.iter().zip(b).map(|(a, b)| f32::from_bits(*a) * f32::from_bits(*b)).sum();
        assert!(cosine >= least, "frame {}: {cosine}", record.frame);
    }
}

#[test]
fn cuda_gives_the_embeddings_of_the_cpu() {
    agrees_with_the_cpu("cuda", &[], 0.9999);
}

#[test]
fn tensorrt_gives_the_embeddings_of_the_cpu() {
    agrees_with_the_cpu("tensorrt", &[], 0.9999);
    agrees_with_the_cpu("tensorrt", &["encoder.tensorrt.precision=fp16"], 0.99);
}

#[test]
fn cuda_graphs_give_the_embeddings_of_the_cpu() {
    agrees_with_the_cpu("cuda", &["encoder.cuda.cuda_graph=true"], 0.9999);
    agrees_with_the_cpu("tensorrt", &["encoder.tensorrt.cuda_graph=true"], 0.9999);
    agrees_with_the_cpu("tensorrt", &["encoder.tensorrt.cuda_graph=true", "encoder.tensorrt.precision=fp16"], 0.99);
}

#[test]
fn an_engine_is_built_once() {
    let Some(library) = with_gpu("tensorrt") else { return };
    let place = TestDir::new();
    let cache = format!("encoder.tensorrt.cache_folder={}", place.at("engines").display());
    let args =
        ["build", "--json", "--encoder", MODEL, "--set", "encoder.providers=[\"tensorrt\"]", "--set", cache.as_str()];
    let first = run(&place, &library, &args);
    assert!(first["files"].as_u64().unwrap() > 0 && first["bytes"].as_u64().unwrap() > 0, "{first}");
    let engines = |place: &TestDir| -> Vec<String> {
        tree(&place.at("engines")).into_keys().filter(|name| name.ends_with(".engine")).collect()
    };
    let before = engines(&place);
    run(&place, &library, &args);
    assert_eq!(engines(&place), before, "the same model, shapes, precision and GPU need no other engine");
    // Another precision is another engine.
    run(&place, &library, &[&args[..], &["--set", "encoder.tensorrt.precision=fp16"]].concat());
    assert!(engines(&place).len() > before.len());
}
