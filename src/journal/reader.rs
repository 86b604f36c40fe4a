//! Reads a journal line by line over all its parts, with memory for one line.
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{MAX_LINE_BYTES, parts};
use crate::error::{Error, Result};
use crate::files;

/// One line of a journal: its location, and the event or why it is invalid.
#[derive(Debug)]
pub struct JournalLine {
    /// Name of its file.
    pub file: String,
    /// Line number in that file, from 1.
    pub number: u64,
    /// The event (a JSON object), or what is wrong with the line.
    pub event: std::result::Result<Value, String>,
    /// The raw line with its newline; empty if it is too long.
    pub(super) text: Vec<u8>,
    /// The line has a newline.
    whole: bool,
}

/// Iterates over the lines of a journal, oldest first, valid or not. Without a journal there are no lines.
#[derive(Debug)]
pub struct JournalScan {
    ahead: VecDeque<PathBuf>,
    open: Option<Open>,
    torn: bool,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    name: String,
    file: BufReader<File>,
    number: u64,
}

impl JournalScan {
    /// Opens the journal of run `run`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn of(run: &Path) -> Result<Self> {
        Ok(Self::of_files(parts::all(run)?))
    }

    pub(super) fn of_files(paths: Vec<PathBuf>) -> Self {
        Self { ahead: paths.into(), open: None, torn: false }
    }

    /// At the end of the iteration: true if there was an unterminated last line, as a crash leaves it.
    /// [`super::Journal::open`] removes it.
    pub fn torn(&self) -> bool {
        self.torn
    }

    fn read(&mut self) -> Result<Option<JournalLine>> {
        loop {
            if self.open.is_none() {
                let Some(path) = self.ahead.pop_front() else { return Ok(None) };
                self.open = Open::new(path)?;
            }
            let Some(open) = &mut self.open else { continue };
            let found = open.next().map_err(|error| Error::io("cannot read the journal", &open.path, error))?;
            match found {
                Some(Found { event, text, whole }) => {
                    open.number += 1;
                    return Ok(Some(JournalLine { file: open.name.clone(), number: open.number, event, text, whole }));
                }
                None => self.open = None,
            }
        }
    }
}

impl Iterator for JournalScan {
    type Item = Result<JournalLine>;
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read().transpose();
        match &next {
            Some(Err(_)) => (self.open, self.ahead) = (None, VecDeque::new()),
            // The last line of the newest file is incomplete: a complete line ends in a newline.
            Some(Ok(line)) if self.ahead.is_empty() && !line.whole => {
                self.torn = true;
                return None;
            }
            _ => {}
        }
        next
    }
}

/// The bytes between two newlines.
struct Found {
    event: std::result::Result<Value, String>,
    text: Vec<u8>,
    whole: bool,
}

impl Found {
    fn bad(why: String, whole: bool) -> Self {
        Self { event: Err(why), text: Vec::new(), whole }
    }
}

impl Open {
    /// `None` if the part was deleted meanwhile.
    fn new(path: PathBuf) -> Result<Option<Self>> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match files::open_regular(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("cannot read the journal", &path, error)),
            Ok(file) => Ok(Some(Self { path, name, file: BufReader::new(file), number: 0 })),
        }
    }

    fn next(&mut self) -> io::Result<Option<Found>> {
        let zeros = self.skip_zeros()?;
        if zeros > 0 {
            let why = format!("{zeros} zero bytes, as a file has that was cut off while it was written");
            return Ok(Some(Found::bad(why, true)));
        }
        let mut line = Vec::new();
        self.file.by_ref().take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let whole = line.last() == Some(&b'\n');
        if line.len() == MAX_LINE_BYTES && !whole {
            let bytes = line.len() + self.file.skip_until(b'\n')?;
            let why = format!("it has {bytes} bytes, {MAX_LINE_BYTES} are allowed");
            return Ok(Some(Found::bad(why, true)));
        }
        let event: std::result::Result<Value, String> = serde_json::from_slice(&line).map_err(|e| e.to_string());
        let event = event.and_then(|e| if e.is_object() { Ok(e) } else { Err("it is no object".into()) });
        Ok(Some(Found { event, text: line, whole }))
    }

    /// Skips zeros at the beginning of a line and the newline after them: a hole may be larger than memory.
    fn skip_zeros(&mut self) -> io::Result<u64> {
        let mut zeros = 0;
        loop {
            let ahead = self.file.fill_buf()?;
            let here = ahead.iter().take_while(|byte| **byte == 0).count();
            let (end, newline) = (here < ahead.len() || ahead.is_empty(), ahead.get(here) == Some(&b'\n'));
            self.file.consume(here);
            zeros += here as u64;
            if end {
                if zeros > 0 && newline {
                    self.file.consume(1);
                }
                return Ok(zeros);
            }
        }
    }
}

/// Statistics of a journal scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of valid lines.
    pub events: u64,
    /// Number of invalid lines.
    pub bad: u64,
    /// The first invalid line: where, and why.
    pub first_bad: Option<String>,
}

impl Tally {
    pub(super) fn count(&mut self, line: &JournalLine) {
        match &line.event {
            Ok(_) => self.events += 1,
            Err(why) => {
                self.bad += 1;
                self.first_bad.get_or_insert_with(|| format!("{} line {}: {why}", line.file, line.number));
            }
        }
    }

    pub(super) fn warn(&self, run: &Path) {
        if let Some(first) = &self.first_bad {
            tracing::warn!(
                "the journal of {} has {} lines that cannot be read ({first}); they are left out",
                run.display(),
                self.bad
            );
        }
    }
}

/// Calls `each` with every event of `run`, oldest first. Skips invalid lines, with one warning for all of them.
///
/// # Errors
/// The I/O error.
pub fn for_each(run: &Path, mut each: impl FnMut(Value)) -> Result<Tally> {
    let mut tally = Tally::default();
    for line in JournalScan::of(run)? {
        let line = line?;
        tally.count(&line);
        if let Ok(event) = line.event {
            each(event);
        }
    }
    tally.warn(run);
    Ok(tally)
}

/// All events of `run` at once, oldest first: for journals known to be small.
///
/// # Errors
/// The I/O error.
pub fn read(run: &Path) -> Result<Vec<Value>> {
    let mut events = Vec::new();
    for_each(run, |event| events.push(event))?;
    Ok(events)
}
