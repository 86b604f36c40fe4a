//! Opens files that other programs may have put there, without surprises and without blocking.
//!
//! A named pipe in place of a file would block `open` forever, a device could do anything, and a symbolic link in place
//! of a file that is *written* would redirect the write.
use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

use super::PARTIAL;

/// Attempts to create a file whose name another process keeps taking.
const ATTEMPTS: usize = 4;

/// Opens a regular file for reading; follows links.
///
/// # Errors
/// The I/O error; or the path is a named pipe, a device, a socket or a folder.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK, opening a named pipe waits for a writer.
    regular(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?)
}

/// The text of a regular file.
///
/// # Errors
/// Those of [`open_regular`], or the text is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    io::read_to_string(open_regular(path)?)
}

/// Opens or creates a regular file for reading and writing, without truncating it. Rejects a symbolic link.
///
/// # Errors
/// The I/O error; or the path is a link, a named pipe, a device, a socket or a folder.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    no_link(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
}

/// [`open_or_create`] in append mode: every write goes to the current end of the file.
///
/// # Errors
/// Those of [`open_or_create`].
pub fn open_to_append(path: &Path) -> io::Result<File> {
    no_link(path, OpenOptions::new().read(true).append(true).create(true))
}

/// [`open_or_create`] for a file that must exist.
///
/// # Errors
/// Those of [`open_or_create`], or the file does not exist.
pub fn open_to_write(path: &Path) -> io::Result<File> {
    no_link(path, OpenOptions::new().read(true).write(true))
}

/// Creates a file for reading and writing that nobody else has open or linked. Removes anything that has the name first
/// (a link itself, not its target).
///
/// # Errors
/// The I/O error.
pub fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).custom_flags(libc::O_NOFOLLOW);
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..ATTEMPTS {
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            other => return other,
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Err(last)
}

/// A new file beside `path` with an unpredictable name, `.NAME.xxxxxx.partial`. It is locked while it is open, so that
/// [`super::sweep`] can tell it from a leftover. Dropping it removes it; `persist` gives it its final name.
///
/// # Errors
/// `path` names no file, or the I/O error.
pub fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;

    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    // The permissions of any new file: everything except what the umask removes.
    let rights = fs::Permissions::from_mode(0o666);
    let file =
        Builder::new().prefix(&prefix).suffix(PARTIAL).permissions(rights).tempfile_in(super::folder_of(path))?;
    // A file system without locks offers no such protection; that is not an error.
    let _ = file.as_file().try_lock();
    Ok(file)
}

fn no_link(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let opened = options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path);
    match opened {
        Ok(file) => regular(file),
        Err(error) => Err(match fs::symlink_metadata(path) {
            Ok(found) if !found.is_file() => not_regular(found.file_type()),
            _ => error,
        }),
    }
}

fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() { Ok(file) } else { Err(not_regular(kind)) }
}

fn not_regular(kind: FileType) -> io::Error {
    let found = if kind.is_symlink() {
        "a symbolic link, which is not followed for writing"
    } else if kind.is_fifo() {
        "a named pipe, not a file"
    } else if kind.is_dir() {
        "a folder, not a file"
    } else if kind.is_socket() {
        "a socket, not a file"
    } else {
        "a device, not a file"
    };
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {found}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn nothing_but_a_regular_file_is_opened_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let _socket = UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        for (name, found) in [("pipe", "named pipe"), ("folder", "folder"), ("zero", "device")] {
            let error = open_regular(&at(name)).unwrap_err().to_string();
            assert!(error.contains(found), "{name}: {error}");
        }
        assert!(open_regular(&at("socket")).is_err());
        for (name, found) in
            [("pipe", "named pipe"), ("folder", "folder"), ("zero", "symbolic link"), ("socket", "socket")]
        {
            for open in [open_or_create, open_to_write] {
                let error = open(&at(name)).unwrap_err().to_string();
                assert!(error.contains(found), "{name}: {error}");
            }
        }
        assert_eq!(open_regular(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(open_to_write(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_link_in_place_of_a_file_that_is_written_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        assert!(open_or_create(&at("link")).is_err());
        create_new(&at("link")).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
        assert_eq!(fs::read(at("link")).unwrap(), b"new");
        // The file that is already open elsewhere is now a different one.
        let mut before = File::open(at("link")).unwrap();
        create_new(&at("link")).unwrap().write_all(b"newer").unwrap();
        assert_eq!(io::read_to_string(&mut before).unwrap(), "new");
        fs::create_dir(at("folder")).unwrap();
        assert!(create_new(&at("folder")).is_err());
    }

    #[test]
    fn a_temporary_file_has_a_new_name_each_time_and_ordinary_rights() {
        use std::os::unix::fs::MetadataExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "").unwrap();
        let (one, two) = (temporary(&path).unwrap(), temporary(&path).unwrap());
        assert_ne!(one.path(), two.path());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode();
        assert_eq!(mode(one.path()), mode(&path));
        let name = one.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(super::super::is_partial(&name) && name.starts_with(".a.txt."), "{name}");
    }
}
