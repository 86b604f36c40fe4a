//! Lets the owner of a connection stop its threads: by a deadline, and at once where they are waiting.
use std::convert::Infallible;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Requests the end of one connection.
#[derive(Debug)]
pub(in crate::export) struct StopHandle {
    by: OnceLock<Instant>,
    /// Nothing is ever sent: dropping the sender wakes whoever waits at `told`.
    held: Mutex<Option<Sender<Infallible>>>,
    told: Receiver<Infallible>,
}

impl Default for StopHandle {
    fn default() -> Self {
        let (held, told) = bounded(0);
        Self { by: OnceLock::new(), held: Mutex::new(Some(held)), told }
    }
}

impl StopHandle {
    /// Requests the end by `deadline`. Only the first call counts.
    pub(in crate::export) fn ask(&self, deadline: Instant) {
        self.by.get_or_init(|| deadline);
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// When everything must have ended; `None` if the end was not requested.
    pub(in crate::export) fn deadline(&self) -> Option<Instant> {
        self.by.get().copied()
    }

    /// Disconnected once the end is requested.
    pub(in crate::export) fn told(&self) -> &Receiver<Infallible> {
        &self.told
    }
}
