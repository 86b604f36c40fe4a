//! Named arrays and text in one `safetensors` file (8 bytes header length, JSON header, the arrays' bytes), with a
//! SHA-256 over all of it in the header's `__metadata__`.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use half::f16;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::arrays::{Checksum, Element, Tensor, Values};
use crate::error::{Error, Result};
use crate::files;

/// A header is names and shapes, and nothing in it grows with the stream (docs/formats.md, "Limits"): a longer one is no
/// file of ours. Holds for reading and for writing.
pub(crate) const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Key of the checksum in the header's `__metadata__`.
const CHECKSUM: &str = "sha256";

/// What a file held. Arrays are taken out one by one, with the shape that they must have.
#[derive(Debug)]
pub struct Stored {
    /// The text entries.
    pub meta: BTreeMap<String, String>,
    path: PathBuf,
    arrays: BTreeMap<String, (Vec<usize>, Values)>,
}

impl Stored {
    /// The text under `key`.
    /// # Errors
    /// There is none.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.meta.get(key).map(String::as_str).ok_or_else(|| self.wrong(format!("has no entry {key:?}")))
    }
    /// The text under `key`, read as a `T`.
    /// # Errors
    /// There is none, or it is no `T`.
    pub fn parse<T: FromStr>(&self, key: &str) -> Result<T> {
        let text = self.text(key)?;
        text.parse()
            .map_err(|_| self.wrong(format!("entry {key:?} is {text:?}, which is no {}", std::any::type_name::<T>())))
    }
    /// Whether there is an array of this name.
    pub fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }
    /// The shape of the array `name`, which must have `N` dimensions.
    /// # Errors
    /// There is no such array, or it has other dimensions.
    pub fn shape<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let (shape, _) = self.arrays.get(name).ok_or_else(|| self.wrong(format!("has no array {name:?}")))?;
        let wrong = |_| self.wrong(format!("array {name:?} has shape {shape:?}, expected {N} dimensions"));
        <[usize; N]>::try_from(shape.as_slice()).map_err(wrong)
    }
    /// Takes the array `name` out: row-major values.
    /// # Errors
    /// There is no such array, or its type or shape is another.
    pub fn take<T: Element>(&mut self, name: &str, shape: &[usize]) -> Result<Vec<T>> {
        let Some((found, values)) = self.arrays.remove(name) else {
            return Err(self.wrong(format!("has no array {name:?}")));
        };
        if found != shape {
            return Err(self.wrong(format!("array {name:?} has shape {found:?}, expected {shape:?}")));
        }
        T::unwrap(values).ok_or_else(|| self.wrong(format!("array {name:?} is not of type {}", T::DTYPE)))
    }
    /// An error about this file.
    pub fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::refused(format!("cannot use {}: it {what}; was it made by another version?", self.path.display()))
    }
}

/// Writes `meta` and `tensors` to `path`, whole or not at all; returns the checksum (64 hexadecimal digits). A file of more
/// than `max_bytes` is refused: [`load`] with the same bound would not take it.
///
/// The checksum covers the text entries and the names, types, shapes and bytes of the arrays. Nothing is copied: the
/// arrays are read twice, for the checksum and for the file. The same content gives the same bytes.
/// # Errors
/// A shape that does not fit its values, a name used twice, more bytes than can be read again, or the I/O error (a full
/// disk has its own kind).
pub fn save(
    path: &Path,
    meta: &BTreeMap<String, String>,
    tensors: &[(String, Tensor<'_>)],
    max_bytes: u64,
) -> Result<String> {
    let refused = |why: String| Error::work(format!("cannot write {}: {why}", path.display()));
    if meta.contains_key(CHECKSUM) {
        return Err(refused(format!("the entry {CHECKSUM:?} is set by the checksum")));
    }
    // The order of the format: wide types first, so that every array is aligned; then by name.
    let mut sorted: Vec<&(String, Tensor)> = tensors.iter().collect();
    sorted.sort_by(|(a, x), (b, y)| y.dtype.cmp(&x.dtype).then(a.cmp(b)));
    let mut names = BTreeSet::new();
    let mut checksum = Checksum::new(meta);
    let mut infos = Vec::with_capacity(sorted.len());
    let mut start = 0;
    for (name, tensor) in sorted.iter().copied() {
        let (Tensor { dtype, shape, .. }, bytes) = (tensor, tensor.bytes());
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
    let mut header = serde_json::to_vec(&header).map_err(|error| refused("its header".into()).because(error))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > MAX_HEADER_BYTES {
        return Err(refused(format!("its header has {} bytes, {MAX_HEADER_BYTES} are allowed", header.len())));
    }
    let size = (start as u64).saturating_add(8 + header.len() as u64);
    if size > max_bytes {
        return Err(refused(format!("it would have {size} bytes, {max_bytes} are allowed")));
    }
    files::replace(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        sorted.iter().try_for_each(|(_, tensor)| out.write_all(tensor.bytes()))
    })?;
    Ok(checksum)
}

/// Reads a file of [`save`]. Lengths are checked against the file before anything is allocated.
/// # Errors
/// The I/O error, a file of more than `max_bytes`, or what shows that it is damaged: truncated, changed, not ours.
pub fn load(path: &Path, max_bytes: u64) -> Result<Stored> {
    let damaged = |why: String| Error::damaged(format!("{} is damaged: {why}", path.display()));
    let failed = |error: std::io::Error| Error::unreadable(path, error);
    let mut file = files::open_regular(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
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
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| damaged("its header is not valid".into()).because(error))?;
    let expected = (header.data_len() as u64).checked_add(8 + length);
    if expected != Some(size) {
        return Err(damaged(format!("by its header it has {expected:?} bytes, the file has {size}")));
    }
    let mut meta: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let named = meta.remove(CHECKSUM).ok_or_else(|| damaged("it has no checksum".into()))?;
    let mut checksum = Checksum::new(&meta);
    let mut arrays = BTreeMap::new();
    // In the order in which they were written; empty arrays begin where their neighbour does.
    let mut infos: Vec<(String, &TensorInfo)> = header.tensors().into_iter().collect();
    infos.sort_by(|(a, x), (b, y)| {
        x.data_offsets.cmp(&y.data_offsets).then(y.dtype.cmp(&x.dtype)).then_with(|| a.cmp(b))
    });
    for (name, info) in infos {
        let bytes = info.data_offsets.1 - info.data_offsets.0;
        let values = match info.dtype {
            Dtype::U8 => read::<u8>(&mut file, bytes),
            Dtype::U16 => read::<u16>(&mut file, bytes),
            Dtype::U32 => read::<u32>(&mut file, bytes),
            Dtype::F16 => read::<f16>(&mut file, bytes),
            Dtype::F32 => read::<f32>(&mut file, bytes),
            Dtype::F64 => read::<f64>(&mut file, bytes),
            Dtype::I64 => read::<i64>(&mut file, bytes),
            Dtype::U64 => read::<u64>(&mut file, bytes),
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
    Ok(Stored { meta, path: path.to_path_buf(), arrays })
}

/// `bytes` was checked against the size of the file and is a multiple of the size of a `T`.
fn read<T: Element>(file: &mut File, bytes: usize) -> std::io::Result<Values> {
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
