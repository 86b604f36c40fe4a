//! The journal and the saved states.
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::heads::Heads;
use crate::commands::findings::Findings;
use crate::journal;
use crate::pipeline::folder::Place;
use crate::pipeline::saved;

/// Bad lines that are named one by one; the rest is counted.
const NAMED: usize = 10;

/// Every line an event, and every promotion with its head.
pub(super) fn journal(all: &mut Findings, run: &Path, heads: &Heads) {
    let what = "journal.jsonl";
    if !journal::path(run).exists() {
        return all.fail(what, "is missing", "what happened in the run is lost; heads and exports can be used");
    }
    let lines = match journal::lines(run) {
        Ok(lines) => lines,
        Err(error) => return all.fail(what, error.chain(), "make it readable"),
    };
    let (mut bad, mut promoted) = (Vec::new(), BTreeMap::new());
    for (i, line) in lines.events.iter().enumerate() {
        let event = line.as_ref().map_err(String::as_str).and_then(|event| match event["event"].as_str() {
            Some(name) => Ok((name, event)),
            None => Err("it names no event"),
        });
        match event {
            Ok(("promotion" | "demotion", event)) => {
                if let Some(number) = event["promoted"].as_u64() {
                    // A number that comes twice was promoted again by a resumed run: the last one counts.
                    promoted.insert(number, event["space"].as_str());
                }
            }
            Ok(_) => {}
            Err(why) => bad.push(format!("line {}: {why}", i + 1)),
        }
    }
    let more = bad.len().saturating_sub(NAMED);
    bad.truncate(NAMED);
    for line in bad.iter() {
        all.fail(what, line.as_str(), "the other lines can be used; --resume goes on without it");
    }
    if more > 0 {
        all.fail(what, format!("{more} more bad lines"), "as above");
    }
    if lines.torn {
        all.warn(what, "the last line is torn, as a crash leaves it", "--resume cuts it off");
    }
    if bad.is_empty() {
        let last =
            lines.events.iter().rev().find_map(|event| event.as_ref().ok()?.get("event").and_then(Value::as_str));
        let last = last.map(|last| format!(", the last is {last:?}")).unwrap_or_default();
        all.ok(what, format!("{} events{last}", lines.events.len()));
    }
    for (number, space) in promoted {
        match (heads.get(&number), space) {
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

/// The saved states; the place of the newest whole one.
pub(super) fn states(all: &mut Findings, run: &Path) -> Option<Place> {
    let mut newest = None;
    let states = saved::states(run);
    if states.is_empty() {
        all.ok("state", "none saved; --resume would begin anew");
    }
    for (name, state) in states {
        match state {
            Ok(place) => {
                let next = place.next_index;
                let ended = if place.ended { "; the source has ended" } else { "" };
                all.ok(name, format!("whole, goes on at frame {next}{ended}"));
                newest = newest.or(Some(place));
            }
            Err(error) => all.fail(name, error.chain(), "--resume uses the one before it, or begins anew"),
        }
    }
    newest
}
