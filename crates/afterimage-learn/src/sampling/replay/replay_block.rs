//! A block in the replay buffer.
use crate::Timestamp;

/// Hours of a day: one stratum per hour and camera.
const HOURS: i64 = 24;
const HOUR_NS: i64 = 3600 * 1_000_000_000;

/// A block in the replay buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplayBlock {
    /// Its random priority: the reservoir keeps the largest ones.
    pub(super) priority: u64,
    pub(super) number: u64,
    pub(super) camera: u16,
    pub(super) segment: u64,
    /// How often pairs and sequences were drawn from it in turnover `use_round`.
    pub(super) uses: u32,
    /// The turnover of the memory that `uses` refers to.
    pub(super) use_round: u32,
    /// Capture times in nanoseconds, ascending.
    pub(super) stamps: Box<[i64]>,
    /// Indices of its latents in the arena.
    pub(super) slots: Box<[u32]>,
}

impl ReplayBlock {
    /// Its camera and the hour of the day in which it begins (UTC; timestamps of a file begin at hour 0).
    pub(super) fn stratum(&self) -> u32 {
        let first = self.stamps.first().copied().unwrap_or_default();
        let hour = first.div_euclid(HOUR_NS).rem_euclid(HOURS);
        u32::from(self.camera) * HOURS as u32 + hour as u32
    }

    /// How often it was drawn in the turnover `turn`.
    pub(super) fn uses_in(&self, turn: u32) -> u32 {
        if self.use_round == turn { self.uses } else { 0 }
    }

    /// Records another draw.
    pub(super) fn used(&mut self, turn: u32) {
        self.uses = self.uses_in(turn).saturating_add(1);
        self.use_round = turn;
    }

    /// Capture time of row `i`.
    pub(super) fn stamp(&self, i: usize) -> Timestamp {
        Timestamp(self.stamps.get(i).copied().unwrap_or_default())
    }
}
