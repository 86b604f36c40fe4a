//! What of this module reads bytes of others, for [`crate::fuzzing`].
use super::{Answer, exchange};

/// The head of a request; the status of its answer.
pub(crate) fn request(head: &str) -> u16 {
    let pages = |path: &str| (path == "/health").then(|| Answer::line(200, "ok"));
    exchange::to(head, &pages).0.status
}
