//! Heads, statistics and the learner's state as named arrays and text.
mod dict;
mod format;
mod loaded;
mod tensors;
#[cfg(test)]
pub(crate) mod test_files;

pub use dict::StateDict;
pub use format::{Encoded, MAX_HEADER_BYTES, decode, encode};
pub use loaded::LoadedTensors;
pub use tensors::{Scalar, TensorData, TensorView};
