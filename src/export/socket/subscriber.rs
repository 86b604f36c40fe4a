//! One reader: its queue, and the thread that writes to it.
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use super::socket_stream::SocketStream;
use super::stop_handle::StopHandle;

/// A reader that takes nothing for this long is disconnected.
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages waiting for a connection, bounded in number and in bytes.
#[derive(Debug, Clone)]
pub(in crate::export) struct Queue {
    messages: Sender<Arc<[u8]>>,
    bytes: Arc<AtomicUsize>,
    most_bytes: usize,
}

/// The bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(in crate::export) struct QueueLimit {
    pub(in crate::export) messages: usize,
    /// A single message is accepted at any length.
    pub(in crate::export) bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::export) enum Sent {
    Yes,
    Full,
    Gone,
}

impl Queue {
    /// Queues a message. Never blocks.
    pub(in crate::export) fn send(&self, message: Arc<[u8]>) -> Sent {
        let length = message.len();
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        let sent = if before > 0 && before.saturating_add(length) > self.most_bytes {
            Sent::Full
        } else {
            match self.messages.try_send(message) {
                Ok(()) => return Sent::Yes,
                Err(TrySendError::Full(_)) => Sent::Full,
                Err(TrySendError::Disconnected(_)) => Sent::Gone,
            }
        };
        self.bytes.fetch_sub(length, Ordering::Relaxed);
        sent
    }
}

/// A connected reader.
#[derive(Debug)]
pub(in crate::export) struct Subscriber {
    queue: Queue,
    thread: JoinHandle<()>,
    end: Arc<StopHandle>,
    /// The last message did not fit the queue.
    pub(super) behind: bool,
}

impl Subscriber {
    pub(in crate::export) fn start(
        mut stream: SocketStream,
        room: QueueLimit,
        end: Arc<StopHandle>,
    ) -> io::Result<Self> {
        stream.ready()?;
        let (messages, inbox) = bounded(room.messages);
        let queue = Queue { messages, bytes: Arc::default(), most_bytes: room.bytes };
        let (own, waiting) = (end.clone(), queue.bytes.clone());
        let work = move || {
            if let Err(e) = write(&mut stream, &inbox, &waiting, &own) {
                tracing::debug!("a reader of live records is gone: {e}");
                stream.close();
            }
        };
        let thread = std::thread::Builder::new().name("live".into()).spawn(work)?;
        Ok(Self { queue, thread, end, behind: false })
    }

    /// Queues a message. Never blocks.
    pub(super) fn send(&mut self, message: Arc<[u8]>) -> Sent {
        let sent = self.queue.send(message);
        self.behind = sent == Sent::Full;
        sent
    }

    /// The queue, where messages can be put without blocking.
    pub(in crate::export) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Whether the connection has ended, from either side.
    pub(super) fn over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Requests the end: waiting messages are written until `deadline`.
    pub(super) fn ask_to_end(&self, deadline: Instant) {
        self.end.ask(deadline);
    }

    /// Accepts no more messages. The thread ends once it has written the messages of everyone who holds the queue, or
    /// when the end is requested.
    pub(in crate::export) fn close(self) -> JoinHandle<()> {
        self.thread
    }
}

/// Writes messages until the queue is closed or the end is requested; then drains the queue until the deadline.
fn write(
    stream: &mut SocketStream,
    messages: &Receiver<Arc<[u8]>>,
    waiting: &AtomicUsize,
    end: &StopHandle,
) -> io::Result<()> {
    let mut write = |message: Arc<[u8]>| {
        let written = stream.write_all(&message, Instant::now() + PATIENCE, end);
        waiting.fetch_sub(message.len(), Ordering::Relaxed);
        written
    };
    loop {
        select! {
            recv(messages) -> message => match message {
                Ok(message) => write(message)?,
                Err(_) => return Ok(()),
            },
            recv(end.told()) -> _ => return messages.try_iter().try_for_each(write),
        }
    }
}
