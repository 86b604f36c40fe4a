//! The losses.
