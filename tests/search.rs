//! `search` in the built binary: the nearest rows among the exports of a run.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use afterimage::export::{Dtype, Format, Granularity, Reader, Record, RowFormat, SCHEMA, Writer};
use common::{ENCODER, PATTERN, TestDir, frames, write_folder, write_image};
use serde_json::Value;

const SHORT: &str = "pattern://1?frames=60&segments=6&width=64&height=48";

fn hits(found: &Value) -> Vec<(u64, f64)> {
    let hits = found["hits"].as_array().unwrap();
    hits.iter().map(|hit| (hit["frame"].as_u64().unwrap(), hit["similarity"].as_f64().unwrap())).collect()
}

/// Frame, seconds and similarity to `query` of every row of `space`, the most similar first.
fn by_hand(folder: &Path, space: &str, query: &[f32]) -> Vec<(u64, f64, f64)> {
    let rows = Reader::open(folder).unwrap().map(Result::unwrap).filter(|(record, _)| &*record.space == space);
    let similar = |row: &[f32]| row.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    let mut all: Vec<(u64, f64, f64)> =
        rows.map(|(record, row)| (record.frame, record.stamp_ns as f64 * 1e-9, similar(&row))).collect();
    all.sort_by(|a, b| b.2.total_cmp(&a.2));
    all
}

#[test]
fn a_picture_is_found_among_the_rows_of_the_newest_head_and_drawn() {
    let place = TestDir::new();
    let report = place.learn(PATTERN, "run", &[]).ok().json();
    let newest = report["head"]["number"].as_u64().unwrap();
    assert!(newest >= 1, "{report}");
    let asked = 2390;
    write_image(&place.at("q.png"), &frames(PATTERN)[asked as usize]);
    let search = ["search", "--run", "run", "--image", "q.png", "--json"];
    let ran = place.run(&[&search[..], &["-k", "7", "--source", PATTERN, "--out", "new/s.png"]].concat()).ok();
    let ran = ran.said(&["rows of other spaces are left out", "afterimage migrate FILES --to", "--space NAME"]);
    let found = ran.json();
    let space = found["space"].as_str().unwrap().to_owned();
    // A head that was promoted at the very end has no rows.
    let head = found["head"].as_u64().unwrap();
    assert!(head >= 1 && head <= newest, "{found}");
    assert_eq!(head < newest, ran.err.contains(&format!("the newest head, {newest}, has no rows")), "{}", ran.err);
    // By hand, with the row of that frame.
    let mut rows = Reader::open(&place.at("run/embeddings")).unwrap().map(Result::unwrap);
    let (record, query) = rows.find(|(record, _)| record.frame == asked).unwrap();
    assert_eq!((record.head, &*record.space), (head, space.as_str()));
    let all = by_hand(&place.at("run/embeddings"), &space, &query);
    let others: u64 = found["other_spaces"].as_array().unwrap().iter().map(|s| s["rows"].as_u64().unwrap()).sum();
    assert!(others > 0 && found["rows"].as_u64().unwrap() == all.len() as u64 && others + all.len() as u64 == 2400);
    let secs = found["min_gap_secs"].as_f64().unwrap();
    assert!((secs - 2.4).abs() < 1e-9, "twice the longest pair");
    let mut right: Vec<(u64, f64, f64)> = Vec::new();
    for one in all.iter() {
        if right.len() < 7 && right.iter().all(|other| (other.1 - one.1).abs() > secs) {
            right.push(*one);
        }
    }
    let found_hits = hits(&found);
    assert_eq!(found_hits.iter().map(|hit| hit.0).collect::<Vec<_>>(), right.iter().map(|r| r.0).collect::<Vec<_>>());
    assert!(found_hits.iter().zip(&right).all(|(a, b)| (a.1 - b.2).abs() < 1e-6), "{found_hits:?}");
    assert!(found_hits[0].0 == asked && found_hits[0].1 > 0.9999, "{found_hits:?}");
    // The same picture in a format that loses nothing.
    write_image(&place.at("q.webp"), &frames(PATTERN)[asked as usize]);
    let webp = place.run(&["search", "--run", "run", "--image", "q.webp", "--json", "-k", "7"]).ok().json();
    assert_eq!(hits(&webp), found_hits);
    let sheet = image::open(place.at("new/s.png")).unwrap();
    assert_eq!((&found["sheet"]["width"], &found["sheet"]["height"]), (&sheet.width().into(), &sheet.height().into()));
    // For people; and another space, by the beginning of its name.
    let text = place.run(&search[..5]).ok();
    let line = text.out.lines().nth(2).unwrap();
    assert!(line.contains("0:03:59.000") && line.contains("camera") && line.contains(".npy:"), "{}", text.out);
    let other = found["other_spaces"][0]["space"].as_str().unwrap();
    let found = place.run(&[&search[..], &["--space", &other[..6], "--min-gap-secs", "0"]].concat()).ok().json();
    assert_eq!(found["space"], other);
    let close = hits(&found);
    assert!(close.len() == 10 && close.is_sorted_by_key(|hit| -hit.1), "{close:?}");
    // A row as the query needs no encoder; the head of its space may be gone.
    let first = &found["hits"][0];
    let row = format!("{}:{}", first["file"].as_str().unwrap(), first["row"]);
    fs::rename(place.at("run/heads"), place.at("heads")).unwrap();
    let found = place.run(&["search", "--run", "run", "--row", &row, "--json", "-k", "3"]).ok().json();
    assert_eq!((&found["space"], &found["query"]["frame"]), (&other.into(), &first["frame"]));
    assert!(hits(&found).iter().all(|hit| hit.0 != first["frame"].as_u64().unwrap()), "never itself");
    if first["segment"].is_u64() && found["head"].as_u64().unwrap() > 0 {
        let gone = [&search[..], &["--space", other]].concat();
        place.run(&gone).fails(1, &["cannot be brought into space", "--row FILE:ROW"]);
    }
    let gone = [&search[..], &["--space", &space]].concat();
    place.run(&gone).fails(1, &["cannot be brought into space", "--row FILE:ROW", "heads"]);
}

#[test]
fn every_format_gives_the_same_neighbours() {
    let place = TestDir::new();
    place.learn(SHORT, "run", &[]).ok();
    write_image(&place.at("q.png"), &frames(SHORT)[42]);
    let mut all = Vec::new();
    for (format, dtype) in
        [("npy", "f32"), ("safetensors", "f32"), ("parquet", "f32"), ("parquet", "f16"), ("npy", "f16")]
    {
        let (out, set) =
            (format!("{format}-{dtype}"), [format!("export.format={format}"), format!("export.dtype={dtype}")]);
        let embed = ["embed", "--run", "run", "--source", SHORT, "--out", &out, "--set", &set[0], "--set", &set[1]];
        place.run(&embed).ok();
        let args =
            ["search", "--run", "run", "--image", "q.png", "--embeddings", &out, "--min-gap-secs", ".5", "--json"];
        let found = place.run(&args).ok().json();
        let found_hits = hits(&found);
        assert!(found_hits[0].0 == 42 && found_hits[0].1 > 0.999, "{out}: {found_hits:?}");
        let frame =
            place.run(&["search", "--run", "run", "--embeddings", &out, "--frame", "camera:42", "--json"]).ok().json();
        assert!(frame["query"]["frame"] == 42 && hits(&frame).iter().all(|hit| hit.0.abs_diff(42) > 24), "{frame}");
        all.push((dtype, found_hits));
    }
    assert!(all[1].1 == all[0].1 && all[2].1 == all[0].1 && all[4].1 == all[3].1);
    let near = |(a, b): (&(u64, f64), &(u64, f64))| (a.1 - b.1).abs() < 1e-3;
    assert!(all[3].1.iter().zip(&all[0].1).all(near), "{all:?}");
}

#[test]
fn boxes_are_searched_by_a_picture_of_one_and_drawn_by_themselves() {
    let place = TestDir::new();
    write_folder(&place.at("frames"), SHORT, "png");
    let boxes: String = (1..=60).map(|n| format!("{n},{},5,5,30,30,1\n{n},-1,30,20,30,25,1\n", n / 10)).collect();
    fs::write(place.at("det.txt"), boxes).unwrap();
    place.learn("frames", "run", &[]).ok();
    place.run(&["embed", "--run", "run", "--source", "frames", "--boxes", "det.txt", "--out", "boxes"]).ok();
    let frame = &frames(SHORT)[33];
    let row = |y: usize| &frame.pixels[(y * 64 + 5) * 3..(y * 64 + 35) * 3];
    let pixels: Vec<u8> = (5..35).flat_map(row).copied().collect();
    write_image(&place.at("q.png"), &afterimage::frame::Frame { width: 30, height: 30, pixels, ..frame.clone() });
    let args = ["search", "--run", "run", "--image", "q.png", "--embeddings", "boxes", "-k", "4", "--json"];
    let more = ["--source", "frames", "--out", "s.png"];
    let found = place.run(&[&args[..], &more].concat()).ok().json();
    let first = &found["hits"][0];
    assert!(
        first["frame"] == 33 && first["similarity"].as_f64().unwrap() > 0.9999 && first["level"] == "box",
        "{first}"
    );
    assert_eq!(first["box"], serde_json::json!([5, 5, 35, 35]));
    assert!(place.at("s.png").exists());
}

#[test]
fn what_cannot_be_searched_is_said() {
    let place = TestDir::new();
    place.learn(SHORT, "run", &[]).ok();
    write_image(&place.at("q.png"), &frames(SHORT)[3]);
    let search = |more: &[&str]| place.run(&[&["search", "--run", "run"], more].concat());
    search(&[]).fails(2, &["--image", "--row", "--frame"]);
    search(&["--image", "q.png", "--row", "0000.npy:1"]).fails(2, &["cannot be used with"]);
    search(&["--image", "q.png", "-k", "0"]).fails(2, &["0", "1..="]);
    search(&["--image", "q.png", "--out", "s.png"]).fails(2, &["--source"]);
    search(&["--image", "q.png", "--source", SHORT]).fails(2, &["--out"]);
    search(&["--image", "q.png", "--source", SHORT, "--out", "s.jpg"]).fails(2, &["PNG"]);
    search(&["--image", "q.png", "--min-gap-secs=-1"]).fails(2, &["--min-gap-secs -1"]);
    search(&["--image", "none.png"]).fails(1, &["none.png", "No such file"]);
    search(&["--image", "learn.toml"]).fails(1, &["learn.toml", "of no kind that is known"]);
    search(&["--image", "q.png", "--space", "zz"]).fails(2, &["--space \"zz\" is no space", "60 rows"]);
    search(&["--image", "q.png", "--embeddings", "none"]).fails(1, &["no embeddings in none", "embed --run RUN"]);
    search(&["--row", "0000.npy"]).fails(2, &["--row", "0003.npy:17"]);
    search(&["--row", "0000.npy:60"]).fails(2, &["has 60 rows, from 0; there is no row 60"]);
    search(&["--row", "0009.npy:1"]).fails(2, &["no file 0009.npy"]);
    search(&["--frame", "camera:60"]).fails(2, &["no such frame among the 60 rows"]);
    search(&["--frame", "door:6"]).fails(2, &["no such frame"]);
    let sheet = ["--image", "q.png", "--out", "s.png", "--source"];
    search(&[&sheet[..], &["pattern://1?frames=5"]].concat()).fails(1, &["has no frame", "its last is 4"]);
    search(&[&sheet[..], &["pattern://1?live=true"]].concat()).fails(2, &["is live"]);
    search(&[&sheet[..], &["-"]].concat()).fails(2, &["standard input comes once"]);
    place.run(&["search", "--run", "none", "--image", "q.png"]).fails(2, &["none", "run.json"]);
    // Everything of one moment: nothing is left, and that is said.
    let ran = search(&["--frame", "camera:9", "--min-gap-secs", "1000"]).ok();
    assert!(ran.out.contains("0 of 10: ") && ran.out.contains("a smaller --min-gap-secs"), "{}", ran.out);
    // Another encoder.
    fs::copy(Path::new(ENCODER).with_file_name("two_outputs.onnx"), place.at("m.onnx")).unwrap();
    let text = fs::read_to_string(Path::new(ENCODER).with_extension("toml")).unwrap();
    let sums = [Path::new(ENCODER), &place.at("m.onnx")].map(|path| afterimage::files::sha256_file(path).unwrap());
    fs::write(place.at("m.toml"), text.replace(&sums[0], &sums[1])).unwrap();
    search(&["--image", "q.png", "--encoder", "m.onnx"]).fails(3, &["another encoder"]);
    // Rows that say they are of a head of another run.
    let rows = place.at("run/embeddings");
    let jsonl = fs::read_to_string(rows.join("0000.jsonl")).unwrap();
    let first: Value = serde_json::from_str(jsonl.lines().next().unwrap()).unwrap();
    fs::write(rows.join("0000.jsonl"), jsonl.replace(first["space"].as_str().unwrap(), "0123456789abcdef")).unwrap();
    search(&["--image", "q.png"]).fails(3, &["rows of space 0123456789abcdef", "another run"]);
    search(&["--row", "0000.npy:1"]).ok();
    // A file that is not whole, and none.
    let bytes = fs::read(rows.join("0000.npy")).unwrap();
    fs::write(rows.join("0000.npy"), &bytes[..bytes.len() - 8]).unwrap();
    search(&["--row", "0000.npy:1"]).fails(1, &["0000.npy", "does not fit its"]);
    fs::remove_dir_all(rows).unwrap();
    search(&["--image", "q.png"]).fails(1, &["no embeddings in run/embeddings", "export.embeddings"]);
    assert!(!place.at("s.png").exists());
}

/// 160 MB of rows, and address space for less: one file at a time is mapped.
#[test]
fn memory_does_not_grow_with_the_rows() {
    const DIM: usize = 1280;
    let place = TestDir::new();
    place.learn(SHORT, "run", &[]).ok();
    let mut writer =
        Writer::open(&place.at("many"), 0, RowFormat::embeddings(Format::Npy, Dtype::F32), 16 << 20).unwrap();
    let mut row = vec![0.0; DIM];
    for i in 0..32_000_usize {
        row.fill(0.0);
        (row[i % DIM], row[i / DIM]) = (0.8, 0.6);
        writer.push(&record(i as u64), &row).unwrap();
    }
    let files = writer.finish().unwrap().files;
    assert!(files > 8);
    let call = "ulimit -v 100000 && exec \"$0\" search --run run --embeddings many --row 0000.npy:5 -k 20 --json";
    let mut shell = Command::new("sh");
    shell.args(["-c", call, env!("CARGO_BIN_EXE_afterimage")]).current_dir(place.path());
    let ran = shell.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    // Row 5 has .6 in column 0 and .8 in column 5: so has nearly every row i = 5 (mod 1280), and those below 1280 have .6.
    let found = hits(&found);
    assert!(found.len() == 20 && found.iter().all(|hit| hit.1 > 0.35), "{found:?}");
}

fn record(frame: u64) -> Record {
    Record {
        schema: SCHEMA,
        camera: "camera".into(),
        frame,
        file: None,
        stamp_ns: frame as i64 * 10_000_000_000,
        wall_ns: None,
        segment: 0,
        level: Granularity::Frame,
        space: "made-up".into(),
        head: 0,
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
