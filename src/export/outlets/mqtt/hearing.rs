//! Detectors that ask through the broker: requests at `TOPIC/CAMERA/boxes`, answers at `TOPIC/CAMERA/box`.
use std::sync::Arc;

use crossbeam_channel::Sender;
use serde::Serialize;

use super::{Post, Shared, options};
use crate::error::{Error, Result};
use crate::export::asked::{Answer, Reply, Request, Way, hand_over};
use crate::export::live::message::LENGTH_BYTES;

/// Hears requests.
#[derive(Debug)]
pub(super) struct Hearing {
    pub(super) requests: Sender<Request>,
    /// First part of the topics.
    pub(super) topic: String,
    pub(super) json: bool,
    pub(super) shared: Arc<Shared>,
}

/// Back to the topic of the camera.
#[derive(Debug)]
struct Back {
    topic: Arc<str>,
    json: bool,
    shared: Arc<Shared>,
}

/// The payload of `mqtt.payload = "json"`.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    answer: &'a Answer<'a>,
    embedding: &'a [f32],
}

impl Hearing {
    /// What to subscribe to.
    pub(super) fn filter(&self) -> String {
        format!("{}/+/boxes", self.topic)
    }

    /// One message of these topics.
    pub(super) fn heard(&self, topic: &str, payload: &[u8]) {
        let rest = topic.strip_prefix(&self.topic).and_then(|rest| rest.strip_prefix('/'));
        let Some(camera) = rest.and_then(|rest| rest.strip_suffix("/boxes")) else { return };
        let topic = options::topic(&self.topic, camera, "box").into();
        let back = Back { topic, json: self.json, shared: self.shared.clone() };
        if let Some(request) = Request::read(payload, Some(camera), Reply::new(back)) {
            hand_over(request, &self.requests);
        }
    }
}

impl Way for Back {
    fn send(&self, answer: &Answer<'_>) -> Result<()> {
        let payload = if self.json {
            serde_json::to_vec(&Json { answer, embedding: answer.embedding() })
                .map_err(|error| Error::work("an answer about a box").because(error))?
        } else {
            answer.bytes()?.split_off(LENGTH_BYTES)
        };
        self.shared.add(Post { topic: self.topic.clone(), payload });
        Ok(())
    }
}
