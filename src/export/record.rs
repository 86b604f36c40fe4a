//! The record: where an embedding comes from, for files and for live readers (docs/formats.md).
use std::borrow::Cow;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Current version of the record. Version 1 lacked `schema`, `wall_ns`, `level`, `encoder`, `preparation` and
/// `learner`; version 2 lacked `file`.
pub const SCHEMA: u32 = 3;

/// Digits of a hash that a record keeps.
const HASH_DIGITS: usize = 16;

/// What one row embeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// A frame, or its encoded window: one unit vector.
    #[default]
    Frame,
    /// All cells of a frame in row-major order, each a unit vector.
    Grid,
    /// The contents of a detection box: one unit vector.
    Box,
}

/// Where an embedding comes from. `NNNN.jsonl` has one JSON line for each row of `NNNN.npy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the record, see [`SCHEMA`].
    #[serde(default = "first", deserialize_with = "read_schema")]
    pub schema: u32,
    /// Name of the camera or source.
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    pub camera: Arc<str>,
    /// Position of the frame in the source.
    pub frame: u64,
    /// File that holds the frame, as a path relative to the folder; only for folder sources.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_some_text",
        deserialize_with = "read_some_text"
    )]
    pub file: Option<Arc<str>>,
    /// Capture time in nanoseconds; it never goes back.
    pub stamp_ns: i64,
    /// Wall-clock time of the capture, nanoseconds since 1970; only for live sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ns: Option<i64>,
    /// Segment of the frame, which is the frames between two scene cuts.
    pub segment: u64,
    /// What the row embeds.
    #[serde(default)]
    pub level: Granularity,
    /// Space of the embedding. Only embeddings in the same space may be compared.
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    pub space: Arc<str>,
    /// Number of the head; 0 is the frozen encoder.
    pub head: u64,
    /// What produced the latents; absent from records of version 1.
    #[serde(flatten)]
    pub provenance: Option<Provenance>,
    /// State of the learner when the frame was embedded; only for live sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learner: Option<Cow<'static, str>>,
    /// Distance to what was seen before, where known.
    pub novelty: Option<f32>,
    /// Whether the novelty is above `export.novel_above`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub novel: bool,
    /// The encoded window in pixels of the frame: left, top, right, bottom (right and bottom exclusive; reflected
    /// beyond the frame). Absent if the whole frame was encoded.
    #[serde(rename = "box", default, skip_serializing_if = "Option::is_none")]
    pub window: Option<[i32; 4]>,
    /// Track number from the tracker; only for boxes, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<i64>,
    /// Class number from the detector; only for boxes, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<i64>,
    /// Confidence score from the detector; only for boxes, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// Original space of the embedding, if `migrate` mapped it into `space` later.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_some_text",
        deserialize_with = "read_some_text"
    )]
    pub migrated_from: Option<Arc<str>>,
}

/// The frozen part: encoder and preprocessing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// First 16 digits of the SHA-256 of the encoder's file.
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    pub encoder: Arc<str>,
    /// First 16 digits of the hash of everything else that changes the latents: model card, taps, input size.
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    pub preparation: Arc<str>,
}

impl Provenance {
    /// Takes the full hashes and shortens them.
    pub fn new(encoder_sha256: &str, card_hash: &str) -> Self {
        let short = |hash: &str| hash.chars().take(HASH_DIGITS).collect::<String>().into();
        Self { encoder: short(encoder_sha256), preparation: short(card_hash) }
    }
}

impl Record {
    /// The key-value pairs shared by all records of a file. Formats with metadata repeat them there.
    pub(super) fn common(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("schema", self.schema.to_string()), ("space", self.space.to_string())];
        if let Some(maker) = &self.provenance {
            all.extend([("encoder", maker.encoder.to_string()), ("preparation", maker.preparation.to_string())]);
        }
        all
    }

    /// Sets the novelty, and `novel` if it is above `threshold` (0: never).
    pub fn set_novelty(&mut self, novelty: Option<f32>, threshold: f32) {
        self.novelty = novelty;
        self.novel = threshold > 0.0 && novelty.is_some_and(|novelty| novelty > threshold);
    }
}

fn first() -> u32 {
    1
}

fn read_schema<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        known @ 1..=SCHEMA => Ok(known),
        other => Err(D::Error::custom(format!(
            "its records are of version {other}, this program reads 1 to {SCHEMA}; use the afterimage that wrote them, \
             or a newer one"
        ))),
    }
}

fn write_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn write_some_text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

fn read_some_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(|text| text.map(Arc::from))
}

fn read_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(deserializer).map(Arc::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str =
        r#"{"camera":"a","frame":3,"stamp_ns":4,"segment":0,"space":"s","head":1,"novelty":0.5,"box":[1,2,3,4]}"#;

    #[test]
    fn records_of_the_first_version_are_read() {
        let record: Record = serde_json::from_str(OLD).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((record.schema, record.level, record.wall_ns), (1, Granularity::Frame, None));
        assert_eq!((record.provenance, record.learner, record.window), (None, None, Some([1, 2, 3, 4])));
    }

    #[test]
    fn records_of_a_version_to_come_are_refused_by_name() {
        for version in [0, SCHEMA + 1] {
            let text = OLD.replacen('{', &format!("{{\"schema\":{version},"), 1);
            let error = serde_json::from_str::<Record>(&text).err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|e| e.contains(&format!("of version {version}"))), "{error:?}");
        }
    }

    #[test]
    fn novel_is_what_lies_above_the_threshold() {
        let mut record: Record = serde_json::from_str(OLD).unwrap_or_else(|error| panic!("{error}"));
        for (novelty, threshold, novel) in
            [(Some(0.5), 0.25, true), (Some(0.25), 0.25, false), (None, 0.25, false), (Some(1.5), 0.0, false)]
        {
            record.set_novelty(novelty, threshold);
            assert_eq!((record.novelty, record.novel), (novelty, novel));
            let told = serde_json::to_string(&record).is_ok_and(|text| text.contains("\"novel\":true"));
            assert_eq!(told, novel);
        }
    }

    #[test]
    fn every_key_comes_back() {
        let record = Record {
            schema: SCHEMA,
            camera: "a".into(),
            frame: 3,
            file: Some("day 1/caf\u{e9}.jpg".into()),
            stamp_ns: 4,
            wall_ns: Some(5),
            segment: 6,
            level: Granularity::Grid,
            space: "s".into(),
            head: 7,
            provenance: Some(Provenance::new(&"e".repeat(64), &"c".repeat(64))),
            learner: Some("learning".into()),
            novelty: Some(0.5),
            novel: true,
            window: Some([1, 2, 3, 4]),
            track: Some(8),
            class: Some(-9),
            score: Some(0.25),
            migrated_from: Some("before".into()),
        };
        let text = serde_json::to_string(&record).unwrap_or_default();
        assert!(text.contains("\"encoder\":\"eeeeeeeeeeeeeeee\",\"preparation\":\"cccccccccccccccc\""), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).ok(), Some(record));
    }
}
