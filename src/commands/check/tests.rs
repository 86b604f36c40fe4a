#![allow(clippy::unwrap_used, reason = "tests")]
use std::fs;

use ndarray::{Array1, Array2};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::{HeadCheckpoint, SpaceMapCheckpoint, map_path, save, save_head, save_map};
use crate::export::{Dtype, Format, Granularity, Record, RowFormat, SCHEMA, Writer};
use crate::head::{EmbeddingKind, Head, HeadParams};
use crate::journal::Journal;
use crate::learner::LatentSpec;
use crate::pipeline::export_thread::FilePositions;
use crate::pipeline::run_dir::StreamPosition;
use crate::spaces::space_of;
use crate::spaces::{HitRate, MapKind, SpaceMap};
use crate::state_dict::StateDict;

const DIM: usize = 3;

fn origin() -> LatentSpec {
    LatentSpec { encoder_sha256: "e".repeat(64), card_hash: "c".repeat(64), dim: DIM, ..LatentSpec::default() }
}

fn info() -> RunManifest {
    let (sources, cameras) = (["pattern://1".into()], ["camera".into()]);
    RunManifest::new(Path::new("gone.onnx"), &origin(), &sources, false, &cameras, &Config::default())
}

fn head_file(number: u64) -> HeadCheckpoint {
    let slow = Array2::from_shape_fn((DIM, 2), |(i, j)| (i + j) as f32 + number as f32);
    let head = Head::Learned(HeadParams {
        mean: Array1::zeros(DIM),
        slow,
        mlp: None,
        alpha: 1.0,
        form: EmbeddingKind::Single,
    });
    let LatentSpec { encoder_sha256, card_hash, .. } = origin();
    let space = space_of(&encoder_sha256, &card_hash, &head);
    let run = info().identity;
    HeadCheckpoint { head, number, space, run, encoder_sha256, card_hash, activate_at: 5, made_at: 4, scatter: None }
}

fn record(frame: u64, head: u64, space: &str) -> Record {
    Record {
        schema: SCHEMA,
        camera: "camera".into(),
        frame,
        file: None,
        stamp_ns: frame as i64,
        wall_ns: None,
        segment: 0,
        level: Granularity::Frame,
        space: space.into(),
        head,
        provenance: None,
        learner: None,
        novelty: None,
        novel: false,
        window: None,
        track: None,
        class: None,
        score: None,
        migrated_from: None,
    }
}

/// A complete run: two heads, one state, two files of embeddings (frozen, then head 2).
fn run() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let info = info();
    info.save(run).unwrap();
    let mut journal = Journal::open(run, 64.0).unwrap();
    journal.write("start", json!({})).unwrap();
    for number in [1, 2] {
        let file = head_file(number);
        save_head(run, &file).unwrap();
        journal.write("promotion", json!({ "promoted": number, "space": file.space })).unwrap();
        save_map(run, &map_file(number, &heads::frozen_space(&info))).unwrap();
    }
    let exports = FilePositions { embeddings: 2, latents: 0, grids: 0 };
    let place = StreamPosition { next_index: 9, ended: true, segmenter: None, exports };
    save_state(run, &info.identity, &place);
    let layout = RowFormat::embeddings(Format::Npy, Dtype::F32);
    let mut writer = Writer::open(&run.join("embeddings"), 0, layout, 1 << 20).unwrap();
    let frozen = heads::frozen_space(&info);
    for frame in 0..4 {
        writer.push(&record(frame, 0, &frozen), &[0.6, 0.8, 0.0]).unwrap();
    }
    for frame in 4..9 {
        writer.push(&record(frame, 2, &head_file(2).space), &[0.0, 1.0]).unwrap();
    }
    writer.finish().unwrap();
    folder
}

/// Saves a state that contains only its position.
fn save_state(run: &Path, identity: &str, place: &StreamPosition) {
    let mut contents = StateDict::default();
    contents.text("format", "afterimage state 3");
    contents.text("run", identity);
    contents.json("place", place).unwrap();
    save(&run.join("state.safetensors"), &contents.meta, &contents.tensors, 1 << 20).unwrap();
}

fn map_file(to_head: u64, frozen: &str) -> SpaceMapCheckpoint {
    let (kind, size) = if to_head == 1 { (MapKind::Head, 0) } else { (MapKind::Affine, 2) };
    SpaceMapCheckpoint {
        from: if to_head == 1 { frozen.to_owned() } else { head_file(1).space },
        from_head: to_head - 1,
        to: head_file(to_head).space,
        to_head,
        run: info().identity,
        encoder_sha256: origin().encoder_sha256,
        card_hash: origin().card_hash,
        map: SpaceMap { kind, matrix: Array2::eye(size), offset: Array1::zeros(size) },
        references: 7,
        queries: 9,
        hits: Some(HitRate { within: 0.5, across: 0.4 }),
        as_is: None,
    }
}

/// The report on a run, and the exit code.
fn report(run: &Path) -> (String, u8) {
    let mut all = Diagnostics::default();
    folder(&mut all, run, &RunManifest::load(run), true);
    let done = all.done(false, None);
    (done.output.text, done.exit_code)
}

/// The failing lines for a run after `damage`.
fn failures(damage: impl FnOnce(&Path)) -> Vec<String> {
    let run = run();
    damage(run.path());
    let (text, code) = report(run.path());
    let lines: Vec<String> = text.lines().filter(|l| l.starts_with("fail")).map(str::to_owned).collect();
    assert_eq!(code, if lines.is_empty() { 0 } else { 3 }, "{text}");
    lines
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_whole_run_is_whole() {
    let run = run();
    let (text, code) = report(run.path());
    let lines = [
        "ok    run.json: of pattern://1",
        "ok    heads/0002.safetensors: 3 to 2 values",
        "ok    latest: 0002",
        "ok    journal.jsonl: 3 events",
        "ok    maps/0001.safetensors: from space",
        "affine, 7 references, keeps 80.0 % of the hits (9 queries)",
        "ok    state.safetensors: whole, goes on at frame 9; the source has ended",
        "ok    embeddings: 2 of 2 files whole, 9 rows",
        "ok    embeddings: 4 rows of the frozen encoder",
        "ok    embeddings: 5 rows of head 2",
    ];
    for line in lines {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    // The run's encoder is not here, which is not damage.
    assert!(code == 0 && text.contains("warn  encoder") && text.matches("warn").count() == 1, "{text}");
}

#[test]
fn maps_are_read_and_must_join_the_spaces_of_their_heads() {
    let gone = |run: &Path| fs::remove_file(map_path(run, 2)).unwrap();
    assert!(failures(gone).is_empty(), "older runs have none");
    let lines = failures(|run| edit(&map_path(run, 2), |bytes| bytes[300] ^= 1));
    assert!(lines.len() == 1 && lines[0].contains("maps/0002.safetensors"), "{lines:?}");
    let other = |run: &Path| {
        save_map(run, &SpaceMapCheckpoint { from: "of another run".into(), ..map_file(2, "") }).unwrap();
    };
    let lines = failures(other);
    assert!(lines.len() == 1 && lines[0].contains("joins space of another run as that of head 1"), "{lines:?}");
}

#[test]
fn every_bit_of_a_head_counts() {
    let run = run();
    let path = run.path().join("heads/0001.safetensors");
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(13).chain([whole.len() - 1]) {
        edit(&path, |bytes| bytes[at] ^= 4);
        let (text, code) = report(run.path());
        assert!(code == 3 && text.contains("fail  heads/0001.safetensors"), "byte {at}:\n{text}");
        assert!(text.contains("ok    heads/0002.safetensors"), "the others are checked too");
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn heads_that_are_gone_or_not_this_runs_are_named() {
    // A missing head: the journal and the rows refer to it.
    let lines = failures(|run| fs::remove_file(run.join("heads/0002.safetensors")).unwrap());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("latest: names \"0002\"") && lines[1].contains("promoted by the journal"), "{lines:?}");
    assert!(lines[2].contains("5 rows of head 2") && lines[2].contains("not in heads/"), "{lines:?}");
    let lines = failures(|run| {
        fs::copy(run.join("heads/0001.safetensors"), run.join("heads/0002.safetensors")).unwrap();
    });
    assert!(lines[0].contains("is head 1 by its content"), "{lines:?}");
    // Another run's head of the same number: valid, but of another space.
    let lines = failures(|run| {
        let mut other = HeadCheckpoint { number: 2, ..head_file(7) };
        save_head(run, &other).unwrap();
        other.card_hash = "d".repeat(64);
        other.space = space_of(&other.encoder_sha256, &other.card_hash, &other.head);
        other.number = 3;
        save_head(run, &other).unwrap();
    });
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].contains("another encoder or preparation"), "{lines:?}");
    assert!(lines[1].contains("but by the journal") && lines[3].contains("but head 2 is of space"), "{lines:?}");
    assert!(lines[2].contains("maps/0002.safetensors: joins space"), "{lines:?}");
}

#[test]
fn everything_that_is_damaged_is_listed() {
    let lines = failures(|run| {
        edit(&run.join("run.json"), |bytes| bytes.truncate(20));
        edit(&run.join("heads/0001.safetensors"), |bytes| bytes.truncate(100));
        edit(&run.join("state.safetensors"), |bytes| bytes[20] ^= 1);
        edit(&run.join("journal.jsonl"), |bytes| bytes[0] = b'[');
        edit(&run.join("embeddings/0001.npy"), |bytes| bytes.truncate(150));
        fs::write(run.join("latest"), "x").unwrap();
    });
    let expected = ["run.json", "heads/0001", "latest", "journal.jsonl", "state.safetensors", "embeddings/0001.npy"];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, what) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("fail  {what}")), "{line}");
    }
}

#[test]
fn rows_and_records_must_fit_each_other_and_their_space() {
    let wrong = |name: &str, change: fn(&mut Vec<u8>)| {
        let lines = failures(|run| edit(&run.join("embeddings").join(name), change));
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.concat()
    };
    assert!(wrong("0000.jsonl", |b| b.truncate(b.len() / 4 * 3)).contains("0000"));
    assert!(wrong("0000.jsonl", |b| b.extend_from_within(..)).contains("more lines than the 4 rows"));
    assert!(wrong("0001.npy", |b| b.extend([0; 8])).contains("does not fit its"));
    // Flips the top bit of an exponent, which turns 1.0 into a value close to a NaN; flipping a sign would keep the
    // length.
    assert!(wrong("0001.npy", |b| b[128 + 7] ^= 0x40).contains("row 0"));
    assert!(wrong("0001.npy", |b| b[128 + 6] ^= 0x80).contains("has length"));
    let foreign = wrong("0000.jsonl", |b| {
        let text = String::from_utf8(b.clone()).unwrap();
        *b = text.replace("\"head\":0", "\"head\":1").into_bytes();
    });
    assert!(foreign.contains("4 rows of head 1") && foreign.contains("but head 1 is of space"), "{foreign}");
    let lines = failures(|run| fs::remove_file(run.join("embeddings/0001.jsonl")).unwrap());
    assert!(lines.len() == 1 && lines[0].contains("0001.jsonl"), "{lines:?}");
}

#[test]
fn what_a_crash_leaves_is_a_warning() {
    let run = run();
    let at = |name: &str| run.path().join(name);
    fs::write(at("heads/.0003.safetensors.partial"), "x").unwrap();
    fs::write(at("embeddings/0002.jsonl"), "{}\n").unwrap();
    fs::write(at("latest"), "0001\n").unwrap();
    edit(&at("journal.jsonl"), |bytes| bytes.extend(b"{\"event\":"));
    let (text, code) = report(run.path());
    assert_eq!(code, 0, "{text}");
    for part in ["heads/.0003.safetensors.partial", "embeddings/0002.jsonl", "latest: names head 1", "torn"] {
        assert!(text.lines().any(|line| line.starts_with("warn") && line.contains(part)), "{part} in\n{text}");
    }
    // Files moved away at the start or at the end.
    fs::remove_file(at("embeddings/0000.npy")).unwrap();
    assert!(report(run.path()).0.contains("warn  embeddings: files 0000 to 0000 are not there"));
    fs::remove_dir_all(at("embeddings")).unwrap();
    let (text, code) = report(run.path());
    assert!(code == 0 && text.contains("warn  embeddings: files 0000 to 0001 are not there"), "{text}");
}

#[test]
fn a_folder_without_a_run_is_a_usage_error() {
    let empty = tempfile::tempdir().unwrap();
    let (text, code) = report(empty.path());
    assert!(code == 2 && text.lines().count() == 1 && text.contains("no run.json"), "{text}");
}
