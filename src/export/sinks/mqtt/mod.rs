//! Embeddings to an MQTT broker (3.1.1): `TOPIC/CAMERA/embedding`, and `TOPIC/status` (retained): `online` or `offline`.
//!
//! Messages wait in a bounded memory; when that is full, the oldest go and are counted. A broker that is away is tried
//! again, slower each time up to 10 seconds. With `mqtt.qos = 1` what was not acknowledged is sent again after a loss of
//! the connection, also to a broker that has forgotten the session (the client library would drop it there): such a
//! message may come twice, told by its number. With `mqtt.boxes` detectors are heard too (`hearing`).
mod connection;
mod box_requests;
mod options;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::Sender;
use serde::Serialize;
use tokio::sync::Notify;

use crate::config::{self, Payload};
use crate::error::{Error, Result};
use crate::export::Record;
use crate::export::box_api::{BoxRequest, ConnectionLimit, MOST_BY_BROKER};
use crate::shutdown::{LAST_WORDS, join_by};

use box_requests::BoxRequestSubscriber;
pub use options::in_topic;

/// What came of the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MqttCounts {
    /// Acknowledged by the broker, or with `mqtt.qos = 0` sent to it.
    pub delivered: u64,
    /// The oldest ones, that had to make room.
    pub lost: u64,
    /// Waiting now.
    pub waiting: u64,
    /// Connections made.
    pub connections: u64,
    /// Messages of strangers that are no requests: too long, or retained.
    pub ignored: u64,
}

/// Tells what comes of the messages, from any thread.
#[derive(Debug, Clone)]
pub struct MqttStats(Arc<Shared>);

impl MqttStats {
    /// What came of the messages so far.
    pub fn counts(&self) -> MqttCounts {
        self.0.counts()
    }
}

/// The way to the broker: a thread of its own, and what waits for it.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    topic: String,
    json: bool,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to send.
    wake: Notify,
    /// The run has ended.
    stop: Notify,
    most_bytes: usize,
    delivered: AtomicU64,
    connections: AtomicU64,
    ignored: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    posts: VecDeque<Message>,
    bytes: usize,
    /// Of which to answers.
    answer_bytes: usize,
    lost: u64,
    /// Taken by the connection and not yet acknowledged.
    under_way: u64,
}

/// One message with its topic.
#[derive(Debug, Clone)]
struct Message {
    topic: Arc<str>,
    payload: Vec<u8>,
    /// To a detector, not a record.
    answer: bool,
}

/// The payload of `mqtt.payload = "json"`.
#[derive(Serialize)]
struct Json<'a> {
    seq: u64,
    #[serde(flatten)]
    record: &'a Record,
    embedding: &'a [f32],
}

impl Publisher {
    /// Starts the thread; `None` where no broker is configured. The broker need not be there yet. With `mqtt.boxes`,
    /// detectors' requests go to `asked`.
    /// # Errors
    /// A password or certificate that cannot be read.
    pub fn open(config: &config::Mqtt, asked: Option<Sender<BoxRequest>>) -> Result<Option<Self>> {
        let Some(options) = options::options(config)? else { return Ok(None) };
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Notify::new(),
            stop: Notify::new(),
            most_bytes: config.buffer_megabytes as usize * 1_000_000,
            delivered: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::runtime("cannot start the MQTT client").with_source(error))?;
        let of_thread = shared.clone();
        let (status, qos) = (options::status_topic(&config.topic), options::qos(config.qos));
        let json = config.payload == Payload::Json;
        let hearing = asked.filter(|_| config.boxes).map(|requests| BoxRequestSubscriber {
            requests,
            topic: config.topic.clone(),
            json,
            shared: shared.clone(),
            places: ConnectionLimit::new(MOST_BY_BROKER),
            told: AtomicBool::new(false),
        });
        let thread = std::thread::Builder::new()
            .name("mqtt".into())
            .spawn(move || {
                runtime.block_on(connection::drive(&of_thread, options, status.into(), qos, hearing));
                // Not the end of a name that is still looked up.
                runtime.shutdown_background();
            })
            .map_err(|error| Error::runtime("cannot start the MQTT thread").with_source(error))?;
        Ok(Some(Self { shared, thread: Some(thread), topic: config.topic.clone(), json }))
    }

    /// One embedding; `message` is its binary form. Never waits.
    /// # Errors
    /// The record cannot be written as JSON.
    pub fn push(&self, seq: u64, record: &Record, embedding: &[f32], message: &[u8]) -> Result<()> {
        let payload = if self.json {
            serde_json::to_vec(&Json { seq, record, embedding }).map_err(|error| {
                Error::runtime(format!("cannot send the record of frame {}", record.frame)).with_source(error)
            })?
        } else {
            message.to_vec()
        };
        let topic = options::topic(&self.topic, &record.camera, "embedding").into();
        self.shared.add(Message { topic, payload, answer: false });
        Ok(())
    }

    /// What came of the messages so far.
    pub fn counts(&self) -> MqttCounts {
        self.shared.counts()
    }

    /// Tells the same from another thread.
    pub fn watch(&self) -> MqttStats {
        MqttStats(self.shared.clone())
    }

    /// Gives what waits a moment more, says `offline`, and ends the connection.
    pub fn finish(mut self) -> MqttCounts {
        self.end();
        self.shared.counts()
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.stop.notify_one();
            if join_by(thread, Instant::now() + 2 * LAST_WORDS).is_some_and(|ended| ended.is_err()) {
                tracing::error!("the MQTT thread panicked; what waited for the broker is lost");
            }
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, post: Message) {
        let mut queue = self.queue();
        queue.count(&post);
        queue.posts.push_back(post);
        while queue.bytes > self.most_bytes && queue.posts.len() > 1 {
            if queue.pop().is_some() {
                queue.lost += 1;
            }
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Answers have a quarter of the room: who asks a lot pushes no records out.
    fn answer(&self, post: Message) {
        let mut queue = self.queue();
        if queue.answer_bytes + post.bytes() > self.most_bytes / 4 {
            queue.lost += 1;
            return;
        }
        drop(queue);
        self.add(post);
    }

    fn take(&self) -> Option<Message> {
        let mut queue = self.queue();
        let post = queue.pop()?;
        queue.under_way += 1;
        Some(post)
    }

    /// Puts back what was under way when the connection broke, before all else.
    fn put_back(&self, posts: impl DoubleEndedIterator<Item = Message>) {
        let mut queue = self.queue();
        for post in posts.rev() {
            queue.count(&post);
            queue.posts.push_front(post);
        }
        queue.under_way = 0;
    }

    fn delivered(&self) {
        self.queue().under_way -= 1;
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> MqttCounts {
        let queue = self.queue();
        MqttCounts {
            delivered: self.delivered.load(Ordering::Relaxed),
            lost: queue.lost,
            waiting: queue.posts.len() as u64 + queue.under_way,
            connections: self.connections.load(Ordering::Relaxed),
            ignored: self.ignored.load(Ordering::Relaxed),
        }
    }
}

impl Queue {
    fn count(&mut self, post: &Message) {
        self.bytes += post.bytes();
        self.answer_bytes += if post.answer { post.bytes() } else { 0 };
    }

    /// The oldest.
    fn pop(&mut self) -> Option<Message> {
        let post = self.posts.pop_front()?;
        self.bytes -= post.bytes();
        self.answer_bytes -= if post.answer { post.bytes() } else { 0 };
        Some(post)
    }
}

impl Message {
    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        self.payload.len() + 128
    }
}
