//! Logs unreadable images: the first ones as warnings, all of them with `-v`.
use crate::error::Error;

/// Number of images that are named in warnings.
const NAMED: u64 = 5;

/// Logs the `count`th unreadable image (from 1) with its error.
pub fn tell(count: u64, error: &Error) {
    if count <= NAMED {
        tracing::warn!("skipped: {}", error.chain());
        return;
    }
    if count == NAMED + 1 {
        tracing::warn!("more unreadable pictures follow; they are counted, and named with -v");
    }
    tracing::debug!("skipped: {}", error.chain());
}
