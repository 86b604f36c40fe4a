//! Random access to exported row files: many rows, few records. `.npy` and safetensors rows are memory-mapped, Parquet
//! rows are read one row group at a time, and records are read only on request.
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use half::f16;
use memmap2::Mmap;

use super::npy::Shape;
use super::parquet::Groups;
use super::reader::{MAX_TEXT_BYTES, bad, format_of, parse, shape};
use super::{Dtype, Format, RECORDS, Record};
use crate::error::{Error, Result};
use crate::files;

/// One validated row file. Each read opens the file again.
#[derive(Debug, Clone)]
pub struct RowFileReader {
    path: PathBuf,
    shape: Shape,
}

impl RowFileReader {
    /// Reads the header (or footer) of `path` and checks it against the size of the file.
    /// # Errors
    /// The file is malformed; the error says how.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), shape: shape(path)? })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of rows in the file.
    pub fn rows(&self) -> u64 {
        self.shape.rows
    }

    /// Numbers per row.
    pub fn dim(&self) -> usize {
        self.shape.dim
    }

    /// Passes every row, in order and with its number, to `each`. Maps one file, or holds one row group in memory, at a
    /// time.
    /// # Errors
    /// The file has changed or is damaged, or `each` fails.
    pub fn for_each_row(&self, mut each: impl FnMut(u64, &[f32]) -> Result<()>) -> Result<()> {
        let mut numbers = Numbers::new(self.shape);
        if format_of(&self.path) == Some(Format::Parquet) {
            let (shape, mut groups) = Groups::open(&self.path)?;
            self.same(shape)?;
            let mut first = 0;
            while let Some(bytes) = groups.next_rows(&self.path)? {
                first = numbers.each(first, &bytes, &mut each)?;
            }
            return Ok(());
        }
        let (map, begin) = self.map()?;
        numbers.each(0, map.get(begin..).unwrap_or_default(), &mut each).map(drop)
    }

    /// The mapped file, and the offset of its first row.
    #[allow(unsafe_code, reason = "mapping a file: another process could change it, which the language cannot see")]
    fn map(&self) -> Result<(Mmap, usize)> {
        let failed = |error| Error::io("cannot map", &self.path, error);
        let file = files::open_regular(&self.path).map_err(failed)?;
        // SAFETY: the map is only read, as bytes and as numbers for which any bits are valid. Exports get their names
        // when they are complete and are never written again (`files::replace`, `export::sidecar_file`). They can be
        // removed meanwhile, which leaves a map intact. Only a foreign program that truncates a file during the read
        // could end this process (SIGBUS). A file truncated earlier does not fit its header and is rejected below,
        // before any row is touched.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        let start = map.get(..map.len().min(MAX_TEXT_BYTES as usize)).unwrap_or_default();
        let (shape, begin) = parse(&self.path, start, map.len() as u64)?;
        self.same(shape)?;
        let begin = usize::try_from(begin).map_err(|_| bad(&self.path, "its header does not end"))?;
        Ok((map, begin))
    }

    fn same(&self, shape: Shape) -> Result<()> {
        if shape == self.shape { Ok(()) } else { Err(bad(&self.path, "it changed while it was read")) }
    }

    /// The records of the rows `wanted`, which must be in ascending order.
    /// # Errors
    /// The file of records cannot be read, lacks a record, or is malformed.
    pub fn records(&self, wanted: &[u64]) -> Result<Vec<Record>> {
        if format_of(&self.path) == Some(Format::Parquet) {
            return self.records_of_groups(wanted);
        }
        let path = self.path.with_extension(RECORDS);
        let failed = |error| Error::io("cannot read", &path, error);
        let mut lines = BufReader::new(files::open_regular(&path).map_err(failed)?);
        let (mut line, mut found, mut next) = (Vec::new(), Vec::with_capacity(wanted.len()), 0);
        for &row in wanted {
            while next < row {
                lines.skip_until(b'\n').map_err(failed)?;
                next += 1;
            }
            line.clear();
            (&mut lines).take(MAX_TEXT_BYTES).read_until(b'\n', &mut line).map_err(failed)?;
            next += 1;
            if line.is_empty() {
                return Err(bad(&path, format!("it has no line for row {row} of {}", self.path.display())));
            }
            let record = serde_json::from_slice(&line);
            found.push(record.map_err(|error| bad(&path, format!("line {}", row + 1)).with_source(error))?);
        }
        Ok(found)
    }

    fn records_of_groups(&self, wanted: &[u64]) -> Result<Vec<Record>> {
        let (shape, mut groups) = Groups::open(&self.path)?;
        self.same(shape)?;
        let (mut found, mut first, mut rest) = (Vec::with_capacity(wanted.len()), 0, wanted);
        while let (Some(row), Some(rows)) = (rest.first(), groups.rows_ahead()) {
            if *row >= first + rows {
                groups.pass();
            } else if let Some((records, _)) = groups.next(&self.path)? {
                let here = rest.partition_point(|row| *row < first + rows);
                let (now, later) = rest.split_at(here);
                rest = later;
                found.extend(now.iter().filter_map(|row| records.get((row - first) as usize)).cloned());
            }
            first += rows;
        }
        if found.len() < wanted.len() {
            return Err(bad(&self.path, "it has fewer records than rows"));
        }
        Ok(found)
    }

    /// One row with its record; `None` if the file has fewer rows.
    /// # Errors
    /// See [`RowFileReader::for_each_row`] and [`RowFileReader::records`].
    pub fn row(&self, number: u64) -> Result<Option<(Record, Vec<f32>)>> {
        if number >= self.rows() {
            return Ok(None);
        }
        let mut found = Vec::new();
        self.for_each_row(|row, numbers| {
            if row == number {
                found = numbers.to_vec();
            }
            Ok(())
        })?;
        Ok(self.records(&[number])?.pop().map(|record| (record, found)))
    }
}

/// Converts rows of bytes to rows of numbers.
struct Numbers {
    shape: Shape,
    row: Vec<f32>,
}

impl Numbers {
    fn new(shape: Shape) -> Self {
        Self { shape, row: vec![0.0; shape.dim] }
    }

    /// Passes every row of `bytes` to `each`, numbered from `first`. Returns the number after the last row.
    fn each(&mut self, first: u64, bytes: &[u8], each: &mut impl FnMut(u64, &[f32]) -> Result<()>) -> Result<u64> {
        let Shape { dtype, dim, .. } = self.shape;
        let mut number = first;
        for bytes in bytes.chunks_exact(dim * dtype.bytes()) {
            let row = match (dtype, bytemuck::try_cast_slice(bytes)) {
                (Dtype::F32, Ok(row)) => row,
                // The bytes are not aligned for `f32`, so copy them.
                (Dtype::F32, Err(_)) => {
                    bytemuck::cast_slice_mut(&mut self.row).copy_from_slice(bytes);
                    self.row.as_slice()
                }
                (Dtype::F16, _) => {
                    for (to, from) in self.row.iter_mut().zip(bytes.chunks_exact(2)) {
                        *to = f16::from_le_bytes([from[0], from[1]]).to_f32();
                    }
                    self.row.as_slice()
                }
            };
            each(number, row)?;
            number += 1;
        }
        Ok(number)
    }
}
