//! From one space to the next: maps between the embeddings of two heads, and how often neighbours are still found across
//! one (docs/spaces.md). Mathematics only; the files are in `checkpoint`.
mod fit;
mod hit_rate;
mod name;
mod map;

pub use fit::{FittedMap, apply_map, fit, fitted, maps_exactly, procrustes_rotation};
pub use hit_rate::{HitRate, RetrievalSplit, hits};
pub use map::{MapKind, SpaceMap};
pub use name::space_of;
