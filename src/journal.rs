//! The append-only journal of a run: `journal.jsonl`, one JSON object a line, key `event` first.
//!
//! No clock is read here: callers give stamps, so that a run over a file writes the same journal every time.
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::files;

/// Lines that wait in memory while the disk is full; after that the oldest go.
const MAX_WAITING: usize = 10_000;

/// A longer line was not written by us.
const MAX_LINE_BYTES: u64 = 1 << 24;

/// The open journal of a run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines in the file.
    length: u64,
    /// Lines that found the disk full, oldest first.
    waiting: VecDeque<Vec<u8>>,
    /// Lines that were dropped because too many waited.
    lost: u64,
}

/// Where the journal of a run lies.
pub fn path(run: &Path) -> PathBuf {
    run.join("journal.jsonl")
}

impl Journal {
    /// Opens or creates the journal of `run`; a last line that was torn by a crash is cut off.
    /// # Errors
    /// The I/O error with the path.
    pub fn open(run: &Path) -> Result<Self> {
        let path = path(run);
        let open = || -> io::Result<(File, u64)> {
            let mut file = files::open_or_create(&path)?;
            let whole = whole_lines(&mut file)?;
            file.set_len(whole)?;
            file.seek(SeekFrom::Start(whole))?;
            Ok((file, whole))
        };
        let (file, length) = open().map_err(|error| Error::io("cannot open the journal", &path, error))?;
        Ok(Self { path, file, length, waiting: VecDeque::new(), lost: 0 })
    }

    /// Appends `{"event": event, ...fields}` and hands it to the system at once. On a full disk the line waits in
    /// memory (10,000 at most) and goes out with a later call.
    /// # Errors
    /// `fields` is no object or has a key `event`; an I/O error other than a full disk.
    pub fn write(&mut self, event: &str, fields: Value) -> Result<()> {
        let line = line(event, &fields)?;
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back(line);
        match self.flush() {
            Err(error) if error.kind() == Kind::DiskFull => Ok(()),
            other => other,
        }
    }

    /// Writes the lines that wait, and makes everything durable.
    /// # Errors
    /// The disk is full (lines go on waiting), or another I/O error.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.sync_all().map_err(|error| self.failed(error))
    }

    /// Lines that are not on the disk yet, because it is full.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn flush(&mut self) -> Result<()> {
        while let Some(line) = self.waiting.front() {
            if let Err(error) = self.file.write_all(line) {
                // Half a line may be there: back to whole lines. This needs no room.
                let cut = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
                cut.map_err(|error| self.failed(error))?;
                return Err(self.failed(error));
            }
            self.length += line.len() as u64;
            self.waiting.pop_front();
        }
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            tracing::warn!("the journal {} goes on; {lost} lines were lost on a full disk", self.path.display());
            self.write("lines_lost", serde_json::json!({ "lines": lost }))?;
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("cannot write the journal", &self.path, error)
    }
}

fn line(event: &str, fields: &Value) -> Result<Vec<u8>> {
    let Some(map) = fields.as_object().filter(|map| !map.contains_key("event")) else {
        return Err(Error::work(format!(
            "journal event {event:?}: {fields} must be an object without a key \"event\""
        )));
    };
    let mut text = format!("{{\"event\":{}", Value::from(event));
    for (key, value) in map {
        text.push_str(&format!(",{}:{value}", Value::from(key.as_str())));
    }
    text.push_str("}\n");
    Ok(text.into_bytes())
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

/// What a journal holds, line by line.
#[derive(Debug, Default)]
pub struct Lines {
    /// Each whole line, oldest first: the event, or why it is none.
    pub events: Vec<std::result::Result<Value, String>>,
    /// A last line without an end follows, as a crash leaves it; [`Journal::open`] cuts it off.
    pub torn: bool,
}

/// Reads the whole journal of a run, good lines and bad. No journal: no lines.
/// # Errors
/// The I/O error.
pub fn lines(run: &Path) -> Result<Lines> {
    let path = path(run);
    let failed = |error| Error::io("cannot read the journal", &path, error);
    let mut file = match files::open_regular(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lines::default()),
        other => BufReader::new(other.map_err(failed)?),
    };
    let mut all = Lines::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(failed)?;
        all.torn = !line.is_empty() && line.last() != Some(&b'\n') && (line.len() as u64) < MAX_LINE_BYTES;
        if line.is_empty() || all.torn {
            return Ok(all);
        }
        let event: std::result::Result<Value, String> = serde_json::from_slice(&line).map_err(|e| e.to_string());
        all.events.push(event.and_then(|e| if e.is_object() { Ok(e) } else { Err("it is no object".into()) }));
    }
}

/// All events of a run, oldest first; a last line that was torn by a crash is left out. No journal: no events.
/// # Errors
/// The I/O error, or the number of a line that is no JSON object.
pub fn read(run: &Path) -> Result<Vec<Value>> {
    let bad = |number: usize, why: String| {
        Error::work(format!("the journal {} has a bad line {number}: {why}", path(run).display()))
    };
    let events = lines(run)?.events.into_iter().enumerate();
    events.map(|(i, event)| event.map_err(|why| bad(i + 1, why))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::files::small_disk::SmallDisk;

    #[test]
    fn lines_are_appended_with_the_event_first() {
        let run = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(run.path()).unwrap();
        journal.write("start", json!({"a": 1, "Z": [0.1]})).unwrap();
        let mut journal = Journal::open(run.path()).unwrap();
        journal.write("say \"so\"", json!({"a\n": "b\n"})).unwrap();
        journal.sync().unwrap();
        let text = fs::read_to_string(path(run.path())).unwrap();
        let expected = "{\"event\":\"start\",\"Z\":[0.1],\"a\":1}\n{\"event\":\"say \\\"so\\\"\",\"a\\n\":\"b\\n\"}\n";
        assert_eq!(text, expected);
        assert_eq!(read(run.path()).unwrap()[1]["a\n"], "b\n");
        assert!(journal.write("x", json!([1])).is_err());
        assert!(journal.write("x", json!({"event": 1})).is_err());
    }

    #[test]
    fn a_torn_last_line_is_cut_at_any_length() {
        let run = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(run.path()).unwrap();
        journal.write("one", json!({})).unwrap();
        journal.write("two", json!({"text": "x".repeat(9000)})).unwrap();
        let whole = fs::read(path(run.path())).unwrap();
        let first = 1 + whole.iter().position(|byte| *byte == b'\n').unwrap();
        for length in (0..whole.len()).step_by(97).chain([first - 1, first, first + 1, whole.len() - 1]) {
            fs::write(path(run.path()), &whole[..length]).unwrap();
            let kept = usize::from(length >= first);
            assert_eq!(read(run.path()).unwrap().len(), kept, "{length}");
            let mut journal = Journal::open(run.path()).unwrap();
            journal.write("three", json!({})).unwrap();
            assert_eq!(read(run.path()).unwrap().len(), kept + 1, "{length}");
        }
    }

    #[test]
    fn lines_wait_while_the_disk_is_full() {
        let Some(disk) = SmallDisk::mount(256) else { return };
        let mut journal = Journal::open(disk.path()).unwrap();
        journal.write("before", json!({})).unwrap();
        let ballast = disk.fill();
        for number in 0..20 {
            journal.write("meanwhile", json!({"number": number, "text": "x".repeat(1000)})).unwrap();
        }
        // What is there are whole lines; the rest waits.
        let there = read(disk.path()).unwrap().len();
        assert!(there >= 1 && there + journal.waiting() == 21 && journal.waiting() > 10, "{there}");
        assert_eq!(fs::read(path(disk.path())).unwrap().last(), Some(&b'\n'));
        assert_eq!(journal.sync().unwrap_err().kind(), Kind::DiskFull);
        fs::remove_file(ballast).unwrap();
        journal.write("after", json!({})).unwrap();
        let events = read(disk.path()).unwrap();
        assert_eq!((events.len(), journal.waiting()), (22, 0));
        assert_eq!((&events[20]["number"], &events[21]["event"]), (&json!(19), &json!("after")));
    }

    #[test]
    fn too_many_waiting_lines_are_counted_not_kept() {
        let Some(disk) = SmallDisk::mount(256) else { return };
        let mut journal = Journal::open(disk.path()).unwrap();
        let ballast = disk.fill();
        for number in 0..MAX_WAITING + 300 {
            journal.write("meanwhile", json!({ "number": number })).unwrap();
        }
        assert_eq!(journal.waiting(), MAX_WAITING);
        let there = read(disk.path()).unwrap().len();
        fs::remove_file(ballast).unwrap();
        // The 10,000 lines themselves do not fit on this disk: what fits is written, the rest goes on waiting.
        assert_eq!(journal.sync().unwrap_err().kind(), Kind::DiskFull);
        assert_eq!(journal.lost as usize, 300 - there);
        assert!(read(disk.path()).unwrap().len() > 1000);
    }

    #[test]
    fn a_bad_line_is_named_and_no_journal_is_empty() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(read(run.path()).unwrap(), Vec::<Value>::new());
        fs::write(path(run.path()), "{}\n{\n{}\n").unwrap();
        assert!(read(run.path()).unwrap_err().chain().contains("line 2"));
        let all = lines(run.path()).unwrap();
        assert_eq!(all.events.iter().map(|e| e.is_ok()).collect::<Vec<_>>(), [true, false, true]);
        assert!(!all.torn);
        fs::write(path(run.path()), "[]\n{}").unwrap();
        let all = lines(run.path()).unwrap();
        assert!(all.torn && all.events == [Err("it is no object".to_owned())]);
    }
}
