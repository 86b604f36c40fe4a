//! Afterimage: on-device learning for edge cameras.
//!
//! Frames in, embeddings out, and a small head that learns on the way from frames that are close in time. The modules
//! stand in reading order; each uses only those above it (`tests/layers.rs` holds it).
// The mathematics and the learner are a crate of their own, which does no I/O.
pub use afterimage_learn::{
    error, gate, head, health, knn, learner, linalg, linear_probe, objective, optimizer, sampling, spaces, state_dict,
};

// What everything stands on.
pub mod files;
pub mod shutdown;
mod onnx;
// Frames and configuration.
pub mod config;
pub mod frame;
// Where frames come from.
pub mod source;
// The frozen encoder.
pub mod encoder;
// Boxes of detectors.
pub mod detection;
// The files of a run.
pub mod checkpoint;
pub mod journal;
// What leaves, and how it is found again.
pub mod export;
pub mod search;
// The parts together.
pub mod logging;
pub mod signals;
pub mod process_stats;
pub mod latency_histogram;
pub mod metrics;
pub mod http;
pub mod host;
pub mod open_heartbeat;
pub mod pipeline;
// The command line.
pub mod cli;
pub mod commands;
// Every parser, for `fuzz/` and the tests of its corpus.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
