//! The answer to one box, in the format of a live record (`export::socket::wire`) with `id` and `index` in the header.
use std::fmt::Debug;
use std::sync::Arc;

use serde::Serialize;

use crate::error::Result;
use crate::export::Record;
use crate::export::socket::wire::{self, DTYPE, VERSION};

/// Why a box has no embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is malformed; the answer has no `index`.
    BadRequest,
    /// There is no camera of that name.
    NoCamera,
    /// The frame is no longer in the cache of recent frames.
    Gone,
    /// The frame was dropped, or did not arrive in time.
    NoFrame,
    /// The box lies entirely outside its frame.
    Outside,
    /// The box has no width or height.
    Empty,
    /// Less than `boxes.min_pixels` of the box lie inside the frame.
    Small,
    /// The score is not above `boxes.score_above`.
    LowScore,
    /// The encoder produced no latent for the box.
    NoLatent,
    /// There are too many requests, or the encoder is busy with frames.
    Busy,
    /// The program is shutting down.
    Ended,
}

/// The answer to one box.
#[derive(Debug, Serialize)]
pub struct BoxResponse<'a> {
    version: u32,
    id: u64,
    /// Index of the box in the request, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    dim: usize,
    dtype: &'static str,
    #[serde(flatten)]
    record: Option<&'a Record>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip)]
    embedding: &'a [f32],
}

impl<'a> BoxResponse<'a> {
    /// An answer with an embedding and its record.
    pub fn embedded(id: u64, index: usize, record: &'a Record, embedding: &'a [f32]) -> Self {
        let (dim, record) = (embedding.len(), Some(record));
        Self {
            version: VERSION,
            id,
            index: Some(index),
            dim,
            dtype: DTYPE,
            record,
            error: None,
            reason: None,
            embedding,
        }
    }

    /// An answer without an embedding, and the reason.
    pub fn refused(id: u64, index: Option<usize>, error: ErrorCode, reason: &'a str) -> Self {
        let (error, reason) = (Some(error), Some(reason));
        Self { version: VERSION, id, index, dim: 0, dtype: DTYPE, record: None, error, reason, embedding: &[] }
    }

    /// The encoded answer: a 4-byte length, then the message.
    ///
    /// # Errors
    /// The answer cannot be written as JSON.
    pub(in crate::export) fn bytes(&self) -> Result<Vec<u8>> {
        wire::compose(self, self.embedding)
    }

    /// The embedding; empty if the box was refused.
    pub(in crate::export) fn embedding(&self) -> &[f32] {
        self.embedding
    }
}

/// A channel back to the client. Never blocks: answers that do not fit are dropped.
pub trait ResponseSink: Debug + Send + Sync {
    /// Sends one answer.
    ///
    /// # Errors
    /// The answer cannot be written as JSON.
    fn send(&self, answer: &BoxResponse<'_>) -> Result<()>;
}

/// Where the answers to a request go.
#[derive(Debug, Clone)]
pub struct ResponseSender(Arc<dyn ResponseSink>);

impl ResponseSender {
    /// Sends answers through `way`.
    pub fn new(way: impl ResponseSink + 'static) -> Self {
        Self(Arc::new(way))
    }

    /// Sends one answer.
    pub fn send(&self, answer: &BoxResponse<'_>) {
        if let Err(error) = self.0.send(answer) {
            tracing::warn!("an answer to a detector cannot be written: {}", error.chain());
        }
    }
}
