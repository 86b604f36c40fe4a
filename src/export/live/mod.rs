//! Records and embeddings to programs of the same machine, as they come, through a local socket.
//!
//! A reader connects and is sent every record from then on (`message` says how they are written). None can hold the
//! pipeline: each has a bounded queue of its own; what it has no room for is left out, which it sees by the numbers of the
//! messages, and one that takes nothing for 5 seconds is hung up on.
pub(in crate::export) mod door;
pub(in crate::export) mod message;
pub(in crate::export) mod reader;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::config;
use crate::error::{Error, Result};

use door::Door;
use reader::Reader;

/// The key, for messages.
const KEY: &str = "live.socket";
/// Readers at once; more are hung up on.
const MOST: usize = 16;

/// What became of the messages.
#[derive(Debug, Default)]
pub struct Counts {
    /// Readers that are connected.
    pub readers: AtomicU64,
    /// Messages put into the queue of a reader.
    pub sent: AtomicU64,
    /// Messages that a reader's queue had no room for.
    pub lost: AtomicU64,
}

/// An open socket with its readers.
#[derive(Debug)]
pub struct Live {
    shared: Arc<Shared>,
    door: Arc<Door>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread that lets readers in and the one that publishes have in common.
#[derive(Debug)]
struct Shared {
    readers: Mutex<Vec<Reader>>,
    counts: Arc<Counts>,
    queue: usize,
    end: AtomicBool,
}

impl Shared {
    fn readers(&self) -> MutexGuard<'_, Vec<Reader>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Opens the socket of `config`; `None` where it names none.
    ///
    /// # Errors
    /// The address makes no sense, or cannot be listened at.
    pub fn open(config: &config::Live) -> Result<Option<Self>> {
        let Some(address) = config.address().map_err(Error::config)? else { return Ok(None) };
        let door = Arc::new(Door::open(&address, KEY)?);
        let readers = Mutex::default();
        let (counts, end) = (Arc::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { readers, counts, queue: config.queue_records, end });
        let (inside, own) = (shared.clone(), door.clone());
        let thread = std::thread::Builder::new()
            .name("live".into())
            .spawn(move || own.serve(&inside.end, |stream| let_in(stream, &inside)))
            .map_err(|e| Error::work("cannot start the thread of the live socket").because(e))?;
        tracing::info!("records go live at {}", door.address());
        Ok(Some(Self { shared, door, thread: Some(thread) }))
    }

    /// What became of the messages so far.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.shared.counts
    }

    /// Somebody is connected: a message is worth writing.
    pub(super) fn has_readers(&self) -> bool {
        !self.shared.readers().is_empty()
    }

    /// Sends what [`message::write`] has written to all readers; never waits.
    pub(super) fn publish(&self, message: &Arc<[u8]>) {
        let mut readers = self.shared.readers();
        let counts = &self.shared.counts;
        readers.retain(|reader| match reader.send(message.clone()) {
            reader::Sent::Yes => {
                counts.sent.fetch_add(1, Ordering::Relaxed);
                true
            }
            reader::Sent::Full => {
                counts.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            reader::Sent::Gone => false,
        });
        counts.readers.store(readers.len() as u64, Ordering::Relaxed);
    }
}

/// A reader that comes.
fn let_in(stream: reader::Stream, shared: &Shared) {
    let mut readers = shared.readers();
    readers.retain(|reader| !reader.over());
    if readers.len() >= MOST {
        tracing::warn!("a reader of live records is turned away: {MOST} are connected already");
        return;
    }
    if matches!(stream, reader::Stream::Unix(_)) {
        // Nothing is heard from a reader.
        stream.deaf();
    }
    match Reader::start(stream, shared.queue) {
        Ok(reader) => readers.push(reader),
        Err(e) => tracing::warn!("a reader of live records cannot be served: {e}"),
    }
    shared.counts.readers.store(readers.len() as u64, Ordering::Relaxed);
}

impl Drop for Live {
    /// Sends what is in the queues, for a few seconds at most, and closes.
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take().filter(|_| self.door.wake()) {
            thread.join().ok();
        }
        let readers: Vec<Reader> = std::mem::take(&mut *self.shared.readers());
        let lost = self.shared.counts.lost.load(Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("live records: {lost} were left out for readers that were too slow");
        }
        reader::finish(readers);
    }
}

#[cfg(test)]
mod tests;
