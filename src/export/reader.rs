//! Reads a folder of exported rows back, in order.
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::{Error, Result};
use crate::export::npy::{self, Shape};
use crate::export::parquet::Groups;
use crate::export::{Dtype, Format, RECORDS, Record, row_files, safetensors};
use crate::files;

/// A header or record longer than this was not written by this program.
pub(super) const MAX_TEXT_BYTES: u64 = 1 << 16;

/// Iterates over the `(record, row)` pairs of all files in a folder, by file number. Ends after an error.
#[derive(Debug)]
pub struct Reader {
    /// Files still to be opened, the next one last.
    ahead: Vec<(PathBuf, Shape)>,
    open: Option<Open>,
    rows: u64,
}

/// The file being read.
#[derive(Debug)]
enum Open {
    Pair(Pair),
    Sheet(Sheet),
}

impl Reader {
    /// Checks the names and headers of all files in `folder`. Skips records without rows at the end: a crash leaves
    /// them when it hits between the two renames.
    /// # Errors
    /// There are no files, a number is missing, or a file is malformed; the error names the file and the problem.
    pub fn open(folder: &Path) -> Result<Self> {
        let names = files::names_in(folder)?;
        let found = row_files(&names);
        let Some((first, _)) = found.first() else {
            return Err(Error::runtime(format!(
                "no embeddings in {}: expected NNNN.npy with NNNN.jsonl, NNNN.parquet, or NNNN.safetensors with \
                 NNNN.jsonl, as `learn` and `embed` write them",
                folder.display()
            )));
        };
        let mut ahead = Vec::new();
        let mut rows: u64 = 0;
        for (expected, (number, format)) in (*first..).zip(&found) {
            let path = folder.join(files::numbered_name(*number, format.end()));
            if *number < expected {
                return Err(bad(&path, format!("there is another file of the number {number:04}")));
            }
            if *number != expected {
                return Err(bad(&path, format!("the file before it, {expected:04}, is missing")));
            }
            let shape = shape(&path)?;
            rows = rows.saturating_add(shape.rows);
            ahead.push((path, shape));
        }
        ahead.reverse();
        Ok(Self { ahead, open: None, rows })
    }

    /// Reads a single row file, with its file of records if it has one.
    /// # Errors
    /// The file is malformed; the error says how.
    pub fn file(path: &Path) -> Result<Self> {
        let shape = shape(path)?;
        Ok(Self { ahead: vec![(path.to_path_buf(), shape)], open: None, rows: shape.rows })
    }

    /// Type and length of the rows in the first file.
    pub fn layout(&self) -> Option<(Dtype, usize)> {
        let (_, shape) = self.ahead.last()?;
        Some((shape.dtype, shape.dim))
    }

    /// Number of rows in all files.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn read(&mut self) -> Result<Option<(Record, Vec<f32>)>> {
        loop {
            if let Some(open) = &mut self.open
                && let Some(row) = open.read()?
            {
                return Ok(Some(row));
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

pub(super) fn bad(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::runtime(format!("cannot use {}: {what}", path.display()))
}

/// The format by file extension.
pub(crate) fn format_of(path: &Path) -> Option<Format> {
    path.extension().and_then(|end| end.to_str()).and_then(|end| end.parse().ok())
}

/// The shape given in the header or footer of a file.
pub(super) fn shape(path: &Path) -> Result<Shape> {
    Ok(if format_of(path) == Some(Format::Parquet) { Groups::open(path)?.0 } else { header(path)?.0 })
}

/// Decodes one row and checks that all its numbers are finite.
fn numbers(shape: Shape, bytes: &[u8], number: u64, path: &Path) -> Result<Vec<f32>> {
    let mut row = vec![0.0; shape.dim];
    match shape.dtype {
        Dtype::F32 => bytemuck::cast_slice_mut(&mut row).copy_from_slice(bytes),
        Dtype::F16 => {
            let halves: Vec<f16> = bytemuck::pod_collect_to_vec(bytes);
            halves.convert_to_f32_slice(&mut row);
        }
    }
    if !row.iter().all(|value| value.is_finite()) {
        return Err(bad(path, format!("row {number} has a number that is not finite")));
    }
    Ok(row)
}

impl Open {
    fn new(path: PathBuf, expected: Shape) -> Result<Self> {
        let parquet = format_of(&path) == Some(Format::Parquet);
        let (shape, open) = if parquet { Sheet::open(path)? } else { Pair::open(path)? };
        if shape != expected {
            return Err(bad(open.path(), "it changed while it was read"));
        }
        Ok(open)
    }

    fn path(&self) -> &Path {
        match self {
            Open::Pair(pair) => &pair.path,
            Open::Sheet(sheet) => &sheet.path,
        }
    }

    fn read(&mut self) -> Result<Option<(Record, Vec<f32>)>> {
        match self {
            Open::Pair(pair) if pair.left > 0 => pair.read().map(Some),
            Open::Pair(pair) => pair.at_end().map(|()| None),
            Open::Sheet(sheet) => sheet.read(),
        }
    }
}

/// A file that contains its own records, read one row group at a time.
#[derive(Debug)]
struct Sheet {
    path: PathBuf,
    shape: Shape,
    number: u64,
    groups: Groups,
    records: std::vec::IntoIter<Record>,
    rows: Vec<u8>,
    at: usize,
}

impl Sheet {
    fn open(path: PathBuf) -> Result<(Shape, Open)> {
        let (shape, groups) = Groups::open(&path)?;
        let records = Vec::new().into_iter();
        Ok((shape, Open::Sheet(Self { path, shape, number: 0, groups, records, rows: Vec::new(), at: 0 })))
    }

    fn read(&mut self) -> Result<Option<(Record, Vec<f32>)>> {
        loop {
            if let Some(record) = self.records.next() {
                let end = self.at + self.shape.dim * self.shape.dtype.bytes();
                let bytes = self.rows.get(self.at..end).unwrap_or_default();
                let row = numbers(self.shape, bytes, self.number, &self.path)?;
                (self.at, self.number) = (end, self.number + 1);
                return Ok(Some((record, row)));
            }
            let Some((records, rows)) = self.groups.next(&self.path)? else { return Ok(None) };
            (self.records, self.rows, self.at) = (records.into_iter(), rows, 0);
        }
    }
}

/// The shape in the header of a file, and the file positioned at its first row.
fn header(path: &Path) -> Result<(Shape, File)> {
    let failed = |error| Error::io("cannot read", path, error);
    let mut file = files::open_regular(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut start = Vec::new();
    file.by_ref().take(MAX_TEXT_BYTES).read_to_end(&mut start).map_err(failed)?;
    let (shape, begin) = parse(path, &start, size)?;
    file.seek(SeekFrom::Start(begin)).map_err(failed)?;
    Ok((shape, file))
}

/// Parses the first bytes of a file of `size` bytes. Returns the shape and the offset of the rows.
pub(super) fn parse(path: &Path, start: &[u8], size: u64) -> Result<(Shape, u64)> {
    let parse = if format_of(path) == Some(Format::Safetensors) { safetensors::parse } else { npy::parse };
    parse(start, size).map_err(|what| bad(path, what))
}

/// A row file with its file of records.
#[derive(Debug)]
struct Pair {
    path: PathBuf,
    shape: Shape,
    left: u64,
    rows: BufReader<File>,
    records: BufReader<File>,
    line: Vec<u8>,
    bytes: Vec<u8>,
}

impl Pair {
    fn open(path: PathBuf) -> Result<(Shape, Open)> {
        let (shape, rows) = header(&path)?;
        let records = path.with_extension(RECORDS);
        let records = files::open_regular(&records).map_err(|error| Error::io("cannot read", &records, error))?;
        let bytes = vec![0; shape.dim * shape.dtype.bytes()];
        let (rows, records) = (BufReader::new(rows), BufReader::new(records));
        Ok((shape, Open::Pair(Self { path, shape, left: shape.rows, rows, records, line: Vec::new(), bytes })))
    }

    fn read(&mut self) -> Result<(Record, Vec<f32>)> {
        let number = self.shape.rows - self.left;
        let record = self.record(number)?;
        self.rows.read_exact(&mut self.bytes).map_err(|error| Error::io("cannot read", &self.path, error))?;
        let row = numbers(self.shape, &self.bytes, number, &self.path)?;
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
        serde_json::from_slice(&self.line)
            .map_err(|error| bad(&path, format!("line {}", number + 1)).with_source(error))
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
