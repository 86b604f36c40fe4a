//! Reads a folder of exported rows back, in order.
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::{Error, Result};
use crate::export::npy::{self, Shape};
use crate::export::{Dtype, RECORDS, ROWS, Record};
use crate::files;

/// A header or a record of more bytes was not written by us.
const MAX_TEXT_BYTES: u64 = 1 << 16;

/// Iterates over `(record, row)` of all files of a folder, by number. After an error it ends.
#[derive(Debug)]
pub struct Reader {
    /// Files still to be opened, the next one last.
    ahead: Vec<(PathBuf, Shape)>,
    open: Option<Open>,
    rows: u64,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    shape: Shape,
    left: u64,
    rows: BufReader<File>,
    records: BufReader<File>,
    line: Vec<u8>,
    bytes: Vec<u8>,
}

impl Reader {
    /// Checks the names and headers of all files in `folder`. Records without rows at the end are what a crash left
    /// while a pair was given its names; they are passed over.
    /// # Errors
    /// No files, a missing number, or a file that is not as it should be (named, with what is wrong).
    pub fn open(folder: &Path) -> Result<Self> {
        let names = files::names_in(folder)?;
        let numbers = files::numbered(&names, ROWS);
        let Some(first) = numbers.first() else {
            return Err(Error::work(format!(
                "no embeddings in {}: expected NNNN.npy with NNNN.jsonl, as `learn` and `embed` write them",
                folder.display()
            )));
        };
        let mut ahead = Vec::new();
        let mut rows: u64 = 0;
        for (expected, number) in (*first..).zip(&numbers) {
            let path = folder.join(files::numbered_name(*number, ROWS));
            if *number != expected {
                return Err(bad(&path, format!("the file before it, {expected:04}, is missing")));
            }
            let (shape, _) = header(&path)?;
            rows = rows.saturating_add(shape.rows);
            ahead.push((path, shape));
        }
        ahead.reverse();
        Ok(Self { ahead, open: None, rows })
    }

    /// One file `NNNN.npy` alone, with its `NNNN.jsonl`.
    /// # Errors
    /// It is not as it should be, with what is wrong.
    pub fn file(path: &Path) -> Result<Self> {
        let (shape, _) = header(path)?;
        Ok(Self { ahead: vec![(path.to_path_buf(), shape)], open: None, rows: shape.rows })
    }

    /// Rows in all files.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn read(&mut self) -> Result<Option<(Record, Vec<f32>)>> {
        loop {
            if let Some(open) = &mut self.open {
                if open.left > 0 {
                    return open.read().map(Some);
                }
                open.at_end()?;
            }
            let Some((path, shape)) = self.ahead.pop() else { return Ok(None) };
            self.open = Some(Open::new(path, shape)?);
        }
    }
}

impl Iterator for Reader {
    type Item = Result<(Record, Vec<f32>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read().transpose();
        if !matches!(next, Some(Ok(_))) {
            (self.open, self.ahead) = (None, Vec::new());
        }
        next
    }
}

fn bad(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::work(format!("cannot use {}: {what}", path.display()))
}

/// What the header of a file says, and the file at its first row.
fn header(path: &Path) -> Result<(Shape, File)> {
    let failed = |error| Error::io("cannot read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut start = Vec::new();
    file.by_ref().take(MAX_TEXT_BYTES).read_to_end(&mut start).map_err(failed)?;
    let (shape, begin) = npy::parse(&start, size).map_err(|what| bad(path, what))?;
    file.seek(SeekFrom::Start(begin)).map_err(failed)?;
    Ok((shape, file))
}

impl Open {
    fn new(path: PathBuf, expected: Shape) -> Result<Self> {
        let (shape, rows) = header(&path)?;
        if shape != expected {
            return Err(bad(&path, "it changed while it was read"));
        }
        let records = path.with_extension(RECORDS);
        let records = File::open(&records).map_err(|error| Error::io("cannot read", &records, error))?;
        let bytes = vec![0; shape.dim * shape.dtype.bytes()];
        let (rows, records) = (BufReader::new(rows), BufReader::new(records));
        Ok(Self { path, shape, left: shape.rows, rows, records, line: Vec::new(), bytes })
    }

    fn read(&mut self) -> Result<(Record, Vec<f32>)> {
        let number = self.shape.rows - self.left;
        let record = self.record(number)?;
        self.rows.read_exact(&mut self.bytes).map_err(|error| Error::io("cannot read", &self.path, error))?;
        let mut row = vec![0.0; self.shape.dim];
        match self.shape.dtype {
            Dtype::F32 => bytemuck::cast_slice_mut(&mut row).copy_from_slice(&self.bytes),
            Dtype::F16 => {
                let halves: Vec<f16> = bytemuck::pod_collect_to_vec(&self.bytes);
                halves.convert_to_f32_slice(&mut row);
            }
        }
        if !row.iter().all(|value| value.is_finite()) {
            return Err(bad(&self.path, format!("row {number} has a number that is not finite")));
        }
        self.left -= 1;
        Ok((record, row))
    }

    fn record(&mut self, number: u64) -> Result<Record> {
        let path = self.path.with_extension(RECORDS);
        self.line.clear();
        let bounded = &mut self.records.by_ref().take(MAX_TEXT_BYTES);
        bounded.read_until(b'\n', &mut self.line).map_err(|error| Error::io("cannot read", &path, error))?;
        if self.line.is_empty() {
            return Err(bad(&path, format!("it ends after {number} lines, there are {} rows", self.shape.rows)));
        }
        serde_json::from_slice(&self.line).map_err(|error| bad(&path, format!("line {}", number + 1)).because(error))
    }

    fn at_end(&mut self) -> Result<()> {
        let path = self.path.with_extension(RECORDS);
        let rest = self.records.fill_buf().map_err(|error| Error::io("cannot read", &path, error))?;
        if rest.is_empty() {
            Ok(())
        } else {
            Err(bad(&path, format!("it has more lines than the {} rows", self.shape.rows)))
        }
    }
}
