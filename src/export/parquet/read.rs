//! Reads Parquet files written by this program.
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::chunk::Cells;
use super::compact::{self, Struct, Value};
use super::schema::{self, Column};
use super::{DIM, MAGIC, NAMES, chunk, records};
use crate::error::{Error, Result};
use crate::export::npy::{MAX_DIM, Shape};
use crate::export::reader::bad;
use crate::export::{Dtype, Record};
use crate::files;

/// A longer footer was not written by this program.
const MAX_FOOTER_BYTES: u64 = 1 << 24;

/// The row groups of a file, read one after the other.
#[derive(Debug)]
pub(in crate::export) struct Groups {
    file: File,
    size: u64,
    columns: Vec<Column>,
    /// Groups still to be read, the next one last.
    ahead: Vec<Struct>,
}

impl Groups {
    /// The shape in the footer, and the file positioned at its first group.
    pub(in crate::export) fn open(path: &Path) -> Result<(Shape, Self)> {
        let failed = |error| Error::io("cannot read", path, error);
        let mut file = files::open_regular(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let footer = footer(&mut file, size).map_err(failed)?.ok_or_else(|| {
            bad(
                path,
                "it does not begin and end as a Parquet file that afterimage writes: it was cut off, or is another",
            )
        })?;
        let known = || {
            let rows = u64::try_from(footer.int(3)?).ok()?;
            let pairs = footer.list(5)?.iter().filter_map(Value::as_struct);
            let mut dim = pairs.filter(|pair| pair.bytes(1) == Some(DIM.as_bytes())).filter_map(|pair| pair.bytes(2));
            let dim = std::str::from_utf8(dim.next()?).ok()?.parse::<u64>().ok()?;
            let dim = usize::try_from(dim).ok().filter(|_| (1..=MAX_DIM).contains(&dim))?;
            let own = footer.list(2)?;
            let all = NAMES.into_iter().flat_map(|name| [Dtype::F32, Dtype::F16].map(|dtype| (name, dtype)));
            let (dtype, columns) = all
                .flat_map(|(name, dtype)| [false, true].map(|migrated| (name, dtype, migrated)))
                .map(|(name, dtype, migrated)| (dtype, schema::columns(name, dtype, dim, migrated)))
                .find(|(_, columns)| schema::elements(columns) == Value::List(own.to_vec()))?;
            let groups: Option<Vec<Struct>> = footer.list(4)?.iter().map(|group| group.as_struct().cloned()).collect();
            let mut ahead = groups?;
            let counted = ahead.iter().try_fold(0u64, |sum, group| sum.checked_add(group.int(3)?.try_into().ok()?))?;
            ahead.reverse();
            (counted == rows).then_some((Shape { dtype, rows, dim }, columns, ahead))
        };
        let (shape, columns, ahead) =
            known().ok_or_else(|| bad(path, "its columns are not those that afterimage writes"))?;
        Ok((shape, Self { file, size, columns, ahead }))
    }

    /// Rows in the next group; `None` after the last.
    pub(in crate::export) fn rows_ahead(&self) -> Option<u64> {
        self.ahead.last().map(|group| group.int(3).and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0))
    }

    /// Skips the next group.
    pub(in crate::export) fn pass(&mut self) {
        self.ahead.pop();
    }

    /// The records of the next group, with the bytes of all its numbers.
    pub(in crate::export) fn next(&mut self, path: &Path) -> Result<Option<(Vec<Record>, Vec<u8>)>> {
        let Some(cells) = self.cells(path, 0)? else { return Ok(None) };
        let (records, rows) = records::records(cells).ok_or_else(|| bad(path, "a record in it is not whole"))?;
        if let Some(odd) = records.iter().find(|record| !(1..=crate::export::SCHEMA).contains(&record.schema)) {
            return Err(bad(
                path,
                format!("its records are of version {}, which this program does not read", odd.schema),
            ));
        }
        Ok(Some((records, rows)))
    }

    /// The bytes of all numbers in the next group, without its records.
    pub(in crate::export) fn next_rows(&mut self, path: &Path) -> Result<Option<Vec<u8>>> {
        // The numbers are in the last column.
        let cells = self.cells(path, self.columns.len().saturating_sub(1))?;
        Ok(cells.and_then(|mut cells| cells.pop()).map(|numbers| numbers.bytes))
    }

    /// The columns of the next group, starting at index `from`.
    fn cells(&mut self, path: &Path, from: usize) -> Result<Option<Vec<Cells>>> {
        let Some(group) = self.ahead.pop() else { return Ok(None) };
        let odd = || bad(path, "its footer does not fit its columns");
        let rows = group.int(3).and_then(|rows| u32::try_from(rows).ok()).ok_or_else(odd)?;
        let chunks = group.list(1).filter(|chunks| chunks.len() == self.columns.len()).ok_or_else(odd)?;
        let mut cells = Vec::new();
        for (column, said) in self.columns.iter().zip(chunks).skip(from) {
            let place = said.as_struct().and_then(|said| said.inner(3)).and_then(|said| {
                let begin = u64::try_from(said.int(11).or_else(|| said.int(9))?).ok()?;
                let length = u64::try_from(said.int(7)?).ok()?;
                // A row takes at least one bit.
                let fits = begin.checked_add(length)? <= self.size && u64::from(rows) <= 8 * self.size;
                (fits && said.int(4) == Some(0)).then_some((begin, length))
            });
            let (begin, length) = place.ok_or_else(odd)?;
            let mut bytes = Vec::new();
            self.file
                .seek(SeekFrom::Start(begin))
                .and_then(|_| (&mut self.file).take(length).read_to_end(&mut bytes))
                .map_err(|error| Error::io("cannot read", path, error))?;
            cells.push(chunk::read(&bytes, column, rows as usize).map_err(|what| bad(path, what))?);
        }
        Ok(Some(cells))
    }
}

/// The footer; `None` if the file was not written by this program.
fn footer(file: &mut File, size: u64) -> io::Result<Option<Struct>> {
    if size < 12 {
        return Ok(None);
    }
    let (mut first, mut last) = ([0; 4], [0; 8]);
    file.read_exact(&mut first)?;
    file.seek(SeekFrom::Start(size - 8))?;
    file.read_exact(&mut last)?;
    let [a, b, c, d, magic @ ..] = last;
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if first != *MAGIC || magic != *MAGIC || length > MAX_FOOTER_BYTES.min(size - 12) {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(size - 8 - length))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(compact::read(&mut bytes.as_slice()))
}
