//! Heads and state on disk: `safetensors` files with a checksum, written whole or not at all.
mod arrays;
mod heads;
mod maps;
mod owner;
mod parts;
mod reserve;
mod stored;
#[cfg(test)]
mod tests;

pub use arrays::{Element, Tensor, Values};
pub use heads::{HeadFile, head_path, load_head, load_own_head, newest_head, save_head, space_of};
pub use maps::{MAPS, MapFile, load_map, load_own_map, map_path, save_map};
pub use owner::Owner;
pub use parts::Contents;
pub use reserve::Reserve;
pub(crate) use stored::MAX_HEADER_BYTES;
pub use stored::{Stored, load, save};
