//! Afterimage: on-device learning for edge cameras.
//!
//! Frames in, embeddings out, and a small head that learns on the way from frames that are close in time. The modules
//! stand in rows; each uses only those above it or earlier in its own row (`tests/layers.rs` holds it).
// Row 0: what everything stands on.
pub mod error;
pub mod files;
pub mod shutdown;
pub mod linalg;
mod onnx;
// Row 1: frames and configuration.
pub mod config;
pub mod frame;
// Row 2: where frames come from.
pub mod source;
// Row 3: the frozen encoder.
pub mod encoder;
// Row 4: the mathematics of learning; no I/O, no clock.
pub mod pairs;
pub mod head;
pub mod boxes;
pub mod objective;
pub mod optimizer;
// Row 5: the learner and its files.
pub mod health;
pub mod judge;
pub mod knn;
pub mod linear_probe;
pub mod spaces;
pub mod checkpoint;
pub mod journal;
pub mod learner;
// Row 6: what leaves, and how it is found again.
pub mod export;
pub mod search;
// Row 7: the parts together.
pub mod telemetry;
pub mod metrics;
pub mod http;
pub mod board;
pub mod warmup;
pub mod pipeline;
// Row 8: the command line.
pub mod cli;
pub mod commands;
// Row 9: every parser, for `fuzz/` and the tests of its corpus.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
