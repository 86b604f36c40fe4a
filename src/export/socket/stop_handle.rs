//! How the owner of a connection ends its threads: with a deadline, and at once where they wait.
use std::convert::Infallible;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

/// The end of one connection.
#[derive(Debug)]
pub(in crate::export) struct StopHandle {
    by: OnceLock<Instant>,
    /// Nothing is ever sent: hanging up wakes whoever waits at `told`.
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
    /// Asks for the end until `deadline`; of several calls the first counts.
    pub(in crate::export) fn ask(&self, deadline: Instant) {
        self.by.get_or_init(|| deadline);
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// When everything must be over; `None`: the end was not asked for.
    pub(in crate::export) fn deadline(&self) -> Option<Instant> {
        self.by.get().copied()
    }

    /// Hung up once the end was asked for.
    pub(in crate::export) fn told(&self) -> &Receiver<Infallible> {
        &self.told
    }
}
