//! Parses a request, which is one JSON object. Everything in it is bounded before it is stored or echoed.
use std::fmt;
use std::time::Instant;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::connection::ConnectionPermit;
use super::response::{BoxResponse, ErrorCode, ResponseSender};
use crate::detection::{BBox, Detection};

/// Maximum size of a request: 1000 boxes with all their fields take 130 kB.
pub(in crate::export) const MAX_BYTES: usize = 256 << 10;
/// Maximum number of boxes per request.
const MOST_BOXES: usize = 1000;
/// Maximum length of a camera name in bytes.
const MAX_NAME: usize = 256;
/// Maximum length of an error description in bytes.
const MAX_REASON: usize = 300;

/// Selects the frame of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameSelector {
    /// The frame with this number, as in the records.
    Frame(u64),
    /// The frame nearest to this wall-clock time, nanoseconds since 1970.
    Wall(i64),
    /// The newest frame.
    Newest,
}

/// Boxes of one frame to embed.
#[derive(Debug)]
pub struct BoxRequest {
    /// The client's number for the request, repeated in the answers.
    pub id: u64,
    /// Name of the camera; optional if there is only one.
    pub camera: Option<String>,
    /// The frame that the boxes are in.
    pub at: FrameSelector,
    /// The boxes. `line` is the index in the request, from 0; `frame` is resolved later.
    pub boxes: Vec<Detection>,
    /// When the request arrived.
    pub came: Instant,
    /// Where the answers go.
    pub reply: ResponseSender,
    /// One of the client's permits, returned when the request is done.
    _place: ConnectionPermit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestText {
    #[serde(default)]
    id: u64,
    camera: Option<String>,
    frame: Option<u64>,
    wall_ns: Option<i64>,
    #[serde(deserialize_with = "some_boxes")]
    boxes: Vec<BoxText>,
}

/// The fields that can still be read from a malformed request.
#[derive(Deserialize)]
struct RequestNumber {
    id: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BoxText {
    #[serde(rename = "box")]
    rect: [f64; 4],
    track: Option<i64>,
    class: Option<i64>,
    score: Option<f32>,
}

impl BoxRequest {
    /// Parses `text`. A malformed request is answered at once with a single answer; the result is then `None`.
    pub(in crate::export) fn read(
        text: &[u8],
        camera: Option<&str>,
        reply: ResponseSender,
        place: ConnectionPermit,
    ) -> Option<Self> {
        match parse(text) {
            Ok(written) => {
                let at = match (written.frame, written.wall_ns) {
                    (Some(frame), _) => FrameSelector::Frame(frame),
                    (None, Some(wall)) => FrameSelector::Wall(wall),
                    (None, None) => FrameSelector::Newest,
                };
                let boxes = written.boxes.into_iter().enumerate().map(|(line, found)| found.detection(line)).collect();
                let camera = camera.map(str::to_owned).or(written.camera);
                Some(Self { id: written.id, camera, at, boxes, came: Instant::now(), reply, _place: place })
            }
            Err((id, why)) => {
                reply.send(&BoxResponse::refused(id, None, ErrorCode::BadRequest, &short(&why)));
                None
            }
        }
    }

    /// Refuses the whole request with a single answer.
    pub fn refuse_whole(&self, reason: ErrorCode, why: &str) {
        self.reply.send(&BoxResponse::refused(self.id, None, reason, &short(why)));
    }

    /// Refuses all boxes from `first` on for the same reason.
    pub fn refuse(&self, first: usize, reason: ErrorCode, why: &str) {
        for detection in &self.boxes[first.min(self.boxes.len())..] {
            self.reply.send(&BoxResponse::refused(self.id, Some(detection.line), reason, why));
        }
    }
}

impl BoxText {
    fn detection(self, line: usize) -> Detection {
        let [left, top, right, bottom] = self.rect;
        let rect = BBox { left, top, right, bottom };
        Detection { frame: 0, rect, track: self.track, score: self.score, class: self.class, line }
    }
}

/// Parses the request. On failure, returns its number, where that can be read, and the problem.
fn parse(text: &[u8]) -> Result<RequestText, (u64, String)> {
    let wrong = |why: String| (serde_json::from_slice(text).map_or(0, |request: RequestNumber| request.id), why);
    let written: RequestText = serde_json::from_slice(text).map_err(|e| {
        if matches!(e.classify(), serde_json::error::Category::Data) {
            wrong(format!("{}; wanted is {{\"id\", \"camera\", \"frame\" or \"wall_ns\", \"boxes\": [{{\"box\": [left, top, right, bottom], \"track\", \"class\", \"score\"}}]}}", cut(&e.to_string(), 120)))
        } else {
            (0, format!("it is no JSON object: {e}"))
        }
    })?;
    if written.frame.is_some() && written.wall_ns.is_some() {
        return Err(wrong("\"frame\" and \"wall_ns\": give one of them".into()));
    }
    if let Some(name) = written.camera.as_ref().filter(|name| name.len() > MAX_NAME) {
        return Err(wrong(format!("\"camera\" has {} bytes; no name has more than {MAX_NAME}", name.len())));
    }
    if written.boxes.is_empty() {
        return Err(wrong(format!("0 boxes; 1 to {MOST_BOXES} can be asked for at once")));
    }
    Ok(written)
}

/// Reads up to the maximum number of boxes and fails on one more.
fn some_boxes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<BoxText>, D::Error> {
    struct BoxList;
    impl<'de> Visitor<'de> for BoxList {
        type Value = Vec<BoxText>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an array of boxes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut boxes = Vec::new();
            while boxes.len() < MOST_BOXES {
                let Some(found) = items.next_element()? else { return Ok(boxes) };
                boxes.push(found);
            }
            match items.next_element::<IgnoredAny>()? {
                None => Ok(boxes),
                _ => Err(A::Error::custom(format!(
                    "more than {MOST_BOXES} boxes; 1 to {MOST_BOXES} can be asked for at once"
                ))),
            }
        }
    }
    from.deserialize_seq(BoxList)
}

/// Shortens an error description that may quote the client's own text.
fn short(why: &str) -> String {
    cut(why, MAX_REASON)
}

fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(bytes)])
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
