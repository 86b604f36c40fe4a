//! Box requests through the broker: requests arrive at `TOPIC/CAMERA/boxes`, answers go to `TOPIC/CAMERA/box`.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use rumqttc::Publish;
use serde::Serialize;

use super::{Message, Shared, options};
use crate::error::{Error, Result};
use crate::export::box_api::{
    BoxRequest, BoxResponse, ConnectionLimit, ErrorCode, MAX_BYTES, ResponseSender, ResponseSink, hand_over,
};
use crate::export::socket::wire::LENGTH_BYTES;

/// Receives box requests.
#[derive(Debug)]
pub(super) struct BoxRequestSubscriber {
    pub(super) requests: Sender<BoxRequest>,
    /// First level of the topics.
    pub(super) topic: String,
    pub(super) json: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) places: ConnectionLimit,
    /// A message was ignored, and that was logged.
    pub(super) told: AtomicBool,
}

/// Sends answers to the topic of the camera.
#[derive(Debug)]
struct MqttResponseSink {
    topic: Arc<str>,
    json: bool,
    shared: Arc<Shared>,
}

/// The payload for `mqtt.payload = "json"`.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    answer: &'a BoxResponse<'a>,
    embedding: &'a [f32],
}

impl BoxRequestSubscriber {
    /// The topic filter to subscribe to.
    pub(super) fn filter(&self) -> String {
        format!("{}/+/boxes", self.topic)
    }

    /// Handles one message on these topics.
    pub(super) fn heard(&self, message: &Publish) {
        let Ok(topic) = std::str::from_utf8(&message.topic) else { return };
        let rest = topic.strip_prefix(&self.topic).and_then(|rest| rest.strip_prefix('/'));
        let Some(camera) = rest.and_then(|rest| rest.strip_suffix("/boxes")) else { return };
        if message.retain {
            return self.ignore("a retained message, whose frame is long gone");
        }
        if message.payload.len() > MAX_BYTES {
            return self.ignore(&format!("{} bytes; a request has at most {MAX_BYTES}", message.payload.len()));
        }
        let back = options::topic(&self.topic, camera, "box").into();
        let reply = ResponseSender::new(MqttResponseSink { topic: back, json: self.json, shared: self.shared.clone() });
        let Some(place) = self.places.take() else {
            let why = "too many requests wait already";
            return reply.send(&BoxResponse::refused(0, None, ErrorCode::Busy, why));
        };
        if let Some(request) = BoxRequest::read(&message.payload, Some(camera), reply, place) {
            hand_over(request, &self.requests);
        }
    }

    /// Counts a message that is not a request, and logs the first one.
    pub(super) fn ignore(&self, what: &str) {
        self.shared.ignored.fetch_add(1, Ordering::Relaxed);
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a message at {} is ignored: {what}; others like it are only counted (afterimage_mqtt_ignored_total)",
                self.filter()
            );
        }
    }
}

impl ResponseSink for MqttResponseSink {
    fn send(&self, answer: &BoxResponse<'_>) -> Result<()> {
        let payload = if self.json {
            serde_json::to_vec(&Json { answer, embedding: answer.embedding() })
                .map_err(|error| Error::runtime("an answer about a box").with_source(error))?
        } else {
            answer.bytes()?.split_off(LENGTH_BYTES)
        };
        self.shared.answer(Message { topic: self.topic.clone(), payload, answer: true });
        Ok(())
    }
}
