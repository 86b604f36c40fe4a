//! Logging and process figures.
