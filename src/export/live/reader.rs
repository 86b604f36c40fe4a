//! One reader: its queue, and the thread that writes to it.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// One that takes nothing for so long is hung up on.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
pub(in crate::export) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn write_all(&mut self, mut bytes: &[u8], limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        while !bytes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let count = match self {
                Self::Unix(stream) => stream.set_write_timeout(Some(left)).and_then(|()| stream.write(bytes)),
                Self::Tcp(stream) => stream.set_write_timeout(Some(left)).and_then(|()| stream.write(bytes)),
            };
            match count {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// What is to be said goes out at once.
    fn ready(&self) -> io::Result<()> {
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

    /// Fills `bytes`; false where the other side ended before the first of them.
    pub(in crate::export) fn read_whole(&self, bytes: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < bytes.len() {
            let count = match self {
                Self::Unix(stream) => (&mut &*stream).read(&mut bytes[filled..]),
                Self::Tcp(stream) => (&mut &*stream).read(&mut bytes[filled..]),
            };
            match count {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Nothing more is read; who waits in [`Stream::read_whole`] goes on.
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

/// A connected reader.
#[derive(Debug)]
pub(in crate::export) struct Reader {
    queue: Sender<Arc<[u8]>>,
    thread: JoinHandle<()>,
    ending: Arc<AtomicBool>,
}

pub(super) enum Sent {
    Yes,
    Full,
    Gone,
}

impl Reader {
    pub(in crate::export) fn start(mut stream: Stream, queue: usize) -> io::Result<Self> {
        stream.ready()?;
        let (queue, messages) = bounded(queue);
        let ending = Arc::new(AtomicBool::new(false));
        let end = ending.clone();
        let work = move || {
            if let Err(e) = write(&mut stream, &messages, &end) {
                tracing::debug!("a reader of live records is gone: {e}");
                stream.close();
            }
        };
        let thread = std::thread::Builder::new().name("live".into()).spawn(work)?;
        Ok(Self { queue, thread, ending })
    }

    /// Puts a message into the queue; never waits.
    pub(super) fn send(&self, message: Arc<[u8]>) -> Sent {
        match self.queue.try_send(message) {
            Ok(()) => Sent::Yes,
            Err(TrySendError::Full(_)) => Sent::Full,
            Err(TrySendError::Disconnected(_)) => Sent::Gone,
        }
    }

    /// Where messages may be put without waiting.
    pub(in crate::export) fn queue(&self) -> Sender<Arc<[u8]>> {
        self.queue.clone()
    }

    /// It has hung up, or was hung up on.
    pub(super) fn over(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Writes what comes until the queue is closed; then what is in it, in all within the patience of one message.
fn write(stream: &mut Stream, messages: &Receiver<Arc<[u8]>>, ending: &AtomicBool) -> io::Result<()> {
    let mut ended: Option<Instant> = None;
    for message in messages {
        if ending.load(Ordering::Relaxed) {
            ended.get_or_insert_with(Instant::now);
        }
        let spent = ended.map_or(Duration::ZERO, |since| since.elapsed());
        stream.write_all(&message, PATIENCE.saturating_sub(spent))?;
    }
    Ok(())
}

/// Closes the queues and waits until they are written, or their readers given up.
pub(in crate::export) fn finish(readers: Vec<Reader>) {
    let threads: Vec<JoinHandle<()>> = readers
        .into_iter()
        .map(|reader| {
            reader.ending.store(true, Ordering::Relaxed);
            reader.thread
        })
        .collect();
    for thread in threads {
        thread.join().ok();
    }
}
