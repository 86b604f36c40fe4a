//! Embeddings on disk as they come: numbered files of rows `[n, d]`, each with its [`Record`], closed by size.
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::export::row_buffer::{GATHER_BYTES, RowBuffer, RowFile};
use crate::export::{Format, RECORDS, Record, RowFormat};
use crate::files;

/// On a full disk, room is looked for this often.
const RETRY: Duration = Duration::from_secs(1);

/// What was written so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WriterCounts {
    /// Pairs of files that are complete.
    pub files: u64,
    /// Rows in these and in the open one.
    pub rows: u64,
    /// Rows that found the disk full.
    pub lost_rows: u64,
}

/// Writes rows and their records. Each file (or pair of files) is complete or absent; numbers have no holes.
///
/// On a full disk: one line in the log, what is whole is kept, further rows are counted as lost; once a second room is
/// looked for, and one line says when it goes on. Dropped without [`Writer::finish`] it closes the open pair.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    number: u64,
    layout: RowFormat,
    rotate_bytes: u64,
    counts: WriterCounts,
    open: Option<(RowFile, Arc<str>)>,
    /// What is not written yet, and how much that may be.
    gathered: RowBuffer,
    least: usize,
    /// The disk is full; when room was last looked for.
    full: Option<Instant>,
    /// Lost rows that the log has told of.
    told: u64,
}

impl Writer {
    /// Opens `folder` (created if missing) for files from `next_number` on; a pair is closed at `rotate_bytes`.
    /// # Errors
    /// The I/O error, or that there are files of this number or above: they are never overwritten.
    pub fn open(folder: &Path, next_number: u64, layout: RowFormat, rotate_bytes: u64) -> Result<Self> {
        files::create_folder(folder)?;
        let names = files::names_in(folder)?;
        for end in Format::ALL.map(Format::end).into_iter().chain([RECORDS]) {
            if let Some(found) = files::numbered(&names, end).last().filter(|last| **last >= next_number) {
                let name = files::numbered_name(*found, end);
                let folder = folder.display();
                return Err(Error::runtime(format!(
                    "cannot write embeddings from {next_number:04} on to {folder}: {name} is there; resume that run or \
                     give another folder"
                )));
            }
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            number: next_number,
            layout,
            rotate_bytes,
            counts: WriterCounts::default(),
            open: None,
            gathered: RowBuffer::default(),
            least: RowFile::least(layout.format, rotate_bytes),
            full: None,
            told: 0,
        })
    }

    /// Adds one row `[d]`. Another `d` or another space than that of the row before begins a new pair of files.
    /// # Errors
    /// An empty row; an I/O error other than a full disk.
    pub fn push(&mut self, record: &Record, row: &[f32]) -> Result<()> {
        if row.is_empty() {
            return Err(Error::runtime(format!("cannot write the embedding of frame {}: it is empty", record.frame)));
        }
        if !self.has_room()? {
            self.counts.lost_rows += 1;
            return Ok(());
        }
        if self.open.as_ref().is_some_and(|(open, space)| open.dim() != row.len() || **space != *record.space) {
            self.rotate()?;
        }
        self.gathered.add(self.layout, record, row)?;
        self.counts.rows += 1;
        let written = self.write_gathered(row.len(), record);
        self.survive(written)?;
        if self.open.as_ref().is_some_and(|(open, _)| self.size(open) >= self.rotate_bytes) {
            self.rotate()?;
        }
        Ok(())
    }

    /// Closes the open pair of files: both get their names. Without rows there is none, and nothing happens.
    /// # Errors
    /// An I/O error other than a full disk.
    pub fn rotate(&mut self) -> Result<()> {
        let closed = self.close();
        self.survive(closed)
    }

    /// Closes the open pair and says what was written.
    /// # Errors
    /// As [`Writer::rotate`].
    pub fn finish(mut self) -> Result<WriterCounts> {
        self.rotate()?;
        Ok(self.counts)
    }

    /// What was written so far.
    pub fn counts(&self) -> WriterCounts {
        self.counts
    }

    /// Number of the pair that is open or opened next.
    pub fn next_number(&self) -> u64 {
        self.number
    }

    /// Bytes of the open file, with what is gathered.
    fn size(&self, open: &RowFile) -> u64 {
        open.bytes() + self.gathered.bytes() as u64
    }

    /// Writes what is gathered once it is enough; opens a file where none is.
    fn write_gathered(&mut self, dim: usize, record: &Record) -> Result<()> {
        if self.open.is_none() {
            let path = self.folder.join(files::numbered_name(self.number, self.layout.format.end()));
            let open = RowFile::create(&path, self.layout, dim, record)?;
            self.open = Some((open, record.space.clone()));
        }
        match &mut self.open {
            Some((open, _)) if self.gathered.bytes() >= self.least => {
                open.append(&self.gathered)?;
                self.gathered.forget();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn close(&mut self) -> Result<()> {
        let Some((open, _)) = &mut self.open else { return Ok(()) };
        open.append(&self.gathered)?;
        self.gathered.forget();
        self.close_whole()
    }

    /// Closes the open file with the rows that are in it; one that cannot be closed is removed.
    fn close_whole(&mut self) -> Result<()> {
        let Some((open, _)) = self.open.take() else { return Ok(()) };
        let rows = open.rows();
        if rows == 0 {
            open.discard();
            return Ok(());
        }
        let closed = open.close();
        if closed.is_ok() {
            self.counts.files += 1;
            self.number += 1;
        } else {
            self.lose(rows);
        }
        closed
    }

    fn lose(&mut self, rows: u64) {
        self.counts.rows -= rows;
        self.counts.lost_rows += rows;
    }

    /// Turns a full disk into a state of this writer: whole rows stay, the gathered ones are lost, one line is said.
    fn survive(&mut self, done: Result<()>) -> Result<()> {
        let Err(error) = done else { return Ok(()) };
        if error.kind() != ErrorKind::DiskFull {
            return Err(error);
        }
        self.lose(self.gathered.count());
        self.gathered.forget();
        self.full = Some(Instant::now());
        tracing::error!(
            "{}; exports stop, work goes on, and so do they when there is room (free some on this disk)",
            error.chain()
        );
        match self.close_whole() {
            // Closing may need room too; the pair is removed and its rows are counted then.
            Err(error) if error.kind() == ErrorKind::DiskFull => Ok(()),
            other => other,
        }
    }

    /// False while the disk is full.
    fn has_room(&mut self) -> Result<bool> {
        let Some(tried) = &mut self.full else { return Ok(true) };
        if tried.elapsed() < RETRY {
            return Ok(false);
        }
        *tried = Instant::now();
        match probe(&self.folder) {
            Err(error) if error.kind() == ErrorKind::DiskFull => Ok(false),
            Err(error) => Err(error),
            Ok(()) => {
                self.full = None;
                let lost = self.counts.lost_rows - std::mem::replace(&mut self.told, self.counts.lost_rows);
                tracing::info!("exports to {} go on; {lost} rows were lost meanwhile", self.folder.display());
                Ok(true)
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.rotate() {
            tracing::error!("{}", error.chain());
        }
    }
}

/// Looks for room for more than a row, so that exports do not stop again at once.
fn probe(folder: &Path) -> Result<()> {
    let path = files::partial(&folder.join("room"))?;
    let room = || {
        let zeros = io::Read::take(io::repeat(0), 2 * GATHER_BYTES as u64);
        io::copy(&mut { zeros }, &mut files::create_new(&path)?)
    };
    let found = room();
    files::remove_leftover(&path);
    found.map(drop).map_err(|error| Error::io("cannot write", &path, error))
}
