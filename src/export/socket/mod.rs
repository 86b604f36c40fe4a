//! Sends records and embeddings through a local socket to programs on the same machine as they arrive.
//!
//! A reader receives every record from the moment it connects (`wire` has the format). No reader can stall the
//! pipeline: each has its own bounded queue. Messages that do not fit are dropped, which the reader sees from the
//! sequence numbers, and a reader that takes nothing for 5 seconds is disconnected. At the end, waiting messages are
//! sent for at most one second.
pub(in crate::export) mod listener;
pub(in crate::export) mod stop_handle;
pub(in crate::export) mod wire;
pub(in crate::export) mod subscriber;
pub(in crate::export) mod socket_stream;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::config;
use crate::error::{Error, Result};
use crate::shutdown::{self, join_by};

use listener::{Listener, RateLimitedWarning};
use socket_stream::SocketStream;
use subscriber::{QueueLimit, Sent, Subscriber};

/// The configuration key, for messages.
const KEY: &str = "stream.socket";
/// Maximum number of readers. One more replaces a reader that cannot keep up, or is disconnected.
const MAX_SUBSCRIBERS: usize = 16;
/// Maximum bytes waiting for one reader.
const MAX_QUEUE_BYTES: usize = 16 << 20;

/// Counters of the socket.
#[derive(Debug, Default)]
pub struct SocketCounts {
    /// Connected readers.
    pub readers: AtomicU64,
    /// Messages put into the queue of a reader.
    pub sent: AtomicU64,
    /// Messages dropped because a reader's queue was full.
    pub lost: AtomicU64,
}

/// An open socket with its readers.
#[derive(Debug)]
pub struct SocketPublisher {
    shared: Arc<Shared>,
    address: String,
    thread: Option<JoinHandle<()>>,
}

/// State shared by the accepting thread and the publishing thread.
#[derive(Debug)]
struct Shared {
    readers: Mutex<Vec<Subscriber>>,
    counts: Arc<SocketCounts>,
    queue: usize,
    end: AtomicBool,
    full: RateLimitedWarning,
}

impl Shared {
    fn subscribers(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SocketPublisher {
    /// Opens the socket of `config`; `None` if it names none.
    ///
    /// # Errors
    /// The address is invalid, or listening on it fails.
    pub fn open(config: &config::Stream) -> Result<Option<Self>> {
        let Some(address) = config.address().map_err(Error::config)? else { return Ok(None) };
        let door = Listener::open(&address, KEY)?;
        let address = door.address();
        let readers = Mutex::default();
        let (counts, end) = (Arc::default(), AtomicBool::new(false));
        let shared =
            Arc::new(Shared { readers, counts, queue: config.queue_records, end, full: RateLimitedWarning::default() });
        let inside = shared.clone();
        let thread = std::thread::Builder::new()
            .name("live".into())
            .spawn(move || door.serve(&inside.end, |stream| admit(stream, &inside)))
            .map_err(|e| Error::runtime("cannot start the thread of the live socket").with_source(e))?;
        tracing::info!("records go live at {address}");
        Ok(Some(Self { shared, address, thread: Some(thread) }))
    }

    /// The address it listens on.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The counters, shared with the publisher.
    pub fn counts(&self) -> &Arc<SocketCounts> {
        &self.shared.counts
    }

    /// Whether any reader is connected, so that encoding a message is worthwhile.
    pub(super) fn has_subscribers(&self) -> bool {
        !self.shared.subscribers().is_empty()
    }

    /// Sends a message encoded by `wire::write` to all readers. Never blocks.
    pub(super) fn publish(&self, message: &Arc<[u8]>) {
        let mut readers = self.shared.subscribers();
        let counts = &self.shared.counts;
        readers.retain_mut(|reader| match reader.send(message.clone()) {
            Sent::Yes => {
                counts.sent.fetch_add(1, Ordering::Relaxed);
                true
            }
            Sent::Full => {
                counts.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            Sent::Gone => false,
        });
        counts.readers.store(readers.len() as u64, Ordering::Relaxed);
    }
}

/// Admits a new reader.
fn admit(stream: SocketStream, shared: &Shared) {
    let mut readers = shared.subscribers();
    readers.retain(|reader| !reader.over());
    if readers.len() >= MAX_SUBSCRIBERS {
        let Some(at) = readers.iter().position(|reader| reader.behind) else {
            shared
                .full
                .warn(|| format!("a reader of live records is turned away: {MAX_SUBSCRIBERS} are connected already"));
            return;
        };
        shared.full.warn(|| "a reader that does not follow makes room for another".into());
        readers.remove(at).ask_to_end(Instant::now());
    }
    if matches!(stream, SocketStream::Unix(_)) {
        // Nothing is read from a subscriber.
        stream.deaf();
    }
    match Subscriber::start(stream, QueueLimit { messages: shared.queue, bytes: MAX_QUEUE_BYTES }, Arc::default()) {
        Ok(reader) => readers.push(reader),
        Err(e) => tracing::warn!("a reader of live records cannot be served: {e}"),
    }
    shared.counts.readers.store(readers.len() as u64, Ordering::Relaxed);
}

impl SocketPublisher {
    /// Stops accepting readers and lets the queues drain until `deadline`. Does not block.
    pub(super) fn request_stop(&self, deadline: Instant) {
        self.shared.end.store(true, Ordering::Relaxed);
        self.shared.subscribers().iter().for_each(|reader| reader.ask_to_end(deadline));
    }
}

impl Drop for SocketPublisher {
    fn drop(&mut self) {
        let deadline = Instant::now() + shutdown::LAST_WORDS;
        self.request_stop(deadline);
        if let Some(thread) = self.thread.take() {
            join_by(thread, deadline);
        }
        let lost = self.shared.counts.lost.load(Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("live records: {lost} were left out for readers that were too slow");
        }
        let readers = std::mem::take(&mut *self.shared.subscribers());
        // Include a reader that was admitted meanwhile.
        readers.iter().for_each(|reader| reader.ask_to_end(deadline));
        for reader in readers {
            join_by(reader.close(), deadline + listener::LOOK);
        }
    }
}

#[cfg(test)]
mod tests;
