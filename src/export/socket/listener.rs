//! A listening socket, local or TCP.
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::socket_stream::SocketStream;
use crate::config::ListenAddress;
use crate::error::{Error, Result};
use crate::files;

/// How often a listener checks whether to end.
pub(in crate::export) const LOOK: Duration = Duration::from_millis(100);

/// A listening socket. Dropping it removes the socket file that it created.
#[derive(Debug)]
pub(in crate::export) enum Listener {
    Unix { listener: UnixListener, path: PathBuf, inode: Option<u64> },
    Tcp { listener: TcpListener, address: SocketAddr },
}

impl Listener {
    /// Listens at `address`; `key` names the configuration key in messages.
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
        // Two processes that start at the same moment would remove each other's socket.
        let _alone = alone(files::folder_of(path));
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(Error::runtime(format!(
                    "{key} = \"{told}\": the path exists and is not a socket; remove it, or choose another"
                )));
            }
            // Unless somebody listens, a killed program has left it behind.
            if let Some(holder) = holder(path) {
                return Err(Error::runtime(format!(
                    "{key} = \"{told}\": {holder} listens there; stop it, or choose another address"
                )));
            }
            std::fs::remove_file(path).map_err(|e| refused(key, &told, &e))?;
        }
        let listener = UnixListener::bind(path).map_err(|e| refused(key, &told, &e))?;
        listener.set_nonblocking(true).map_err(|e| refused(key, &told, &e))?;
        let inode = std::fs::symlink_metadata(path).map(|file| file.ino()).ok();
        Ok(Self::Unix { listener, path: path.to_owned(), inode })
    }

    /// Passes every client to `each`, until `end` is set.
    pub(in crate::export) fn serve(&self, end: &AtomicBool, mut each: impl FnMut(SocketStream)) {
        while !end.load(Ordering::Relaxed) {
            if !client_waits(self.socket(), LOOK) {
                continue;
            }
            match self.next() {
                Ok(stream) => each(stream),
                // The client has already left.
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::WouldBlock) => {}
                Err(e) => {
                    // No file descriptors are left, for instance; that may pass.
                    tracing::debug!("cannot accept a client on {}: {e}", self.address());
                    std::thread::sleep(LOOK);
                }
            }
        }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix { listener, .. } => listener.as_fd(),
            Self::Tcp { listener, .. } => listener.as_fd(),
        }
    }

    /// Accepts a waiting client without blocking; the returned stream blocks.
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

    /// The address as in the configuration.
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
            // Another program may have created its own there since.
            if std::fs::symlink_metadata(&path).map(|file| file.ino()).ok() == *inode {
                std::fs::remove_file(path).ok();
            }
        }
    }
}

fn refused(key: &str, told: &str, error: &io::Error) -> Error {
    let what = match error.kind() {
        ErrorKind::AddrInUse => "another program listens there; stop it, or choose another address".to_owned(),
        _ => format!("cannot listen there: {error}"),
    };
    Error::runtime(format!("{key} = \"{told}\": {what}"))
}

/// Locks the folder of the socket for a moment, against other processes that are starting; best effort.
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

/// The process that listens on a socket; `None` if there is none any more.
fn holder(path: &Path) -> Option<String> {
    let (path, (tell, told)) = (path.to_owned(), crossbeam_channel::bounded(1));
    // Connecting to a program that accepts no connections and has a full backlog would block.
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

/// The process ID at the other end of a connection: SO_PEERCRED of unix(7).
// `rustix::net::sockopt::socket_peercred` rejects the process ID 0, which a process in another namespace has.
#[allow(unsafe_code, reason = "no sound interface to the credentials of a socket")]
fn other_side(stream: &UnixStream) -> Option<i32> {
    let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&who)).ok()?;
    // SAFETY: `who` and `length` outlive the call, which writes at most `length` bytes.
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

/// Waits until a client connects to the listening `socket`, for at most `limit`.
fn client_waits(socket: BorrowedFd<'_>, limit: Duration) -> bool {
    let found = Timespec::try_from(limit)
        .map_err(|_too_long| Errno::INVAL)
        .and_then(|limit| poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], Some(&limit)));
    if found.is_err() {
        std::thread::sleep(limit.min(LOOK));
    }
    found.is_ok_and(|count| count > 0)
}

/// A warning that clients can cause at will: logged once, then at most once a minute with the number of repetitions.
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
