//! Promoted heads on their way to the disk.
use std::collections::VecDeque;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{
    DiskReserve, HeadCheckpoint, Owner, SpaceMapCheckpoint, head_path, load_own_head, save_head, save_map,
};
use crate::error::{Error, ErrorKind, Result};
use crate::head::ScatterStats;
use crate::learner::{Snapshot, SpaceTransition};

/// `heads/` and `maps/` of a run, and what they had no room for yet.
pub(super) struct HeadStore {
    run: PathBuf,
    owner: Owner,
    /// Each with the map into its space, oldest first.
    unsaved: VecDeque<(Option<SpaceMapCheckpoint>, HeadCheckpoint)>,
}

impl HeadStore {
    pub(super) fn new(run: &Path, owner: Owner) -> Self {
        Self { run: run.to_owned(), owner, unsaved: VecDeque::new() }
    }

    /// Queues the head of `snapshot`, fitted at frame `made_at` on `scatter`, and the map into its space.
    pub(super) fn push(
        &mut self,
        snapshot: &Snapshot,
        made_at: u64,
        scatter: Option<ScatterStats>,
        transition: Option<&SpaceTransition>,
    ) {
        let head = HeadCheckpoint {
            head: (*snapshot.head).clone(),
            number: snapshot.number,
            space: snapshot.space.to_string(),
            run: self.owner.run.clone(),
            encoder_sha256: self.owner.encoder_sha256.clone(),
            card_hash: self.owner.card_hash.clone(),
            activate_at: snapshot.activate_at,
            made_at,
            scatter,
        };
        self.unsaved.push_back((transition.map(|transition| self.map(snapshot, transition)), head));
    }

    fn map(&self, to: &Snapshot, SpaceTransition { from, from_head, fitted }: &SpaceTransition) -> SpaceMapCheckpoint {
        SpaceMapCheckpoint {
            from: from.to_string(),
            from_head: *from_head,
            to: to.space.to_string(),
            to_head: to.number,
            run: self.owner.run.clone(),
            encoder_sha256: self.owner.encoder_sha256.clone(),
            card_hash: self.owner.card_hash.clone(),
            map: fitted.map.clone(),
            references: fitted.references,
            queries: fitted.queries,
            hits: fitted.hits,
            as_is: fitted.as_is,
        }
    }

    /// Number of the first head that is not on the disk.
    pub(super) fn unsaved(&self) -> Option<u64> {
        self.unsaved.front().map(|(_, head)| head.number)
    }

    /// Writes the first head that is not on the disk, after the map into its space: where a head is in use, there is the
    /// way into its space.
    ///
    /// # Errors
    /// The I/O error; the head stays queued.
    pub(super) fn save_first(&mut self, reserve: &DiskReserve) -> Result<()> {
        let Some((map, head)) = self.unsaved.front() else { return Ok(()) };
        reserve.spend_on(|| {
            map.iter().try_for_each(|map| save_map(&self.run, map))?;
            save_head(&self.run, head)
        })?;
        self.unsaved.pop_front();
        Ok(())
    }

    /// Those of `promoted` whose files are damaged or gone, each with what is wrong.
    ///
    /// # Errors
    /// A file cannot be read for another reason: nothing is known of it, so it must not be written again.
    pub(super) fn damaged(&self, promoted: Vec<Arc<Snapshot>>) -> Result<Vec<(Error, Arc<Snapshot>)>> {
        let mut damaged = Vec::new();
        for snapshot in promoted {
            let path = head_path(&self.run, snapshot.number);
            let Err(error) = load_own_head(&path, &self.owner) else { continue };
            let gone = || matches!(path.symlink_metadata(), Err(e) if e.kind() == NotFound);
            if error.kind() != ErrorKind::Damaged && !gone() {
                return Err(error);
            }
            damaged.push((error, snapshot));
        }
        Ok(damaged)
    }
}
