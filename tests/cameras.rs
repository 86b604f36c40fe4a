//! Several cameras in one learner.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::collections::BTreeSet;

use common::{TestDir, assert_same, heads, rows, write_folder};
use serde_json::Value;

/// Two folders, `north` and `south`, of different length.
fn two_folders() -> TestDir {
    let place = TestDir::new();
    write_folder(&place.at("north"), "pattern://7?frames=700&segments=70&width=64&height=48", "png");
    write_folder(&place.at("south"), "pattern://8?frames=500&segments=50&width=64&height=48", "png");
    place
}

const SOUTH: [&str; 6] = ["--source", "south", "--camera", "north", "--camera", "south"];

#[test]
fn two_folders_are_one_stream_of_two_cameras() {
    let place = two_folders();
    let more = [&SOUTH[..], &["--set", "export.latents=true"]].concat();
    let report = place.learn("north", "run", &more).ok().json();
    assert_eq!((&report["frames"], &report["segments"]), (&Value::from(1200), &Value::from(120)));
    assert!(report["promotions"].as_u64().unwrap() >= 1, "{report}");
    let info: Value = serde_json::from_slice(&std::fs::read(place.at("run/run.json")).unwrap()).unwrap();
    assert_eq!(info["sources"], serde_json::json!(["north", "south"]));
    assert_eq!(info["cameras"], serde_json::json!(["north", "south"]));

    let rows = rows(&place.at("run/embeddings"));
    assert!(rows.iter().map(|(record, _)| record.frame).eq(0..1200), "one numbering over both");
    assert!(rows.windows(2).all(|w| w[0].0.stamp_ns <= w[1].0.stamp_ns), "by capture time");
    let of = |name: &str| {
        let records = rows.iter().map(|(record, _)| record).filter(|record| &*record.camera == name);
        let (count, segments) =
            (records.clone().count(), records.map(|record| record.segment).collect::<BTreeSet<_>>());
        (count, segments)
    };
    let ((north, ours), (south, theirs)) = (of("north"), of("south"));
    assert_eq!((north, ours.len(), south, theirs.len()), (700, 70, 500, 50));
    assert!(ours.is_disjoint(&theirs));

    // The records say which camera a latent is of, so that a replay is the same.
    let replayed = place.run(&["replay", "--run", "run", "--out", "again", "--json"]).ok().json();
    assert_eq!(replayed["learned"], report["learned"]);
    assert_same(&heads(&place.at("run")), &heads(&place.at("again")));

    // `embed` takes several, too, with names made up.
    let embed = ["embed", "--run", "run", "--source", "north", "--source", "south", "--out", "later", "--json"];
    assert_eq!(place.run(&embed).ok().json()["frames"], 1200);
    let names: BTreeSet<String> =
        common::rows(&place.at("later/embeddings")).into_iter().map(|(record, _)| record.camera.to_string()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["camera", "camera-2"]);
}

#[test]
fn a_killed_run_of_two_cameras_goes_on_as_if_nothing_had_happened() {
    let place = two_folders();
    let more = [&SOUTH[..], &["--set", "checkpoint.every_frames=100"]].concat();
    place.learn("north", "whole", &more).ok();
    let resume = [&more[..], &["--resume"]].concat();
    for file in ["run.json", "state.safetensors", "state.previous.safetensors", "latest"] {
        let mut life = place.start_learn("north", "run", &resume);
        life.wait_for_file(&place.at("run").join(file));
        life.kill();
    }
    place.learn("north", "run", &resume).ok();
    assert_same(&heads(&place.at("whole")), &heads(&place.at("run")));
    assert_eq!(rows(&place.at("whole/embeddings")), rows(&place.at("run/embeddings")));

    let others = ["--source", "south", "--camera", "south", "--camera", "north", "--resume"];
    place.learn("north", "run", &others).fails(2, &["north (north), south (south)", "same --source and --camera"]);
}

#[test]
fn names_of_cameras_are_checked() {
    let place = two_folders();
    place.learn("north", "run", &["--camera", "a", "--camera", "b"]).fails(2, &["2 times --camera but 1 times"]);
    let twice = ["--source", "south", "--camera", "camera-2"];
    place.learn("north", "run", &twice).fails(2, &["--camera \"camera-2\"", "a name of its own"]);
    let mixed = ["--source", "pattern://1?live=true"];
    place.learn("north", "run", &mixed).fails(2, &["1 of 2 sources are live"]);
}
