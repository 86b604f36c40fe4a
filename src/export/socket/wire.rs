//! The wire format of a record and its embedding. All numbers are little-endian.
//!
//! ```text
//! u32  length of what follows, bytes
//! u32  length of the header, bytes
//! ...  header: one JSON object, the record with "version", "seq", "dim" and "dtype"
//! ...  embedding: dim numbers of dtype ("f32")
//! ```
use serde::Serialize;

use crate::error::{Error, Result};
use crate::export::Record;

/// Size of the length prefix of each message.
pub(in crate::export) const LENGTH_BYTES: usize = 4;

/// Version of this wire format.
pub(in crate::export) const VERSION: u32 = 1;

/// Type of the numbers.
pub(in crate::export) const DTYPE: &str = "f32";

#[derive(Serialize)]
struct Header<'a> {
    version: u32,
    /// Sequence number of the message; a gap means that messages were dropped.
    seq: u64,
    dim: usize,
    dtype: &'static str,
    #[serde(flatten)]
    record: &'a Record,
}

/// Encodes a record as a message.
pub(in crate::export) fn write(record: &Record, seq: u64, embedding: &[f32]) -> Result<Vec<u8>> {
    compose(&Header { version: VERSION, seq, dim: embedding.len(), dtype: DTYPE, record }, embedding)
}

/// Encodes a message with any header.
pub(in crate::export) fn compose(header: &impl Serialize, embedding: &[f32]) -> Result<Vec<u8>> {
    let header =
        serde_json::to_vec(header).map_err(|e| Error::runtime("a record cannot be written as JSON").with_source(e))?;
    let body = 4 + header.len() + size_of_val(embedding);
    let length = |bytes: usize| u32::try_from(bytes).map_err(|_| Error::runtime("a live record of more than 4 GB"));
    let mut message = Vec::with_capacity(4 + body);
    message.extend_from_slice(&length(body)?.to_le_bytes());
    message.extend_from_slice(&length(header.len())?.to_le_bytes());
    message.extend_from_slice(&header);
    embedding.iter().for_each(|value| message.extend_from_slice(&value.to_le_bytes()));
    Ok(message)
}
