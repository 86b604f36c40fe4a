//! One connection of a detector: requests in, answers out, each on a thread of its own, so that neither waits for the other.
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use super::MOST_WAITING;
use super::answer::{Answer, Reason, Reply, Way};
use super::request::{MAX_BYTES, Request};
use crate::error::Result;
use crate::export::live::end::End;
use crate::export::live::message::LENGTH_BYTES;
use crate::export::live::reader::{Queue, Reader, Room};
use crate::export::live::stream::Stream;
use crate::shutdown::join_by;

/// Answers that may wait for a detector: those to a few whole requests.
const ANSWERS: Room = Room { messages: 2048, bytes: 4 << 20 };
/// A request that has begun must be whole within so long.
const WHOLE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Line {
    stream: Arc<Stream>,
    thread: JoinHandle<()>,
    end: Arc<End>,
    heard: Arc<Heard>,
}

/// When something was last heard of a detector.
#[derive(Debug)]
struct Heard {
    began: Instant,
    last_millis: AtomicU64,
}

impl Heard {
    fn now(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last_millis.load(Ordering::Relaxed)))
    }
}

impl Line {
    pub(super) fn start(stream: Stream, requests: Sender<Request>) -> io::Result<Self> {
        let shared = Arc::new(stream.again()?);
        let end = Arc::new(End::default());
        let answers = Reader::start(stream, ANSWERS, end.clone())?;
        let heard = Arc::new(Heard { began: Instant::now(), last_millis: AtomicU64::new(0) });
        let own =
            Ear { stream: shared.clone(), end: end.clone(), heard: heard.clone(), places: Places::new(MOST_WAITING) };
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
struct Answers(Queue);

impl Way for Answers {
    fn send(&self, answer: &Answer<'_>) -> Result<()> {
        // Hung up, or the answers are not taken: both are the asker's doing.
        self.0.send(answer.bytes()?.into());
        Ok(())
    }
}

/// So many requests of one asker may be under way.
#[derive(Debug, Clone)]
pub(in crate::export) struct Places {
    take: Sender<()>,
    give_back: Receiver<()>,
}

impl Places {
    pub(in crate::export) fn new(most: usize) -> Self {
        let (take, give_back) = bounded(most);
        Self { take, give_back }
    }

    /// One of them, where one is free.
    pub(in crate::export) fn take(&self) -> Option<Place> {
        self.take.try_send(()).ok().map(|()| Place(self.give_back.clone()))
    }

    /// One of them, once one is free; `None` when the end comes before.
    fn wait(&self, end: &End) -> Option<Place> {
        select! {
            send(self.take, ()) -> taken => taken.ok().map(|()| Place(self.give_back.clone())),
            recv(end.told()) -> _ => None,
        }
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(in crate::export) struct Place(Receiver<()>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.try_recv().ok();
    }
}

/// What hears a detector.
struct Ear {
    stream: Arc<Stream>,
    end: Arc<End>,
    heard: Arc<Heard>,
    places: Places,
}

impl Ear {
    /// Until the detector hangs up. While as many of its requests as it may have are under way, nothing is read.
    fn hear(&self, answers: &Queue, requests: &Sender<Request>) -> io::Result<()> {
        let reply = Reply::new(Answers(answers.clone()));
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
                reply.send(&Answer::refused(0, None, Reason::BadRequest, &why));
                return Ok(());
            }
            text.resize(length, 0);
            self.stream.read_whole(&mut text, deadline)?;
            self.heard.now();
            if let Some(request) = Request::read(&text, None, reply.clone(), place) {
                hand_over(request, requests);
            }
        }
    }
}

/// Into the queue, or the answer that there is no room.
pub(in crate::export) fn hand_over(request: Request, requests: &Sender<Request>) {
    match requests.try_send(request) {
        Ok(()) => {}
        Err(TrySendError::Full(request)) => request.refuse(0, Reason::Busy, "too many requests wait already"),
        Err(TrySendError::Disconnected(request)) => request.refuse(0, Reason::Ended, "the program ends"),
    }
}
