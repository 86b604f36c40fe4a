//! The learning core of afterimage: latents in, heads that won on held-out data out.
//!
//! No I/O, no clock, no encoder: the same samples give the same bits. The modules stand in reading order; each uses only
//! those above it.
pub mod error;
pub mod timestamp;
pub mod linalg;
pub mod config;
pub mod sampling;
pub mod head;
pub mod objective;
pub mod optimizer;
pub mod health;
pub mod gate;
pub mod knn;
pub mod linear_probe;
pub mod state_dict;
pub mod latent_spec;
pub mod spaces;
pub mod learner;

// For `choices!`.
extern crate self as afterimage_learn;
#[doc(hidden)]
pub use schemars;
#[doc(hidden)]
pub use serde;

pub use config::LearnerConfig;
pub use error::{Error, ErrorKind, Result};
pub use latent_spec::{FeatureSlice, LatentSpec};
pub use learner::Learner;
pub use timestamp::Timestamp;
