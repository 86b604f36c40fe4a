//! When the inference loop asks for a checkpoint.

/// Every so many frames; later where a worker has no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CheckpointSchedule {
    /// Frames between two checkpoints; 0: none but the last.
    every: u64,
    /// First frame before which the next one is due.
    next: u64,
    /// The one that is due waits for room.
    deferred: bool,
}

impl CheckpointSchedule {
    /// From frame `first` on.
    pub(super) fn new(every: u64, first: u64) -> Self {
        Self { every, next: first + every, deferred: false }
    }

    /// Whether one is due before frame `index`.
    pub(super) fn due(&self, index: u64) -> bool {
        self.every > 0 && index >= self.next
    }

    /// It was taken before frame `index`.
    pub(super) fn taken(&mut self, index: u64) {
        (self.next, self.deferred) = (index + self.every, false);
    }

    /// It has to wait; true the first time.
    pub(super) fn defer(&mut self) -> bool {
        !std::mem::replace(&mut self.deferred, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_waits_is_counted_once_and_moves_those_after_it() {
        let mut schedule = CheckpointSchedule::new(10, 100);
        assert!(!schedule.due(109) && schedule.due(110));
        assert_eq!([schedule.defer(), schedule.defer()], [true, false]);
        assert!(schedule.due(111));
        schedule.taken(113);
        assert!(!schedule.due(122) && schedule.due(123) && schedule.defer());
        assert!(!CheckpointSchedule::new(0, 0).due(u64::MAX));
    }
}
