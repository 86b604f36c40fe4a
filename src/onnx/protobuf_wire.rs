//! The protocol buffer wire format (protobuf.dev, "Encoding"): finds the bytes of fields, to copy them verbatim.
use prost::Message;

use super::proto::{NODE_INPUT, NODE_OUTPUT};

/// Maximum nesting depth of subgraphs.
const MAX_DEPTH: usize = 64;

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    /// The complete field with its tag and length.
    pub(crate) whole: &'a [u8],
    /// Content of a message, text or bytes field; empty for numbers.
    pub(crate) payload: &'a [u8],
    is_bytes: bool,
}

/// The fields of a message, in order. Ends after the first error.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, String>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(rest);
        rest = field.as_ref().map_or(&[], |field| &rest[field.whole.len()..]);
        Some(field.map_err(|what| format!("the encoder's file is not ONNX: {what}")))
    })
}

fn field(bytes: &[u8]) -> Result<Field<'_>, &'static str> {
    let (tag, header) = varint(bytes)?;
    let number = u32::try_from(tag >> 3).map_err(|_| "a field number is too large")?;
    let (start, length) = match tag & 7 {
        VARINT => (header, varint(&bytes[header..])?.1),
        FIXED_64 => (header, 8),
        FIXED_32 => (header, 4),
        BYTES => {
            let (length, used) = varint(&bytes[header..])?;
            (header + used, usize::try_from(length).map_err(|_| "a field is too long")?)
        }
        _ => return Err("a field has an unknown wire type"),
    };
    let end = start.checked_add(length).filter(|end| *end <= bytes.len()).ok_or("a field is cut off")?;
    let is_bytes = tag & 7 == BYTES;
    let payload = if is_bytes { &bytes[start..end] } else { &[] };
    Ok(Field { number, whole: &bytes[..end], payload, is_bytes })
}

/// Decodes a varint of up to ten bytes, lowest bits first; returns the value and its length in bytes.
fn varint(bytes: &[u8]) -> Result<(u64, usize), &'static str> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok((value, i + 1));
        }
    }
    Err("a number is cut off")
}

/// The message in the field `number`, which must occur exactly once.
pub(crate) fn only_message(message: &[u8], number: u32) -> Result<&[u8], String> {
    let mut found = None;
    for field in fields(message) {
        let field = field?;
        if field.number == number && field.is_bytes && found.replace(field.payload).is_some() {
            return Err(format!("the encoder's file is not ONNX: field {number} is there twice"));
        }
    }
    found.ok_or_else(|| format!("the encoder's file is not ONNX: field {number} is missing"))
}

/// The message with its field `number` replaced by `part`.
pub(crate) fn with_message(message: &[u8], number: u32, part: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(message.len());
    for field in fields(message) {
        let field = field?;
        if field.number == number {
            put_bytes(number, part, &mut out);
        } else {
            out.extend_from_slice(field.whole);
        }
    }
    Ok(out)
}

/// A `NodeProto` with its inputs and outputs renamed to `input` and `output`; `None`: unchanged.
pub(crate) fn node_with(
    node: &[u8],
    input: impl Fn(&str) -> Option<String>,
    output: impl Fn(&str) -> Option<String>,
) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(node.len());
    for field in fields(node) {
        let field = field?;
        let name = std::str::from_utf8(field.payload);
        let other = match (field.number, name) {
            (NODE_INPUT, Ok(name)) => input(name),
            (NODE_OUTPUT, Ok(name)) => output(name),
            _ => None,
        };
        match other {
            Some(name) => put_bytes(field.number, name.as_bytes(), &mut out),
            None => out.extend_from_slice(field.whole),
        }
    }
    Ok(out)
}

/// Appends an integer field.
pub(crate) fn put_number(number: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | VARINT, out);
    put_varint(value, out);
}

/// Appends a bytes field (or an encoded message).
pub(crate) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | BYTES, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a message field.
pub(crate) fn put_message(number: u32, message: &impl Message, out: &mut Vec<u8>) {
    put_bytes(number, &message.encode_to_vec(), out);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What a field contains, as far as it can hold tensor names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum WireType {
    /// `GraphProto`
    Graph,
    Node,
    Attribute,
    ValueInfo,
    Tensor,
    SparseTensor,
    /// `TensorAnnotation`, whose entries have tensor names as values.
    Annotation,
    Entry,
    /// The name of a tensor.
    Name,
}

/// The type of the field `number` in a message of type `of` (field numbers of `onnx.proto`).
fn kind(of: WireType, number: u32) -> Option<WireType> {
    Some(match (of, number) {
        (WireType::Graph, 1) => WireType::Node,
        (WireType::Graph, 5) => WireType::Tensor,
        (WireType::Graph, 11..=13) => WireType::ValueInfo,
        (WireType::Graph, 14) => WireType::Annotation,
        (WireType::Graph, 15) => WireType::SparseTensor,
        (WireType::Node, 1 | 2)
        | (WireType::ValueInfo | WireType::Annotation, 1)
        | (WireType::Tensor, 8)
        | (WireType::Entry, 2) => WireType::Name,
        (WireType::Node, 5) => WireType::Attribute,
        (WireType::Attribute, 6 | 11) => WireType::Graph,
        (WireType::SparseTensor, 1) => WireType::Tensor,
        (WireType::Annotation, 2) => WireType::Entry,
        _ => return None,
    })
}

/// Appends `field` of a message of type `of` and renames tensors (`names`: from, to) wherever they occur in it,
/// including subgraphs, which may use names of the graph around them.
pub(crate) fn rename(field: &Field, of: WireType, names: &[(&str, &str)], out: &mut Vec<u8>) -> Result<(), String> {
    rename_to_depth(field, of, names, MAX_DEPTH, out)
}

fn rename_to_depth(
    field: &Field,
    of: WireType,
    names: &[(&str, &str)],
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match kind(of, field.number).filter(|_| field.is_bytes) {
        None => out.extend_from_slice(field.whole),
        Some(WireType::Name) => match names.iter().find(|(from, _)| field.payload == from.as_bytes()) {
            Some((_, to)) => put_bytes(field.number, to.as_bytes(), out),
            None => out.extend_from_slice(field.whole),
        },
        Some(kind) => {
            let depth = depth.checked_sub(1).ok_or("the encoder's graphs lie too deep in each other")?;
            let mut inner = Vec::with_capacity(field.payload.len());
            for part in fields(field.payload) {
                rename_to_depth(&part?, kind, names, depth, &mut inner)?;
            }
            put_bytes(field.number, &inner, out);
        }
    }
    Ok(())
}
