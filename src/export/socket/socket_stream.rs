//! A local or TCP connection with a time limit on every operation.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::stop_handle::StopHandle;

/// How often to check whether the end was requested.
const LOOK: Duration = Duration::from_millis(100);

/// A local or TCP connection.
#[derive(Debug)]
pub(in crate::export) enum SocketStream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl SocketStream {
    /// Writes all of `bytes` until `deadline`, or until the deadline of `end` once the end is requested.
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

    /// Sends small messages at once.
    pub(super) fn ready(&self) -> io::Result<()> {
        match self {
            Self::Unix(_) => Ok(()),
            Self::Tcp(stream) => stream.set_nodelay(true),
        }
    }

    /// Another handle to the same connection.
    pub(in crate::export) fn again(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    /// Waits without limit for the first byte of `bytes`. Returns false if the peer closed the connection first.
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

    /// Closes the reading side and wakes whoever waits for bytes.
    pub(in crate::export) fn deaf(&self) {
        self.shut(Shutdown::Read);
    }

    /// Closes the connection for all its handles.
    pub(in crate::export) fn close(&self) {
        self.shut(Shutdown::Both);
    }

    fn shut(&self, how: Shutdown) {
        // Fails if the peer has already closed the connection.
        match self {
            Self::Unix(stream) => stream.shutdown(how).ok(),
            Self::Tcp(stream) => stream.shutdown(how).ok(),
        };
    }
}

/// Whether to try again: nothing has arrived yet, and the deadline decides.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Time left, never zero, because a limit of zero means no limit.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(ErrorKind::TimedOut, "it took too long")) } else { Ok(left) }
}
