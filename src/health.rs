//! Label-free health.
