//! Maps between the embeddings of two heads, from one space to the next, and how often neighbours are still found
//! across a map (docs/spaces.md). Mathematics only; `checkpoint` reads and writes the files.
mod fit;
mod hit_rate;
mod name;
mod map;

pub use fit::{FittedMap, apply_map, fit, fitted, maps_exactly, procrustes_rotation};
pub use hit_rate::{HitRate, RetrievalSplit, hits};
pub use map::{MapKind, SpaceMap};
pub use name::space_of;
