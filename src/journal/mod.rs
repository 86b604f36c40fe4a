//! The append-only journal of a run: one JSON object a line, key `event` first, in `journal.jsonl` and, once that is
//! large, in numbered parts before it (`journal.0001.jsonl`, ...), the oldest of which go.
//!
//! No clock is read here: callers give stamps, so that a run over a file writes the same journal every time. What lies on
//! the disk may have been cut off, overwritten or edited: a line that cannot be read is left out and counted, never the end
//! of a run.
mod line;
mod parts;
mod reader;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

pub use parts::{exists, path};
pub use reader::{JournalLine, JournalScan, Tally, for_each, read};
pub use shared::SharedJournal;
pub use writer::{Found, Journal};

/// Longest line, with its end: what is longer is shortened when it is written, and left out when it is read.
pub const MAX_LINE_BYTES: usize = 1 << 20;
