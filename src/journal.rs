//! The append-only journal of a run.
