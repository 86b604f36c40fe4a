//! One connection of a detector: requests in, answers out, each on a thread of its own, so that neither waits for the other.
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

/// Answers that may wait for a detector: those to a few whole requests.
const ANSWERS: QueueLimit = QueueLimit { messages: 2048, bytes: 4 << 20 };
/// A request that has begun must be whole within so long.
const WHOLE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Connection {
    stream: Arc<SocketStream>,
    thread: JoinHandle<()>,
    end: Arc<StopHandle>,
    heard: Arc<LastRequest>,
}

/// When something was last heard of a detector.
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
            // What it has asked for and may still read. Whoever asks for the end ends this too.
            answers.close().join().ok();
            own.stream.close();
        })?;
        Ok(Self { stream: shared, thread, end, heard })
    }

    /// It has hung up, or was hung up on.
    pub(super) fn over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Since its last request, or since it came.
    pub(super) fn silence(&self) -> Duration {
        self.heard.silence()
    }

    /// Hears nothing more, and sends until `deadline` what was answered; waits for nothing.
    pub(super) fn ask_to_end(&self, deadline: Instant) {
        self.end.ask(deadline);
        self.stream.deaf();
    }

    /// Waits until it is over.
    pub(super) fn join(self, deadline: Instant) {
        join_by(self.thread, deadline);
    }
}

/// Answers into the queue of a connection.
#[derive(Debug)]
struct QueuedResponses(Queue);

impl ResponseSink for QueuedResponses {
    fn send(&self, answer: &BoxResponse<'_>) -> Result<()> {
        // Hung up, or the answers are not taken: both are the asker's doing.
        self.0.send(answer.bytes()?.into());
        Ok(())
    }
}

/// So many requests of one asker may be under way.
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

    /// One of them, where one is free.
    pub(in crate::export) fn take(&self) -> Option<ConnectionPermit> {
        self.take.try_send(()).ok().map(|()| ConnectionPermit(self.give_back.clone()))
    }

    /// One of them, once one is free; `None` when the end comes before.
    fn wait(&self, end: &StopHandle) -> Option<ConnectionPermit> {
        select! {
            send(self.take, ()) -> taken => taken.ok().map(|()| ConnectionPermit(self.give_back.clone())),
            recv(end.told()) -> _ => None,
        }
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(in crate::export) struct ConnectionPermit(Receiver<()>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.try_recv().ok();
    }
}

/// What hears a detector.
struct RequestReader {
    stream: Arc<SocketStream>,
    end: Arc<StopHandle>,
    heard: Arc<LastRequest>,
    places: ConnectionLimit,
}

impl RequestReader {
    /// Until the detector hangs up. While as many of its requests as it may have are under way, nothing is read.
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
                // What follows cannot be told from the next request.
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

/// Into the queue, or the answer that there is no room.
pub(in crate::export) fn hand_over(request: BoxRequest, requests: &Sender<BoxRequest>) {
    match requests.try_send(request) {
        Ok(()) => {}
        Err(TrySendError::Full(request)) => request.refuse(0, ErrorCode::Busy, "too many requests wait already"),
        Err(TrySendError::Disconnected(request)) => request.refuse(0, ErrorCode::Ended, "the program ends"),
    }
}
