//! Thrift's compact protocol, in which Parquet encodes its metadata: bounded reading, and writing. Source:
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.
use std::collections::BTreeMap;

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;

/// Maximum nesting of structures when reading.
const DEPTH: u32 = 16;

/// A value of the protocol. Doubles are skipped, and maps are not supported: Parquet's own structures have none.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Byte(i8),
    I32(i32),
    I64(i64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Struct(Struct),
    /// A value of a type that is not used.
    Other,
}

/// Fields by number.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Struct(BTreeMap<i16, Value>);

impl Struct {
    /// Adds one field.
    pub(super) fn with(mut self, id: i16, value: Value) -> Self {
        self.0.insert(id, value);
        self
    }

    /// An integer field of any width.
    pub(super) fn int(&self, id: i16) -> Option<i64> {
        match self.0.get(&id)? {
            Value::Byte(x) => Some(i64::from(*x)),
            Value::I32(x) => Some(i64::from(*x)),
            Value::I64(x) => Some(*x),
            _ => None,
        }
    }

    pub(super) fn bytes(&self, id: i16) -> Option<&[u8]> {
        match self.0.get(&id)? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn list(&self, id: i16) -> Option<&[Value]> {
        match self.0.get(&id)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    pub(super) fn inner(&self, id: i16) -> Option<&Struct> {
        self.0.get(&id)?.as_struct()
    }

    /// Appends the structure to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut last = 0;
        for (id, value) in &self.0 {
            let kind = value.kind();
            match id - last {
                near @ 1..=15 => out.push((near as u8) << 4 | kind),
                _ => {
                    out.push(kind);
                    varint(out, zigzag(i64::from(*id)));
                }
            }
            last = *id;
            // For a boolean field, the type encodes the value.
            if !matches!(value, Value::Bool(_)) {
                value.write(out);
            }
        }
        out.push(0);
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Bytes(text.as_bytes().to_vec())
    }
}

impl Value {
    pub(super) fn as_struct(&self) -> Option<&Struct> {
        match self {
            Value::Struct(inner) => Some(inner),
            _ => None,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Value::Bool(true) => TRUE,
            Value::Bool(false) => FALSE,
            Value::Byte(_) => BYTE,
            Value::I32(_) => I32,
            Value::I64(_) => I64,
            Value::Bytes(_) => BINARY,
            Value::List(_) => LIST,
            Value::Struct(_) => STRUCT,
            Value::Other => DOUBLE,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Bool(_) => out.push(self.kind()),
            Value::Byte(x) => out.push(*x as u8),
            Value::I32(x) => varint(out, zigzag(i64::from(*x))),
            Value::I64(x) => varint(out, zigzag(*x)),
            Value::Bytes(bytes) => {
                varint(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Value::List(list) => {
                let kind = list.first().map_or(STRUCT, Value::kind);
                match list.len() {
                    few @ 0..15 => out.push((few as u8) << 4 | kind),
                    many => {
                        out.push(0xf0 | kind);
                        varint(out, many as u64);
                    }
                }
                list.iter().for_each(|value| value.write(out));
            }
            Value::Struct(inner) => inner.write(out),
            Value::Other => out.extend_from_slice(&[0; 8]),
        }
    }
}

fn zigzag(x: i64) -> u64 {
    ((x << 1) ^ (x >> 63)) as u64
}

/// Seven bits per byte, the lowest first.
pub(super) fn varint(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

/// Reads a structure from the start of `bytes` and advances past it. `None` if there is no valid structure.
pub(super) fn read(bytes: &mut &[u8]) -> Option<Struct> {
    read_struct(bytes, DEPTH)
}

fn read_struct(bytes: &mut &[u8], depth: u32) -> Option<Struct> {
    let depth = depth.checked_sub(1)?;
    let (mut fields, mut id) = (Struct::default(), 0i16);
    loop {
        let head = byte(bytes)?;
        if head == 0 {
            return Some(fields);
        }
        let near = i16::from(head >> 4);
        id = if near == 0 { i16::try_from(int(bytes)?).ok()? } else { id.checked_add(near)? };
        let value = match head & 15 {
            TRUE => Value::Bool(true),
            FALSE => Value::Bool(false),
            kind => value(bytes, kind, depth)?,
        };
        fields.0.insert(id, value);
    }
}

/// Reads a value. Every value takes at least one byte, so the result is never much larger than its encoding.
fn value(bytes: &mut &[u8], kind: u8, depth: u32) -> Option<Value> {
    Some(match kind {
        TRUE | FALSE => Value::Bool(byte(bytes)? == TRUE),
        BYTE => Value::Byte(byte(bytes)? as i8),
        I16 | I32 => Value::I32(i32::try_from(int(bytes)?).ok()?),
        I64 => Value::I64(int(bytes)?),
        DOUBLE => {
            take(bytes, 8)?;
            Value::Other
        }
        BINARY => {
            let length = usize::try_from(read_varint(bytes)?).ok()?;
            Value::Bytes(take(bytes, length)?.to_vec())
        }
        LIST | SET => {
            let head = byte(bytes)?;
            let length = if head >> 4 == 15 { read_varint(bytes)? } else { u64::from(head >> 4) };
            let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len())?;
            let depth = depth.checked_sub(1)?;
            Value::List((0..length).map(|_| value(bytes, head & 15, depth)).collect::<Option<_>>()?)
        }
        STRUCT => Value::Struct(read_struct(bytes, depth)?),
        _ => return None,
    })
}

fn int(bytes: &mut &[u8]) -> Option<i64> {
    let x = read_varint(bytes)?;
    Some((x >> 1) as i64 ^ -((x & 1) as i64))
}

/// The inverse of [`varint`].
pub(super) fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut x = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(bytes)?;
        x |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Some(x);
        }
    }
    None
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// Takes `length` bytes.
pub(super) fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_structure_comes_back_and_no_part_of_it_is_taken_for_the_whole() {
        let inner = Struct::default().with(1, Value::Bool(true)).with(40, Value::Byte(-3)).with(41, Value::Bool(false));
        let many = (0..20).map(|i| Value::I32(i - 10)).collect();
        let whole = Struct::default()
            .with(1, Value::I64(i64::MIN))
            .with(2, "text".into())
            .with(5, Value::List(many))
            .with(7, Value::List(vec![Value::Struct(inner.clone()), Value::Struct(inner)]))
            .with(8, Value::List(Vec::new()));
        let mut bytes = Vec::new();
        whole.write(&mut bytes);
        bytes.push(77);
        let mut rest = bytes.as_slice();
        assert_eq!(read(&mut rest), Some(whole));
        assert_eq!(rest, [77]);
        for length in 0..bytes.len() - 1 {
            assert_eq!(read(&mut &bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let mut bytes = Vec::new();
        Struct::default().with(1, Value::I32(-1)).with(3, Value::Bool(true)).with(20, "a".into()).write(&mut bytes);
        assert_eq!(bytes, [0x15, 0x01, 0x21, 0x08, 0x28, 0x01, b'a', 0x00]);
    }

    #[test]
    fn what_would_take_much_memory_or_stack_is_refused() {
        assert_eq!(read(&mut [0x1c; 1000].as_slice()), None);
        assert_eq!(read(&mut [0x19; 1000].as_slice()), None);
        assert_eq!(read(&mut [0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f].as_slice()), None);
        assert_eq!(read(&mut [0x19, 0xf1, 0xff, 0xff, 0xff, 0x7f, 1].as_slice()), None);
    }
}
