//! Names of sources.
