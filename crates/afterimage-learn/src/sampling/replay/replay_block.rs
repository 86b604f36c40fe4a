//! A block in the replay memory.
use crate::Timestamp;

/// Hours of a day: one stratum each, for every camera.
const HOURS: i64 = 24;
const HOUR_NS: i64 = 3600 * 1_000_000_000;

/// A block in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplayBlock {
    /// Its lot: the reservoir keeps the largest.
    pub(super) priority: u64,
    pub(super) number: u64,
    pub(super) camera: u16,
    pub(super) segment: u64,
    /// Pairs and sequences drawn from it in `turn`.
    pub(super) uses: u32,
    /// The turnover of the memory that `uses` counts in.
    pub(super) use_round: u32,
    /// Capture times, nanoseconds, rising.
    pub(super) stamps: Box<[i64]>,
    /// Where the latents lie in the arena.
    pub(super) slots: Box<[u32]>,
}

impl ReplayBlock {
    /// Its camera and the hour of the day that it begins in (UTC; a file's stamps begin at hour 0).
    pub(super) fn stratum(&self) -> u32 {
        let first = self.stamps.first().copied().unwrap_or_default();
        let hour = first.div_euclid(HOUR_NS).rem_euclid(HOURS);
        u32::from(self.camera) * HOURS as u32 + hour as u32
    }

    /// Times that it was drawn in the turnover `turn`.
    pub(super) fn uses_in(&self, turn: u32) -> u32 {
        if self.use_round == turn { self.uses } else { 0 }
    }

    /// It was drawn once more.
    pub(super) fn used(&mut self, turn: u32) {
        self.uses = self.uses_in(turn).saturating_add(1);
        self.use_round = turn;
    }

    /// Capture time of row `i`.
    pub(super) fn stamp(&self, i: usize) -> Timestamp {
        Timestamp(self.stamps.get(i).copied().unwrap_or_default())
    }
}
