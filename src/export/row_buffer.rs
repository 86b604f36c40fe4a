//! The in-memory buffer of rows and records, and the row file it is flushed to.
use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::{Error, Result};
use crate::export::parquet::Sheet;
use crate::export::reader::MAX_TEXT_BYTES;
use crate::export::sidecar_file::SidecarFile;
use crate::export::{Dtype, Format, Record, RowFormat};

/// Rows are buffered up to this many bytes, then written.
pub(super) const GATHER_BYTES: usize = 1 << 16;

/// Limits on the size of a Parquet row group, which is a sixteenth of the file. Large groups suit readers, small ones
/// save memory.
const GROUP_BYTES: (u64, u64) = (GATHER_BYTES as u64, 1 << 24);

/// Approximate size of a record in Parquet.
const RECORD_BYTES: usize = 64;

/// Complete rows with their records, encoded as they will be in the file.
#[derive(Debug, Default)]
pub(super) struct RowBuffer {
    rows: Vec<u8>,
    /// One line of JSON per record ...
    lines: Vec<u8>,
    /// ... or, for Parquet, the records themselves.
    records: Vec<Record>,
    count: u64,
    halves: Vec<f16>,
}

impl RowBuffer {
    pub(super) fn add(&mut self, layout: RowFormat, record: &Record, row: &[f32]) -> Result<()> {
        if layout.format == Format::Parquet {
            self.records.push(record.clone());
        } else {
            let before = self.lines.len();
            serde_json::to_writer(&mut self.lines, record).map_err(|error| {
                Error::runtime(format!("cannot write the record of frame {}", record.frame)).with_source(error)
            })?;
            // Do not write what a reader would reject.
            let bytes = (self.lines.len() - before) as u64;
            if bytes >= MAX_TEXT_BYTES {
                self.lines.truncate(before);
                return Err(Error::runtime(format!(
                    "cannot write the record of frame {}: it has {bytes} bytes, fewer than {MAX_TEXT_BYTES} are possible",
                    record.frame
                )));
            }
            self.lines.push(b'\n');
        }
        match layout.dtype {
            Dtype::F32 => self.rows.extend_from_slice(bytemuck::cast_slice(row)),
            Dtype::F16 => {
                self.halves.resize(row.len(), f16::ZERO);
                self.halves.convert_from_f32_slice(row);
                self.rows.extend_from_slice(bytemuck::cast_slice(&self.halves));
            }
        }
        self.count += 1;
        Ok(())
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Bytes that the buffer will take in the file; an estimate for Parquet.
    pub(super) fn bytes(&self) -> usize {
        self.rows.len() + self.lines.len() + self.records.len() * RECORD_BYTES
    }

    pub(super) fn forget(&mut self) {
        self.rows.clear();
        self.lines.clear();
        self.records.clear();
        self.count = 0;
    }
}

/// A row file (with its file of records, if the format has one) while it is being written.
#[derive(Debug)]
pub(super) enum RowFile {
    Pair(SidecarFile),
    Sheet(Box<Sheet>),
}

impl RowFile {
    /// Creates the file at `path`, which has the extension of the format.
    pub(super) fn create(path: &Path, layout: RowFormat, dim: usize, first: &Record) -> Result<Self> {
        Ok(match layout.format {
            Format::Parquet => RowFile::Sheet(Box::new(Sheet::create(path.to_path_buf(), layout, dim, first)?)),
            Format::Npy | Format::Safetensors => RowFile::Pair(SidecarFile::create(path, layout, dim, first)?),
        })
    }

    /// How many bytes to buffer before a write.
    pub(super) fn least(format: Format, rotate_bytes: u64) -> usize {
        match format {
            Format::Parquet => (rotate_bytes / 16).clamp(GROUP_BYTES.0, GROUP_BYTES.1) as usize,
            Format::Npy | Format::Safetensors => GATHER_BYTES,
        }
    }

    pub(super) fn dim(&self) -> usize {
        match self {
            RowFile::Pair(pair) => pair.dim(),
            RowFile::Sheet(sheet) => sheet.dim(),
        }
    }

    /// Complete rows in the file.
    pub(super) fn rows(&self) -> u64 {
        match self {
            RowFile::Pair(pair) => pair.rows(),
            RowFile::Sheet(sheet) => sheet.rows(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match self {
            RowFile::Pair(pair) => pair.bytes(),
            RowFile::Sheet(sheet) => sheet.bytes(),
        }
    }

    /// Appends the whole buffer, or nothing on an error.
    pub(super) fn append(&mut self, gathered: &RowBuffer) -> Result<()> {
        match self {
            RowFile::Pair(pair) => pair.append(&gathered.rows, &gathered.lines, gathered.count),
            RowFile::Sheet(sheet) => sheet.append(&gathered.rows, &gathered.records),
        }
    }

    /// Gives the file its final name, or removes it on an error.
    pub(super) fn close(self) -> Result<()> {
        match self {
            RowFile::Pair(pair) => pair.close(),
            RowFile::Sheet(sheet) => sheet.close(),
        }
    }

    pub(super) fn discard(&self) {
        match self {
            RowFile::Pair(pair) => pair.discard(),
            RowFile::Sheet(sheet) => sheet.discard(),
        }
    }
}
