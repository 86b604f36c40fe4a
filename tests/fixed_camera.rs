//! Augmented views and motion cropping give the same bits every time, even after `kill -9`.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::path::Path;

use afterimage::checkpoint::load;
use afterimage::frame::Frame;
use common::{TestDir, assert_same, heads, learn_args, rows, tree, write_image};

/// Views of every kind and the crop.
const ALL: [&str; 10] = [
    "--set",
    "preprocess.motion_crop=true",
    "--set",
    "preprocess.exposure=0.45",
    "--set",
    "learn.augmentation.share=0.5",
    "--set",
    "learn.augmentation.kinds=[\"flip\",\"crop\",\"colour\",\"grey\",\"blur\"]",
    "--set",
    "checkpoint.every_frames=40",
];

/// Shots of a fixed camera: before a wall a block of another colour goes by in other light each time.
fn write_shots(folder: &Path, shots: usize) {
    for shot in 0..shots {
        let (light, hue) = (0.6 + 0.1 * (shot % 5) as f32, [37, 91, 53].map(|step| (shot * step % 200 + 50) as f32));
        for step in 0..12 {
            let (left, top) = (5 + (step * 3 + shot) % 30, 8 + (shot * 7) % 20);
            let pixel = |i: usize| {
                let (x, y) = (i / 3 % 64, i / 192);
                let inside = (left..left + 12).contains(&x) && (top..top + 12).contains(&y);
                // A pattern of its own within each block.
                let level =
                    if inside { hue[i % 3] + ((x - left) * shot % 40) as f32 } else { 90.0 + (y / 8 * 6) as f32 };
                (level * light).min(255.0) as u8
            };
            let frame =
                Frame { width: 64, height: 48, pixels: (0..64 * 48 * 3).map(pixel).collect(), ..Frame::default() };
            write_image(&folder.join(format!("{shot:03}/{step:02}.png")), &frame);
        }
    }
}

#[test]
fn views_and_crops_survive_kills_to_the_bit() {
    let place = TestDir::new();
    write_shots(&place.at("frames"), 120);
    let report = place.learn("frames", "whole", &ALL).ok().json();
    let count = |path: &str| report.pointer(path).unwrap().as_u64().unwrap();
    assert!((600..840).contains(&count("/views/encoded")), "{report}");
    assert!(count("/views/learned") > 300 && count("/views/skipped") == 0, "{report}");
    let expected = (heads(&place.at("whole")), rows(&place.at("whole/embeddings")));
    let windows: Vec<[i32; 4]> = expected.1.iter().filter_map(|(record, _)| record.window).collect();
    assert!(windows.len() > 900, "only {} of 1440 frames were cropped", windows.len());
    assert!(windows.iter().all(|[left, top, right, bottom]| right - left <= 64 && right - left == bottom - top));
    let mut state = load(&place.at("whole/state.safetensors"), 1 << 24).unwrap();
    let views = state.take::<f64>("scatter.view", &[32 * 33 / 2]).unwrap();
    assert!(views[0] > 0.0);

    let kills = place.killed_until_done(&[&learn_args("frames", "run")[..], &ALL].concat());
    assert!(kills >= 3, "{kills} kills");
    assert_same(&heads(&place.at("run")), &expected.0);
    assert!(rows(&place.at("run/embeddings")) == expected.1, "the embeddings differ after {kills} kills");
    let state = |run: &str| tree(&place.at(run)).remove("state.safetensors").unwrap();
    assert!(state("run") == state("whole"), "the states differ after {kills} kills");

    // Labelled images are cropped by the background of the run, and what leaves agrees with what is run.
    for half in ["gallery", "query"] {
        write_shots(&place.at(&format!("data/{half}")), 6);
    }
    let eval = place.run(&["eval", "--data", "data", "--run", "whole", "--json"]).ok().json();
    assert_eq!(eval["frozen"]["knn1"], 1.0, "the same pictures: {eval}");
    place.run(&["embed", "--run", "whole", "--source", "frames", "--out", "embedded"]).ok();
    let embedded = rows(&place.at("embedded/embeddings"));
    assert!(embedded.iter().filter(|(record, _)| record.window.is_some()).count() > windows.len());
}

#[test]
fn what_does_not_go_together_is_refused() {
    let place = TestDir::new();
    write_shots(&place.at("frames"), 8);
    let sets = ["--set", "export.latents=true", "--set", "learn.augmentation.share=1"];
    place.learn("frames", "run", &sets).ok();
    place
        .run(&["replay", "--run", "run", "--out", "again"])
        .fails(78, &["learn.augmentation.share = 1", "--set learn.augmentation.share=0"]);
    place.run(&["replay", "--run", "run", "--out", "again", "--set", "learn.augmentation.share=0"]).ok();
    let probe = ["--set", "preprocess.motion_crop=true", "--set", "promotion.probe=frames"];
    place.learn("frames", "other", &probe).fails(78, &["preprocess.motion_crop with promotion.probe"]);
    // A run that has no background yet cannot crop by it.
    place.learn("frames", "fixed", &["--set", "preprocess.motion_crop=true"]).ok();
    for name in ["state.safetensors", "state.previous.safetensors"] {
        std::fs::remove_file(place.at("fixed").join(name)).ok();
    }
    let embed = ["embed", "--run", "fixed", "--source", "frames", "--out", "out"];
    place.run(&embed).fails(1, &["has saved no background yet", "checkpoint.every_frames"]);
}
