//! The layout of a saved state: a `safetensors` file (8 bytes of header length, a JSON header, the bytes of the
//! arrays), with a SHA-256 over its whole content in the header's `__metadata__`.
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::Path;

use half::f16;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::LoadedTensors;
use super::tensors::{Checksum, Scalar, TensorData, TensorView};
use crate::error::{Error, Result};

/// Maximum header size, for reading and writing. A header holds names and shapes, and nothing in it grows with the
/// stream (docs/run-folder.md, "Limits"), so a file with a longer one is not ours.
pub const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Key of the checksum in the header's `__metadata__`.
const CHECKSUM: &str = "sha256";

/// An encoded state, ready to be written.
#[derive(Debug)]
pub struct Encoded<'a> {
    header: Vec<u8>,
    tensors: Vec<&'a TensorView<'a>>,
    /// SHA-256 of the content, 64 hexadecimal digits.
    pub checksum: String,
}

impl Encoded<'_> {
    /// Writes the whole file.
    ///
    /// # Errors
    /// Any I/O error of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(self.header.len() as u64).to_le_bytes())?;
        out.write_all(&self.header)?;
        self.tensors.iter().try_for_each(|tensor| out.write_all(tensor.bytes()))
    }
}

/// Encodes `meta` and `tensors` for a file; `path` names it in errors. More than `max_bytes` are rejected, because
/// [`decode`] with the same limit would not accept them.
///
/// The checksum covers the text entries and the names, types, shapes and bytes of the arrays. Nothing is copied. The
/// same content gives the same bytes.
///
/// # Errors
/// A shape does not fit its values, a name is used twice, or there are more bytes than can be read again.
pub fn encode<'a>(
    path: &Path,
    meta: &BTreeMap<String, String>,
    tensors: &'a [(String, TensorView<'a>)],
    max_bytes: u64,
) -> Result<Encoded<'a>> {
    let refused = |why: String| Error::runtime(format!("cannot write {}: {why}", path.display()));
    if meta.contains_key(CHECKSUM) {
        return Err(refused(format!("the entry {CHECKSUM:?} is set by the checksum")));
    }
    // The order of the format: wide types first, so that every array is aligned; then by name.
    let mut sorted: Vec<&(String, TensorView)> = tensors.iter().collect();
    sorted.sort_by(|(a, x), (b, y)| y.dtype.cmp(&x.dtype).then(a.cmp(b)));
    let mut names = BTreeSet::new();
    let mut checksum = Checksum::new(meta);
    let mut infos = Vec::with_capacity(sorted.len());
    let mut start = 0;
    for (name, tensor) in sorted.iter().copied() {
        let (TensorView { dtype, shape, .. }, bytes) = (tensor, tensor.bytes());
        let values = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if values.and_then(|n| n.checked_mul(dtype.bitsize() / 8)) != Some(bytes.len()) {
            return Err(refused(format!("array {name:?} of shape {shape:?} has {} bytes of {dtype}", bytes.len())));
        }
        if !names.insert(name) || name == "__metadata__" {
            return Err(refused(format!("the name {name:?} is taken")));
        }
        checksum.add(name, *dtype, shape, bytes);
        let end = start + bytes.len();
        infos.push((name.as_str(), TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) }));
        start = end;
    }
    let checksum = checksum.finish();
    let mut meta = meta.clone();
    meta.insert(CHECKSUM.into(), checksum.clone());
    let header = Header { meta: &meta, infos: &infos };
    let mut header = serde_json::to_vec(&header).map_err(|error| refused("its header".into()).with_source(error))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > MAX_HEADER_BYTES {
        return Err(refused(format!("its header has {} bytes, {MAX_HEADER_BYTES} are allowed", header.len())));
    }
    let size = (start as u64).saturating_add(8 + header.len() as u64);
    if size > max_bytes {
        return Err(refused(format!("it would have {size} bytes, {max_bytes} are allowed")));
    }
    let tensors = sorted.into_iter().map(|(_, tensor)| tensor).collect();
    Ok(Encoded { header, tensors, checksum })
}

/// Decodes `size` bytes written by [`encode`] from `file`; `path` names it in errors. Lengths are checked against
/// `size` before anything is allocated.
///
/// # Errors
/// An I/O error, more than `max_bytes`, or bytes that are damaged: truncated, changed or not ours.
pub fn decode(path: &Path, file: &mut impl Read, size: u64, max_bytes: u64) -> Result<LoadedTensors> {
    let damaged = |why: String| Error::damaged(format!("{} is damaged: {why}", path.display()));
    let failed = |error: std::io::Error| Error::unreadable(path, error);
    if size > max_bytes {
        return Err(damaged(format!("it has {size} bytes, at most {max_bytes} are possible")));
    }
    let mut length = [0; 8];
    if size < 8 {
        return Err(damaged(format!("it has only {size} bytes")));
    }
    file.read_exact(&mut length).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length + 8 > size {
        return Err(damaged(format!("its header would have {length} bytes, the file has {size}")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(failed)?;
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|error| damaged("its header is not valid".into()).with_source(error))?;
    let expected = (header.data_len() as u64).checked_add(8 + length);
    if expected != Some(size) {
        return Err(damaged(format!("by its header it has {expected:?} bytes, the file has {size}")));
    }
    let mut meta: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let named = meta.remove(CHECKSUM).ok_or_else(|| damaged("it has no checksum".into()))?;
    let mut checksum = Checksum::new(&meta);
    let mut arrays = BTreeMap::new();
    // In the order in which they were written; an empty array begins where its neighbour does.
    let mut infos: Vec<(String, &TensorInfo)> = header.tensors().into_iter().collect();
    infos.sort_by(|(a, x), (b, y)| {
        x.data_offsets.cmp(&y.data_offsets).then(y.dtype.cmp(&x.dtype)).then_with(|| a.cmp(b))
    });
    for (name, info) in infos {
        let bytes = info.data_offsets.1 - info.data_offsets.0;
        let values = match info.dtype {
            Dtype::U8 => read::<u8>(file, bytes),
            Dtype::U16 => read::<u16>(file, bytes),
            Dtype::U32 => read::<u32>(file, bytes),
            Dtype::F16 => read::<f16>(file, bytes),
            Dtype::F32 => read::<f32>(file, bytes),
            Dtype::F64 => read::<f64>(file, bytes),
            Dtype::I64 => read::<i64>(file, bytes),
            Dtype::U64 => read::<u64>(file, bytes),
            other => return Err(damaged(format!("array {name:?} has the unexpected type {other}"))),
        };
        let values = values.map_err(failed)?;
        checksum.add(&name, info.dtype, &info.shape, values.bytes());
        arrays.insert(name, (info.shape.clone(), values));
    }
    let found = checksum.finish();
    if found != named {
        return Err(damaged(format!("its checksum is {found}, it should be {named}")));
    }
    Ok(LoadedTensors { meta, path: path.to_path_buf(), arrays })
}

/// `bytes` must have been checked against the size of the file, and be a multiple of the size of a `T`.
fn read<T: Scalar>(file: &mut impl Read, bytes: usize) -> std::io::Result<TensorData> {
    let mut values = vec![T::zeroed(); bytes / size_of::<T>()];
    file.read_exact(bytemuck::cast_slice_mut(&mut values))?;
    Ok(T::wrap(values))
}

/// The JSON header. The crate's own writer takes the text entries from a hash map, whose order changes from run to run.
struct Header<'a> {
    meta: &'a BTreeMap<String, String>,
    infos: &'a [(&'a str, TensorInfo)],
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.infos.len() + 1))?;
        map.serialize_entry("__metadata__", self.meta)?;
        for (name, info) in self.infos {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}
