//! Files that are either complete or absent.
//!
//! A file is written to a temporary file in the same folder, synced and renamed, and then the folder is synced: after a
//! crash at any moment there is the old file or the new one, never half a file. Other programs may have put anything
//! into a folder, so `open` reads and writes regular files only, and `lock` allows one writing process.
mod lock;
mod open;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

pub use lock::{FolderLock, lock};
pub use open::{create_new, open_or_create, open_regular, open_to_append, open_to_write, read_text, temporary};

/// Extension of files that are not complete yet; their names begin with a dot.
const PARTIAL: &str = ".partial";

/// Writes with `write` to a temporary file beside `path`, syncs it, renames it to `path`, and syncs the folder.
///
/// If any step fails, the temporary file is removed and `path` is unchanged (if only the last sync fails, `path` is the
/// new file, but a power cut may bring the old one back).
/// # Errors
/// The I/O error with the path; its kind is [`crate::error::ErrorKind::DiskFull`] when there is no room.
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    replace_checked(path, write, |_| Ok(()))
}

/// [`replace`], but `check` sees the complete temporary file first and may reject it.
/// # Errors
/// Those of [`replace`]; that of `check`, after which the temporary file is gone and `path` is unchanged.
pub fn replace_checked(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let failed = |error| Error::io("cannot write", path, error);
    let temporary = temporary(path).map_err(failed)?;
    write_synced(temporary.as_file(), write).map_err(failed)?;
    check(temporary.path())?;
    temporary.persist(path).map_err(|refused| failed(refused.error))?;
    sync_folder(folder_of(path))
}

fn write_synced(file: &File, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(file.try_clone()?);
    write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// The name of a row file while it grows: `.NAME.partial` in the same folder. Open it with [`create_new`]. Files that
/// are written in one go have [`temporary`] names.
///
/// # Errors
/// `path` names no file.
pub fn partial(path: &Path) -> Result<PathBuf> {
    let name =
        path.file_name().ok_or_else(|| Error::runtime(format!("cannot write {}: names no file", path.display())))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(PARTIAL);
    Ok(path.with_file_name(hidden))
}

/// True for the name of an unfinished file that an interrupted run left behind.
pub fn is_partial(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(PARTIAL)
}

/// Removes a file if it exists; logs a failure.
pub fn remove_leftover(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove the unfinished file {}: {error}", path.display());
    }
}

/// Removes the temporary files in `folder` that an interrupted process left behind, but not those that a process has
/// open. A file that cannot be removed does no harm and is only logged.
pub fn sweep(folder: &Path) {
    for name in names_in(folder).unwrap_or_default().iter().filter(|name| is_partial(name)) {
        let path = folder.join(name);
        if open_regular(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            remove_leftover(&path);
        }
    }
}

/// The folder that contains `path`.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the names in `folder` durable: only then is a rename on the disk.
/// # Errors
/// The I/O error with the path.
pub fn sync_folder(folder: &Path) -> Result<()> {
    let sync = File::open(folder).and_then(|open| open.sync_all());
    sync.map_err(|error| Error::io("cannot sync the folder", folder, error))
}

/// Creates `path` and its parent folders if they are missing.
/// # Errors
/// The I/O error with the path.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io("cannot create the folder", path, error))
}

/// The UTF-8 names in `folder`, sorted; empty if the folder is missing.
/// # Errors
/// The folder exists but cannot be read.
pub fn names_in(folder: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io("cannot read the folder", folder, error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The numbers of the files `NNNN.END` among `names`, ascending. Ignores names with fewer than four digits.
pub fn numbered(names: &[String], end: &str) -> Vec<u64> {
    let number = |name: &String| {
        let digits = name.strip_suffix(end)?.strip_suffix('.')?;
        let number = digits.parse().ok()?;
        (numbered_name(number, end) == *name).then_some(number)
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// `NNNN.END`, with at least four digits.
pub fn numbered_name(number: u64, end: &str) -> String {
    format!("{number:04}.{end}")
}

/// `bytes` as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of `bytes` (FIPS 180-4) as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file, as [`sha256_hex`] but read in chunks.
/// # Errors
/// The I/O error with the path.
pub fn sha256_file(path: &Path) -> Result<String> {
    let failed = |error| Error::io("cannot read", path, error);
    let mut file = open_regular(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(n) => hash.update(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Reads a whole file of at most `max_bytes`; rejects a longer one before reading it.
/// # Errors
/// The I/O error with the path, or the file is too long.
pub fn read_bounded(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::io("cannot read", path, error);
    let file = open_regular(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let too_long = |size: u64| {
        Error::runtime(format!("cannot read {}: it has {size} bytes or more, {max_bytes} are allowed", path.display()))
    };
    if size > max_bytes {
        return Err(too_long(size));
    }
    // The reported size may be wrong (files in /proc) or grow meanwhile, so the limit applies to what is actually read.
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_long(bytes.len() as u64));
    }
    Ok(bytes)
}

/// A disk of a few kilobytes, to test full disks.
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
pub(crate) mod small_disk {
    use std::process::Command;

    use super::*;

    pub(crate) struct SmallDisk(tempfile::TempDir);

    impl SmallDisk {
        /// Mounts a tmpfs of `kilobytes`; prints a message and returns `None` if mounting is not allowed.
        pub(crate) fn mount(kilobytes: u32) -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let size = format!("size={kilobytes}k");
            let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
            if mount.is_ok_and(|output| output.status.success()) {
                return Some(Self(folder));
            }
            println!("skipped: a small tmpfs cannot be mounted here (needs root)");
            None
        }
        pub(crate) fn path(&self) -> &Path {
            self.0.path()
        }
        /// Fills the disk with a file; remove it to free the disk again.
        pub(crate) fn fill(&self) -> PathBuf {
            let path = self.path().join("ballast");
            let full = io::copy(&mut io::repeat(1), &mut File::create(&path).unwrap()).unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            path
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_an_error_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        replace(&path, |out| out.write_all(b"one")).unwrap();
        replace(&path, |out| out.write_all(b"two")).unwrap();
        let error = replace(&path, |out| {
            out.write_all(b"three")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(error.unwrap_err().kind(), crate::error::ErrorKind::DiskFull);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names_in(folder.path()).unwrap(), ["a.txt"]);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = replace(&folder.path().join("no/such/file"), |_| Ok(())).unwrap_err().chain();
        assert!(error.contains("no/such/file") && error.contains("No such file"), "{error}");
        assert!(replace(Path::new("/"), |_| Ok(())).unwrap_err().chain().contains("names no file"));
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, b"abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(b"abc"), expected);
        assert_eq!(sha256_file(&path).unwrap(), expected);
    }

    #[test]
    fn reading_is_bounded_also_where_no_size_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, b"abc").unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"abc");
        assert!(read_bounded(&path, 2).unwrap_err().chain().contains("3 bytes"));
        assert!(read_bounded(Path::new("/proc/self/maps"), 1000).unwrap_err().chain().contains("1001 bytes"));
        assert!(read_bounded(Path::new("/dev/zero"), 1000).unwrap_err().chain().contains("it is a device"));
    }

    #[test]
    fn numbers_are_read_from_our_names_only() {
        let names = ["0002.npy", "0001.npy", "12345.npy", "1.npy", "00012.npy", "0003.jsonl", "x.npy", "+001.npy"];
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(numbered(&names, "npy"), [1, 2, 12345]);
        assert!(is_partial(&partial(Path::new("x/0001.npy")).unwrap().file_name().unwrap().to_string_lossy()));
    }
}
