//! Room on disks and the right to write.
#![allow(unsafe_code, reason = "no safe interface to statvfs and access")]
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that this user may still write on the disk of `folder`.
pub(super) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let path = c_path(folder)?;
    // SAFETY: a statvfs is numbers only, for which all zeros are valid.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` is a C string and `found` a valid statvfs; both live through the call.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The types differ between systems.
    #[allow(clippy::unnecessary_cast, reason = "32 bits on some systems")]
    Ok((found.f_bavail as u64).saturating_mul(found.f_frsize as u64))
}

/// Whether this user may make files in `folder`; the error says why not (no such folder, permission, read-only disk).
pub(super) fn writable(folder: &Path) -> io::Result<()> {
    let path = c_path(folder)?;
    // SAFETY: `path` is a C string that lives through the call.
    match unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_room_of_a_small_disk_is_its_size() {
        let Some(disk) = crate::files::small_disk::SmallDisk::mount(256) else { return };
        assert_eq!(free_bytes(disk.path()).unwrap(), 256 * 1024);
        disk.fill();
        assert_eq!(free_bytes(disk.path()).unwrap(), 0);
    }

    #[test]
    fn what_cannot_be_written_says_why() {
        let folder = tempfile::tempdir().unwrap();
        writable(folder.path()).unwrap();
        assert!(free_bytes(folder.path()).unwrap() > 0);
        let missing = folder.path().join("missing");
        assert_eq!(writable(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(free_bytes(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(writable(Path::new("a\0b")).is_err());
    }
}
