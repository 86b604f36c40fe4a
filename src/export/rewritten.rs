//! One file of rows at a time under a name of its own, for what is made of other files.
use std::path::Path;

use super::gathered::{Gathered, Open};
use super::{Layout, Record};
use crate::error::{Error, Result};

/// Parquet rows that are gathered for a group, bytes.
const GROUP_BYTES: u64 = 1 << 26;

/// A file of rows with its records while it is being written: complete at [`Rewritten::close`], else absent. Other than a
/// [`super::Writer`] it does not survive a full disk.
#[derive(Debug)]
pub struct Rewritten {
    open: Option<Open>,
    gathered: Gathered,
    layout: Layout,
    least: usize,
}

impl Rewritten {
    /// At `path`, of rows of `dim` numbers, of which `first` will be the first record.
    ///
    /// # Errors
    /// The I/O error.
    pub fn create(path: &Path, layout: Layout, dim: usize, first: &Record) -> Result<Self> {
        let open = Some(Open::create(path, layout, dim, first)?);
        Ok(Self { open, gathered: Gathered::default(), layout, least: Open::least(layout.format, GROUP_BYTES) })
    }

    /// One row more.
    ///
    /// # Errors
    /// A row of another length, or the I/O error.
    pub fn push(&mut self, record: &Record, row: &[f32]) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if row.len() != open.dim() {
            return Err(Error::work(format!("a row of {} numbers in a file of {}", row.len(), open.dim())));
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
        self.open.take().map_or(Ok(()), Open::close)
    }
}

impl Drop for Rewritten {
    /// What was not closed is gone.
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.discard();
        }
    }
}
