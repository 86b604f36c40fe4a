//! One file of rows at a time under a name of its own, for what is made of other files.
use std::path::Path;

use super::row_buffer::{RowBuffer, RowFile};
use super::{Record, RowFormat};
use crate::error::{Error, Result};

/// Parquet rows that are gathered for a group, bytes.
const GROUP_BYTES: u64 = 1 << 26;

/// A file of rows with its records while it is being written: complete at [`RowFileWriter::close`], else absent. Other than a
/// [`super::Writer`] it does not survive a full disk.
#[derive(Debug)]
pub struct RowFileWriter {
    open: Option<RowFile>,
    gathered: RowBuffer,
    layout: RowFormat,
    least: usize,
}

impl RowFileWriter {
    /// At `path`, of rows of `dim` numbers, of which `first` will be the first record.
    ///
    /// # Errors
    /// The I/O error.
    pub fn create(path: &Path, layout: RowFormat, dim: usize, first: &Record) -> Result<Self> {
        let open = Some(RowFile::create(path, layout, dim, first)?);
        Ok(Self { open, gathered: RowBuffer::default(), layout, least: RowFile::least(layout.format, GROUP_BYTES) })
    }

    /// One row more.
    ///
    /// # Errors
    /// A row of another length, or the I/O error.
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

    /// Gives it its name.
    ///
    /// # Errors
    /// The I/O error; there is no file then.
    pub fn close(mut self) -> Result<()> {
        if let Some(open) = &mut self.open {
            open.append(&self.gathered)?;
        }
        self.open.take().map_or(Ok(()), RowFile::close)
    }
}

impl Drop for RowFileWriter {
    /// What was not closed is gone.
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.discard();
        }
    }
}
