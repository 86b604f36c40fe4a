//! Free disk space and write permission.
use std::io;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

/// Bytes that this user can still write to the disk of `folder`.
pub(super) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether this user can create files in `folder`; the error says why not (no such folder, permission, read-only disk).
pub(super) fn writable(folder: &Path) -> io::Result<()> {
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_free_space_of_a_small_disk_is_its_size() {
        let Some(disk) = crate::files::small_disk::SmallDisk::mount(256) else { return };
        assert_eq!(free_bytes(disk.path()).unwrap(), 256 * 1024);
        disk.fill();
        assert_eq!(free_bytes(disk.path()).unwrap(), 0);
    }

    #[test]
    fn the_error_says_why_a_folder_is_not_writable() {
        let folder = tempfile::tempdir().unwrap();
        writable(folder.path()).unwrap();
        assert!(free_bytes(folder.path()).unwrap() > 0);
        let missing = folder.path().join("missing");
        assert_eq!(writable(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(free_bytes(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(writable(Path::new("a\0b")).is_err());
    }
}
