//! One client connection of the box server. Requests and answers have a thread each, so that neither waits for the
//! other.
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use super::MOST_WAITING;
use super::request::{BoxRequest, MAX_BYTES};
use super::response::{BoxResponse, ErrorCode, ResponseSender, ResponseSink};
use crate::error::Result;
use crate::export::socket::socket_stream::SocketStream;
use crate::export::socket::stop_handle::StopHandle;
use crate::export::socket::subscriber::{Queue, QueueLimit, Subscriber};
use crate::export::socket::wire::LENGTH_BYTES;
use crate::shutdown::join_by;

/// Limit on the answers waiting for a client: enough for a few full requests.
const ANSWERS: QueueLimit = QueueLimit { messages: 2048, bytes: 4 << 20 };
/// A request must arrive completely within this time once it has begun.
const WHOLE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Connection {
    stream: Arc<SocketStream>,
    thread: JoinHandle<()>,
    end: Arc<StopHandle>,
    heard: Arc<LastRequest>,
}

/// When the client last sent something.
#[derive(Debug)]
struct LastRequest {
    began: Instant,
    last_millis: AtomicU64,
}

impl LastRequest {
    fn now(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last_millis.load(Ordering::Relaxed)))
    }
}

impl Connection {
    pub(super) fn start(stream: SocketStream, requests: Sender<BoxRequest>) -> io::Result<Self> {
        let shared = Arc::new(stream.again()?);
        let end = Arc::new(StopHandle::default());
        let answers = Subscriber::start(stream, ANSWERS, end.clone())?;
        let heard = Arc::new(LastRequest { began: Instant::now(), last_millis: AtomicU64::new(0) });
        let own = RequestReader {
            stream: shared.clone(),
            end: end.clone(),
            heard: heard.clone(),
            places: ConnectionLimit::new(MOST_WAITING),
        };
        let thread = std::thread::Builder::new().name("asked".into()).spawn(move || {
            if let Err(e) = own.hear(&answers.queue(), &requests) {
                tracing::debug!("a detector is gone: {e}");
            }
            // Let the client read the answers to its requests. A requested end stops this too.
            answers.close().join().ok();
            own.stream.close();
        })?;
        Ok(Self { stream: shared, thread, end, heard })
    }

    /// Whether the connection has ended, from either side.
    pub(super) fn over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Time since the last request, or since the connection was made.
    pub(super) fn silence(&self) -> Duration {
        self.heard.silence()
    }

    /// Stops reading requests and sends pending answers until `deadline`. Does not block.
    pub(super) fn ask_to_end(&self, deadline: Instant) {
        self.end.ask(deadline);
        self.stream.deaf();
    }

    /// Waits until the connection has ended.
    pub(super) fn join(self, deadline: Instant) {
        join_by(self.thread, deadline);
    }
}

/// Puts answers into the queue of a connection.
#[derive(Debug)]
struct QueuedResponses(Queue);

impl ResponseSink for QueuedResponses {
    fn send(&self, answer: &BoxResponse<'_>) -> Result<()> {
        // The client has left or does not read its answers; either way it is the client's doing.
        self.0.send(answer.bytes()?.into());
        Ok(())
    }
}

/// Limits the requests that one client may have in progress.
#[derive(Debug, Clone)]
pub(in crate::export) struct ConnectionLimit {
    take: Sender<()>,
    give_back: Receiver<()>,
}

impl ConnectionLimit {
    pub(in crate::export) fn new(most: usize) -> Self {
        let (take, give_back) = bounded(most);
        Self { take, give_back }
    }

    /// Takes a permit, if one is free.
    pub(in crate::export) fn take(&self) -> Option<ConnectionPermit> {
        self.take.try_send(()).ok().map(|()| ConnectionPermit(self.give_back.clone()))
    }

    /// Waits for a permit; `None` if the end comes first.
    fn wait(&self, end: &StopHandle) -> Option<ConnectionPermit> {
        select! {
            send(self.take, ()) -> taken => taken.ok().map(|()| ConnectionPermit(self.give_back.clone())),
            recv(end.told()) -> _ => None,
        }
    }
}

/// A permit, returned when dropped.
#[derive(Debug)]
pub(in crate::export) struct ConnectionPermit(Receiver<()>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.try_recv().ok();
    }
}

/// Reads the requests of a client.
struct RequestReader {
    stream: Arc<SocketStream>,
    end: Arc<StopHandle>,
    heard: Arc<LastRequest>,
    places: ConnectionLimit,
}

impl RequestReader {
    /// Reads requests until the client disconnects. Reads nothing while the client has the maximum number of requests
    /// in progress.
    fn hear(&self, answers: &Queue, requests: &Sender<BoxRequest>) -> io::Result<()> {
        let reply = ResponseSender::new(QueuedResponses(answers.clone()));
        let mut text = Vec::new();
        loop {
            let Some(place) = self.places.wait(&self.end) else { return Ok(()) };
            let mut length = [0; LENGTH_BYTES];
            if !self.stream.read_first(&mut length)? {
                return Ok(());
            }
            let deadline = Instant::now() + WHOLE;
            self.stream.read_whole(&mut length[1..], deadline)?;
            let length = u32::from_le_bytes(length) as usize;
            if length > MAX_BYTES {
                // The rest cannot be told apart from the next request.
                let why =
                    format!("a request of {length} bytes; at most {MAX_BYTES} are taken, after 4 bytes of length");
                reply.send(&BoxResponse::refused(0, None, ErrorCode::BadRequest, &why));
                return Ok(());
            }
            text.resize(length, 0);
            self.stream.read_whole(&mut text, deadline)?;
            self.heard.now();
            if let Some(request) = BoxRequest::read(&text, None, reply.clone(), place) {
                hand_over(request, requests);
            }
        }
    }
}

/// Queues the request, or answers that there is no room.
pub(in crate::export) fn hand_over(request: BoxRequest, requests: &Sender<BoxRequest>) {
    match requests.try_send(request) {
        Ok(()) => {}
        Err(TrySendError::Full(request)) => request.refuse(0, ErrorCode::Busy, "too many requests wait already"),
        Err(TrySendError::Disconnected(request)) => request.refuse(0, ErrorCode::Ended, "the program ends"),
    }
}
