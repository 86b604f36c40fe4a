//! Detectors that ask: boxes of a recent frame, each answered with an embedding or with the reason why there is none.
//!
//! They come through a socket of their own (`live.boxes`) or the broker (`mqtt.boxes`); docs/boxes.md has the layout. The
//! requests wait in a bounded queue for whoever can embed them ([`Asked::requests`]).
mod answer;
mod line;
mod request;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::live::door::Door;
use super::live::reader::Stream;
use crate::config::{self, Config};
use crate::error::{Error, Result};

pub use answer::{Answer, Reason, Reply, Way};
pub use request::{At, Request};

pub(super) use line::hand_over;

use line::Line;

/// Connections at once; more are hung up on.
const MOST: usize = 16;
/// Requests that may wait.
const REQUESTS: usize = 64;
/// The key, for messages.
pub(crate) const KEY: &str = "live.boxes";

/// Where detectors ask.
#[derive(Debug)]
pub struct Asked {
    requests: Receiver<Request>,
    sender: Sender<Request>,
    /// Closed with this value.
    _socket: Option<Socket>,
}

/// The socket with the thread that lets detectors in.
#[derive(Debug)]
struct Socket {
    door: Arc<Door>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    lines: Mutex<Vec<Line>>,
    sender: Sender<Request>,
    queue: usize,
    end: AtomicBool,
}

impl Asked {
    /// Opens what `live.boxes` and `mqtt.boxes` ask for; `None` where they ask for nothing.
    ///
    /// # Errors
    /// The address makes no sense, or cannot be listened at.
    pub fn open(config: &Config) -> Result<Option<Self>> {
        let address = config.live.boxes_address().map_err(Error::config)?;
        if address.is_none() && !config.mqtt.boxes {
            return Ok(None);
        }
        let (sender, requests) = bounded(REQUESTS);
        let door = address.map(|address| Door::open(&address, KEY)).transpose()?;
        let socket = door.map(|door| Socket::open(door, &config.live, sender.clone())).transpose()?;
        Ok(Some(Self { requests, sender, _socket: socket }))
    }

    /// The requests, as they come.
    pub fn requests(&self) -> Receiver<Request> {
        self.requests.clone()
    }

    /// Takes requests from elsewhere.
    pub fn sender(&self) -> Sender<Request> {
        self.sender.clone()
    }
}

impl Socket {
    fn open(door: Door, config: &config::Live, sender: Sender<Request>) -> Result<Self> {
        let door = Arc::new(door);
        let (lines, end) = (Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { lines, sender, queue: config.queue_records, end });
        let (own, inside) = (door.clone(), shared.clone());
        let thread = std::thread::Builder::new()
            .name("asked".into())
            .spawn(move || own.serve(&inside.end, |stream| let_in(stream, &inside)))
            .map_err(|e| Error::work("cannot start the thread of the socket for boxes").because(e))?;
        tracing::info!("boxes are embedded for who asks at {}", door.address());
        Ok(Self { door, shared, thread: Some(thread) })
    }
}

/// A detector that comes.
fn let_in(stream: Stream, shared: &Shared) {
    let mut lines = shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
    lines.retain(|line| !line.over());
    if lines.len() >= MOST {
        tracing::warn!("a detector is turned away: {MOST} are connected to {KEY} already");
        return;
    }
    match Line::start(stream, shared.queue, shared.sender.clone()) {
        Ok(line) => lines.push(line),
        Err(e) => tracing::warn!("a detector cannot be served: {e}"),
    }
}

impl Drop for Socket {
    /// Hears no further requests; what was answered is sent, for a few seconds at most.
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take().filter(|_| self.door.wake()) {
            thread.join().ok();
        }
        let lines = std::mem::take(&mut *self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner));
        lines.into_iter().for_each(Line::end);
    }
}
