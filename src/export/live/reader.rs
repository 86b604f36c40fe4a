//! One reader: its queue, and the thread that writes to it.
use std::io::{self, Write};
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
pub(super) enum Stream {
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

    /// Nothing is read from a reader.
    fn deaf(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Read),
            Self::Tcp(stream) => stream.set_nodelay(true),
        }
    }
}

/// A connected reader.
#[derive(Debug)]
pub(super) struct Reader {
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
    pub(super) fn start(mut stream: Stream, queue: usize) -> io::Result<Self> {
        stream.deaf()?;
        let (queue, messages) = bounded(queue);
        let ending = Arc::new(AtomicBool::new(false));
        let end = ending.clone();
        let work = move || {
            if let Err(e) = write(&mut stream, &messages, &end) {
                tracing::debug!("a reader of live records is gone: {e}");
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
pub(super) fn finish(readers: Vec<Reader>) {
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
