//! One writer per folder or file: the kernel releases the locks of a process however it ends.
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use crate::error::{Error, Result};

/// Keeps other processes from writing to a folder while it lives; readers need no lock. It uses `flock` on the folder
/// itself, without a lock file: this works on a full disk, and a copy of the folder is not locked.
///
/// On drop it removes the folders that it created and that are still empty: a failed start leaves nothing behind.
#[derive(Debug)]
pub struct FolderLock {
    folder: PathBuf,
    /// The folders that this lock created, outermost last.
    created: Vec<PathBuf>,
    /// Holds the lock while it is open.
    _file: File,
}

impl FolderLock {
    /// Creates `folder` if it is missing, and locks it.
    ///
    /// # Errors
    /// Another process holds the lock (the message gives its process id), or an I/O error.
    pub fn take(folder: &Path) -> Result<Self> {
        let missing = folder.ancestors().filter(|path| !path.as_os_str().is_empty() && !path.exists());
        let created: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        super::create_folder(folder)?;
        let file = File::open(folder).map_err(|error| Error::io("cannot open the folder", folder, error))?;
        lock(&file, folder)?;
        super::sweep(folder);
        Ok(Self { folder: folder.to_owned(), created, _file: file })
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        if self.created.is_empty() {
            return;
        }
        // Removes only empty folders; the system refuses the others.
        let inner = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        inner.chain(self.created.iter().cloned()).for_each(|path| drop(fs::remove_dir(path)));
    }
}

/// Locks `file`, located at `path`, until it and its duplicates are closed or the process ends.
///
/// # Errors
/// Another process, or another open file of this one, holds the lock. The message names the process if the kernel
/// reports it.
pub fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let who = holder(file).map_or_else(
                || "another process (its number cannot be seen from here)".to_owned(),
                |number| format!("process {number}"),
            );
            Err(Error::runtime(format!(
                "{} is being written by {who}; only one process may write at a time: wait until it ends, stop it, or choose \
                 another path",
                path.display()
            )))
        }
        Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
            tracing::warn!(
                "{} lies on a file system without locks: make sure that only one process writes to it",
                path.display()
            );
            Ok(())
        }
        Err(TryLockError::Error(error)) => Err(Error::io("cannot lock", path, error)),
    }
}

/// The process that holds a lock on `file`, from `/proc/locks` (proc(5)).
fn holder(file: &File) -> Option<u32> {
    let meta = file.metadata().ok()?;
    let (device, inode) = (meta.dev(), meta.ino());
    let place = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    // 1: FLOCK  ADVISORY  WRITE 25738 fe:00:10092650 0 EOF
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == place)?;
        (words.contains(&"FLOCK") && !words.contains(&"->")).then(|| words.get(at.checked_sub(1)?)?.parse().ok())?
    };
    locks.lines().find_map(of).filter(|number| *number > 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_refused_with_the_number_of_the_first() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("run");
        let first = FolderLock::take(&folder).unwrap();
        fs::write(folder.join("run.json"), "{}").unwrap();
        let refused = FolderLock::take(&folder).unwrap_err().chain();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        // Readers can still read.
        assert_eq!(fs::read(folder.join("run.json")).unwrap(), b"{}");
        drop(first);
        drop(FolderLock::take(&folder).unwrap());
        assert!(folder.join("run.json").exists());
    }

    #[test]
    fn folders_that_stayed_empty_go_and_no_others() {
        let place = tempfile::tempdir().unwrap();
        let outer = place.path().join("a");
        let folder = outer.join("b/c");
        let lock = FolderLock::take(&folder).unwrap();
        fs::create_dir(folder.join("embeddings")).unwrap();
        drop(lock);
        assert!(!outer.exists());
        fs::create_dir_all(&folder).unwrap();
        drop(FolderLock::take(&folder).unwrap());
        assert!(folder.exists(), "it was there before");
    }

    #[test]
    fn leftovers_go_when_the_next_writer_comes_and_open_ones_stay() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state.safetensors");
        let (open, leftover) = (super::super::temporary(&state).unwrap(), place.path().join(".state.Qx.partial"));
        fs::write(&leftover, "half").unwrap();
        fs::write(place.path().join("mine.partial"), "").unwrap();
        let _lock = FolderLock::take(place.path()).unwrap();
        assert!(open.path().exists() && !leftover.exists() && place.path().join("mine.partial").exists());
    }
}
