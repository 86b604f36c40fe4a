//! The box server: clients send boxes of a recent frame, and each box is answered with an embedding or the reason why
//! there is none.
//!
//! Requests arrive through a dedicated socket (`box_server.listen`) or the broker (`mqtt.boxes`); docs/box-server.md
//! has the format. They wait in a bounded queue for a worker that can embed them ([`BoxServer::requests`]).
mod response;
mod connection;
mod request;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::socket::listener::{self, Listener, RateLimitedWarning};
use super::socket::socket_stream::SocketStream;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::shutdown::{self, join_by};

pub use request::{BoxRequest, FrameSelector};
pub use response::{BoxResponse, ErrorCode, ResponseSender, ResponseSink};

pub(super) use connection::{ConnectionLimit, hand_over};
pub(super) use request::MAX_BYTES;

use connection::Connection;

/// Maximum number of connections. One more replaces a connection that has long been idle, or is disconnected.
const MOST: usize = 16;
/// Requests of one connection that may wait or be in progress.
const MOST_WAITING: usize = 4;
/// The same limit for all requests through the broker together.
pub(super) const MOST_BY_BROKER: usize = 16;
/// Maximum number of waiting requests in total.
pub const REQUESTS: usize = MOST * MOST_WAITING + MOST_BY_BROKER;
/// The configuration key, for messages.
pub(crate) const KEY: &str = "box_server.listen";

/// Accepts box requests through a socket or the broker.
#[derive(Debug)]
pub struct BoxServer {
    requests: Receiver<BoxRequest>,
    sender: Sender<BoxRequest>,
    /// Closed when this value is dropped.
    _socket: Option<Socket>,
}

/// The socket, with the thread that accepts clients.
#[derive(Debug)]
struct Socket {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    lines: Mutex<Vec<Connection>>,
    sender: Sender<BoxRequest>,
    /// A client idle for this long makes room for another.
    idle: Duration,
    end: AtomicBool,
    full: RateLimitedWarning,
}

impl BoxServer {
    /// Opens what `box_server.listen` and `mqtt.boxes` configure; `None` if they configure nothing.
    ///
    /// # Errors
    /// The address is invalid, or listening on it fails.
    pub fn open(config: &Config) -> Result<Option<Self>> {
        let address = config.box_server.address(&config.stream).map_err(Error::config)?;
        if address.is_none() && !config.mqtt.boxes {
            return Ok(None);
        }
        let (sender, requests) = bounded(REQUESTS);
        let door = address.map(|address| Listener::open(&address, KEY)).transpose()?;
        let socket = door.map(|door| Socket::open(door, &config.box_server, sender.clone())).transpose()?;
        Ok(Some(Self { requests, sender, _socket: socket }))
    }

    /// The queue of incoming requests.
    pub fn requests(&self) -> Receiver<BoxRequest> {
        self.requests.clone()
    }

    /// A sender for requests from other transports.
    pub fn sender(&self) -> Sender<BoxRequest> {
        self.sender.clone()
    }
}

impl Socket {
    fn open(door: Listener, config: &config::BoxServer, sender: Sender<BoxRequest>) -> Result<Self> {
        let address = door.address();
        let (lines, end) = (Mutex::default(), AtomicBool::new(false));
        let idle = Duration::from_secs_f64(config.idle_secs.clamp(0.0, 1e6));
        let shared = Arc::new(Shared { lines, sender, idle, end, full: RateLimitedWarning::default() });
        let inside = shared.clone();
        let thread = std::thread::Builder::new()
            .name("asked".into())
            .spawn(move || door.serve(&inside.end, |stream| let_in(stream, &inside)))
            .map_err(|e| Error::runtime("cannot start the thread of the socket for boxes").with_source(e))?;
        tracing::info!("serving box embeddings on {address}");
        Ok(Self { shared, thread: Some(thread) })
    }
}

/// Admits a new client.
fn let_in(stream: SocketStream, shared: &Shared) {
    let mut lines = shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
    lines.retain(|line| !line.over());
    if lines.len() >= MOST {
        let idlest = lines.iter().enumerate().max_by_key(|(_, line)| line.silence());
        let Some((at, _)) = idlest.filter(|(_, line)| line.silence() >= shared.idle) else {
            shared.full.warn(|| format!("a detector is turned away: {MOST} are connected to {KEY} already"));
            return;
        };
        tracing::debug!("the detector that was silent longest makes room for another");
        lines.remove(at).ask_to_end(Instant::now());
    }
    match Connection::start(stream, shared.sender.clone()) {
        Ok(line) => lines.push(line),
        Err(e) => tracing::warn!("a detector cannot be served: {e}"),
    }
}

impl Drop for Socket {
    /// Stops reading requests and sends pending answers for at most one second.
    fn drop(&mut self) {
        let deadline = Instant::now() + shutdown::LAST_WORDS;
        self.shared.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            join_by(thread, deadline);
        }
        let lines = std::mem::take(&mut *self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner));
        lines.iter().for_each(|line| line.ask_to_end(deadline));
        lines.into_iter().for_each(|line| line.join(deadline + listener::LOOK));
    }
}
