//! A row file and its file of records while they are being written.
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::export::npy::{self, Shape};
use crate::export::{Format, RECORDS, Record, RowFormat, safetensors};
use crate::files;

/// Both files hold the same complete rows at any time. They get their final names when they are closed.
#[derive(Debug)]
pub(super) struct SidecarFile {
    rows: Part,
    records: Part,
    shape: Shape,
    heading: Heading,
    header_bytes: u64,
}

/// The header before the rows. Its length does not depend on the number of rows, which is filled in at the end.
#[derive(Debug)]
enum Heading {
    Npy,
    Safetensors(safetensors::Heading),
}

impl Heading {
    fn bytes(&self, shape: Shape) -> Vec<u8> {
        match self {
            Heading::Npy => npy::header(shape).to_vec(),
            Heading::Safetensors(heading) => heading.bytes(shape),
        }
    }
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    length: u64,
}

impl Part {
    fn create(path: PathBuf) -> Result<Self> {
        let partial = files::partial(&path)?;
        let file = files::create_new(&partial).map_err(|error| Error::io("cannot write", &path, error))?;
        Ok(Self { path, partial, file, length: 0 })
    }

    /// Appends all of `bytes`, or none of them on an error.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            self.cut(self.length)?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Truncates the file to an earlier length. This needs no disk space.
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.length = length;
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length)).map(drop)
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("cannot write", &self.path, error)
    }
}

impl SidecarFile {
    /// Creates both files, at `path` and beside it, for rows of `dim` numbers. `first` is the first record.
    pub(super) fn create(path: &Path, layout: RowFormat, dim: usize, first: &Record) -> Result<Self> {
        let rows = Part::create(path.to_path_buf())?;
        let shape = Shape { dtype: layout.dtype, rows: 0, dim };
        let heading = match layout.format {
            Format::Safetensors => Heading::Safetensors(safetensors::Heading::new(layout.column, first)),
            Format::Npy | Format::Parquet => Heading::Npy,
        };
        let mut pair = match Part::create(path.with_extension(RECORDS)) {
            Ok(records) => Self { rows, records, shape, heading, header_bytes: 0 },
            Err(error) => {
                files::remove_leftover(&rows.partial);
                return Err(error);
            }
        };
        if let Err(error) = pair.rows.append(&pair.heading.bytes(shape)) {
            let error = pair.rows.failed(error);
            pair.discard();
            return Err(error);
        }
        pair.header_bytes = pair.rows.length;
        Ok(pair)
    }

    pub(super) fn dim(&self) -> usize {
        self.shape.dim
    }

    /// Complete rows in the files.
    pub(super) fn rows(&self) -> u64 {
        self.shape.rows
    }

    /// Size of both files in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.rows.length + self.records.length
    }

    /// Appends `count` rows and their records to both files, or to neither on an error.
    pub(super) fn append(&mut self, rows: &[u8], records: &[u8], count: u64) -> Result<()> {
        let before = self.records.length;
        self.records.append(records).map_err(|error| self.records.failed(error))?;
        if let Err(error) = self.rows.append(rows) {
            let error = self.rows.failed(error);
            self.records.cut(before).map_err(|error| self.records.failed(error))?;
            return Err(error);
        }
        self.shape.rows += count;
        Ok(())
    }

    /// Fills in the number of rows and renames both files, the records first, so that rows never appear without their
    /// records. Removes both on an error.
    pub(super) fn close(mut self) -> Result<()> {
        debug_assert_eq!(
            self.rows.length,
            self.header_bytes + self.rows() * (self.dim() * self.shape.dtype.bytes()) as u64
        );
        let closed = self.complete();
        if closed.is_err() {
            files::remove_leftover(&self.rows.path);
            files::remove_leftover(&self.records.path);
            self.discard();
        }
        closed
    }

    fn complete(&mut self) -> Result<()> {
        let header = self.heading.bytes(self.shape);
        let fill = |file: &mut File| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header)
        };
        fill(&mut self.rows.file).map_err(|error| self.rows.failed(error))?;
        for part in [&self.records, &self.rows] {
            part.file.sync_all().map_err(|error| part.failed(error))?;
        }
        for part in [&self.records, &self.rows] {
            fs::rename(&part.partial, &part.path).map_err(|error| part.failed(error))?;
        }
        files::sync_folder(files::folder_of(&self.rows.path))
    }

    /// Removes both partial files.
    pub(super) fn discard(&self) {
        files::remove_leftover(&self.rows.partial);
        files::remove_leftover(&self.records.partial);
    }
}
