//! The header of safetensors files (8 bytes of length, then JSON) with one tensor `[n, d]` of f32 or f16. Source:
//! <https://github.com/huggingface/safetensors#format>.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::npy::{MAX_DIM, Shape};
use super::{Dtype, Record, RowFormat};

/// A longer header was not written by this program.
const MAX_HEADER_BYTES: usize = 1 << 16;

const DTYPES: [(&str, Dtype); 2] = [("F32", Dtype::F32), ("F16", Dtype::F16)];

/// The contents of the header except the shape.
#[derive(Debug)]
pub(super) struct Heading {
    column: &'static str,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Tensor>,
}

impl Heading {
    pub(super) fn new(column: &'static str, first: &Record) -> Self {
        let metadata = first.common().into_iter().map(|(key, value)| (format!("afterimage.{key}"), value)).collect();
        Self { column, metadata }
    }

    /// The encoded header. Its length is fixed and a multiple of 8; it is padded with spaces.
    pub(super) fn bytes(&self, shape: Shape) -> Vec<u8> {
        let text = self.text(shape);
        let longest = self.text(Shape { rows: u64::MAX, ..shape });
        let length = longest.len().next_multiple_of(8);
        let mut header = (length as u64).to_le_bytes().to_vec();
        header.extend_from_slice(text.as_bytes());
        header.resize(8 + length, b' ');
        header
    }

    fn text(&self, shape: Shape) -> String {
        let Shape { dtype, rows, dim } = shape;
        let name = DTYPES.iter().find(|(_, known)| *known == dtype).map_or("", |(name, _)| name);
        let end = u128::from(rows) * (dim * dtype.bytes()) as u128;
        let (column, metadata) = (self.column, serde_json::json!(self.metadata));
        format!(
            "{{\"__metadata__\":{metadata},\"{column}\":{{\"dtype\":\"{name}\",\"shape\":[{rows},{dim}],\
             \"data_offsets\":[0,{end}]}}}}"
        )
    }
}

/// Parses a header from the first bytes of a file of `size` bytes. Returns the shape and the offset of the rows.
/// # Errors
/// A description of the problem. The rows must fill the rest of the file exactly.
pub(super) fn parse(start: &[u8], size: u64) -> Result<(Shape, u64), String> {
    let (length, rest) = start.split_first_chunk().ok_or("it ends in its header")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= MAX_HEADER_BYTES);
    let length = length.ok_or("it does not begin as a .safetensors file that afterimage writes")?;
    let text = rest.get(..length).ok_or("it ends in its header")?;
    let header: Header = serde_json::from_slice(text).map_err(|error| format!("its header: {error}"))?;
    let known = [RowFormat::EMBEDDING, RowFormat::LATENT];
    let (Some((name, tensor)), 1) = (header.tensors.first_key_value(), header.tensors.len()) else {
        return Err(format!("it has {} tensors, one is read here", header.tensors.len()));
    };
    if !known.contains(&name.as_str()) {
        return Err(format!("it has a tensor {name:?}, {} are read here", known.join(" and ")));
    }
    let dtype = DTYPES.iter().find(|(name, _)| *name == tensor.dtype);
    let Some((_, dtype)) = dtype else {
        return Err(format!("it holds numbers of type {}, F32 and F16 are read here", tensor.dtype));
    };
    let [rows, dim] = tensor.shape[..] else {
        return Err(format!("its shape is {:?}, two dimensions are read here", tensor.shape));
    };
    if dim == 0 || dim > MAX_DIM {
        return Err(format!("its rows have {dim} numbers, 1 to {MAX_DIM} are possible"));
    }
    let begin = 8 + length as u64;
    let bytes = rows.checked_mul(dim * dtype.bytes() as u64);
    if tensor.data_offsets.0 != 0
        || bytes != Some(tensor.data_offsets.1)
        || begin.checked_add(tensor.data_offsets.1) != Some(size)
    {
        return Err(format!("its shape ({rows}, {dim}) does not fit its {size} bytes"));
    }
    Ok((Shape { dtype: *dtype, rows, dim: dim as usize }, begin))
}
