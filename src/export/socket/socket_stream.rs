//! A connection of either kind, with a time limit for everything.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::stop_handle::StopHandle;

/// Between two looks whether the end was asked for.
const LOOK: Duration = Duration::from_millis(100);

/// A connection.
#[derive(Debug)]
pub(in crate::export) enum SocketStream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl SocketStream {
    /// All of `bytes` until `deadline`, or that of `end` once it is asked for.
    pub(super) fn write_all(&mut self, mut bytes: &[u8], deadline: Instant, end: &StopHandle) -> io::Result<()> {
        while !bytes.is_empty() {
            let deadline = end.deadline().map_or(deadline, |end| end.min(deadline));
            let left = time_left(deadline)?.min(LOOK);
            let count = match self {
                Self::Unix(stream) => stream.set_write_timeout(Some(left)).and_then(|()| stream.write(bytes)),
                Self::Tcp(stream) => stream.set_write_timeout(Some(left)).and_then(|()| stream.write(bytes)),
            };
            match count {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(e) if again(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// What is to be said goes out at once.
    pub(super) fn ready(&self) -> io::Result<()> {
        match self {
            Self::Unix(_) => Ok(()),
            Self::Tcp(stream) => stream.set_nodelay(true),
        }
    }

    /// The same connection once more.
    pub(in crate::export) fn again(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    /// Waits for the first byte of `bytes` as long as it takes; false where the other side ended before it.
    pub(in crate::export) fn read_first(&self, bytes: &mut [u8]) -> io::Result<bool> {
        self.set_read_timeout(None)?;
        loop {
            match self.read(&mut bytes[..1]) {
                Ok(count) => return Ok(count > 0),
                Err(e) if again(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Fills `bytes` until `deadline`.
    pub(in crate::export) fn read_whole(&self, bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            self.set_read_timeout(Some(time_left(deadline)?))?;
            match self.read(&mut bytes[filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(e) if again(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&mut &*stream).read(bytes),
            Self::Tcp(stream) => (&mut &*stream).read(bytes),
        }
    }

    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(limit),
            Self::Tcp(stream) => stream.set_read_timeout(limit),
        }
    }

    /// Nothing more is read; who waits for bytes goes on.
    pub(in crate::export) fn deaf(&self) {
        self.shut(Shutdown::Read);
    }

    /// Ends the connection, wherever it is held.
    pub(in crate::export) fn close(&self) {
        self.shut(Shutdown::Both);
    }

    fn shut(&self, how: Shutdown) {
        // Fails where the other side has ended it already.
        match self {
            Self::Unix(stream) => stream.shutdown(how).ok(),
            Self::Tcp(stream) => stream.shutdown(how).ok(),
        };
    }
}

/// Nothing yet: the deadline decides.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Time left, never nothing: a limit of nothing means none.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(ErrorKind::TimedOut, "it took too long")) } else { Ok(left) }
}
