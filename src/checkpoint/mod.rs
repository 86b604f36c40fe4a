//! Heads and learner state on disk: checksummed `safetensors` files, written atomically.
mod disk_reserve;
mod head_checkpoint;
mod owner;
mod space_map_checkpoint;
mod tensor_file;
#[cfg(test)]
mod tests;

pub use disk_reserve::DiskReserve;
pub use head_checkpoint::{HeadCheckpoint, head_path, load_head, load_own_head, newest_head, save_head};
pub use owner::Owner;
pub use space_map_checkpoint::{MAPS, SpaceMapCheckpoint, load_map, load_own_map, map_path, save_map};
pub use tensor_file::{load, save};
