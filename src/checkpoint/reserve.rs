//! Room on the disk that is kept free for what must never be lost.
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::files;

/// Size of the blocks that `stat` counts in (POSIX `st_blocks` on Linux).
const STAT_BLOCK: u64 = 512;

/// A file of zeros, `heads/.reserve`, that is given up when the disk is full, so that a promoted head and the lines of
/// the journal about it can still be written.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// `bytes` to be held in `run`; nothing is held before [`Reserve::refill`].
    pub fn new(run: &Path, bytes: u64) -> Self {
        Self { path: run.join("heads").join(".reserve"), bytes }
    }

    /// Takes the room, also again after [`Reserve::release`]; does nothing when it is held.
    /// # Errors
    /// No room (nothing is held then), or another I/O error.
    pub fn refill(&self) -> Result<()> {
        if self.held() {
            return Ok(());
        }
        files::create_folder(files::folder_of(&self.path))?;
        let filled = File::create(&self.path).and_then(|mut file| {
            // Written, not only sized: a file with a hole holds nothing.
            io::copy(&mut io::Read::take(io::repeat(0), self.bytes), &mut file)?;
            file.flush()?;
            file.sync_all()
        });
        filled.map_err(|error| {
            files::remove_leftover(&self.path);
            Error::io(format!("cannot hold {} bytes in reserve in", self.bytes), &self.path, error)
        })
    }

    fn held(&self) -> bool {
        let holds = |meta: fs::Metadata| meta.len() == self.bytes && meta.blocks() * STAT_BLOCK >= self.bytes;
        fs::metadata(&self.path).is_ok_and(holds)
    }

    /// Gives the room up, for a write that must succeed now.
    /// # Errors
    /// The file cannot be removed.
    pub fn release(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("cannot release the reserve", &self.path, error))
            }
            _ => Ok(()),
        }
    }

    /// Does a `write` that must not be lost: when the disk is full, once more with the reserve released.
    /// # Errors
    /// That of the last attempt.
    pub fn spend_on<T>(&self, mut write: impl FnMut() -> Result<T>) -> Result<T> {
        match write() {
            Err(error) if error.kind() == Kind::DiskFull => {
                self.release()?;
                write()
            }
            other => other,
        }
    }
}
