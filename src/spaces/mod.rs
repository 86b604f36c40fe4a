//! From one space to the next: maps between the embeddings of two heads, and how often neighbours are still found across
//! one (docs/spaces.md). Mathematics only; the files are in `checkpoint`.
mod fit;
mod hits;
mod map;

pub use fit::{Fitted, carry, fit, fitted, leads, turn_onto};
pub use hits::{Halves, Hits, hits};
pub use map::{Kind, Map};
