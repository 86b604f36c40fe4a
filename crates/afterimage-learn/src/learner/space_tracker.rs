//! What is exported, and what was.
use std::sync::Arc;

use super::Snapshot;

/// The snapshots that a stream may still need.
#[derive(Debug, Clone)]
pub(super) struct SpaceTracker {
    /// In use from its frame on.
    pub(super) exported: Arc<Snapshot>,
    /// Handed out and perhaps not in use yet, oldest first; the state keeps them.
    pub(super) handed_out: Vec<Arc<Snapshot>>,
}

impl SpaceTracker {
    /// Hands out another one.
    pub(super) fn push(&mut self, snapshot: &Arc<Snapshot>) {
        self.exported = snapshot.clone();
        self.handed_out.push(snapshot.clone());
    }

    /// The snapshots that a stream going on at `next_index` needs, oldest first: the one in use there, and those to come.
    /// A live stream takes the newest at once.
    pub(super) fn from(&self, next_index: u64, live: bool) -> Vec<Arc<Snapshot>> {
        if live {
            return vec![self.exported.clone()];
        }
        let in_use = self.handed_out.iter().rposition(|s| s.activate_at <= next_index).unwrap_or(0);
        self.handed_out[in_use..].to_vec()
    }

    /// A snapshot of each promoted head that is kept, oldest first.
    pub(super) fn promoted(&self) -> Vec<Arc<Snapshot>> {
        let mut promoted: Vec<Arc<Snapshot>> = self.handed_out.iter().filter(|s| s.number > 0).cloned().collect();
        promoted.dedup_by_key(|snapshot| snapshot.number);
        promoted
    }
}
