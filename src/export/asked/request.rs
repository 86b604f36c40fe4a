//! A request as it is written: one JSON object.
use std::time::Instant;

use serde::Deserialize;

use super::answer::{Answer, Reason, Reply};
use crate::boxes::{Detection, Rect};

/// Boxes of one request.
const MOST_BOXES: usize = 1000;

/// Which frame is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// By its number in the records.
    Frame(u64),
    /// The one nearest to what the wall clock said, nanoseconds since 1970.
    Wall(i64),
    /// The newest one.
    Newest,
}

/// Boxes of one frame that want embeddings.
#[derive(Debug, Clone)]
pub struct Request {
    /// The asker's number for it; it comes back in the answers.
    pub id: u64,
    /// Name of the camera; may be left out where there is one alone.
    pub camera: Option<String>,
    /// The frame.
    pub at: At,
    /// The boxes; `line` is their place in the request, from 0, `frame` is to be found yet.
    pub boxes: Vec<Detection>,
    /// When it came.
    pub came: Instant,
    /// Where the answers go.
    pub reply: Reply,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    id: u64,
    camera: Option<String>,
    frame: Option<u64>,
    wall_ns: Option<i64>,
    boxes: Vec<WrittenBox>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBox {
    #[serde(rename = "box")]
    rect: [f64; 4],
    track: Option<i64>,
    class: Option<i64>,
    score: Option<f32>,
}

impl Request {
    /// Reads `text`. What is no request is answered at once, and `None`.
    pub(in crate::export) fn read(text: &[u8], camera: Option<&str>, reply: Reply) -> Option<Self> {
        match parse(text) {
            Ok(written) => {
                let at = match (written.frame, written.wall_ns) {
                    (Some(frame), _) => At::Frame(frame),
                    (None, Some(wall)) => At::Wall(wall),
                    (None, None) => At::Newest,
                };
                let boxes = written.boxes.into_iter().enumerate().map(|(line, found)| found.detection(line)).collect();
                let camera = camera.map(str::to_owned).or(written.camera);
                Some(Self { id: written.id, camera, at, boxes, came: Instant::now(), reply })
            }
            Err((id, why)) => {
                reply.send(&Answer::refused(id, None, Reason::BadRequest, &why));
                None
            }
        }
    }

    /// Answers all its boxes from the one at `first` on with the same reason.
    pub fn refuse(&self, first: usize, reason: Reason, why: &str) {
        for detection in &self.boxes[first.min(self.boxes.len())..] {
            self.reply.send(&Answer::refused(self.id, Some(detection.line), reason, why));
        }
    }
}

impl WrittenBox {
    fn detection(self, line: usize) -> Detection {
        let [left, top, right, bottom] = self.rect;
        let rect = Rect { left, top, right, bottom };
        Detection { frame: 0, rect, track: self.track, score: self.score, class: self.class, line }
    }
}

/// What is written; else the number of the request, where that can be read, and what is wrong.
fn parse(text: &[u8]) -> Result<Written, (u64, String)> {
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|e| (0, format!("it is no JSON object: {e}")))?;
    let id = value.get("id").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let wrong = |why: String| (id, why);
    let written: Written = serde_json::from_value(value).map_err(|e| {
        wrong(format!("{e}; wanted is {{\"id\", \"camera\", \"frame\" or \"wall_ns\", \"boxes\": [{{\"box\": [left, top, right, bottom], \"track\", \"class\", \"score\"}}]}}"))
    })?;
    if written.frame.is_some() && written.wall_ns.is_some() {
        return Err(wrong("\"frame\" and \"wall_ns\": give one of them".into()));
    }
    let count = written.boxes.len();
    if count == 0 || count > MOST_BOXES {
        return Err(wrong(format!("{count} boxes; 1 to {MOST_BOXES} can be asked for at once")));
    }
    Ok(written)
}
