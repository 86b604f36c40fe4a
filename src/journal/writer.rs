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

/// Lines that wait in memory while the disk is full, and their bytes; after that the oldest go.
pub(super) const MAX_WAITING: usize = 10_000;
pub(super) const MAX_WAITING_BYTES: usize = 1 << 24;

/// What the learner says of frames: a resumed run over a bounded source says it again.
const OF_FRAMES: [&str; 5] = ["fit", "promotion", "demotion", "health", "state"];

/// Appends to the journal of a run. Others may cut the file off or take it away meanwhile (`logrotate`): it goes on behind
/// what is there, or in a new file.
#[derive(Debug)]
pub struct Journal {
    run: PathBuf,
    path: PathBuf,
    file: File,
    budget: Budget,
    /// Lines that found the disk full, oldest first, and their bytes.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Lines that were dropped because too many waited, and how many of them the journal does not tell of yet.
    lost: u64,
    untold: u64,
}

/// What is known of a journal that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its lines.
    pub tally: Tally,
    /// The newest frame that an event of the learner names.
    pub newest_frame: Option<u64>,
    /// There is a line of the end of the stream.
    pub ended: bool,
    /// The run was stopped in order before this frame: its last line says so.
    pub stopped_at: Option<u64>,
    /// Lines that were taken out because the run says them again.
    pub repeated: u64,
}

impl Journal {
    /// Opens or creates the journal of `run`; a last line that was torn by a crash is cut off. Its files take at most
    /// `megabytes` together: an eighth at a time becomes a part, and the oldest parts go.
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

    /// Makes ready to go on at frame `next`: looks through what is there, and of a bounded source takes out what the
    /// learner said of this frame and later ones, since it says it again. On a full disk that stays, and comes twice.
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

    /// Writes the files anew that hold what the learner said of frames from `next` on, without that.
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

    /// Appends `{"event": event, ...fields}` and hands it to the system at once. On a full disk the line waits in
    /// memory (10,000 lines or 16 MiB at most) and goes out with a later call.
    ///
    /// # Errors
    /// `fields` is no object or has a key `event`; an I/O error other than a full disk.
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

    /// Writes the lines that wait, and makes everything durable.
    ///
    /// # Errors
    /// The disk is full (lines go on waiting), or another I/O error.
    pub fn sync(&mut self) -> Result<()> {
        self.flush_to_system()?.sync()
    }

    /// Writes the lines that wait; [`Flushed::sync`] makes them durable, for which the journal is not needed.
    ///
    /// # Errors
    /// As [`Journal::sync`].
    pub(super) fn flush_to_system(&mut self) -> Result<Flushed> {
        self.flush()?;
        let file = self.file.try_clone().map_err(|error| self.failed(error))?;
        Ok(Flushed { file, path: self.path.clone() })
    }

    /// Lines that are not on the disk yet, because it is full.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lines that were lost because the disk stayed full.
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

    /// Opens the file anew where it was renamed or removed meanwhile.
    fn find_file(&mut self) -> Result<()> {
        let ours = self.file.metadata().map_err(|error| self.failed(error))?;
        if fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(());
        }
        self.file = open(&self.path)?;
        tracing::warn!("{} was taken away while it was written; it goes on in a new file", self.path.display());
        Ok(())
    }

    /// Makes the open file a part where `bytes` more would be too many for it.
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

/// Lines that were handed to the system.
pub(super) struct Flushed {
    file: File,
    path: PathBuf,
}

impl Flushed {
    /// Makes them durable.
    ///
    /// # Errors
    /// The I/O error with the path.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("cannot write the journal", &self.path, error))
    }
}

/// The frame that an event of the learner is about.
fn frame_of(event: &Value) -> Option<u64> {
    OF_FRAMES.iter().any(|name| event["event"] == *name).then(|| event["frame"].as_u64())?
}

/// For appending, after its last whole line.
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

/// All of `line`, or on an error none of it. The length is asked for each time: others may have cut the file off.
fn append(file: &mut File, line: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(line).inspect_err(|_| {
        // Needs no room. Should it fail, half a line stays, which readers leave out.
        if let Err(error) = file.set_len(before) {
            tracing::warn!("half a line stays in the journal: {error}");
        }
    })
}

/// Bytes up to and with the last line end, read from the back.
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
