//! The frozen encoder: from a frame to a latent.
//!
//! `card` says what a model expects, `prepare` makes its input from a frame, `runtime` finds ONNX Runtime, `provider`
//! opens the model on the hardware asked for, `latent` makes it give what is asked of it (taps, grids), `session` runs
//! it with the `buffers` that it keeps, `gate` and `parity` say whether its latents are still those of the CPU, `placement` where its nodes run, `whole` runs a finished file as others
//! do. What can be
//! told from a file (`elf`, `needs`, `outline`) is told before the library that would choke on it sees it. Nothing here
//! learns.
mod adapt;
mod batch;
mod buffers;
mod candidates;
mod card;
mod card_text;
mod elf;
mod exposure;
mod faults;
mod first;
mod fits;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod form;
mod gate;
mod inner;
mod latent;
mod luma;
pub(crate) mod memory;
mod needs;
mod not_onnx;
mod outline;
mod parity;
mod placement;
mod prepare;
mod preset;
mod probe;
mod provider;
pub mod runtime;
mod session;
mod trust;
mod views;
mod whole;

pub use candidates::{Draft, Wish, draft};
pub use card::{Card, Channels, Fit, Kind, Layout, Reference};
pub use exposure::MAX_GAIN;
pub use latent::{LatentModel, LatentPart};
pub use luma::{LUMA_LEN, luma};
pub use parity::Parity;
pub use placement::{Placement, Share};
pub use prepare::{Background, BackgroundState, Prepare, Window};
pub use preset::PRESETS;
pub use provider::{Options, Subject, cache_of, compiled, gpus, missing_libraries, options_of};
pub use session::Encoder;
pub use views::{View, Views};
pub use whole::{Whole, float_tensors};

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]
    use super::runtime::{Runtime, load};

    /// The real ONNX Runtime, which the tests of this module need.
    pub(crate) fn runtime() -> Runtime {
        load("")
            .unwrap_or_else(|e| panic!("these tests need ONNX Runtime (run tools/fetch_onnxruntime.sh): {}", e.chain()))
    }
}
