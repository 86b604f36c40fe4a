//! The Arrow schema that a Parquet file carries as `ARROW:schema`. It tells readers that a list has a fixed size, which
//! Parquet's own schema cannot express. It is a flatbuffer in an IPC message, encoded in base64. Source:
//! <https://arrow.apache.org/docs/format/Columnar.html>, `Message.fbs` and `Schema.fbs`.

/// A field of a flatbuffer table. Numbers are little-endian and as wide as their type.
enum Slot {
    Absent,
    Number(Vec<u8>),
    Text(String),
    Table(Table),
    Tables(Vec<Table>),
}

/// Slots in declaration order.
struct Table(Vec<Slot>);

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Type {
    /// An integer of this many bits, signed or not.
    Int(u8, bool),
    Float,
    Half,
    Text,
    Bool,
}

/// A column, or the element of a list.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) nullable: bool,
    pub(super) of: Type,
    /// Length of the list, if it is one.
    pub(super) list: Option<usize>,
}

fn number<const N: usize>(bytes: [u8; N]) -> Slot {
    Slot::Number(bytes.to_vec())
}

impl Field {
    fn table(&self) -> Table {
        let (kind, inner, children) = match self.list {
            Some(length) => {
                let element = Field { name: "element", nullable: self.nullable, of: self.of, list: None };
                let length = i32::try_from(length).unwrap_or(i32::MAX);
                (16u8, vec![number(length.to_le_bytes())], vec![element.table()])
            }
            None => match self.of {
                Type::Int(bits, signed) => {
                    (2, vec![number(i32::from(bits).to_le_bytes()), number([u8::from(signed)])], Vec::new())
                }
                Type::Half => (3, vec![number(0i16.to_le_bytes())], Vec::new()),
                Type::Float => (3, vec![number(1i16.to_le_bytes())], Vec::new()),
                Type::Text => (5, Vec::new(), Vec::new()),
                Type::Bool => (6, Vec::new(), Vec::new()),
            },
        };
        Table(vec![
            Slot::Text(self.name.into()),
            number([u8::from(self.nullable)]),
            number([kind]),
            Slot::Table(Table(inner)),
            Slot::Absent,
            Slot::Tables(children),
        ])
    }
}

/// The value of `ARROW:schema`.
pub(super) fn schema(fields: &[Field]) -> String {
    let little_endian = number(0i16.to_le_bytes());
    let schema = Table(vec![little_endian, Slot::Tables(fields.iter().map(Field::table).collect())]);
    let (version_5, is_schema, no_body) = (number(4i16.to_le_bytes()), number([1]), number(0i64.to_le_bytes()));
    let message = Table(vec![version_5, is_schema, Slot::Table(schema), no_body]);
    let mut buffer = vec![0; 4];
    let at = message.write(&mut buffer);
    point(&mut buffer, 0, at);
    align(&mut buffer, 8);
    let mut out = vec![0xff; 4];
    out.extend_from_slice(&(buffer.len() as u32).to_le_bytes());
    out.extend_from_slice(&buffer);
    base64(&out)
}

impl Table {
    /// Appends the table and everything it refers to, and returns its offset. Its vtable comes before it.
    fn write(&self, out: &mut Vec<u8>) -> usize {
        // Offset of each slot in the table: aligned to its width, after the 4-byte offset of the vtable.
        let (mut size, mut places) = (4usize, Vec::new());
        for slot in &self.0 {
            let width = match slot {
                Slot::Absent => {
                    places.push(0);
                    continue;
                }
                Slot::Number(bytes) => bytes.len(),
                _ => 4,
            };
            size = size.next_multiple_of(width);
            places.push(size);
            size += width;
        }
        align(out, 8);
        let list = out.len();
        for number in [4 + 2 * places.len(), size].into_iter().chain(places.iter().copied()) {
            out.extend_from_slice(&(number as u16).to_le_bytes());
        }
        align(out, 8);
        let at = out.len();
        out.extend_from_slice(&((at - list) as i32).to_le_bytes());
        out.resize(at + size, 0);
        for (slot, place) in self.0.iter().zip(places) {
            let place = at + place;
            let target = match slot {
                Slot::Absent => continue,
                Slot::Number(bytes) => {
                    out[place..place + bytes.len()].copy_from_slice(bytes);
                    continue;
                }
                Slot::Text(text) => {
                    align(out, 4);
                    let target = out.len();
                    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
                    out.extend_from_slice(text.as_bytes());
                    out.push(0);
                    target
                }
                Slot::Table(table) => table.write(out),
                Slot::Tables(tables) => {
                    align(out, 4);
                    let target = out.len();
                    out.extend_from_slice(&(tables.len() as u32).to_le_bytes());
                    out.resize(out.len() + 4 * tables.len(), 0);
                    for (i, table) in tables.iter().enumerate() {
                        let inner = table.write(out);
                        point(out, target + 4 + 4 * i, inner);
                    }
                    target
                }
            };
            point(out, place, target);
        }
        at
    }
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Makes the 4-byte offset at `place` refer to `target`, which comes after it.
fn point(out: &mut [u8], place: usize, target: usize) {
    out[place..place + 4].copy_from_slice(&((target - place) as u32).to_le_bytes());
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, i| word << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (text, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
