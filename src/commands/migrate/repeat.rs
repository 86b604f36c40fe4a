//! Repeats an interrupted migration: finished files stay, and no other file is overwritten.
use std::fs;
use std::path::{Path, PathBuf};

use super::Migration;
use crate::error::{Error, Result};
use crate::export::{Format, RECORDS};
use crate::files;

/// Folder in `--out` for files to compare with existing ones. It is protected by the lock of `--out` and removed
/// afterwards.
const SCRATCH: &str = ".migrate";

/// The files that `job` writes at `out`: the rows, and their records if these have their own file.
fn parts(job: &Migration, out: &Path) -> Vec<PathBuf> {
    let records = (job.layout.format != Format::Parquet).then(|| out.with_extension(RECORDS));
    [Some(out.to_path_buf()), records].into_iter().flatten().collect()
}

/// Whether all files that `job` writes exist.
pub(super) fn is_whole(job: &Migration) -> bool {
    parts(job, &job.out).iter().all(|path| path.exists())
}

/// If some output of `job` already exists, repeats the job in a scratch folder with `write` and compares. Identical
/// files stay, and missing ones are moved into place.
///
/// # Errors
/// A different file exists (a usage error), or `write` fails.
pub(super) fn settle(job: &Migration, folder: &Path, write: impl Fn(&Migration) -> Result<()>) -> Result<()> {
    let there = |path: &Path| path.symlink_metadata().is_ok();
    let foreign = |path: &Path| {
        Err(Error::usage(format!(
            "{} is there already, and is not what this migration writes; choose another --out",
            path.display()
        )))
    };
    // Rows in another format under this number would share their file of records.
    let records = job.out.with_extension(RECORDS);
    if job.layout.format == Format::Parquet && there(&records) {
        return foreign(&records);
    }
    let own = parts(job, &job.out);
    if !own.iter().any(|path| there(path)) {
        return Ok(());
    }
    let scratch = Scratch::make(folder)?;
    let aside = Migration { out: scratch.0.join(job.out.file_name().unwrap_or_default()), ..job.clone() };
    write(&aside)?;
    for (made, path) in parts(job, &aside.out).iter().zip(&own) {
        if !there(path) {
            fs::rename(made, path).map_err(|e| Error::io("cannot write", path, e))?;
        } else if files::sha256_file(made)? != files::sha256_file(path)? {
            return foreign(path);
        }
    }
    tracing::info!("{} is there already, as this migration writes it", job.out.display());
    files::sync_folder(folder)
}

/// Removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn make(folder: &Path) -> Result<Self> {
        let path = folder.join(SCRATCH);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|e| Error::io("cannot remove what was left unfinished", &path, e))?;
        }
        files::create_folder(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}
