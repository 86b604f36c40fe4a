//! The frozen encoder: from a frame to a latent.
//!
//! `card` says what a model expects, `prepare` makes its input from a frame, `runtime` finds ONNX Runtime, `provider`
//! opens the model on the hardware asked for, `latent` makes it give what is asked of it (taps, grids), `session` runs
//! it with the `buffers` that it keeps, `gate` and `parity` say whether its latents are still those of the CPU, `placement` where its nodes run, `whole` runs a finished file as others
//! do. What can be
//! told from a file (`elf`, `needs`, `outline`) is told before the library that would choke on it sees it. Nothing here
//! learns.
mod graph_adapter;
mod batch;
mod io_binding;
mod card_draft;
mod model_card;
mod card_parser;
mod elf;
mod exposure;
mod ort_hints;
mod first_run;
mod validate;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod input_adapter;
mod parity_gate;
mod shape_probe;
mod feature_graph;
mod latent_spec;
mod luma_thumbnail;
pub(crate) mod memory_check;
mod elf_deps;
mod not_onnx;
mod onnx_signature;
mod parity;
mod node_placement;
mod preprocess;
mod preset;
mod ort_version;
mod provider;
pub mod runtime;
mod session;
mod output_check;
mod augment;
mod onnx_model;

pub use afterimage_learn::FeatureSlice;
pub use augment::{Augmentation, Augmenter};
pub use card_draft::{CardDraft, CardRequest, draft};
pub use exposure::MAX_GAIN;
pub use feature_graph::FeatureModel;
pub use luma_thumbnail::{LUMA_LEN, luma};
pub use model_card::{ChannelOrder, ModelCard, OutputKind, ReferenceModel, ResizeMode, TensorLayout};
pub use node_placement::{Placement, ProviderStats};
pub use onnx_model::{OnnxModel, float_tensors};
pub use parity::ParityReport;
pub use preprocess::{BackgroundModel, BackgroundState, CropRect, Preprocessor};
pub use preset::PRESETS;
pub use provider::{Options, SessionContext, cache_of, compiled, gpus, missing_libraries, options_of};
pub use session::Encoder;

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
