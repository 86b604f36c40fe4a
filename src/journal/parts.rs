//! The files of a journal, within a size budget: the open file and the numbered parts before it.
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;

/// The open file; parts are named `journal.NNNN.jsonl`.
const OPEN: &str = "journal.jsonl";
const PREFIX: &str = "journal.";
const END: &str = "jsonl";
/// Number of parts in the budget: one part at a time is deleted to make room.
const PARTS: u64 = 8;

/// Path of the open journal file of `run`, with the newest lines.
pub fn path(run: &Path) -> PathBuf {
    run.join(OPEN)
}

/// Whether `run` has a journal.
///
/// # Errors
/// The folder cannot be read.
pub fn exists(run: &Path) -> Result<bool> {
    Ok(!all(run)?.is_empty())
}

/// Numbers of the parts of the journal of `run`, ascending.
pub(super) fn numbers(run: &Path) -> Result<Vec<u64>> {
    let names: Vec<String> =
        files::names_in(run)?.iter().filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned)).collect();
    Ok(files::numbered(&names, END))
}

/// Path of part `number`.
pub(super) fn part(run: &Path, number: u64) -> PathBuf {
    run.join(format!("{PREFIX}{}", files::numbered_name(number, END)))
}

/// All files of the journal of `run`, oldest lines first.
pub(super) fn all(run: &Path) -> Result<Vec<PathBuf>> {
    let open = path(run);
    let parts = numbers(run)?.into_iter().map(|number| part(run, number));
    Ok(parts.chain(open.symlink_metadata().is_ok().then_some(open)).collect())
}

/// Maximum total size of the journal files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget(u64);

impl Budget {
    pub(super) fn megabytes(megabytes: f64) -> Self {
        Self((megabytes * 1e6) as u64)
    }

    /// The open file becomes a part when a line would make it longer than this.
    pub(super) fn part_bytes(self) -> u64 {
        self.0 / PARTS
    }

    /// Removes the oldest parts until a full open file fits; returns how many.
    pub(super) fn keep(self, run: &Path) -> Result<u64> {
        let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        let parts: Vec<PathBuf> = numbers(run)?.into_iter().map(|number| part(run, number)).collect();
        let mut bytes: u64 = parts.iter().map(|part| size(part)).sum();
        let room = self.0 - self.part_bytes();
        let mut removed = 0;
        for part in parts {
            if bytes <= room {
                break;
            }
            bytes -= size(&part).min(bytes);
            fs::remove_file(&part).map_err(|error| Error::io("cannot remove the oldest part", &part, error))?;
            tracing::info!("{} removed, the oldest part of the journal (host.journal_megabytes)", part.display());
            removed += 1;
        }
        Ok(removed)
    }
}
