//! The socket that readers come through.
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::socket_stream::SocketStream;
use crate::config::ListenAddress;
use crate::error::{Error, Result};
use crate::files;

/// Between two looks whether to end.
pub(in crate::export) const LOOK: Duration = Duration::from_millis(100);

/// A listening socket. A file that it made is removed with it.
#[derive(Debug)]
pub(in crate::export) enum Listener {
    Unix { listener: UnixListener, path: PathBuf, inode: Option<u64> },
    Tcp { listener: TcpListener, address: SocketAddr },
}

impl Listener {
    /// `key` of the configuration names the address.
    pub(in crate::export) fn open(address: &ListenAddress, key: &str) -> Result<Self> {
        match address {
            ListenAddress::Unix(path) => Self::unix(path, key),
            ListenAddress::Tcp(address) => {
                let opened = TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    listener.local_addr().map(|address| (listener, address))
                });
                let (listener, address) = opened.map_err(|e| refused(key, &address.to_string(), &e))?;
                Ok(Self::Tcp { listener, address })
            }
        }
    }

    fn unix(path: &Path, key: &str) -> Result<Self> {
        let told = format!("unix:{}", path.display());
        // Two that start at the same moment would each remove the other's.
        let _alone = alone(files::folder_of(path));
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(Error::runtime(format!(
                    "{key} = \"{told}\": there is something else at that path; remove it, or take another"
                )));
            }
            // Left by a program that was killed, unless somebody holds it.
            if let Some(holder) = holder(path) {
                return Err(Error::runtime(format!(
                    "{key} = \"{told}\": {holder} listens there; end it, or take another address"
                )));
            }
            std::fs::remove_file(path).map_err(|e| refused(key, &told, &e))?;
        }
        let listener = UnixListener::bind(path).map_err(|e| refused(key, &told, &e))?;
        listener.set_nonblocking(true).map_err(|e| refused(key, &told, &e))?;
        let inode = std::fs::symlink_metadata(path).map(|file| file.ino()).ok();
        Ok(Self::Unix { listener, path: path.to_owned(), inode })
    }

    /// Hands everyone who comes to `each`, until `end` is set.
    pub(in crate::export) fn serve(&self, end: &AtomicBool, mut each: impl FnMut(SocketStream)) {
        while !end.load(Ordering::Relaxed) {
            if !comes(self.file(), LOOK) {
                continue;
            }
            match self.next() {
                Ok(stream) => each(stream),
                // Gone again already.
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::WouldBlock) => {}
                Err(e) => {
                    // No file handles are left, say; that may pass.
                    tracing::debug!("nobody can be let in at {}: {e}", self.address());
                    std::thread::sleep(LOOK);
                }
            }
        }
    }

    fn file(&self) -> RawFd {
        match self {
            Self::Unix { listener, .. } => listener.as_raw_fd(),
            Self::Tcp { listener, .. } => listener.as_raw_fd(),
        }
    }

    /// Who came, on a connection that waits; never waits itself.
    fn next(&self) -> io::Result<SocketStream> {
        match self {
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok(SocketStream::Unix(stream))
            }
            Self::Tcp { listener, .. } => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok(SocketStream::Tcp(stream))
            }
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

impl Drop for Listener {
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
    Error::runtime(format!("{key} = \"{told}\": {what}"))
}

/// Keeps others that start now from the folder of the socket, for a moment; where that cannot be, they are not kept.
fn alone(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    let began = Instant::now();
    while folder.try_lock().is_err() {
        if began.elapsed() > 2 * LOOK {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(folder)
}

/// Who listens at a socket; `None`: nobody does any more.
fn holder(path: &Path) -> Option<String> {
    let (path, (tell, told)) = (path.to_owned(), crossbeam_channel::bounded(1));
    // One that lets nobody in and has a full queue would hold whoever knocks.
    std::thread::spawn(move || tell.send(UnixStream::connect(path)).ok());
    match told.recv_timeout(5 * LOOK) {
        Ok(Ok(stream)) => Some(match other_side(&stream) {
            Some(number) => format!("process {number}"),
            None => "another program".to_owned(),
        }),
        Ok(Err(_)) => None,
        Err(_) => Some("another program that hangs".to_owned()),
    }
}

/// The number of the process that listens at the other side of a connection: SO_PEERCRED of unix(7).
#[allow(unsafe_code, reason = "no safe interface to the credentials of a socket")]
fn other_side(stream: &UnixStream) -> Option<i32> {
    let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&who)).ok()?;
    // SAFETY: `who` and `length` live through the call, which writes no more than `length` bytes.
    let done = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut who).cast(),
            &raw mut length,
        )
    };
    (done == 0 && who.pid > 0).then_some(who.pid)
}

/// Waits until somebody comes to the listening socket `file`, for `limit` at most.
#[allow(unsafe_code, reason = "no safe interface to poll(2)")]
fn comes(file: RawFd, limit: Duration) -> bool {
    let mut wanted = libc::pollfd { fd: file, events: libc::POLLIN, revents: 0 };
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `wanted` is one valid entry that lives through the call; a file that is closed would only be reported.
    let found = unsafe { libc::poll(&raw mut wanted, 1, millis) };
    if found < 0 {
        std::thread::sleep(limit.min(LOOK));
    }
    found > 0
}

/// A warning that strangers can cause as often as they like: once, and then at most once a minute, with their number.
#[derive(Debug, Default)]
pub(in crate::export) struct RateLimitedWarning(Mutex<(Option<Instant>, u64)>);

impl RateLimitedWarning {
    const PAUSE: Duration = Duration::from_secs(60);

    pub(in crate::export) fn warn(&self, text: impl FnOnce() -> String) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, kept_back) = &mut *held;
        if last.is_some_and(|last| last.elapsed() < Self::PAUSE) {
            *kept_back += 1;
            return;
        }
        let more = if *kept_back > 0 { format!(" (and {kept_back} times before)") } else { String::new() };
        tracing::warn!("{}{more}", text());
        (*last, *kept_back) = (Some(Instant::now()), 0);
    }
}
