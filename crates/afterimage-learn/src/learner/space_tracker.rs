//! Tracks the current and earlier exported snapshots.
use std::sync::Arc;

use super::Snapshot;

/// The snapshots that a stream may still need.
#[derive(Debug, Clone)]
pub(super) struct SpaceTracker {
    /// In use from its `activate_at` frame on.
    pub(super) exported: Arc<Snapshot>,
    /// Snapshots that were handed out and may not be in use yet, oldest first; the state keeps them.
    pub(super) handed_out: Vec<Arc<Snapshot>>,
}

impl SpaceTracker {
    /// Hands out a new snapshot.
    pub(super) fn push(&mut self, snapshot: &Arc<Snapshot>) {
        self.exported = snapshot.clone();
        self.handed_out.push(snapshot.clone());
    }

    /// The snapshots that a stream resuming at `next_index` needs, oldest first: the one in use there and all later
    /// ones. A live stream needs only the newest.
    pub(super) fn from(&self, next_index: u64, live: bool) -> Vec<Arc<Snapshot>> {
        if live {
            return vec![self.exported.clone()];
        }
        let in_use = self.handed_out.iter().rposition(|s| s.activate_at <= next_index).unwrap_or(0);
        self.handed_out[in_use..].to_vec()
    }

    /// One snapshot for each promoted head that is kept, oldest first.
    pub(super) fn promoted(&self) -> Vec<Arc<Snapshot>> {
        let mut promoted: Vec<Arc<Snapshot>> = self.handed_out.iter().filter(|s| s.number > 0).cloned().collect();
        promoted.dedup_by_key(|snapshot| snapshot.number);
        promoted
    }
}
