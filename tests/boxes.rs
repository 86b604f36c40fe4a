//! Detection boxes end to end: embedded by cropping and from a grid, learned from, evaluated, and rejected when they do
//! not fit.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use afterimage::export::{Granularity, Record};
use common::{ENCODER, TestDir, rows};
use serde_json::Value;

const SOURCE: &str = "pattern://7?frames=40&segments=4&width=64&height=48";

fn embed(place: &TestDir, out: &str, more: &[&str]) -> common::Output {
    place.run(&[&["embed", "--json", "--source", SOURCE, "--out", out][..], more].concat())
}

fn cosine(a: &[u32], b: &[u32]) -> f32 {
    let value = |x: &u32| f32::from_bits(*x);
    a.iter().zip(b).map(|(a, b)| value(a) * value(b)).sum()
}

/// A card that makes a grid of 4 x 4 cells of the small encoder.
fn grid_model(place: &TestDir) {
    let card = fs::read_to_string(Path::new(ENCODER).with_extension("toml")).unwrap();
    let kept: Vec<&str> =
        card.lines().filter(|line| !line.starts_with("kind") && !line.starts_with("output")).collect();
    let grid = format!("kind = \"grid\"\nlayout = \"dhw\"\noutput = \"grid8\"\n{}", kept.join("\n"));
    fs::write(place.at("grid.toml"), grid).unwrap();
    fs::copy(ENCODER, place.at("grid.onnx")).unwrap();
}

#[test]
fn every_usable_box_has_an_embedding_and_the_others_are_counted() {
    let place = TestDir::new();
    let boxes = "1,4,0,0,64,48,0.9,2\n1,5,10.5,20.25,12,10,0.5\n1,-1,-20,-20,30,30\n1,6,70,0,10,10\n1,7,3,3,0,5\n\
                 1,8,62,10,30,30\n2,4,0,0,64,48,-1,-1,-1\n2,9,0,0,9,9,0\n41,4,0,0,9,9\n";
    fs::write(place.at("boxes.txt"), boxes).unwrap();
    embed(&place, "frames", &["--encoder", ENCODER]).ok();
    let report = embed(&place, "out", &["--encoder", ENCODER, "--boxes", "boxes.txt", "--camera", "door"]).ok();
    let counts = &report.json()["boxes"];
    let counted = ["embedded", "outside", "empty", "small", "low_score", "without_frame", "without_latent"];
    assert_eq!(counted.map(|key| counts[key].as_u64().unwrap()), [4, 1, 1, 1, 1, 1, 0], "{counts}");
    for line in
        ["line 4 lies outside its frame of 64 x 48 pixels", "line 5 has no width", "line 6 has fewer than 4 pixels"]
    {
        assert!(report.err.contains(line), "{line:?} in\n{}", report.err);
    }
    let (whole, found) = (rows(&place.at("frames/embeddings")), rows(&place.at("out/embeddings")));
    let told = |r: &Record| (r.frame, r.track, r.class, r.score, r.window);
    let expected = [
        (0, Some(4), Some(2), Some(0.9), Some([0, 0, 64, 48])),
        (0, Some(5), None, Some(0.5), Some([10, 20, 23, 31])),
        (0, None, None, None, Some([0, 0, 10, 10])),
        (1, Some(4), None, None, Some([0, 0, 64, 48])),
    ];
    assert_eq!(found.iter().map(|(record, _)| told(record)).collect::<Vec<_>>(), expected);
    assert!(found.iter().all(|(record, _)| record.level == Granularity::Box && *record.camera == *"door"));
    // A box that is the whole frame is what the frame is, in a space of its own.
    assert_eq!(found[0].1, whole[0].1);
    assert_eq!(found[3].1, whole[1].1);
    assert_ne!(found[0].0.space, whole[0].0.space);
    assert!(cosine(&found[0].1, &found[1].1) < 0.9999);
    // Row for row what trackers read is the same.
    let features = fs::read(place.at("out/trackers/features.npy")).unwrap();
    let bits: Vec<u32> =
        features[128..].chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert_eq!(bits, found.iter().flat_map(|(_, row)| row.clone()).collect::<Vec<_>>());
}

#[test]
fn boxes_are_pooled_out_of_one_pass_over_the_frame() {
    let place = TestDir::new();
    grid_model(&place);
    fs::write(place.at("boxes.txt"), "1,1,0,0,64,48\n1,2,0,0,20,15\n1,3,44,33,20,15\n").unwrap();
    embed(&place, "frames", &["--encoder", "grid.onnx"]).ok();
    embed(&place, "roi", &["--encoder", "grid.onnx", "--boxes", "boxes.txt"]).ok();
    let crop = ["--encoder", "grid.onnx", "--boxes", "boxes.txt", "--set", "boxes.method=crop"];
    embed(&place, "crop", &crop).ok();
    let [frames, roi, crop] = ["frames", "roi", "crop"].map(|name| rows(&place.at(name).join("embeddings")));
    assert_eq!((roi.len(), crop.len()), (3, 3));
    // The whole frame: nearly the mean of its cells. A corner is something else, and by crop it is seen larger.
    assert!(cosine(&roi[0].1, &frames[0].1) > 0.98, "{}", cosine(&roi[0].1, &frames[0].1));
    assert_eq!(crop[0].1, frames[0].1);
    assert!(cosine(&roi[1].1, &roi[2].1) < cosine(&roi[0].1, &frames[0].1));
    assert!(roi[0].0.space != crop[0].0.space && roi[0].0.space != frames[0].0.space);
}

/// Two tracks a segment, in opposite corners; segments are 10 frames long.
fn tracks(frames: u64) -> String {
    (0..frames).fold(String::new(), |mut text, t| {
        let segment = t / 10;
        writeln!(text, "{},{},0,0,40,30,1,1,1\n{},{},24,18,40,30,1,1,1", t + 1, 2 * segment, t + 1, 2 * segment + 1)
            .unwrap();
        text
    })
}

const LONG: &str = "pattern://7?frames=1200&segments=120&width=64&height=48";

#[test]
fn a_head_is_learned_from_tracks_and_used_for_boxes_only() {
    let place = TestDir::new();
    fs::write(place.at("boxes.txt"), tracks(1200)).unwrap();
    let learn = |out: &str| place.learn(LONG, out, &["--boxes", "boxes.txt"]);
    let report = learn("run").ok().json();
    assert_eq!((report["tracks"].as_u64(), report["boxes"]["embedded"].as_u64()), (Some(240), Some(2400)), "{report}");
    assert!(report["pairs"].as_u64().unwrap() > 500 && report["learned"]["fits"].as_u64().unwrap() > 1, "{report}");
    learn("run").fails(2, &["holds a run already"]);
    learn("again").ok();
    let journal = |run: &str| fs::read_to_string(place.at(run).join("journal.jsonl")).unwrap();
    assert_eq!(journal("run"), journal("again"));
    assert!(journal("run").contains("\"boxes\":\"boxes.txt\""));
    place.run(&["check", "--run", "run"]).ok();
    let info: Value = serde_json::from_slice(&fs::read(place.at("run/run.json")).unwrap()).unwrap();
    assert_eq!(info["config"]["learn"]["sampling"]["false_negatives"], "segment");
    let of_run = ["--run", "run", "--boxes", "boxes.txt", "--set", "export.latents=true"];
    let embedded = embed(&place, "out", &of_run).ok().json();
    assert_eq!((&embedded["head"], &embedded["space"]), (&report["head"]["number"], &report["head"]["space"]));
    let latents = rows(&place.at("out/latents"));
    assert!(
        latents.len() == 80 && latents.iter().all(|(record, row)| record.level == Granularity::Box && row.len() == 32)
    );
    // Frames are of another origin.
    embed(&place, "no", &["--run", "run"]).fails(3, &["another preparation"]);
}

#[test]
fn tracks_that_begin_later_are_measured() {
    let place = TestDir::new();
    fs::write(place.at("boxes.txt"), tracks(1200)).unwrap();
    let args = ["bench", "reid", "--config", "learn.toml", "--json", "--encoder", ENCODER, "--source", LONG];
    let run = |more: &[&str]| place.run(&[&args[..], &["--boxes", "boxes.txt"], more].concat());
    let report = run(&[]).ok().json();
    assert_eq!((report["tracks"].as_u64(), report["learned_tracks"].as_u64()), (Some(120), Some(120)), "{report}");
    assert_eq!((report["queries"].as_u64(), report["gallery"].as_u64()), (Some(480), Some(480)));
    let rank1: Vec<f64> = report["rank1"].as_array().unwrap().iter().map(|x| x["rank1"].as_f64().unwrap()).collect();
    assert!(rank1.len() >= 2 && rank1.iter().all(|x| *x > 5.0 / 120.0 && *x <= 1.0), "{report}");
    run(&["--split", "1"]).fails(2, &["must lie between 0 and 1"]);
    run(&["--split", "0.999"]).fails(3, &["at least 2 are needed"]);
}

#[test]
fn what_does_not_fit_is_said() {
    let place = TestDir::new();
    fs::write(place.at("boxes.txt"), "1,-1,0,0,9,9\n").unwrap();
    fs::write(place.at("bad.txt"), "0,1,0,0,9,9\n1,1,x,0,9,9\n").unwrap();
    let base = ["--encoder", ENCODER, "--boxes", "boxes.txt"];
    let with = |more: &[&'static str]| embed(&place, "no", &[&base[..], more].concat());
    with(&["--source", SOURCE]).fails(2, &["2 times --source"]);
    with(&["--set", "boxes.method=roi"]).fails(78, &["boxes.method = \"roi\": the latents of", "are vectors"]);
    with(&["--set", "boxes.method=box", "--set", "boxes.min_pixels=0"]).fails(
        78,
        &["boxes.method has \"box\": must be one of auto, crop, roi", "boxes.min_pixels = 0: must be from 1"],
    );
    with(&["--set", "preprocess.motion_crop=true"]).fails(78, &["preprocess.motion_crop with --boxes"]);
    embed(&place, "no", &["--encoder", ENCODER, "--boxes", "bad.txt"])
        .fails(2, &["bad.txt: 2 lines are not boxes", "line 1: frame is 0", "line 2: left is \"x\""]);
    embed(&place, "no", &["--encoder", ENCODER, "--boxes", "none.txt"]).fails(1, &["none.txt"]);
    place.learn(SOURCE, "run", &["--boxes", "boxes.txt"]).fails(2, &["no box has a track"]);
    place.learn(SOURCE, "run", &["--boxes", "boxes.txt", "--resume"]).fails(2, &["--resume with --boxes"]);
    assert!(!place.at("run/run.json").exists() && !place.at("no/embeddings").exists());
    fs::write(place.at("boxes.txt"), tracks(40)).unwrap();
    place.learn("pattern://7?live=true", "run", &["--boxes", "boxes.txt"]).fails(2, &["--boxes with a live source"]);
    let small = ["--boxes", "boxes.txt", "--set", "boxes.memory_megabytes=1"];
    fs::write(place.at("boxes.txt"), tracks(4000)).unwrap();
    place.learn(SOURCE, "run", &small).fails(78, &["boxes.memory_megabytes = 1: 8000 boxes of 32 numbers need 1"]);
}
