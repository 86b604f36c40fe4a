//! An answer, one for each box: laid out as a live record (`export::live::message`), with `id` and `index` in the header.
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
    /// The request cannot be read or used; such an answer has no `index`.
    BadRequest,
    /// No camera has the name.
    NoCamera,
    /// The frame has left the memory of recent frames.
    Gone,
    /// The frame was dropped, or has not come in time.
    NoFrame,
    /// The box lies wholly outside of its frame.
    Outside,
    /// It has no width or height.
    Empty,
    /// Less than `boxes.min_pixels` of it lie in the frame.
    Small,
    /// Its score is not above `boxes.score_above`.
    LowScore,
    /// The encoder gave nothing for it.
    NoLatent,
    /// There are too many requests, or the encoder has no time beside the frames.
    Busy,
    /// The program ends.
    Ended,
}

/// What is answered to one box.
#[derive(Debug, Serialize)]
pub struct BoxResponse<'a> {
    version: u32,
    id: u64,
    /// Place of the box in the request, from 0.
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
    /// An embedding with its record.
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

    /// None, and why.
    pub fn refused(id: u64, index: Option<usize>, error: ErrorCode, reason: &'a str) -> Self {
        let (error, reason) = (Some(error), Some(reason));
        Self { version: VERSION, id, index, dim: 0, dtype: DTYPE, record: None, error, reason, embedding: &[] }
    }

    /// As it is sent: 4 bytes of length, and what follows.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub(in crate::export) fn bytes(&self) -> Result<Vec<u8>> {
        wire::compose(self, self.embedding)
    }

    /// Its embedding.
    pub(in crate::export) fn embedding(&self) -> &[f32] {
        self.embedding
    }
}

/// A way back to who asked. Never waits: what there is no room for is lost.
pub trait ResponseSink: Debug + Send + Sync {
    /// Sends one answer.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    fn send(&self, answer: &BoxResponse<'_>) -> Result<()>;
}

/// Where the answers to a request go.
#[derive(Debug, Clone)]
pub struct ResponseSender(Arc<dyn ResponseSink>);

impl ResponseSender {
    /// By `way`.
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
