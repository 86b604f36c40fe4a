//! Checks the journal and the saved states.
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::heads::Heads;
use crate::commands::diagnostics::Diagnostics;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::journal;
use crate::pipeline::run_dir::{RunManifest, StreamPosition};
use crate::pipeline::run_state;
use crate::state_dict::MAX_HEADER_BYTES;

/// Number of bad lines to list; the rest are counted.
const NAMED: usize = 10;

/// What a journal says, read line by line.
#[derive(Default)]
struct JournalHistory {
    events: u64,
    bad: u64,
    /// The first bad lines.
    named: Vec<String>,
    torn: bool,
    last: Option<String>,
    /// Space of each promoted head by number.
    promoted: BTreeMap<u64, Option<String>>,
}

impl JournalHistory {
    fn read(run: &Path) -> Result<Self> {
        let mut all = Self::default();
        let mut lines = journal::JournalScan::of(run)?;
        for line in &mut lines {
            let line = line?;
            let event = line.event.and_then(|event| match event["event"].as_str() {
                Some(name) => Ok((name.to_owned(), event)),
                None => Err("it names no event".to_owned()),
            });
            match event {
                Ok((name, event)) => all.event(name, &event),
                Err(why) => {
                    all.bad += 1;
                    if all.named.len() < NAMED {
                        let part = if line.file == "journal.jsonl" { String::new() } else { format!("{} ", line.file) };
                        all.named.push(format!("{part}line {}: {why}", line.number));
                    }
                }
            }
        }
        all.torn = lines.torn();
        Ok(all)
    }

    fn event(&mut self, name: String, event: &Value) {
        self.events += 1;
        if let ("promotion" | "demotion", Some(number)) = (name.as_str(), event["promoted"].as_u64()) {
            // A repeated number was promoted again by a resumed run: the last one counts.
            self.promoted.insert(number, event["space"].as_str().map(str::to_owned));
        }
        self.last = Some(name);
    }
}

/// Checks that every line is an event, and that every promotion has its head.
pub(super) fn journal(all: &mut Diagnostics, run: &Path, heads: &Heads) {
    let what = "journal.jsonl";
    let history = match journal::exists(run).and_then(|exists| exists.then(|| JournalHistory::read(run)).transpose()) {
        Ok(Some(history)) => history,
        Ok(None) => {
            return all.fail(what, "is missing", "what happened in the run is lost; heads and exports can be used");
        }
        Err(error) => return all.fail(what, error.chain(), "make it readable"),
    };
    let bad = history.bad;
    for line in history.named.iter() {
        all.fail(what, line.as_str(), "the other lines can be used; --resume goes on without it");
    }
    if bad > NAMED as u64 {
        all.fail(what, format!("{} more bad lines", bad - NAMED as u64), "as above");
    }
    if history.torn {
        all.warn(what, "the last line is torn, as a crash leaves it", "--resume cuts it off");
    }
    if bad == 0 {
        let last = history.last.map(|last| format!(", the last is {last:?}")).unwrap_or_default();
        all.ok(what, format!("{} events{last}", history.events));
    }
    for (number, space) in history.promoted {
        match (heads.get(&number), space.as_deref()) {
            (None, _) => all.fail(
                format!("head {number}"),
                "was promoted by the journal, but there is no such file in heads/",
                "put it back from a copy; over a file or folder, `learn` into another folder makes it again",
            ),
            (Some(Some(own)), Some(space)) if own != space => all.fail(
                format!("head {number}"),
                format!("is of space {own}, but by the journal {space} was promoted"),
                "put the right one back from a copy",
            ),
            _ => {}
        }
    }
}

/// What a resumed run does with a damaged state.
fn what_resume_does(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Damaged => "--resume uses the one before it, or starts afresh",
        ErrorKind::Unreadable => "--resume does not begin anew over it; make it readable",
        _ => "--resume does not begin anew over it; put the run's own back, or move it away",
    }
}

/// The length of the header of a safetensors file.
fn header_bytes(path: &Path) -> Option<u64> {
    let mut start = [0; 8];
    files::open_regular(path).ok()?.read_exact(&mut start).ok()?;
    Some(u64::from_le_bytes(start))
}

/// Checks the saved states and returns the position of the newest valid one.
pub(super) fn states(all: &mut Diagnostics, run: &Path, info: Option<&RunManifest>) -> Option<StreamPosition> {
    let mut newest = None;
    let states = run_state::states(run, info.map(RunManifest::owner).as_ref());
    if states.is_empty() {
        all.ok("state", "none saved; --resume would begin anew");
    }
    for (name, state) in states {
        match state {
            Ok(place) => {
                let next = place.next_index;
                let ended = if place.ended { "; the source has ended" } else { "" };
                all.ok(name, format!("whole, goes on at frame {next}{ended}"));
                if let Some(bytes) = header_bytes(&run.join(name)).filter(|bytes| *bytes > MAX_HEADER_BYTES / 2) {
                    all.warn(
                        name,
                        format!("its header has {bytes} of the {MAX_HEADER_BYTES} bytes that a state may have"),
                        "it should not grow; report it with this line, and keep a copy of the run",
                    );
                }
                newest = newest.or(Some(place));
            }
            Err(error) => all.fail(name, error.chain(), what_resume_does(&error)),
        }
    }
    newest
}
