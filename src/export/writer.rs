//! Writes embeddings to disk as they arrive: numbered row files `[n, d]`, each with its [`Record`]s, rotated by size.
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::export::row_buffer::{GATHER_BYTES, RowBuffer, RowFile};
use crate::export::{Format, RECORDS, Record, RowFormat};
use crate::files;

/// How often to check a full disk for room.
const RETRY: Duration = Duration::from_secs(1);

/// Totals of a writer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WriterCounts {
    /// Complete pairs of files.
    pub files: u64,
    /// Rows in the complete files and in the open one.
    pub rows: u64,
    /// Rows lost to a full disk.
    pub lost_rows: u64,
}

/// Writes rows and their records. Each file (or pair of files) is either complete or absent, and numbers have no gaps.
///
/// On a full disk, it logs one line, keeps the complete rows, and counts further rows as lost. It checks for room once
/// a second and logs one line when it continues. Dropping it without [`Writer::finish`] closes the open pair.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    number: u64,
    layout: RowFormat,
    rotate_bytes: u64,
    counts: WriterCounts,
    open: Option<(RowFile, Arc<str>)>,
    /// Rows not written yet, and how many bytes to collect before a write.
    gathered: RowBuffer,
    least: usize,
    /// When room was last checked, while the disk is full.
    full: Option<Instant>,
    /// Lost rows already logged.
    told: u64,
}

impl Writer {
    /// Opens `folder` (created if missing) for files from `next_number` on. Pairs are closed at `rotate_bytes`.
    /// # Errors
    /// An I/O error, or the folder has files of this number or above, which are never overwritten.
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

    /// Adds one row `[d]`. A different `d` or space than the previous row's starts a new pair of files.
    /// # Errors
    /// The row is empty, or an I/O error other than a full disk.
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

    /// Closes the open pair of files and gives both their names. Does nothing if there are no rows.
    /// # Errors
    /// An I/O error other than a full disk.
    pub fn rotate(&mut self) -> Result<()> {
        let closed = self.close();
        self.survive(closed)
    }

    /// Closes the open pair and returns the totals.
    /// # Errors
    /// See [`Writer::rotate`].
    pub fn finish(mut self) -> Result<WriterCounts> {
        self.rotate()?;
        Ok(self.counts)
    }

    /// The totals so far.
    pub fn counts(&self) -> WriterCounts {
        self.counts
    }

    /// Number of the open pair, or of the next one.
    pub fn next_number(&self) -> u64 {
        self.number
    }

    /// Size of the open file including buffered rows.
    fn size(&self, open: &RowFile) -> u64 {
        open.bytes() + self.gathered.bytes() as u64
    }

    /// Writes the buffered rows once there are enough, opening a file if none is open.
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

    /// Closes the open file with its complete rows, or removes it if it cannot be closed.
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

    /// Handles a full disk: complete rows stay, buffered rows are lost, and one line is logged.
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
            // Closing may need room too; then the pair is removed and its rows count as lost.
            Err(error) if error.kind() == ErrorKind::DiskFull => Ok(()),
            other => other,
        }
    }

    /// Whether there is room; false while the disk is full.
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

/// Checks for room for more than one row, so that exports do not stop again at once.
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
