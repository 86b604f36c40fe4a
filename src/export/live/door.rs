//! The socket that readers come through.
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::reader::Stream;
use crate::config::LiveAddress;
use crate::error::{Error, Result};

/// A listening socket. A file that it made is removed with it.
#[derive(Debug)]
pub(in crate::export) enum Door {
    Unix { listener: UnixListener, path: PathBuf, inode: Option<u64> },
    Tcp { listener: TcpListener, address: SocketAddr },
}

impl Door {
    /// `key` of the configuration names the address.
    pub(in crate::export) fn open(address: &LiveAddress, key: &str) -> Result<Self> {
        match address {
            LiveAddress::Unix(path) => Self::unix(path, key),
            LiveAddress::Tcp(address) => {
                let opened = TcpListener::bind(address).and_then(|l| l.local_addr().map(|address| (l, address)));
                let (listener, address) = opened.map_err(|e| refused(key, &address.to_string(), &e))?;
                Ok(Self::Tcp { listener, address })
            }
        }
    }

    fn unix(path: &Path, key: &str) -> Result<Self> {
        let told = format!("unix:{}", path.display());
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(Error::work(format!(
                    "{key} = \"{told}\": there is something else at that path; remove it, or take another"
                )));
            }
            // Left by a program that was killed, unless somebody answers.
            if UnixStream::connect(path).is_ok() {
                return Err(refused(key, &told, &ErrorKind::AddrInUse.into()));
            }
            std::fs::remove_file(path).map_err(|e| refused(key, &told, &e))?;
        }
        let listener = UnixListener::bind(path).map_err(|e| refused(key, &told, &e))?;
        let inode = std::fs::symlink_metadata(path).map(|file| file.ino()).ok();
        Ok(Self::Unix { listener, path: path.to_owned(), inode })
    }

    /// Hands everyone who comes to `each`, until `end` is set and [`Door::wake`] called.
    pub(in crate::export) fn serve(&self, end: &AtomicBool, mut each: impl FnMut(Stream)) {
        loop {
            match self.next() {
                _ if end.load(Ordering::Relaxed) => return,
                Ok(stream) => each(stream),
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    // No file handles are left, say; that may pass.
                    tracing::debug!("nobody can be let in at {}: {e}", self.address());
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }

    fn next(&self) -> io::Result<Stream> {
        match self {
            Self::Unix { listener, .. } => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp { listener, .. } => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
        }
    }

    /// Comes as a reader, so that [`Door::serve`] looks whether to end; false where that cannot be.
    pub(in crate::export) fn wake(&self) -> bool {
        match self {
            Self::Unix { path, .. } => UnixStream::connect(path).is_ok(),
            Self::Tcp { address, .. } => TcpStream::connect(address).is_ok(),
        }
    }

    /// As it is written in the configuration.
    pub(in crate::export) fn address(&self) -> String {
        match self {
            Self::Unix { path, .. } => format!("unix:{}", path.display()),
            Self::Tcp { address, .. } => address.to_string(),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Self::Unix { path, inode, .. } = self {
            // Not one that another program has made there since.
            if std::fs::symlink_metadata(&path).map(|file| file.ino()).ok() == *inode {
                std::fs::remove_file(path).ok();
            }
        }
    }
}

fn refused(key: &str, told: &str, error: &io::Error) -> Error {
    let what = match error.kind() {
        ErrorKind::AddrInUse => "another program listens there; end it, or take another address".to_owned(),
        _ => format!("it cannot be listened there: {error}"),
    };
    Error::work(format!("{key} = \"{told}\": {what}"))
}
