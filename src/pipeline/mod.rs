//! The threads of a run and the bounded channels between them. The only place that knows all parts.
//!
//! ```text
//! capture thread                inference loop (the caller's thread)        export thread
//! source, preprocess ──frames──> encoder, shot detector, head ──rows──────> files, live sinks
//!                                      │            ^
//!                                   samples     snapshots
//!                                      v            │
//!                                learner thread (niced, bounded share of a core on live sources)
//! ```
//! Buffers go round: each channel has one that brings the empty buffers back, so that the inference loop allocates
//! nothing after the first frames. A live source drops what the learner or the exporter has no room for (counted) and
//! never waits for them; a bounded source waits, so that a run over it is complete and the same every time.
mod batcher;
pub mod box_encoder;
pub mod box_service;
mod builder;
mod capture_thread;
mod checkpoint_schedule;
mod cpu_throttle;
mod encoder_stage;
pub mod export_thread;
#[cfg(test)]
mod fakes;
mod first_fault;
mod head_stage;
mod head_store;
mod inference_loop;
mod latent_encoder;
mod learner_thread;
mod progress_barrier;
mod record_template;
pub mod run_dir;
pub mod run_learner;
pub mod run_state;
pub mod run_store;
mod spare;
pub mod stats;
mod threads;
mod workers;

pub use builder::{Pipeline, PipelineBuilder};
pub use latent_encoder::LatentEncoder;
pub use learner_thread::Recording;
