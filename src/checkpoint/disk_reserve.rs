//! Room on the disk that is kept free for what must never be lost.
use std::fs::{self, Metadata};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// Size of the blocks that `stat` counts in (POSIX `st_blocks` on Linux).
const STAT_BLOCK: u64 = 512;

/// So much is given up first; each time that does not do, twice as much.
const STEP: u64 = 1 << 14;

/// A file of zeros, `heads/.reserve`, that is given up bit by bit when the disk is full, so that a promoted head and the
/// lines of the journal about it can still be written. No more is given up than they take: what is free on a full disk
/// goes to whoever writes next.
#[derive(Debug)]
pub struct DiskReserve {
    path: PathBuf,
    bytes: u64,
}

impl DiskReserve {
    /// `bytes` to be held in `run`; nothing is held before [`DiskReserve::refill`].
    pub fn new(run: &Path, bytes: u64) -> Self {
        Self { path: run.join("heads").join(".reserve"), bytes }
    }

    /// Takes the room, also again after some was spent; does nothing when all is held.
    /// # Errors
    /// No room (what was held before is held still), or another I/O error.
    pub fn refill(&self) -> Result<()> {
        let held = fs::symlink_metadata(&self.path).map_or(0, |meta| self.held(&meta));
        if held == self.bytes {
            return Ok(());
        }
        files::create_folder(files::folder_of(&self.path))?;
        self.fill(held)
            .map_err(|error| Error::io(format!("cannot hold {} bytes in reserve in", self.bytes), &self.path, error))
    }

    /// Bytes that are really held. A file with a hole in it, or of another size than was ever written, holds nothing.
    fn held(&self, meta: &Metadata) -> u64 {
        let whole = meta.len() <= self.bytes && meta.blocks() * STAT_BLOCK >= meta.len();
        if whole { meta.len() } else { 0 }
    }

    fn fill(&self, held: u64) -> io::Result<()> {
        let mut file = files::open_or_create(&self.path)?;
        file.set_len(held)?;
        file.seek(SeekFrom::Start(held))?;
        // Written, not only sized: a file with a hole holds nothing.
        let zeros = io::Read::take(io::repeat(0), self.bytes - held);
        let filled = io::copy(&mut { zeros }, &mut file).and_then(|_| file.flush()).and_then(|()| file.sync_all());
        if filled.is_err() {
            file.set_len(held)?;
        }
        filled
    }

    /// Gives some of the room up; false when there was none left.
    fn give_up(&self, bytes: u64) -> io::Result<bool> {
        let file = match files::open_to_write(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub(bytes))?;
        Ok(length > 0)
    }

    /// Does a `write` that must not be lost: as long as the disk is full, again with more of the reserve given up.
    /// # Errors
    /// That of the last attempt, or the reserve cannot be given up.
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
