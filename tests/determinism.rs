//! The same seed, source and configuration give the same files, bit for bit, however busy the machine is.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::path::Path;
use std::process::Command;

use afterimage::checkpoint::load;
use common::skip::{Needs, installed};
use common::{CUTS, PATTERN, Running, TestDir, assert_same, heads, rows, tree, write_folder};
use serde_json::Value;

/// Learns from `source` twice, both at the same time so that they are in each other's way, and compares all files.
/// The report of the first, and the places of both.
fn twice(prepare: impl Fn(&TestDir), source: &str, more: &[&str]) -> (Value, [TestDir; 2]) {
    let places = [TestDir::new(), TestDir::new()];
    places.iter().for_each(prepare);
    let runs = places.each_ref().map(|place| place.start_learn(source, "run", more));
    let [report, other] = runs.map(Running::end).map(|ran| ran.ok().json());
    let [a, b] = places.each_ref().map(|place| tree(&place.at("run")));
    learned_something(&report);
    assert!(["run.json", "journal.jsonl", "state.safetensors", "latest"].iter().all(|name| a.contains_key(*name)));
    assert_same(&a, &b);
    for key in ["frames", "learned", "head", "health", "gain", "exports", "drops"] {
        assert_eq!(report[key], other[key], "{key}");
    }
    (report, places)
}

fn learned_something(report: &Value) {
    assert!(report["promotions"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["steps"].as_u64().unwrap() >= 20, "{report}");
}

#[test]
fn a_pattern_and_its_replay() {
    let (report, [place, again]) = twice(|_| {}, PATTERN, &["--set", "export.latents=true"]);
    learned_something(&report);
    let run = place.at("run");
    // Both kinds of heads must have been promoted, or this shows too little.
    let residual = |name: &String| load(&run.join("heads").join(name), 1 << 20).unwrap().has("mlp.w1");
    let promoted = heads(&run);
    let kinds: Vec<bool> = promoted.keys().filter(|name| name.ends_with(".safetensors")).map(residual).collect();
    assert!(kinds.contains(&true) && kinds.contains(&false), "{kinds:?}");
    assert_eq!(rows(&run.join("embeddings")).len(), 2400);

    let replayed = place.run(&["replay", "--run", "run", "--out", "again", "--json"]).ok().json();
    assert_same(&promoted, &heads(&place.at("again")));
    assert_eq!(replayed["learned"], report["learned"]);

    // Another seed: the same statistics, another residual.
    place.learn(PATTERN, "other", &["--set", "learn.seed=1"]).ok();
    let state = |place: &TestDir, run: &str| load(&place.at(run).join("state.safetensors"), 1 << 24).unwrap();
    let total = |place, run| state(place, run).take::<f64>("scatter.total", &[32 * 33 / 2]).unwrap();
    let weights = |place, run| state(place, run).take::<f32>("residual.mlp.w1", &[32, 24]).unwrap();
    assert_eq!(total(&place, "run"), total(&place, "other"));
    assert_eq!(weights(&place, "run"), weights(&again, "run"));
    assert_ne!(weights(&place, "run"), weights(&place, "other"));
}

#[test]
fn a_folder_with_sub_folders() {
    let uri = "pattern://7?frames=1600&segments=160&width=64&height=48";
    let (report, _) = twice(|place| write_folder(&place.at("frames"), uri, "jpg"), "frames", &[]);
    assert_eq!((report["frames"].as_u64(), report["segments"].as_u64()), (Some(1600), Some(160)));
}

#[test]
fn a_video() {
    if !installed(Needs::Ffmpeg, &["ffmpeg"]) {
        return;
    }
    // Drawn once: another ffmpeg may draw other bytes, but all runs here read the same file.
    let drawn = TestDir::new();
    write_folder(&drawn.at("frames"), "pattern://7?frames=1600&segments=160&width=64&height=48", "png");
    let clip = drawn.at("clip.mp4");
    draw(&drawn.at("frames"), &clip);
    let copy = |place: &TestDir| assert!(std::fs::copy(&clip, place.at("clip.mp4")).unwrap() > 0);
    let (report, _) = twice(copy, "file:clip.mp4", &CUTS);
    assert_eq!(report["frames"], 1600);
    assert!(report["segments"].as_u64().unwrap() > 20, "{report}");
}

/// The PNG files of a folder as a video of 10 frames a second.
fn draw(folder: &Path, clip: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-framerate", "10", "-pattern_type", "glob", "-i"]).arg(folder.join("*/*.png"));
    command.args(["-c:v", "mpeg4", "-q:v", "2", "-threads", "1"]).arg(clip);
    assert!(command.status().unwrap().success());
}
