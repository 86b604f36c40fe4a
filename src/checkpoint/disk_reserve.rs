//! Disk space reserved for writes that must not be lost.
use std::fs::{self, Metadata};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// Block size that `stat` counts in (POSIX `st_blocks` on Linux).
const STAT_BLOCK: u64 = 512;

/// The first amount to give up; it doubles on each attempt that is still not enough.
const STEP: u64 = 1 << 14;

/// A file of zeros, `heads/.reserve`, that shrinks step by step when the disk is full, so that a promoted head and the
/// journal lines about it can still be written. It gives up no more than they need: any other process could take free
/// space on a full disk.
#[derive(Debug)]
pub struct DiskReserve {
    path: PathBuf,
    bytes: u64,
}

impl DiskReserve {
    /// Reserves `bytes` in `run`. Allocates nothing before [`DiskReserve::refill`].
    pub fn new(run: &Path, bytes: u64) -> Self {
        Self { path: run.join("heads").join(".reserve"), bytes }
    }

    /// Allocates the reserve, or tops it up after some of it was spent. Does nothing when it is complete.
    /// # Errors
    /// The disk is full (the reserve keeps what it had), or another I/O error.
    pub fn refill(&self) -> Result<()> {
        let held = fs::symlink_metadata(&self.path).map_or(0, |meta| self.held(&meta));
        if held == self.bytes {
            return Ok(());
        }
        files::create_folder(files::folder_of(&self.path))?;
        self.fill(held)
            .map_err(|error| Error::io(format!("cannot hold {} bytes in reserve in", self.bytes), &self.path, error))
    }

    /// Bytes that are actually allocated: 0 for a sparse file or a file of an unexpected size.
    fn held(&self, meta: &Metadata) -> u64 {
        let whole = meta.len() <= self.bytes && meta.blocks() * STAT_BLOCK >= meta.len();
        if whole { meta.len() } else { 0 }
    }

    fn fill(&self, held: u64) -> io::Result<()> {
        let mut file = files::open_or_create(&self.path)?;
        file.set_len(held)?;
        file.seek(SeekFrom::Start(held))?;
        // Write zeros instead of only setting the length: a sparse file reserves nothing.
        let zeros = io::Read::take(io::repeat(0), self.bytes - held);
        let filled = io::copy(&mut { zeros }, &mut file).and_then(|_| file.flush()).and_then(|()| file.sync_all());
        if filled.is_err() {
            file.set_len(held)?;
        }
        filled
    }

    /// Gives up `bytes` of the reserve; false when nothing was left.
    fn give_up(&self, bytes: u64) -> io::Result<bool> {
        let file = match files::open_to_write(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub(bytes))?;
        Ok(length > 0)
    }

    /// Runs a `write` that must not be lost. While the disk is full, gives up more of the reserve and tries again.
    /// # Errors
    /// The error of the last attempt, or an error while giving up the reserve.
    pub fn spend_on<T>(&self, mut write: impl FnMut() -> Result<T>) -> Result<T> {
        let mut step = STEP;
        loop {
            match write() {
                Err(full) if full.kind() == ErrorKind::DiskFull => {
                    let given_up = self.give_up(step);
                    if !given_up.map_err(|error| Error::io("cannot give up the reserve", &self.path, error))? {
                        return Err(full);
                    }
                    step *= 2;
                }
                other => return other,
            }
        }
    }
}
