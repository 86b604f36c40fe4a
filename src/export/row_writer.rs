//! Writes a single row file under a given name, for data derived from other files.
use std::path::Path;

use super::row_buffer::{RowBuffer, RowFile};
use super::{Record, RowFormat};
use crate::error::{Error, Result};

/// Bytes of Parquet rows buffered for one row group.
const GROUP_BYTES: u64 = 1 << 26;

/// A row file with its records while it is being written: complete after [`RowFileWriter::close`], otherwise absent.
/// Unlike [`super::Writer`], it does not survive a full disk.
#[derive(Debug)]
pub struct RowFileWriter {
    open: Option<RowFile>,
    gathered: RowBuffer,
    layout: RowFormat,
    least: usize,
}

impl RowFileWriter {
    /// Creates the file at `path` for rows of `dim` numbers. `first` must be the first record.
    ///
    /// # Errors
    /// The I/O error.
    pub fn create(path: &Path, layout: RowFormat, dim: usize, first: &Record) -> Result<Self> {
        let open = Some(RowFile::create(path, layout, dim, first)?);
        Ok(Self { open, gathered: RowBuffer::default(), layout, least: RowFile::least(layout.format, GROUP_BYTES) })
    }

    /// Appends one row.
    ///
    /// # Errors
    /// The row has another length, or an I/O error.
    pub fn push(&mut self, record: &Record, row: &[f32]) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if row.len() != open.dim() {
            return Err(Error::runtime(format!("a row of {} numbers in a file of {}", row.len(), open.dim())));
        }
        self.gathered.add(self.layout, record, row)?;
        if self.gathered.bytes() >= self.least {
            open.append(&self.gathered)?;
            self.gathered.forget();
        }
        Ok(())
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// The I/O error; no file is left then.
    pub fn close(mut self) -> Result<()> {
        if let Some(open) = &mut self.open {
            open.append(&self.gathered)?;
        }
        self.open.take().map_or(Ok(()), RowFile::close)
    }
}

impl Drop for RowFileWriter {
    /// Removes a file that was not closed.
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.discard();
        }
    }
}
