//! The append-only journal of a run: one JSON object per line with the key `event` first. The open file is
//! `journal.jsonl`; once it is large it becomes a numbered part (`journal.0001.jsonl`, ...), and the oldest parts are
//! deleted.
//!
//! The journal reads no clock: callers pass timestamps, so that a run over a file always writes the same journal. The
//! files may have been truncated, overwritten or edited: a line that cannot be read is skipped and counted, and never
//! ends a run.
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

/// Maximum line length with its newline. Longer lines are shortened when written, and skipped when read.
pub const MAX_LINE_BYTES: usize = 1 << 20;
