//! Saved states as files, for tests.
use std::collections::BTreeMap;
use std::path::Path;

use super::{LoadedTensors, TensorView, decode, encode};
use crate::error::Result;

pub(crate) fn save(
    path: &Path,
    meta: &BTreeMap<String, String>,
    tensors: &[(String, TensorView<'_>)],
    max_bytes: u64,
) -> Result<String> {
    let encoded = encode(path, meta, tensors, max_bytes)?;
    let mut bytes = Vec::new();
    encoded
        .write(&mut bytes)
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|e| crate::Error::unreadable(path, e))?;
    Ok(encoded.checksum)
}

pub(crate) fn load(path: &Path, max_bytes: u64) -> Result<LoadedTensors> {
    let bytes = std::fs::read(path).map_err(|e| crate::Error::unreadable(path, e))?;
    decode(path, &mut bytes.as_slice(), bytes.len() as u64, max_bytes)
}
