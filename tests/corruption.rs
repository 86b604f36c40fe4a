//! Truncated or modified files of a run are detected and reported, and everything before the damage is still used.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::Path;

use afterimage::checkpoint::load_head;
use afterimage::journal;
use common::{CUTS, Output, PATTERN, Paced, TestDir, assert_same, frames, heads, rows, tree};

/// One bit in the middle.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn copy(from: &Path, to: &Path) {
    for (name, bytes) in tree(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn newest(run: &Path) -> u64 {
    fs::read_to_string(run.join("latest")).unwrap().trim().parse().unwrap()
}

#[test]
fn a_damaged_head_gives_way_to_the_one_before() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &[]).ok();
    common::write_folder(&place.at("data/gallery"), "pattern://5?frames=20&segments=2&width=64&height=48", "png");
    copy(&place.at("data/gallery"), &place.at("data/query"));
    let run = place.at("run");
    let number = newest(&run);
    assert!(number >= 2);
    let file = |number: u64| run.join(format!("heads/{number:04}.safetensors"));
    let name = format!("{number:04}.safetensors is damaged");
    let whole = fs::read(file(number)).unwrap();
    let embed = |out: &str, head: u64, says: &[&str]| {
        let args = ["embed", "--run", "run", "--source", "pattern://1?frames=9", "--out", out, "--json"];
        assert_eq!(place.run(&args).ok().said(says).json()["head"], head);
        assert!(rows(&place.at(out).join("embeddings")).iter().all(|(record, _)| record.head == head));
    };
    for (i, damage) in [truncate, flip].into_iter().enumerate() {
        damage(&file(number));
        let says = [name.as_str(), "the head before it is used"];
        embed(&format!("embed{i}"), number - 1, &says);
        let eval = place.run(&["eval", "--data", "data", "--run", "run", "--json"]).ok().said(&says);
        assert_eq!(eval.json()["head"], number - 1);
        let export = place.run(&["export", "--run", "run", "--onnx", "m.onnx", "--json"]).ok().said(&says);
        assert_eq!(export.json()["head"], number - 1);
        fs::write(file(number), &whole).unwrap();
    }
    embed("whole", number, &[]);
    (1..=number).for_each(|number| flip(&file(number)));
    embed("none", 0, &["0001.safetensors is damaged", "frozen encoder"]);
}

/// A run that was stopped in its middle, and the same one uninterrupted.
struct Stopped {
    place: TestDir,
    all: Vec<afterimage::frame::Frame>,
}

impl Stopped {
    fn new() -> Self {
        let (place, all) = (TestDir::new(), frames(PATTERN));
        Paced::new(&place).give_all(&all);
        Paced::start_learn(&place, "whole", &CUTS).end().ok();
        let paced = Paced::new(&place);
        let mut running = Paced::start_learn(&place, "stopped", &CUTS);
        assert!(all[..1700].iter().all(|frame| paced.give(frame)));
        running.wait_for_file(&place.at("stopped/state.previous.safetensors"));
        running.signal("TERM");
        drop(paced);
        assert_eq!(running.end().ok().json()["ended"], false);
        assert!(newest(&place.at("stopped")) >= 1);
        Self { place, all }
    }

    /// Goes on with a copy that `damage` was done to, says each of `says`, and comes to the same end.
    fn goes_on(&self, damage: impl FnOnce(&Path), says: &[&str]) -> Output {
        let run = self.place.at("run");
        fs::remove_dir_all(&run).ok();
        copy(&self.place.at("stopped"), &run);
        damage(&run);
        Paced::new(&self.place).give_all(&self.all);
        let ran = Paced::start_learn(&self.place, "run", &[&CUTS[..], &["--resume"]].concat()).end().ok().said(says);
        assert!(rows(&run.join("embeddings")) == rows(&self.place.at("whole/embeddings")), "{}", ran.err);
        // What was said is in the journal too, and every line of that can be read.
        let events = journal::read(&run).unwrap();
        let faults: Vec<&str> = events.iter().filter_map(|event| event["reason"].as_str()).collect();
        for text in says {
            assert!(faults.iter().any(|fault| fault.contains(text)), "{text:?} is not in the journal: {faults:?}");
        }
        ran
    }

    fn same_heads(&self) {
        assert_same(&heads(&self.place.at("run")), &heads(&self.place.at("whole")));
    }
}

const STATE: &str = "state.safetensors";
const PREVIOUS: &str = "state.previous.safetensors";

#[test]
fn a_run_with_damaged_files_comes_to_the_same_end() {
    let stopped = Stopped::new();
    let whole = stopped.goes_on(|_| {}, &[]);
    assert!(!whole.err.contains("damaged"), "{}", whole.err);
    stopped.same_heads();
    for damage in [flip, truncate, |path: &Path| fs::write(path, "").unwrap()] {
        stopped.goes_on(|run| damage(&run.join(STATE)), &["state.safetensors is damaged", "using the state before it"]);
        stopped.same_heads();
    }
    let both = |run: &Path| [STATE, PREVIOUS].iter().for_each(|name| flip(&run.join(name)));
    let said = ["state.safetensors is damaged", "state.previous.safetensors is damaged", "learning starts afresh"];
    stopped.goes_on(both, &said);
    stopped.same_heads();
    let ran = stopped.goes_on(|run| fs::remove_file(run.join(STATE)).unwrap(), &[]);
    assert!(!ran.err.contains("starts afresh"), "the previous state is there: {}", ran.err);
    stopped.same_heads();
    // A journal torn in its last line loses that line.
    let tear = |run: &Path| {
        let journal = journal::path(run);
        let bytes = fs::read(&journal).unwrap();
        fs::write(&journal, &bytes[..bytes.len() - 20]).unwrap();
    };
    stopped.goes_on(tear, &[]);
    stopped.same_heads();
}

#[test]
fn a_last_state_that_did_not_get_its_name_gets_it_when_the_run_goes_on() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &[]).ok();
    let [state, next] = [STATE, "state.next.safetensors"].map(|name| place.at("run").join(name));
    let last = fs::read(&state).unwrap();
    fs::rename(&state, &next).unwrap();
    place.learn(PATTERN, "run", &["--resume"]).ok().said(&["nothing is left to learn"]);
    assert!(!next.exists() && fs::read(&state).unwrap() == last);
}

#[test]
fn a_damaged_head_is_written_again_from_the_state() {
    let stopped = Stopped::new();
    let number = newest(&stopped.place.at("stopped"));
    let name = format!("heads/{number:04}.safetensors");
    stopped.goes_on(|run| flip(&run.join(&name)), &["is damaged", "written again"]);
    let [mended, whole] = ["run", "whole"].map(|run| load_head(&stopped.place.at(run).join(&name)).unwrap());
    assert_eq!((mended.head, mended.space, mended.made_at), (whole.head, whole.space, whole.made_at));
}

#[test]
fn a_damaged_run_json_or_record_is_named_and_nothing_is_touched() {
    let place = TestDir::new();
    place.learn("pattern://1?frames=100&width=64&height=48", "run", &[]).ok();
    let run = place.at("run");
    let untouched = |act: &dyn Fn()| {
        let before = tree(&run);
        act();
        assert_same(&tree(&run), &before);
    };
    let refused = |name: &str, replayed: &str| {
        let damaged = place.at(replayed).join(name);
        let whole = fs::read(&damaged).unwrap();
        truncate(&damaged);
        let before = tree(&place.at(replayed));
        place.run(&["replay", "--run", replayed, "--out", "again"]).fails(1, &[name]);
        // Records are read row by row, the rest is looked at before anything is made.
        assert!(name.ends_with("jsonl") || !place.at("again").exists());
        fs::remove_dir_all(place.at("again")).ok();
        assert_same(&tree(&place.at(replayed)), &before);
        fs::write(damaged, whole).unwrap();
    };
    for (format, names) in [
        ("npy", &["latents/0000.npy", "latents/0000.jsonl"][..]),
        ("safetensors", &["latents/0000.safetensors", "latents/0000.jsonl"]),
        ("parquet", &["latents/0000.parquet"]),
    ] {
        let set = format!("export.format={format}");
        let more = ["--set", "export.latents=true", "--set", &set];
        place.learn("pattern://1?frames=100&width=64&height=48", format, &more).ok();
        names.iter().for_each(|name| refused(name, format));
    }
    truncate(&run.join("run.json"));
    untouched(&|| {
        let says = ["run.json is damaged or of another version"];
        place.learn("pattern://1?frames=100&width=64&height=48", "run", &["--resume"]).fails(1, &says);
        place.run(&["embed", "--run", "run", "--source", "pattern://1?frames=9", "--out", "e"]).fails(1, &says);
        assert!(!place.at("e").exists());
    });
}

/// What a call changes nothing of: the saved states and heads.
fn kept(run: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = tree(run);
    files.retain(|name, _| name.starts_with("state") || name.starts_with("heads/0"));
    files
}

#[test]
fn what_belongs_to_another_run_is_refused_and_nothing_begins_anew() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &[]).ok();
    place.learn("pattern://8?frames=2400&segments=240&width=64&height=48", "other", &[]).ok();
    let [own, other] = ["run", "other"].map(|run| place.at(run));
    let whole = fs::read(own.join(STATE)).unwrap();
    for names in [&[STATE][..], &[STATE, PREVIOUS]] {
        for name in names {
            fs::copy(other.join(STATE), own.join(name)).unwrap();
        }
        let before = kept(&own);
        let said = ["belongs to another run", "cannot be used"];
        place.learn(PATTERN, "run", &["--resume"]).fails(3, &said);
        assert_same(&kept(&own), &before);
    }
    let check = place.run(&["check", "--run", "run"]);
    assert!(check.status.code() == Some(3) && check.out.contains("belongs to another run"), "{}", check.out);
    place.run(&["merge", "run", "other", "--out", "merged"]).fails(3, &["belongs to another run"]);
    fs::write(own.join(STATE), whole).unwrap();
    let head = |run: &Path, number: u64| run.join(format!("heads/{number:04}.safetensors"));
    fs::copy(head(&other, newest(&other)), head(&own, newest(&other).max(newest(&own)))).unwrap();
    if newest(&other) >= newest(&own) {
        let args = ["embed", "--run", "run", "--source", "pattern://1?frames=9", "--out", "e"];
        place.run(&args).fails(3, &["belongs to another run", "heads/"]);
    }
}

#[test]
fn what_cannot_be_read_is_not_taken_for_damage() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &[]).ok();
    let run = place.at("run");
    for name in [STATE, PREVIOUS] {
        let aside = run.join("aside");
        fs::rename(run.join(name), &aside).unwrap();
        // A folder can be opened, and not read, whoever asks.
        fs::create_dir(run.join(name)).unwrap();
        if name == PREVIOUS {
            flip(&run.join(STATE));
        }
        let before = kept(&run);
        place.learn(PATTERN, "run", &["--resume"]).fails(1, &[name, "make its files readable"]);
        assert_same(&kept(&run), &before);
        fs::remove_dir(run.join(name)).unwrap();
        fs::rename(&aside, run.join(name)).unwrap();
    }
}

#[test]
fn a_state_that_cannot_be_saved_does_not_end_the_run() {
    let place = TestDir::new();
    place.learn(PATTERN, "whole", &[]).ok();
    // A folder with something in it cannot be replaced by a file.
    let next = place.at("run/state.next.safetensors");
    fs::create_dir_all(next.join("full")).unwrap();
    let ran = place.learn(PATTERN, "run", &[]);
    let ran = ran.fails(1, &["the state of run run is not saved", "state.next.safetensors"]);
    assert_eq!(ran.err.matches("the next checkpoint tries again").count(), 1, "said once: {}", ran.err);
    let faults = journal::read(&place.at("run")).unwrap().into_iter().filter(|event| event["event"] == "fault");
    assert_eq!(faults.count(), 1);
    assert_same(&heads(&place.at("run")), &heads(&place.at("whole")));
    assert!(!place.at("run").join(STATE).exists());
    fs::remove_dir_all(&next).unwrap();
    place.learn(PATTERN, "run", &["--resume"]).ok();
    assert_same(&heads(&place.at("run")), &heads(&place.at("whole")));
}
