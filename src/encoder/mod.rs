//! The frozen encoder: turns a frame into a latent.
//!
//! `model_card` describes what a model expects, `preprocess` turns a frame into its input, `runtime` finds ONNX
//! Runtime, and `provider` opens the model on the requested hardware. `feature_graph` adds taps and grids to the
//! graph, and `session` runs it with the fixed buffers of `io_binding`. `parity_gate` and `parity` check that the
//! latents still match those of the CPU, `node_placement` reports where each node runs, and `onnx_model` runs a
//! finished file as other programs do. Whatever a file can reveal (`elf`, `elf_deps`, `onnx_signature`) is checked
//! before a library that would crash on it reads the file. Nothing here learns.
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
