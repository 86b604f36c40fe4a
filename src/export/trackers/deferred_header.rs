//! A file whose header is known only after all rows are written.
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::files;

/// Either complete or absent: written under a temporary name, with the header filled in at the end. Dropping it earlier
/// removes it.
#[derive(Debug)]
pub(super) struct DeferredHeaderFile {
    path: PathBuf,
    partial: PathBuf,
    /// `None` once the file is complete.
    out: Option<BufWriter<File>>,
}

impl DeferredHeaderFile {
    /// Creates the file and reserves `header` bytes for its header.
    pub(super) fn create(path: PathBuf, header: usize) -> Result<Self> {
        let partial = files::partial(&path)?;
        let file = files::create_new(&partial).map_err(|error| Error::io("cannot write", &path, error))?;
        let mut growing = Self { path, partial, out: Some(BufWriter::new(file)) };
        growing.push(&vec![0; header])?;
        Ok(growing)
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.out.as_mut().map_or(Ok(()), |out| out.write_all(bytes));
        written.map_err(|error| Error::io("cannot write", &self.path, error))
    }

    /// Fills in the header and gives the file its name.
    pub(super) fn finish(mut self, header: &[u8]) -> Result<()> {
        let failed = |error| Error::io("cannot write", &self.path, error);
        let Some(out) = self.out.take() else { return Ok(()) };
        let complete = out.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|mut file| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(header)?;
            file.sync_all()?;
            fs::rename(&self.partial, &self.path)
        });
        if let Err(error) = complete {
            files::remove_leftover(&self.partial);
            return Err(failed(error));
        }
        files::sync_folder(files::folder_of(&self.path))
    }
}

impl Drop for DeferredHeaderFile {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            files::remove_leftover(&self.partial);
        }
    }
}
