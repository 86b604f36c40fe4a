//! Journals that were truncated, overwritten, edited, rotated, or written on a full disk.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::writer::MAX_WAITING;
use super::*;
use crate::error::ErrorKind;
use crate::files::small_disk::SmallDisk;

fn events(run: &Path) -> Vec<Value> {
    read(run).unwrap()
}

fn open(run: &Path) -> Journal {
    Journal::open(run, 64.0).unwrap()
}

#[test]
fn lines_are_appended_with_the_event_first() {
    let run = tempfile::tempdir().unwrap();
    let mut journal = open(run.path());
    journal.write("start", json!({"a": 1, "Z": [0.1]})).unwrap();
    let mut journal = open(run.path());
    journal.write("say \"so\"", json!({"a\n": "b\n"})).unwrap();
    journal.sync().unwrap();
    let text = fs::read_to_string(path(run.path())).unwrap();
    let expected = "{\"event\":\"start\",\"Z\":[0.1],\"a\":1}\n{\"event\":\"say \\\"so\\\"\",\"a\\n\":\"b\\n\"}\n";
    assert_eq!(text, expected);
    assert_eq!(events(run.path())[1]["a\n"], "b\n");
    assert!(journal.write("x", json!([1])).is_err());
    assert!(journal.write("x", json!({"event": 1})).is_err());
}

#[test]
fn a_torn_last_line_is_cut_at_any_length() {
    let run = tempfile::tempdir().unwrap();
    let mut journal = open(run.path());
    journal.write("one", json!({})).unwrap();
    journal.write("two", json!({"text": "x".repeat(9000)})).unwrap();
    let whole = fs::read(path(run.path())).unwrap();
    let first = 1 + whole.iter().position(|byte| *byte == b'\n').unwrap();
    for length in (0..whole.len()).step_by(97).chain([first - 1, first, first + 1, whole.len() - 1]) {
        fs::write(path(run.path()), &whole[..length]).unwrap();
        let kept = usize::from(length >= first);
        assert_eq!(events(run.path()).len(), kept, "{length}");
        let mut journal = open(run.path());
        journal.write("three", json!({})).unwrap();
        assert_eq!(events(run.path()).len(), kept + 1, "{length}");
    }
}

#[test]
fn lines_wait_while_the_disk_is_full() {
    let Some(disk) = SmallDisk::mount(256) else { return };
    let mut journal = open(disk.path());
    journal.write("before", json!({})).unwrap();
    let ballast = disk.fill();
    for number in 0..20 {
        journal.write("meanwhile", json!({"number": number, "text": "x".repeat(1000)})).unwrap();
    }
    // The file holds complete lines; the rest is waiting.
    let there = events(disk.path()).len();
    assert!(there >= 1 && there + journal.waiting() == 21 && journal.waiting() > 10, "{there}");
    assert_eq!(fs::read(path(disk.path())).unwrap().last(), Some(&b'\n'));
    assert_eq!(journal.sync().unwrap_err().kind(), ErrorKind::DiskFull);
    fs::remove_file(ballast).unwrap();
    journal.write("after", json!({})).unwrap();
    let events = events(disk.path());
    assert_eq!((events.len(), journal.waiting()), (22, 0));
    assert_eq!((&events[20]["number"], &events[21]["event"]), (&json!(19), &json!("after")));
}

#[test]
fn too_many_waiting_lines_are_counted_not_kept() {
    let Some(disk) = SmallDisk::mount(256) else { return };
    let mut journal = open(disk.path());
    let ballast = disk.fill();
    for number in 0..MAX_WAITING + 300 {
        journal.write("meanwhile", json!({ "number": number })).unwrap();
    }
    assert_eq!(journal.waiting(), MAX_WAITING);
    let there = events(disk.path()).len();
    fs::remove_file(ballast).unwrap();
    // The 10,000 lines do not fit on this disk: some are written, the rest keeps waiting.
    assert_eq!(journal.sync().unwrap_err().kind(), ErrorKind::DiskFull);
    assert_eq!(journal.lost() as usize, 300 - there);
    assert!(events(disk.path()).len() > 1000);
}

#[test]
fn no_journal_is_empty_and_every_bad_line_is_left_out_and_counted() {
    let run = tempfile::tempdir().unwrap();
    assert_eq!(events(run.path()), Vec::<Value>::new());
    assert!(!exists(run.path()).unwrap());
    let long = format!("{{\"event\":\"{}\"}}\n", "x".repeat(MAX_LINE_BYTES));
    let bad: [&[u8]; 8] =
        [b"{\n", b"[]\n", b"\n", b"\0\0\n", b"\0\0\0", b"{\"event\":\"\xff\"}\n", b"{\"event\":\n", long.as_bytes()];
    for line in bad {
        let whole = [b"{\"event\":\"a\"}\n", line, b"{\"event\":\"b\"}\n"].concat();
        fs::write(path(run.path()), &whole).unwrap();
        let (mut seen, tally) = (Vec::new(), for_each(run.path(), |_| {}).unwrap());
        for_each(run.path(), |event| seen.push(event["event"].clone())).unwrap();
        assert_eq!((seen, tally.bad), (vec![json!("a"), json!("b")], 1), "{:?}", tally.first_bad);
        assert!(tally.first_bad.unwrap().starts_with("journal.jsonl line 2: "));
        // The next run appends after it and reports it.
        let mut journal = open(run.path());
        assert_eq!(journal.go_on(0, true).unwrap().tally.bad, 1);
        journal.write("c", json!({})).unwrap();
        assert_eq!(events(run.path()).len(), 3);
    }
    fs::write(path(run.path()), "[]\n{}").unwrap();
    let mut lines = JournalScan::of(run.path()).unwrap();
    assert_eq!(lines.by_ref().map(|line| line.unwrap().event).collect::<Vec<_>>(), [Err("it is no object".to_owned())]);
    assert!(lines.torn());
}

#[test]
fn a_file_that_is_cut_off_renamed_or_removed_while_it_is_written_leaves_no_hole() {
    let run = tempfile::tempdir().unwrap();
    let mut journal = open(run.path());
    journal.write("one", json!({})).unwrap();
    // What `copytruncate` of logrotate does.
    fs::File::options().write(true).open(path(run.path())).unwrap().set_len(0).unwrap();
    journal.write("two", json!({})).unwrap();
    assert_eq!(fs::read(path(run.path())).unwrap(), b"{\"event\":\"two\"}\n");
    fs::rename(path(run.path()), run.path().join("elsewhere")).unwrap();
    journal.write("three", json!({})).unwrap();
    assert_eq!(events(run.path())[0]["event"], "three");
    fs::remove_file(path(run.path())).unwrap();
    journal.write("four", json!({})).unwrap();
    journal.sync().unwrap();
    assert_eq!(fs::read(path(run.path())).unwrap(), b"{\"event\":\"four\"}\n");
    let folder = run.path().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    let error = journal.write("five", json!({})).unwrap_err().chain();
    assert!(error.contains("journal.jsonl") && error.contains("No such file"), "{error}");
}

#[test]
fn parts_are_read_in_order_and_stay_within_the_budget() {
    let run = tempfile::tempdir().unwrap();
    let (budget, text) = (1.0, "x".repeat(1000));
    let mut journal = Journal::open(run.path(), budget).unwrap();
    let size =
        |run: &Path| -> u64 { parts::all(run).unwrap().iter().map(|path| fs::metadata(path).unwrap().len()).sum() };
    for number in 0..3000u64 {
        if number % 700 == 0 {
            journal = Journal::open(run.path(), budget).unwrap();
        }
        journal.write("fit", json!({"frame": number, "text": text})).unwrap();
        assert!(number % 100 > 0 || size(run.path()) <= 1_000_000, "{}", size(run.path()));
    }
    let frames: Vec<u64> = events(run.path()).iter().map(|event| event["frame"].as_u64().unwrap()).collect();
    assert!(frames.len() > 800 && frames.is_sorted() && frames.last() == Some(&2999), "{}", frames.len());
    assert_eq!(frames.len() as u64, 3000 - frames[0], "no line between the parts is missing");
    // Repeated lines are removed from all parts.
    let found = journal.go_on(frames[10], true).unwrap();
    assert_eq!((found.repeated, found.newest_frame), (frames.len() as u64 - 10, Some(2999)));
    journal.write("fit", json!({"frame": frames[10]})).unwrap();
    let after: Vec<u64> = events(run.path()).iter().map(|event| event["frame"].as_u64().unwrap()).collect();
    assert_eq!(after, frames[..11]);
}

#[test]
fn only_what_the_learner_says_again_is_taken_out_and_of_live_runs_nothing() {
    let run = tempfile::tempdir().unwrap();
    let mut journal = open(run.path());
    for (event, frame) in [("start", 0), ("fit", 5), ("fault", 9), ("health", 9), ("promotion", 10), ("stop", 10)] {
        journal.write(event, json!({ "frame": frame })).unwrap();
    }
    assert_eq!(journal.go_on(9, false).unwrap().repeated, 0);
    assert_eq!(events(run.path()).len(), 6);
    assert_eq!(journal.go_on(9, true).unwrap().repeated, 2);
    let left: Vec<Value> = events(run.path()).iter().map(|event| event["event"].clone()).collect();
    assert_eq!(left, ["start", "fit", "fault", "stop"]);
}

#[test]
fn a_line_that_is_too_long_is_shortened_and_can_be_read() {
    let run = tempfile::tempdir().unwrap();
    let mut journal = open(run.path());
    let many: serde_json::Map<String, Value> =
        (0..5000).map(|number| (format!("key{number}"), json!("y".repeat(900)))).collect();
    journal.write("many", Value::Object(many)).unwrap();
    journal.write("long", json!({"frame": 7, "text": "x".repeat(2 * MAX_LINE_BYTES)})).unwrap();
    let events = events(run.path());
    assert_eq!((events.len(), &events[1]["frame"], &events[1]["left_out"]), (2, &json!(7), &json!(1)));
    let left_out = events[0]["left_out"].as_u64().unwrap();
    assert_eq!(events[0].as_object().unwrap().len() as u64 - 2, 5000 - left_out);
}

#[test]
fn a_large_journal_is_read_in_the_memory_of_a_line() {
    let run = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(path(run.path())).unwrap();
    // A hole, as a writer with an old offset leaves it in a truncated file.
    file.set_len(1 << 28).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"{\"event\":\"end\"}\n").unwrap();
    let tally = for_each(run.path(), |_| {}).unwrap();
    assert_eq!((tally.events, tally.bad), (1, 1));
    assert!(tally.first_bad.unwrap().contains("268435456 zero bytes"));
}
