//! Heads and state on disk.
