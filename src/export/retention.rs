//! Limits the disk space of exports by removing the oldest files of a run.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::files;

/// What has been removed so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Numbered files removed, each with its rows and records.
    pub files: u64,
    /// Bytes removed.
    pub bytes: u64,
}

/// Keeps the total size of the closed files in some folders below a limit.
///
/// The oldest file is the one with the lowest number in the folder that takes the most space. Timestamps are not used
/// because board clocks jump.
#[derive(Debug)]
pub struct DiskRetention {
    folders: Vec<PathBuf>,
    bytes: u64,
    removed: Removed,
}

/// The files of one number, with their size.
#[derive(Debug, Default)]
struct Group {
    names: Vec<String>,
    bytes: u64,
}

impl DiskRetention {
    /// Allows at most `bytes` for the closed files of `folders`. The newest file of each folder always stays.
    pub fn new(folders: Vec<PathBuf>, bytes: u64) -> Self {
        Self { folders, bytes, removed: Removed::default() }
    }

    /// What has been removed so far.
    pub fn removed(&self) -> Removed {
        self.removed
    }

    /// Removes files until the rest is within the limit. If interrupted, it leaves complete numbers and at most one
    /// with only its records, which the next call removes.
    ///
    /// # Errors
    /// A folder cannot be read, or a file cannot be removed.
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

/// Closed files by number. Open files have other names.
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

/// Removes the rows before the records: readers treat a number without rows as gone.
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
        // Open files and foreign files stay and do not count.
        write(&embeddings, ".0008.npy.partial", 5000);
        write(&embeddings, "notes.txt", 5000);
        write(run.path(), "state.safetensors", 5000);
        let mut budget = DiskRetention::new(vec![embeddings.clone(), latents.clone(), run.path().join("grids")], 1400);
        budget.keep().unwrap();
        // 550 + 2050 bytes: three latent files are removed.
        assert_eq!(budget.removed(), Removed { files: 3, bytes: 3 * 410 });
        assert_eq!(files::names_in(&latents).unwrap(), ["0006.jsonl", "0006.npy", "0007.jsonl", "0007.npy"]);
        assert_eq!(files::names_in(&embeddings).unwrap().len(), 12);
        budget.keep().unwrap();
        assert_eq!(budget.removed().files, 3);
        // The newest file of each folder always stays.
        DiskRetention::new(vec![embeddings.clone(), latents.clone()], 0).keep().unwrap();
        assert_eq!(files::names_in(&latents).unwrap(), ["0007.jsonl", "0007.npy"]);
        assert!(run.path().join("state.safetensors").exists() && embeddings.join("notes.txt").exists());
    }
}
