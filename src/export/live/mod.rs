//! Records and embeddings to programs of the same machine, as they come, through a local socket.
//!
//! A reader connects and is sent every record from then on (`message` says how they are written). None can hold the
//! pipeline: each has a bounded queue of its own; what it has no room for is left out, which it sees by the numbers of the
//! messages, and one that takes nothing for 5 seconds is hung up on. At the end what waits is sent, for a second at most.
pub(in crate::export) mod door;
pub(in crate::export) mod end;
pub(in crate::export) mod message;
pub(in crate::export) mod reader;
pub(in crate::export) mod stream;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::config;
use crate::error::{Error, Result};
use crate::shutdown::{self, join_by};

use door::{Door, Seldom};
use reader::{Reader, Room, Sent};
use stream::Stream;

/// The key, for messages.
const KEY: &str = "live.socket";
/// Readers at once; one more takes the place of one that does not follow, or is hung up on.
const MOST: usize = 16;
/// What may wait for one of them.
const MOST_BYTES: usize = 16 << 20;

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
    address: String,
    thread: Option<JoinHandle<()>>,
}

/// What the thread that lets readers in and the one that publishes have in common.
#[derive(Debug)]
struct Shared {
    readers: Mutex<Vec<Reader>>,
    counts: Arc<Counts>,
    queue: usize,
    end: AtomicBool,
    full: Seldom,
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
        let door = Door::open(&address, KEY)?;
        let address = door.address();
        let readers = Mutex::default();
        let (counts, end) = (Arc::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { readers, counts, queue: config.queue_records, end, full: Seldom::default() });
        let inside = shared.clone();
        let thread = std::thread::Builder::new()
            .name("live".into())
            .spawn(move || door.serve(&inside.end, |stream| let_in(stream, &inside)))
            .map_err(|e| Error::work("cannot start the thread of the live socket").because(e))?;
        tracing::info!("records go live at {address}");
        Ok(Some(Self { shared, address, thread: Some(thread) }))
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
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

/// A reader that comes.
fn let_in(stream: Stream, shared: &Shared) {
    let mut readers = shared.readers();
    readers.retain(|reader| !reader.over());
    if readers.len() >= MOST {
        let Some(at) = readers.iter().position(|reader| reader.behind) else {
            shared.full.warn(|| format!("a reader of live records is turned away: {MOST} are connected already"));
            return;
        };
        shared.full.warn(|| "a reader that does not follow makes room for another".into());
        readers.remove(at).ask_to_end(Instant::now());
    }
    if matches!(stream, Stream::Unix(_)) {
        // Nothing is heard from a reader.
        stream.deaf();
    }
    match Reader::start(stream, Room { messages: shared.queue, bytes: MOST_BYTES }, Arc::default()) {
        Ok(reader) => readers.push(reader),
        Err(e) => tracing::warn!("a reader of live records cannot be served: {e}"),
    }
    shared.counts.readers.store(readers.len() as u64, Ordering::Relaxed);
}

impl Live {
    /// Lets nobody in any more, and has what waits written until `deadline`; waits for nothing.
    pub(super) fn ask_to_end(&self, deadline: Instant) {
        self.shared.end.store(true, Ordering::Relaxed);
        self.shared.readers().iter().for_each(|reader| reader.ask_to_end(deadline));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let deadline = Instant::now() + shutdown::LAST_WORDS;
        self.ask_to_end(deadline);
        if let Some(thread) = self.thread.take() {
            join_by(thread, deadline);
        }
        let lost = self.shared.counts.lost.load(Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("live records: {lost} were left out for readers that were too slow");
        }
        let readers = std::mem::take(&mut *self.shared.readers());
        // One that came in meanwhile, too.
        readers.iter().for_each(|reader| reader.ask_to_end(deadline));
        for reader in readers {
            join_by(reader.close(), deadline + door::LOOK);
        }
    }
}

#[cfg(test)]
mod tests;
