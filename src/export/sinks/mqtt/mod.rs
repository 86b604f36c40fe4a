//! Publishes embeddings to an MQTT broker (3.1.1) as `TOPIC/CAMERA/embedding`, and `online` or `offline` as
//! `TOPIC/status` (retained).
//!
//! Messages wait in bounded memory. When it is full, the oldest are dropped and counted. An unreachable broker is
//! retried at growing intervals, up to 10 seconds. With `mqtt.qos = 1`, unacknowledged messages are sent again after a
//! lost connection, even to a broker that has forgotten the session (the client library would drop them there). Such a
//! message may arrive twice; its sequence number identifies it. With `mqtt.boxes`, box requests are accepted too
//! (`box_requests`).
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

/// Counters of the MQTT publisher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MqttCounts {
    /// Messages acknowledged by the broker or, with `mqtt.qos = 0`, sent to it.
    pub delivered: u64,
    /// The oldest messages, dropped to make room.
    pub lost: u64,
    /// Messages waiting now.
    pub waiting: u64,
    /// Successful connections so far.
    pub connections: u64,
    /// Messages from other clients that are not requests: too long, or retained.
    pub ignored: u64,
}

/// A handle that reads the counters from any thread.
#[derive(Debug, Clone)]
pub struct MqttStats(Arc<Shared>);

impl MqttStats {
    /// The current counters.
    pub fn counts(&self) -> MqttCounts {
        self.0.counts()
    }
}

/// The publisher: a connection thread and the queue of messages for it.
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
    /// Signals that there is something to send.
    wake: Notify,
    /// Signals the end of the run.
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
    /// The part of the bytes that belongs to answers.
    answer_bytes: usize,
    lost: u64,
    /// Messages taken by the connection and not yet acknowledged.
    under_way: u64,
}

#[derive(Debug, Clone)]
struct Message {
    topic: Arc<str>,
    payload: Vec<u8>,
    /// An answer to a box request, not a record.
    answer: bool,
}

/// The payload for `mqtt.payload = "json"`.
#[derive(Serialize)]
struct Json<'a> {
    seq: u64,
    #[serde(flatten)]
    record: &'a Record,
    embedding: &'a [f32],
}

impl Publisher {
    /// Starts the thread; `None` if no broker is configured. The broker need not be reachable yet. With `mqtt.boxes`,
    /// box requests go to `asked`.
    /// # Errors
    /// A password or certificate cannot be read.
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
                // Do not wait for a name lookup still in progress.
                runtime.shutdown_background();
            })
            .map_err(|error| Error::runtime("cannot start the MQTT thread").with_source(error))?;
        Ok(Some(Self { shared, thread: Some(thread), topic: config.topic.clone(), json }))
    }

    /// Queues one embedding; `message` is its binary form. Never blocks.
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

    /// The current counters.
    pub fn counts(&self) -> MqttCounts {
        self.shared.counts()
    }

    /// A handle that reads the counters from another thread.
    pub fn watch(&self) -> MqttStats {
        MqttStats(self.shared.clone())
    }

    /// Gives waiting messages a moment to leave, publishes `offline`, and disconnects.
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

    /// Answers get a quarter of the memory, so that a client with many requests cannot displace records.
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

    /// Returns messages in flight to the front of the queue after a lost connection.
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

    /// Takes the oldest message.
    fn pop(&mut self) -> Option<Message> {
        let post = self.posts.pop_front()?;
        self.bytes -= post.bytes();
        self.answer_bytes -= if post.answer { post.bytes() } else { 0 };
        Some(post)
    }
}

impl Message {
    /// Approximate size in memory.
    fn bytes(&self) -> usize {
        self.payload.len() + 128
    }
}
