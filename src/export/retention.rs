//! Room on the disk for exports: the oldest files of a run go where they take too much together.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::files;

/// What was removed so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Numbers of files, each with its rows and records.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Keeps the closed files of some folders below a size, all together.
///
/// Oldest means: of the lowest number in the folder that takes the most. No clock is asked, since those of boards jump.
#[derive(Debug)]
pub struct DiskRetention {
    folders: Vec<PathBuf>,
    bytes: u64,
    removed: Removed,
}

/// The files of one number, with their bytes.
#[derive(Debug, Default)]
struct Group {
    names: Vec<String>,
    bytes: u64,
}

impl DiskRetention {
    /// At most `bytes` for the closed files of `folders`; the newest of each always stay.
    pub fn new(folders: Vec<PathBuf>, bytes: u64) -> Self {
        Self { folders, bytes, removed: Removed::default() }
    }

    /// What was removed so far.
    pub fn removed(&self) -> Removed {
        self.removed
    }

    /// Removes what is too much. Cut off in between, whole numbers are left and at most one with records alone, which
    /// goes the next time.
    ///
    /// # Errors
    /// A folder cannot be read or a file not be removed.
    pub fn keep(&mut self) -> Result<()> {
        let mut kinds = Vec::new();
        for folder in self.folders.iter().filter(|folder| folder.is_dir()) {
            kinds.push((folder.as_path(), groups(folder)?));
        }
        let size = |groups: &BTreeMap<u64, Group>| groups.values().map(|group| group.bytes).sum::<u64>();
        while kinds.iter().map(|(_, groups)| size(groups)).sum::<u64>() > self.bytes {
            let largest =
                kinds.iter_mut().filter(|(_, groups)| groups.len() > 1).max_by_key(|(_, groups)| size(groups));
            let Some((folder, groups)) = largest else { break };
            let Some((number, group)) = groups.pop_first() else { break };
            remove(folder, &group)?;
            self.removed.files += 1;
            self.removed.bytes += group.bytes;
            tracing::info!(
                "{}: files {number:04} removed, {} kB, the oldest (host.disk_budget_megabytes)",
                folder.display(),
                group.bytes / 1000
            );
        }
        Ok(())
    }
}

/// Closed files by their numbers; open ones have other names.
fn groups(folder: &Path) -> Result<BTreeMap<u64, Group>> {
    let mut groups = BTreeMap::<u64, Group>::new();
    for name in files::names_in(folder)? {
        let number = name.split_once('.').and_then(|(_, end)| files::numbered(slice::from_ref(&name), end).pop());
        let Some(number) = number else { continue };
        let path = folder.join(&name);
        let size = fs::metadata(&path).map_err(|error| Error::io("cannot read", &path, error))?.len();
        let group = groups.entry(number).or_default();
        group.bytes += size;
        group.names.push(name);
    }
    Ok(groups)
}

/// Rows before records: a reader takes a number for gone without its rows.
fn remove(folder: &Path, group: &Group) -> Result<()> {
    let (records, rows): (Vec<_>, Vec<_>) = group.names.iter().partition(|name| name.ends_with(super::RECORDS));
    for name in rows.into_iter().chain(records) {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(|error| Error::io("cannot remove", &path, error))?;
    }
    files::sync_folder(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn write(folder: &Path, name: &str, bytes: usize) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(name), vec![0; bytes]).unwrap();
    }

    #[test]
    fn the_oldest_of_the_largest_kind_go_first() {
        let run = tempfile::tempdir().unwrap();
        let [embeddings, latents] = ["embeddings", "latents"].map(|name| run.path().join(name));
        for number in 3..8 {
            for (folder, bytes) in [(&embeddings, 100), (&latents, 400)] {
                write(folder, &format!("{number:04}.npy"), bytes);
                write(folder, &format!("{number:04}.jsonl"), 10);
            }
        }
        // Open files and what is not ours stay, and do not count.
        write(&embeddings, ".0008.npy.partial", 5000);
        write(&embeddings, "notes.txt", 5000);
        write(run.path(), "state.safetensors", 5000);
        let mut budget = DiskRetention::new(vec![embeddings.clone(), latents.clone(), run.path().join("grids")], 1400);
        budget.keep().unwrap();
        // 550 + 2050 bytes: three of the latents go.
        assert_eq!(budget.removed(), Removed { files: 3, bytes: 3 * 410 });
        assert_eq!(files::names_in(&latents).unwrap(), ["0006.jsonl", "0006.npy", "0007.jsonl", "0007.npy"]);
        assert_eq!(files::names_in(&embeddings).unwrap().len(), 12);
        budget.keep().unwrap();
        assert_eq!(budget.removed().files, 3);
        // The newest of each always stay.
        DiskRetention::new(vec![embeddings.clone(), latents.clone()], 0).keep().unwrap();
        assert_eq!(files::names_in(&latents).unwrap(), ["0007.jsonl", "0007.npy"]);
        assert!(run.path().join("state.safetensors").exists() && embeddings.join("notes.txt").exists());
    }
}
