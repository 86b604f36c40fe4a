//! Typed arrays in memory and on disk, and the checksum over them.
use std::collections::BTreeMap;

use half::f16;
use safetensors::Dtype;
use sha2::{Digest, Sha256};

/// The bytes of arrays are the same in memory and on disk.
const _: () = assert!(cfg!(target_endian = "little"), "checkpoints are little-endian, as are all boards that we know");

/// The values of one array of a file.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the name says it")]
pub enum TensorData {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    U64(Vec<u64>),
}

/// A numeric type that files can hold.
pub trait Scalar: bytemuck::Pod {
    /// The name of the type in the format.
    const DTYPE: Dtype;
    /// Wraps values of this type.
    fn wrap(values: Vec<Self>) -> TensorData;
    /// The values, if they have this type.
    fn unwrap(values: TensorData) -> Option<Vec<Self>>;
}

macro_rules! element {
    ($($type:ident $name:ident),*) => {$(
        impl Scalar for $type {
            const DTYPE: Dtype = Dtype::$name;
            fn wrap(values: Vec<Self>) -> TensorData {
                TensorData::$name(values)
            }
            fn unwrap(values: TensorData) -> Option<Vec<Self>> {
                match values {
                    TensorData::$name(values) => Some(values),
                    _ => None,
                }
            }
        }
    )*};
}
element!(u8 U8, u16 U16, u32 U32, f16 F16, f32 F32, f64 F64, i64 I64, u64 U64);

/// An array to be written: type, shape and values, either borrowed or made for the file.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    bytes: Bytes<'a>,
}

#[derive(Debug, Clone)]
enum Bytes<'a> {
    Borrowed(&'a [u8]),
    Owned(TensorData),
}

impl<'a> TensorView<'a> {
    /// Borrows `values` in row-major order; [`encode`](super::encode) rejects a `shape` that does not fit them.
    pub fn new<T: Scalar>(shape: &[usize], values: &'a [T]) -> Self {
        Self { dtype: T::DTYPE, shape: shape.to_vec(), bytes: Bytes::Borrowed(bytemuck::cast_slice(values)) }
    }
    /// Owns a list made for the file.
    pub fn list<T: Scalar>(values: Vec<T>) -> Self {
        Self { dtype: T::DTYPE, shape: vec![values.len()], bytes: Bytes::Owned(T::wrap(values)) }
    }
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Owned(values) => values.bytes(),
        }
    }
}

impl TensorData {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            TensorData::U8(values) => values,
            TensorData::U16(values) => bytemuck::cast_slice(values),
            TensorData::U32(values) => bytemuck::cast_slice(values),
            TensorData::F16(values) => bytemuck::cast_slice(values),
            TensorData::F32(values) => bytemuck::cast_slice(values),
            TensorData::F64(values) => bytemuck::cast_slice(values),
            TensorData::I64(values) => bytemuck::cast_slice(values),
            TensorData::U64(values) => bytemuck::cast_slice(values),
        }
    }
}

/// SHA-256 over the whole content of a file. Every part follows its length, so that different contents cannot run
/// together.
pub(super) struct Checksum(Sha256);

impl Checksum {
    pub(super) fn new(meta: &BTreeMap<String, String>) -> Self {
        let mut sum = Self(Sha256::new());
        sum.0.update((meta.len() as u64).to_le_bytes());
        for (key, value) in meta {
            sum.part(key.as_bytes());
            sum.part(value.as_bytes());
        }
        sum
    }
    pub(super) fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
        self.part(name.as_bytes());
        self.part(dtype.to_string().as_bytes());
        self.0.update((shape.len() as u64).to_le_bytes());
        for n in shape {
            self.0.update((*n as u64).to_le_bytes());
        }
        self.part(bytes);
    }
    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
    pub(super) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
