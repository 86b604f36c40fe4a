//! Every parser of untrusted input as a function of bytes: the targets of `fuzz/` (docs/reliability.md).
//!
//! A target returns whether it accepted the bytes. It must never panic, hang or allocate without bound. This module
//! exists only for the crates in `fuzz/` and the corpus tests; release builds do not contain it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test harness: what fails here must be seen")]
mod frames;
mod models;
mod requests;
mod rows;
mod runs;
mod seeds;
#[cfg(test)]
mod tests;
mod texts;

use std::path::{Path, PathBuf};

pub use seeds::seeds;

/// Returns whether the parser accepted the bytes.
pub type Parser = fn(&[u8]) -> bool;

/// Every parser, by name.
pub const TARGETS: [(&str, Parser); 31] = [
    ("box_request", requests::box_request),
    ("camera_buffer", frames::camera_buffer),
    ("card", models::card),
    ("config", texts::config),
    ("decoder_header", frames::decoder_header),
    ("head", runs::head),
    ("journal", runs::journal),
    ("jsonl", rows::jsonl),
    ("latents", runs::latents),
    ("library", models::library),
    ("map", runs::map),
    ("matroska", frames::matroska),
    ("merge_onnx", models::merge_onnx),
    ("mot", texts::mot),
    ("mqtt_request", requests::mqtt_request),
    ("npy", rows::npy),
    ("nut", frames::nut),
    ("onnx", models::onnx),
    ("parquet", rows::parquet),
    ("picture", frames::picture),
    ("piped_pictures", frames::piped_pictures),
    ("ppm", frames::ppm),
    ("proposed_card", models::proposed_card),
    ("ring", requests::ring),
    ("run_json", runs::run_json),
    ("safetensors", rows::safetensors),
    ("state", runs::state),
    ("stdin_cutter", frames::stdin_cutter),
    ("uri", texts::uri),
    ("video_kind", frames::video_kind),
    ("words", texts::words),
];

/// The target with this name.
pub fn target(name: &str) -> Option<Parser> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, parser)| *parser)
}

/// Writes `bytes` to a file named `name` in a folder of this thread under `TMPDIR`. Each caller uses its own file
/// names.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The folder of this thread.
fn folder() -> PathBuf {
    let thread = format!("{:?}", std::thread::current().id()).replace(|c: char| !c.is_ascii_alphanumeric(), "");
    std::env::temp_dir().join(format!("afterimage-fuzz-{}-{thread}", std::process::id()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
