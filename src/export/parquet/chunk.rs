//! Encodes one column of a row group: a page of values, preceded for text by a dictionary page. Pages are uncompressed
//! and have a CRC-32, which is checked. Source: <https://parquet.apache.org/docs/file-format/>.
use std::sync::Arc;

use super::arrow::Type;
use super::compact::{self, Struct, Value, take};
use super::runs::{self, Run};
use super::schema::Column;

const PLAIN: i32 = 0;
const RLE: i32 = 3;
const RLE_DICTIONARY: i32 = 8;
const DATA_PAGE: i32 = 0;
const DICTIONARY_PAGE: i32 = 2;

/// The values of one column.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cells {
    /// Whether each row has a value; always true if the column is not optional.
    pub(super) present: Vec<bool>,
    /// The values of those rows, little-endian and contiguous (booleans: eight per byte, lowest bit first).
    pub(super) bytes: Vec<u8>,
    /// For text: the entries of the dictionary.
    pub(super) entries: Vec<Arc<str>>,
    /// For text: indices into the dictionary.
    pub(super) numbers: Vec<Run>,
}

/// Appends the column to `out`, which starts at byte `begin` of the file. Returns the column's entry for the footer.
pub(super) fn write(out: &mut Vec<u8>, begin: u64, column: &Column, cells: &Cells) -> Struct {
    let (start, mut body) = (out.len(), Vec::new());
    let at = |out: &Vec<u8>| Value::I64((begin + out.len() as u64) as i64);
    let mut said = Struct::default().with(1, Value::I32(column.physical())).with(3, column.path());
    // Some readers cannot handle a dictionary without entries.
    let text = column.of == Type::Text && !cells.entries.is_empty();
    if text {
        for entry in &cells.entries {
            body.extend_from_slice(&(entry.len() as u32).to_le_bytes());
            body.extend_from_slice(entry.as_bytes());
        }
        said = said.with(11, at(out));
        let entries = Value::I32(cells.entries.len() as i32);
        let own = Struct::default().with(1, entries).with(2, Value::I32(PLAIN));
        page(out, DICTIONARY_PAGE, 7, own, &body);
        body.clear();
    }
    let levels = Levels::of(column, &cells.present);
    for (runs, most) in [(&levels.repeats, u8::from(column.list.is_some())), (&levels.defined, most_defined(column))] {
        if most > 0 {
            let place = body.len();
            body.extend_from_slice(&[0; 4]);
            runs::write(&mut body, runs::width(usize::from(most) + 1), runs.iter().copied());
            let length = (body.len() - place - 4) as u32;
            body[place..place + 4].copy_from_slice(&length.to_le_bytes());
        }
    }
    let encoding = if text {
        let width = runs::width(cells.entries.len());
        body.push(width);
        runs::write(&mut body, width, cells.numbers.iter().copied());
        RLE_DICTIONARY
    } else {
        body.extend_from_slice(&cells.bytes);
        PLAIN
    };
    said = said.with(9, at(out));
    let own = [levels.count as i32, encoding, RLE, RLE];
    let own = (1..).zip(own).fold(Struct::default(), |own, (id, value)| own.with(id, Value::I32(value)));
    page(out, DATA_PAGE, 5, own, &body);
    let encodings = if text { &[PLAIN, RLE, RLE_DICTIONARY][..] } else { &[PLAIN, RLE] };
    let size = (out.len() - start) as i64;
    said.with(2, Value::List(encodings.iter().map(|x| Value::I32(*x)).collect()))
        .with(4, Value::I32(0))
        .with(5, Value::I64(levels.count as i64))
        .with(6, Value::I64(size))
        .with(7, Value::I64(size))
}

/// Reads `rows` rows written by [`write`].
/// # Errors
/// A description of the problem.
pub(super) fn read(mut bytes: &[u8], column: &Column, rows: usize) -> Result<Cells, String> {
    let mut cells = Cells::default();
    let mut ahead = bytes;
    let mut dictionary =
        || compact::read(&mut ahead).is_some_and(|head| head.int(1) == Some(i64::from(DICTIONARY_PAGE)));
    let text = column.of == Type::Text && dictionary();
    let odd = || format!("the column {} is not laid out as afterimage writes it", column.name);
    if text {
        let (own, mut body) = read_page(&mut bytes, DICTIONARY_PAGE, 7, column)?;
        for _ in 0..own.int(1).unwrap_or(0) {
            let length = take(&mut body, 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
            let entry = length.and_then(|length| take(&mut body, length as usize)).ok_or_else(odd)?;
            cells.entries.push(std::str::from_utf8(entry).map_err(|_| odd())?.into());
        }
    }
    let (own, mut body) = read_page(&mut bytes, DATA_PAGE, 5, column)?;
    let count = own.int(1).and_then(|count| u64::try_from(count).ok()).ok_or_else(odd)?;
    let mut level = |most: u8| -> Option<Vec<Run>> {
        if most == 0 {
            return Some(Vec::new());
        }
        let length = take(&mut body, 4)?.try_into().ok().map(u32::from_le_bytes)?;
        let limit = u32::from(most) + 1;
        runs::read(take(&mut body, length as usize)?, runs::width(limit as usize), limit, count)
    };
    let repeats = level(u8::from(column.list.is_some())).ok_or_else(odd)?;
    let defined = level(most_defined(column)).ok_or_else(odd)?;
    cells.present = present(column, &defined, rows).ok_or_else(odd)?;
    if (Levels { repeats, defined, count }) != Levels::of(column, &cells.present) {
        return Err(odd());
    }
    let there = cells.present.iter().filter(|there| **there).count();
    if text {
        let width = runs::width(cells.entries.len());
        let limit = u32::try_from(cells.entries.len()).map_err(|_| odd())?;
        if take(&mut body, 1) != Some(&[width]) {
            return Err(odd());
        }
        cells.numbers = runs::read(body, width, limit, there as u64).ok_or_else(odd)?;
    } else if column.of == Type::Text && there == 0 && body.is_empty() {
        // Without values there is no dictionary.
    } else if column.bytes(there) == Some(body.len()) {
        cells.bytes = body.to_vec();
    } else {
        return Err(odd());
    }
    if bytes.is_empty() { Ok(cells) } else { Err(odd()) }
}

/// Repetition levels (0 starts a row, 1 continues it) and definition levels (how much of the path to a value is
/// present).
#[derive(Debug, PartialEq)]
struct Levels {
    repeats: Vec<Run>,
    defined: Vec<Run>,
    count: u64,
}

impl Levels {
    fn of(column: &Column, present: &[bool]) -> Self {
        let length = |there: bool| if there { column.list.unwrap_or(1) as u64 } else { 1 };
        let most = u32::from(most_defined(column));
        let defined = present.iter().map(|there| (if *there { most } else { 0 }, length(*there)));
        let repeats = present.iter().flat_map(|there| [(0, 1), (1, length(*there) - 1)]);
        Self {
            count: present.iter().map(|there| length(*there)).sum(),
            repeats: if column.list.is_some() { runs::joined(repeats) } else { Vec::new() },
            defined: if most > 0 { runs::joined(defined) } else { Vec::new() },
        }
    }
}

/// In the schema, the values of an optional list are optional too, although none is ever missing.
fn most_defined(column: &Column) -> u8 {
    let list = u8::from(column.list.is_some());
    u8::from(column.optional) * (1 + list) + list
}

/// Whether each of `rows` rows has a value. `None` if the levels belong to a different number of rows.
fn present(column: &Column, defined: &[Run], rows: usize) -> Option<Vec<bool>> {
    if most_defined(column) == 0 {
        return Some(vec![true; rows]);
    }
    let mut present = Vec::new();
    for (level, count) in defined {
        let there = u32::from(most_defined(column)) == *level;
        let length = if there { column.list.unwrap_or(1) as u64 } else { 1 };
        let more = usize::try_from(count / length).ok().filter(|more| *more <= rows - present.len())?;
        present.resize(present.len() + more, there);
    }
    (present.len() == rows).then_some(present)
}

fn page(out: &mut Vec<u8>, kind: i32, own_id: i16, own: Struct, body: &[u8]) {
    let size = Value::I32(body.len() as i32);
    let head = Struct::default().with(1, Value::I32(kind)).with(2, size.clone()).with(3, size);
    let crc = Value::I32(crc32fast::hash(body) as i32);
    head.with(4, crc).with(own_id, Value::Struct(own)).write(out);
    out.extend_from_slice(body);
}

/// Reads a page and verifies its checksum.
fn read_page<'a>(bytes: &mut &'a [u8], kind: i32, own_id: i16, column: &Column) -> Result<(Struct, &'a [u8]), String> {
    let found = || {
        let head = compact::read(bytes).filter(|head| head.int(1) == Some(i64::from(kind)))?;
        let body = take(bytes, usize::try_from(head.int(3)?).ok()?)?;
        Some((head.inner(own_id)?.clone(), body, head.int(4)?))
    };
    let mut found = found;
    let (own, body, sum) = found().ok_or_else(|| format!("the column {} has no such page as expected", column.name))?;
    if sum as i32 != crc32fast::hash(body) as i32 {
        return Err(format!("the column {} is damaged: its checksum is another", column.name));
    }
    Ok((own, body))
}
