//! The open journal of a run.
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::parts::{self, Budget};
use super::reader::{JournalScan, Tally};
use super::{line, path};
use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// Maximum number and bytes of lines that wait in memory while the disk is full; beyond that the oldest are dropped.
pub(super) const MAX_WAITING: usize = 10_000;
pub(super) const MAX_WAITING_BYTES: usize = 1 << 24;

/// Learner events about frames: a resumed run over a bounded source writes them again.
const OF_FRAMES: [&str; 5] = ["fit", "promotion", "demotion", "health", "state"];

/// Appends to the journal of a run. Other programs (`logrotate`) may truncate or remove the file meanwhile: the journal
/// then appends to what is there, or creates a new file.
#[derive(Debug)]
pub struct Journal {
    run: PathBuf,
    path: PathBuf,
    file: File,
    budget: Budget,
    /// Lines that found the disk full, oldest first, and their total bytes.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Lines dropped because too many waited, and how many of them the journal has not reported yet.
    lost: u64,
    untold: u64,
}

/// What a resumed run found in its journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Line statistics.
    pub tally: Tally,
    /// The newest frame that a learner event names.
    pub newest_frame: Option<u64>,
    /// The journal has an end-of-stream line.
    pub ended: bool,
    /// The run was stopped cleanly before this frame: its last line says so.
    pub stopped_at: Option<u64>,
    /// Number of lines removed because the run writes them again.
    pub repeated: u64,
}

impl Journal {
    /// Opens or creates the journal of `run`, and removes an incomplete last line that a crash left. Its files take at
    /// most `megabytes` together: each eighth becomes a part, and the oldest parts are deleted.
    ///
    /// # Errors
    /// The I/O error with the path.
    pub fn open(run: &Path, megabytes: f64) -> Result<Self> {
        let path = path(run);
        let file = open(&path)?;
        Ok(Self {
            run: run.to_owned(),
            path,
            file,
            budget: Budget::megabytes(megabytes),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            lost: 0,
            untold: 0,
        })
    }

    /// Prepares to resume at frame `next`: scans the journal and, for a bounded source, removes the learner events from
    /// this frame on, because the run writes them again. On a full disk these lines stay and appear twice.
    ///
    /// # Errors
    /// An I/O error other than a full disk.
    pub fn go_on(&mut self, next: u64, bounded: bool) -> Result<Found> {
        let mut found = Found::default();
        for line in JournalScan::of(&self.run)? {
            let line = line?;
            found.tally.count(&line);
            let Ok(event) = &line.event else { continue };
            found.ended |= event["event"] == "end";
            let last = event["event"] == "stop" || event["event"] == "end";
            found.stopped_at = last.then(|| event["frames"].as_u64()).flatten();
            if let Some(frame) = frame_of(event) {
                found.newest_frame = found.newest_frame.max(Some(frame));
                found.repeated += u64::from(bounded && frame >= next);
            }
        }
        found.tally.warn(&self.run);
        if found.repeated > 0 {
            match self.forget_from(next) {
                Err(error) if error.kind() == ErrorKind::DiskFull => {
                    tracing::warn!("{}: {} lines of the journal will come twice", error.chain(), found.repeated);
                    found.repeated = 0;
                }
                other => other?,
            }
        }
        Ok(found)
    }

    /// Rewrites the files that hold learner events from frame `next` on, without those events.
    fn forget_from(&mut self, next: u64) -> Result<()> {
        let goes = |event: &Value| frame_of(event).is_some_and(|frame| frame >= next);
        for path in parts::all(&self.run)? {
            let events = JournalScan::of_files(vec![path.clone()]);
            if !events.map_while(Result::ok).any(|line| line.event.as_ref().is_ok_and(goes)) {
                continue;
            }
            files::replace(&path, |out| {
                for line in JournalScan::of_files(vec![path.clone()]) {
                    let line = line.map_err(|error| io::Error::other(error.chain()))?;
                    if !line.event.as_ref().is_ok_and(goes) {
                        out.write_all(&line.text)?;
                    }
                }
                Ok(())
            })?;
        }
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Appends `{"event": event, ...fields}` and passes it to the system at once. On a full disk the line waits in
    /// memory (at most 10,000 lines or 16 MiB), and a later call writes it.
    ///
    /// # Errors
    /// `fields` is not an object or has a key `event`; or an I/O error other than a full disk.
    pub fn write(&mut self, event: &str, fields: Value) -> Result<()> {
        let line = line::encode(event, &fields)?;
        self.waiting_bytes += line.len();
        self.waiting.push_back(line);
        while self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES {
            self.drop_oldest();
            self.lost += 1;
            self.untold += 1;
        }
        match self.flush() {
            Err(error) if error.kind() == ErrorKind::DiskFull => Ok(()),
            other => other,
        }
    }

    /// Writes the waiting lines and syncs the file to disk.
    ///
    /// # Errors
    /// The disk is full (the lines keep waiting), or another I/O error.
    pub fn sync(&mut self) -> Result<()> {
        self.flush_to_system()?.sync()
    }

    /// Writes the waiting lines. [`Flushed::sync`] then makes them durable without the journal.
    ///
    /// # Errors
    /// Those of [`Journal::sync`].
    pub(super) fn flush_to_system(&mut self) -> Result<Flushed> {
        self.flush()?;
        let file = self.file.try_clone().map_err(|error| self.failed(error))?;
        Ok(Flushed { file, path: self.path.clone() })
    }

    /// Number of lines that wait in memory because the disk is full.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Number of lines lost because the disk stayed full.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn drop_oldest(&mut self) {
        if let Some(line) = self.waiting.pop_front() {
            self.waiting_bytes -= line.len();
        }
    }

    fn flush(&mut self) -> Result<()> {
        while let Some(line) = self.waiting.front() {
            let bytes = line.len() as u64;
            self.find_file()?;
            self.make_room(bytes)?;
            let Some(line) = self.waiting.front() else { break };
            append(&mut self.file, line).map_err(|error| Error::io("cannot write the journal", &self.path, error))?;
            self.drop_oldest();
        }
        if self.untold > 0 {
            let lost = std::mem::take(&mut self.untold);
            tracing::warn!("the journal {} goes on; {lost} lines were lost on a full disk", self.path.display());
            self.write("lines_lost", json!({ "lines": lost }))?;
        }
        Ok(())
    }

    /// Reopens the file if it was renamed or removed meanwhile.
    fn find_file(&mut self) -> Result<()> {
        let ours = self.file.metadata().map_err(|error| self.failed(error))?;
        if fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(());
        }
        self.file = open(&self.path)?;
        tracing::warn!("{} was taken away while it was written; it goes on in a new file", self.path.display());
        Ok(())
    }

    /// Turns the open file into a part if `bytes` more would make it too long.
    fn make_room(&mut self, bytes: u64) -> Result<()> {
        let length = self.file.metadata().map_err(|error| self.failed(error))?.len();
        if length == 0 || length + bytes <= self.budget.part_bytes() {
            return Ok(());
        }
        self.file.sync_all().map_err(|error| self.failed(error))?;
        let number = parts::numbers(&self.run)?.last().map_or(1, |last| last + 1);
        let part = parts::part(&self.run, number);
        fs::rename(&self.path, &part).map_err(|error| Error::io("cannot name the full journal", &part, error))?;
        self.file = open(&self.path)?;
        files::sync_folder(&self.run)?;
        self.budget.keep(&self.run).map(drop)
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("cannot write the journal", &self.path, error)
    }
}

/// Lines that were passed to the system.
pub(super) struct Flushed {
    file: File,
    path: PathBuf,
}

impl Flushed {
    /// Makes the lines durable.
    ///
    /// # Errors
    /// The I/O error with the path.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("cannot write the journal", &self.path, error))
    }
}

/// The frame that a learner event is about.
fn frame_of(event: &Value) -> Option<u64> {
    OF_FRAMES.iter().any(|name| event["event"] == *name).then(|| event["frame"].as_u64())?
}

/// Opens the file for appending after its last complete line.
fn open(path: &Path) -> Result<File> {
    let open = || -> io::Result<File> {
        let mut file = files::open_to_append(path)?;
        let (length, whole) = (file.metadata()?.len(), whole_lines(&mut file)?);
        if whole < length {
            file.set_len(whole)?;
        }
        Ok(file)
    };
    open().map_err(|error| Error::io("cannot open the journal", path, error))
}

/// Appends all of `line`, or nothing on an error. Asks for the length every time: others may have truncated the file.
fn append(file: &mut File, line: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(line).inspect_err(|_| {
        // This needs no room. If it fails, half a line remains, which readers skip.
        if let Err(error) = file.set_len(before) {
            tracing::warn!("half a line stays in the journal: {error}");
        }
    })
}

/// Number of bytes up to and including the last newline, searched from the end.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut piece = vec![0; 1 << 12];
    while end > 0 {
        let start = end.saturating_sub(piece.len() as u64);
        let part = &mut piece[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
