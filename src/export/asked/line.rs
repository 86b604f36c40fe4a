//! One connection of a detector: requests in, answers out, each on a thread of its own, so that neither waits for the other.
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError};

use super::answer::{Answer, Reason, Reply, Way};
use super::request::Request;
use crate::error::Result;
use crate::export::live::message::LENGTH_BYTES;
use crate::export::live::reader::{Reader, Stream, finish};

/// A longer request is none.
const MAX_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Line {
    stream: Arc<Stream>,
    thread: JoinHandle<()>,
}

impl Line {
    pub(super) fn start(stream: Stream, queue: usize, requests: Sender<Request>) -> io::Result<Self> {
        let heard = Arc::new(stream.again()?);
        let answers = Reader::start(stream, queue)?;
        let own = heard.clone();
        let thread = std::thread::Builder::new().name("asked".into()).spawn(move || {
            if let Err(e) = hear(&own, &answers.queue(), &requests) {
                tracing::debug!("a detector is gone: {e}");
            }
            finish(vec![answers]);
            own.close();
        })?;
        Ok(Self { stream: heard, thread })
    }

    /// It has hung up, or was hung up on.
    pub(super) fn over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Hears nothing more, sends what was answered, and closes.
    pub(super) fn end(self) {
        self.stream.deaf();
        self.thread.join().ok();
    }
}

/// Answers into the queue of a connection.
#[derive(Debug)]
struct Answers(Sender<Arc<[u8]>>);

impl Way for Answers {
    fn send(&self, answer: &Answer<'_>) -> Result<()> {
        // Hung up, or the answers are not taken: both are the asker's doing.
        self.0.try_send(answer.bytes()?.into()).ok();
        Ok(())
    }
}

/// Until the detector hangs up.
fn hear(stream: &Stream, answers: &Sender<Arc<[u8]>>, requests: &Sender<Request>) -> io::Result<()> {
    let reply = Reply::new(Answers(answers.clone()));
    let mut text = Vec::new();
    loop {
        let mut length = [0; LENGTH_BYTES];
        if !stream.read_whole(&mut length)? {
            return Ok(());
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_BYTES {
            // What follows cannot be told from the next request.
            let why = format!("a request of {length} bytes; at most {MAX_BYTES} are taken, after 4 bytes of length");
            reply.send(&Answer::refused(0, None, Reason::BadRequest, &why));
            return Ok(());
        }
        text.resize(length, 0);
        if !stream.read_whole(&mut text)? {
            return Ok(());
        }
        if let Some(request) = Request::read(&text, None, reply.clone()) {
            hand_over(request, requests);
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
