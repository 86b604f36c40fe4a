//! The frozen encoder.
