//! Every parser that reads what others made, as a function of bytes: the targets of `fuzz/` (docs/reliability.md).
//!
//! A target says whether it took the bytes for what they claim to be; what it must never do is panic, hang or allocate
//! without bound. Only here for the crates of `fuzz/` and the tests of the corpus: in no build that is used.
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

/// Whether the bytes were taken for what they claim to be.
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

/// The target of this name.
pub fn target(name: &str) -> Option<Parser> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, parser)| *parser)
}

/// A file of `bytes` named `name` in a folder of this thread's own, under `TMPDIR`; the caller names each file its own way.
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
