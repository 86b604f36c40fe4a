//! Live cameras: the newest frame wins, and each of several cameras fails independently.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::path::Path;

use common::{Running, TestDir, rows};
use serde_json::Value;

const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");

/// Ends a run in order; its report.
fn ended(running: Running) -> Value {
    running.signal("TERM");
    running.end().ok().json()
}

#[test]
fn an_encoder_slower_than_the_camera_gets_new_frames_only() {
    // 500 frames a second are more than this encoder takes on one core.
    const FRAME_MS: f64 = 2.0;
    let place = TestDir::new();
    let encoder = format!("{MANIFEST}/models/moco-mobilenetv2.onnx");
    let source = "pattern://7?rate=500&live=true&width=64&height=48&segments=100";
    let set = ["--set", "encoder.threads=1"];
    let args = ["learn", "--json", "--encoder", &encoder, "--source", source, "--out", "run"];
    let mut running = place.start(&[&args[..], &set].concat());
    running.wait_for_file(&place.at("run/journal.jsonl"));
    std::thread::sleep(std::time::Duration::from_secs(5));
    let report = ended(running);
    let figure = |key: &str| report["speed"][key].as_f64().unwrap();
    println!("{}", report["speed"]);
    let (frames, dropped) =
        (report["source"]["frames"].as_u64().unwrap(), report["source"]["dropped"].as_u64().unwrap());
    assert!(frames > 3 && dropped > 0, "{report}");
    // One frame waits while another is encoded; more would make it two passes. A half is for a machine that is busy.
    let (age, encode) = (figure("age_p50_ms"), figure("encode_p50_ms"));
    assert!(age < 2.0 * FRAME_MS + 1.5 * encode, "median age {age} ms, encoder {encode} ms");
    // Every frame of the camera was either embedded or replaced by a newer one, the last ones on their way apart.
    let last = rows(&place.at("run/embeddings")).last().unwrap().0.frame + 1;
    assert!(frames + dropped >= last && frames <= report["frames"].as_u64().unwrap() + 2, "{last}: {report}");
}

#[test]
fn a_camera_that_breaks_does_not_hold_up_the_other_and_comes_back() {
    let place = TestDir::new();
    let scripts = Path::new(MANIFEST).join("tests/data/decoders/lingers");
    let path = format!("{}:/usr/bin:/bin", scripts.display());
    let mut args = common::learn_args("pattern://7?rate=50&live=true&width=64&height=48&segments=100", "run");
    args.extend(["--source", "gst:camera", "--camera", "north", "--camera", "south"]);
    let mut running = place.start_with(&args, |command| {
        command.env("PATH", path);
    });
    running.wait_to_say("gives frames of 16x16");
    // Once it has seen that something came of both.
    std::thread::sleep(std::time::Duration::from_secs(1));
    std::fs::write(place.at("dead"), "").unwrap();
    running.wait_to_say("is closed and opened again");
    running.wait_to_say("is not back after");
    std::fs::remove_file(place.at("dead")).unwrap();
    running.wait_to_say("is open again");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let report = ended(running);

    let count = |camera: &str, key: &str| report["cameras"][camera][key].as_u64().unwrap();
    for (camera, failures) in [("north", 0), ("south", 1)] {
        assert_eq!((count(camera, "failures"), count(camera, "reopens")), (failures, failures), "{report}");
        assert_eq!((count(camera, "stalls"), count(camera, "unreadable")), (0, 0), "{report}");
    }
    for key in ["frames", "dropped", "failures", "reopens"] {
        assert_eq!(count("north", key) + count("south", key), report["source"][key], "{key}: {report}");
    }

    let journal = std::fs::read_to_string(place.at("run/journal.jsonl")).unwrap();
    let events: Vec<Value> = journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&Value> = events.iter().filter(|event| event["event"] == "source").collect();
    let [failed, reopened] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((&failed["what"], &reopened["what"]), (&"failed".into(), &"reopened".into()));
    assert!(failed["reason"].as_str().unwrap().contains("the cable is out"), "{failed}");
    assert_eq!((&failed["camera"], &reopened["camera"]), (&1.into(), &1.into()));
    let (failed, reopened) = (failed["stamp_ns"].as_i64().unwrap(), reopened["stamp_ns"].as_i64().unwrap());

    let rows = rows(&place.at("run/embeddings"));
    let of = |camera: &str| rows.iter().map(|(record, _)| record).filter(|record| &*record.camera == camera).collect();
    let (north, south): (Vec<_>, Vec<_>) = (of("north"), of("south"));
    for (camera, records) in [("north", &north), ("south", &south)] {
        let frames = count(camera, "frames");
        assert!((records.len() as u64..=records.len() as u64 + 2).contains(&frames), "{camera}: {report}");
    }
    // The process behind the broken one lingered for two seconds, and then was away for longer: nobody waited for it.
    let last = south.iter().map(|record| record.stamp_ns).filter(|stamp| *stamp < failed).max().unwrap();
    for (from, to) in [(last, failed), (failed, reopened)] {
        let secs = (to - from) as f64 / 1e9;
        let meanwhile = north.iter().filter(|record| (from..to).contains(&record.stamp_ns)).count();
        assert!(meanwhile as f64 > 5.0 * secs, "{meanwhile} frames of north in {secs:.1} s");
    }
    // What came after the gap is another segment.
    let before = south.iter().filter(|record| record.stamp_ns < failed).map(|record| record.segment).max();
    let after = south.iter().filter(|record| record.stamp_ns > failed).map(|record| record.segment).min();
    assert!(before < after && after.is_some(), "{before:?} {after:?}");
}
