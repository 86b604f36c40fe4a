//! A block in the replay memory, and which one goes next.
use std::cmp::{Ordering, Reverse};

/// A block in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) priority: u64,
    pub(super) number: u64,
    pub(super) camera: u16,
    pub(super) segment: u64,
    /// Capture times, nanoseconds, rising.
    pub(super) stamps: Box<[i64]>,
    /// Where the latents lie in the arena.
    pub(super) slots: Box<[u32]>,
}

/// The heap keeps the greatest at its top: the block to go next, that is the one of least priority.
impl Ord for Stored {
    fn cmp(&self, other: &Self) -> Ordering {
        Reverse((self.priority, self.number)).cmp(&Reverse((other.priority, other.number)))
    }
}

impl PartialOrd for Stored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
