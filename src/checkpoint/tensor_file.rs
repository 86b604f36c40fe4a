//! Saved states as files.
use std::collections::BTreeMap;
use std::path::Path;

use afterimage_learn::state_dict::{LoadedTensors, TensorView, decode, encode};

use crate::error::{Error, Result};
use crate::files;

/// Writes `meta` and `tensors` to `path` atomically; returns the checksum (64 hexadecimal digits). Rejects more than
/// `max_bytes`, because [`load`] with the same limit would not read it.
///
/// # Errors
/// Those of [`encode`], or the I/O error (a full disk has its own kind).
pub fn save(
    path: &Path,
    meta: &BTreeMap<String, String>,
    tensors: &[(String, TensorView<'_>)],
    max_bytes: u64,
) -> Result<String> {
    let encoded = encode(path, meta, tensors, max_bytes)?;
    files::replace(path, |out| encoded.write(out))?;
    Ok(encoded.checksum)
}

/// Reads a file that [`save`] wrote. Checks the lengths against the file size before it allocates anything.
///
/// # Errors
/// Those of [`decode`].
pub fn load(path: &Path, max_bytes: u64) -> Result<LoadedTensors> {
    let failed = |error: std::io::Error| Error::unreadable(path, error);
    let mut file = files::open_regular(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    decode(path, &mut file, size, max_bytes)
}
