//! How pictures that cannot be read are told: the first ones by name, all of them with `-v`.
use crate::error::Error;

/// So many are named in warnings.
const NAMED: u64 = 5;

/// Tells of the `count`th picture that cannot be read (from 1), and why.
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
