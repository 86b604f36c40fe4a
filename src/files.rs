//! Files that are complete or absent.
