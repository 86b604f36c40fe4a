//! Buffers that go round between the inference loop and a worker.
use crossbeam_channel::Receiver;

/// Empty buffers that come back from a worker, and the last one that it had no room for. A live source that drops
/// what it cannot send so allocates nothing.
pub(super) struct Spare<T> {
    back: Receiver<T>,
    unsent: Option<T>,
}

impl<T: Default> Spare<T> {
    pub(super) fn new(back: Receiver<T>) -> Self {
        Self { back, unsent: None }
    }

    /// One to fill; a new one where none has come back.
    pub(super) fn take(&mut self) -> T {
        self.unsent.take().or_else(|| self.back.try_recv().ok()).unwrap_or_default()
    }

    /// Keeps one that found no room.
    pub(super) fn keep(&mut self, unsent: T) {
        self.unsent = Some(unsent);
    }
}
