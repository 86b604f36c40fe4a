//! Encodes one event as a line within the length limit of readers.
use serde_json::{Map, Value};

use super::MAX_LINE_BYTES;
use crate::error::{Error, Result};

/// When a line is too long, it keeps a value whose JSON has at most this many bytes ...
const SHORT_VALUE: usize = 1 << 10;
/// ... and all kept values together have at most this many.
const SHORT_LINE: usize = MAX_LINE_BYTES / 2;

/// `{"event": event, ...fields}` with a newline, at most [`MAX_LINE_BYTES`]. If the fields are too long together, keeps
/// the short ones; `left_out` counts the others.
pub(super) fn encode(event: &str, fields: &Value) -> Result<Vec<u8>> {
    let Some(map) = fields.as_object().filter(|map| !map.contains_key("event")) else {
        return Err(Error::runtime(format!(
            "journal event {event:?}: {fields} must be an object without a key \"event\""
        )));
    };
    let line = text(event, map);
    if line.len() <= MAX_LINE_BYTES {
        return Ok(line.into_bytes());
    }
    let (mut short, mut bytes, mut left_out) = (Map::new(), 0, 0u64);
    for (key, value) in map {
        let size = key.len() + value.to_string().len();
        if size <= SHORT_VALUE && bytes + size <= SHORT_LINE {
            bytes += size;
            short.insert(key.clone(), value.clone());
        } else {
            left_out += 1;
        }
    }
    tracing::warn!(
        "the journal event {event:?} has {} bytes, {MAX_LINE_BYTES} are allowed: {left_out} of its fields are left out",
        line.len()
    );
    short.insert("left_out".into(), left_out.into());
    Ok(text(event, &short).into_bytes())
}

fn text(event: &str, map: &Map<String, Value>) -> String {
    let mut text = format!("{{\"event\":{}", Value::from(event));
    for (key, value) in map {
        text.push_str(&format!(",{}:{value}", Value::from(key.as_str())));
    }
    text.push_str("}\n");
    text
}
