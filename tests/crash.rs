//! A run that is killed or stopped at any moment resumes as if nothing had happened.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use afterimage::checkpoint::{load, load_head, load_map};
use afterimage::export::Reader;
use afterimage::{files, journal};
use common::{CUTS, PATTERN, Paced, TestDir, assert_same, frames, heads, maps, rows, tree, write_folder};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Kills in all.
const KILLS: u32 = 50;

/// Saves often, so that many kills fall into the middle of it.
const OFTEN: [&str; 2] = ["--set", "checkpoint.every_frames=40"];

/// A source that takes a while, in `frames`.
fn slow_source(place: &TestDir) {
    write_folder(&place.at("frames"), PATTERN, "jpg");
}

/// Each file that has its final name is whole, and no head is lost that was ever promoted: `seen`, by name, with bytes.
fn check(run: &Path, seen: &mut BTreeMap<String, Vec<u8>>) {
    if !run.exists() {
        return;
    }
    let names = files::names_in(run).unwrap();
    for name in names.iter().filter(|name| name.ends_with(".safetensors")) {
        load(&run.join(name), 1 << 24).unwrap();
    }
    if run.join("run.json").exists() {
        afterimage::pipeline::run_dir::RunManifest::load(run).unwrap();
    }
    let there: BTreeMap<_, _> = heads_of(run);
    for (name, bytes) in seen.iter() {
        assert_eq!(there.get(name), Some(bytes), "head {name} was lost or changed");
    }
    for name in there.keys() {
        // Where a head is in use, there is the way into its space.
        load_map(&run.join("maps").join(name)).unwrap();
        load_head(&run.join("heads").join(name)).unwrap();
    }
    let events = journal::read(run).unwrap();
    let promoted = events.iter().filter_map(|event| event["promoted"].as_u64());
    let latest = std::fs::read_to_string(run.join("latest")).ok().map(|text| text.trim().parse().unwrap());
    for number in promoted.chain(latest) {
        assert!(there.contains_key(&format!("{number:04}.safetensors")), "head {number} was named but is not there");
    }
    seen.extend(there);
    let embeddings = run.join("embeddings");
    if !files::numbered(&files::names_in(&embeddings).unwrap(), "npy").is_empty() {
        assert!(Reader::open(&embeddings).unwrap().all(|row| row.is_ok()));
    }
}

fn heads_of(run: &Path) -> BTreeMap<String, Vec<u8>> {
    if !run.join("heads").is_dir() {
        return BTreeMap::new();
    }
    tree(&run.join("heads"))
        .into_iter()
        .filter(|(name, _)| name.ends_with(".safetensors") && !name.starts_with('.'))
        .collect()
}

#[test]
fn fifty_kills_change_nothing() {
    let place = TestDir::new();
    slow_source(&place);
    let began = Instant::now();
    let report = place.learn("frames", "whole", &OFTEN).ok().json();
    let took = began.elapsed();
    assert!(report["promotions"].as_u64().unwrap() >= 2 && report["steps"].as_u64().unwrap() >= 20, "{report}");
    let export = |run: &str, out: &str| {
        place.run(&["export", "--run", run, "--onnx", out]).ok();
        std::fs::read(place.at(out)).unwrap()
    };
    let (expected_heads, expected_rows) = (heads(&place.at("whole")), rows(&place.at("whole/embeddings")));
    let expected_model = export("whole", "whole.onnx");
    let expected_maps = maps(&place.at("whole"));
    assert_eq!(expected_maps.len() as u64, report["promotions"].as_u64().unwrap(), "a map for each promotion");
    // A life must be long enough to get past its own start, and short enough that a run takes many.
    let start = Duration::from_secs_f64(report["speed"]["first_embedding_ms"].as_f64().unwrap() / 1e3);
    let longest = start * 2 + took / 8;
    let mut dice = ChaCha8Rng::seed_from_u64(50);
    let (mut kills, mut runs, mut in_a_row) = (0, 0, 0);
    while kills < KILLS {
        let run = format!("run{runs}");
        let mut seen = BTreeMap::new();
        loop {
            // All over a life, its start too; longer ones where they do not suffice on this machine.
            let longest = longest * (1 + in_a_row / KILLS);
            let wait = longest.mul_f64(f64::from(dice.next_u32()) / f64::from(u32::MAX));
            let mut life = place.start_learn("frames", &run, &[&OFTEN[..], &["--resume"]].concat());
            let until = Instant::now() + wait;
            while Instant::now() < until && !life.over() {
                std::thread::sleep(Duration::from_micros(200));
            }
            if life.over() {
                let report = life.end().ok().json();
                assert_eq!(report["ended"], true);
                break;
            }
            kills += u32::from(life.kill());
            in_a_row += 1;
            check(&place.at(&run), &mut seen);
        }
        check(&place.at(&run), &mut seen);
        assert_same(&heads(&place.at(&run)), &expected_heads);
        assert_same(&maps(&place.at(&run)), &expected_maps);
        assert!(rows(&place.at(&run).join("embeddings")) == expected_rows, "the embeddings of {run} differ");
        assert!(export(&run, "again.onnx") == expected_model, "the exported model of {run} differs");
        let left = tree(&place.at(&run));
        assert!(!left.keys().any(|name| name.contains(".partial") || name.contains("next")), "{:?}", left.keys());
        (runs, in_a_row) = (runs + 1, 0);
    }
    println!("{kills} kills in {runs} runs");
}

/// The last event of a run's journal.
fn last_event(run: &Path) -> serde_json::Value {
    journal::read(run).unwrap().pop().unwrap()
}

#[test]
fn what_a_kill_left_unfinished_is_gone_once_the_run_goes_on() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &[]).ok();
    let before = tree(&place.at("run"));
    for name in ["run", "run/heads", "run/maps"] {
        std::fs::write(place.at(name).join(".0001.safetensors.Qx1234.partial"), "half").unwrap();
    }
    place.learn(PATTERN, "run", &["--resume"]).ok();
    let after = tree(&place.at("run"));
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
}

#[test]
fn a_stop_from_outside_saves_everything() {
    let place = TestDir::new();
    let all = frames(PATTERN);
    Paced::new(&place).give_all(&all);
    Paced::start_learn(&place, "whole", &CUTS).end().ok();
    let mut frames_of_run = 0;
    for (signal, at) in [("TERM", 900), ("INT", 1700)] {
        let paced = Paced::new(&place);
        let mut running = Paced::start_learn(&place, "run", &[&CUTS[..], &["--resume"]].concat());
        assert!(all[..at].iter().all(|frame| paced.give(frame)));
        running.wait_for_file(&place.at("run/state.safetensors"));
        // The frames go on coming, as from a camera that nobody has told.
        running.signal(signal);
        all[at..].iter().all(|frame| paced.give(frame));
        let report = running.end().ok().json();
        assert_eq!(report["ended"], false, "{signal}");
        let last = last_event(&place.at("run"));
        // The journal counts the frames of the run, the report those of this part of it.
        frames_of_run += report["frames"].as_u64().unwrap();
        assert_eq!((&last["event"], last["frames"].as_u64()), (&"stop".into(), Some(frames_of_run)), "{signal}");
    }
    Paced::new(&place).give_all(&all);
    let report = Paced::start_learn(&place, "run", &[&CUTS[..], &["--resume"]].concat()).end().ok().json();
    assert_eq!(report["ended"], true);
    assert!(heads(&place.at("whole")).len() > 1, "nothing was promoted");
    assert_same(&heads(&place.at("run")), &heads(&place.at("whole")));
    assert!(rows(&place.at("run/embeddings")) == rows(&place.at("whole/embeddings")));
    // Nothing is left to do, and nothing changes.
    let before = tree(&place.at("run/heads"));
    Paced::new(&place).give_all(&all);
    let again = Paced::start_learn(&place, "run", &[&CUTS[..], &["--resume"]].concat()).end().ok();
    again.said(&["nothing is left to learn"]);
    assert_same(&tree(&place.at("run/heads")), &before);
}

#[test]
fn a_source_that_breaks_is_no_end_and_the_run_goes_on_with_a_whole_one() {
    let place = TestDir::new();
    let all = frames(PATTERN);
    let stall = ["--set", "source.stall_secs=1", "--resume"];
    Paced::new(&place).give_all(&all);
    Paced::start_learn(&place, "whole", &[&CUTS[..], &stall].concat()).end().ok();
    // A decoder that hangs in the middle.
    let paced = Paced::new(&place);
    let running = Paced::start_learn(&place, "run", &[&CUTS[..], &stall].concat());
    assert!(all[..1300].iter().all(|frame| paced.give(frame)));
    running.end().fails(1, &["stalled", "clip.mp4", "source.stall_secs"]);
    drop(paced);
    Paced::new(&place).give_all(&all);
    let report = Paced::start_learn(&place, "run", &[&CUTS[..], &stall].concat()).end().ok().json();
    assert!(report["frames"].as_u64().unwrap() > 1000, "{report}");
    assert_same(&heads(&place.at("run")), &heads(&place.at("whole")));
    assert!(rows(&place.at("run/embeddings")) == rows(&place.at("whole/embeddings")));
}

const LIVE: &str = "pattern://3?live=true&rate=500&frames=1500&segments=100&width=64&height=48";

#[test]
fn a_live_source_waits_for_nobody() {
    let place = TestDir::new();
    let slow = [
        "learn.cpu_share=0.01",
        "learn.queue_latents=8",
        "learn.frames_per_sec=1000",
        "learn.sampling.gap_min_secs=0.001",
    ];
    let began = Instant::now();
    let report = place.learn(LIVE, "run", &slow.map(|set| ["--set", set]).concat()).ok().json();
    // 3 s of frames, and the last fit.
    assert!(began.elapsed() < Duration::from_secs(15), "{report}");
    let count = |path: &str| report.pointer(path).unwrap().as_u64().unwrap();
    assert_eq!(count("/frames") + count("/drops/frames"), 1500, "{report}");
    assert!(count("/frames") > 750, "{report}");
    assert!(count("/drops/latents") > 100, "the learner kept up, or held the frames up: {report}");
    let learned = count("/learned/samples") + count("/left_out/still") + count("/left_out/above_frames_per_sec");
    assert_eq!(learned + count("/drops/latents"), count("/frames"), "{report}");
    assert_eq!(count("/exports/embeddings/rows") + count("/drops/rows"), count("/frames"), "{report}");
    assert!(report["speed"]["latency_p50_ms"].as_f64().unwrap() < 50.0, "{report}");
}

#[test]
fn a_live_run_stops_at_once_and_goes_on_later() {
    let place = TestDir::new();
    let live = "pattern://3?live=true&rate=200&segments=100&width=64&height=48";
    let slow = ["--set", "learn.cpu_share=0.01", "--set", "checkpoint.every_frames=100", "--resume"];
    let mut next_frame = 0;
    for life in 0..3 {
        let state = place.at("run/state.safetensors");
        let before = std::fs::read(&state).unwrap_or_default();
        let mut running = place.start_learn(live, "run", &slow);
        running.wait("to save its state", |_| std::fs::read(&state).is_ok_and(|bytes| bytes != before));
        running.signal("TERM");
        let told = Instant::now();
        let report = running.end().ok().json();
        assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
        assert_eq!(report["ended"], false);
        // What was exported stays, and the frames go on being counted.
        let rows = rows(&place.at("run/embeddings"));
        let frames: Vec<u64> = rows.iter().map(|(record, _)| record.frame).collect();
        assert!(frames.is_sorted_by(|a, b| a < b), "life {life}: {frames:?}");
        assert!(frames.last().is_some_and(|last| *last > next_frame + 50), "life {life}");
        next_frame = *frames.last().unwrap();
    }
}

#[test]
fn a_live_run_that_is_killed_keeps_its_exports_and_its_newest_head() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &[]).ok();
    let run = place.at("run");
    // As if these frames had been a camera's, and its state never saved.
    let live = "pattern://3?live=true&rate=200&frames=300&segments=10&width=64&height=48";
    let info = std::fs::read_to_string(run.join("run.json")).unwrap();
    let info = info.replace(PATTERN, live).replace("\"live\": false", "\"live\": true");
    std::fs::write(run.join("run.json"), info).unwrap();
    std::fs::remove_file(run.join("state.safetensors")).unwrap();
    std::fs::remove_file(run.join("state.previous.safetensors")).unwrap();
    let (heads, before) = (heads_of(&run), rows(&run.join("embeddings")));
    let report = place.learn(live, "run", &["--resume"]).ok().json();
    assert!(report["head"]["number"].as_u64().unwrap() >= heads.len() as u64, "{report}");
    assert!(heads.iter().all(|(name, bytes)| heads_of(&run).get(name) == Some(bytes)), "a head was overwritten");
    let after = rows(&run.join("embeddings"));
    assert!(after[..before.len()] == before, "exports of a camera were thrown away");
    assert_eq!(after[before.len()].0.head, heads.len() as u64, "the newest head is used from the first frame");
}

#[test]
fn a_camera_and_a_frame_are_a_key_through_kills_and_rows_survive_them() {
    for format in ["npy", "safetensors"] {
        let place = TestDir::new();
        let live = "pattern://3?live=true&rate=500&segments=100&width=64&height=48";
        let format = format!("export.format={format}");
        let more = ["--set", &format, "--set", "checkpoint.every_frames=100000", "--resume"];
        for life in 0..2 {
            let mut running = place.start_learn(live, "run", &more);
            if life > 0 {
                // What the first life had open has its name then.
                running.wait_to_say("goes on at frame");
            }
            running.wait("to write rows", |_| {
                let all = std::fs::read_dir(place.at("run/embeddings")).into_iter().flatten().flatten();
                let open = all.filter(|entry| entry.file_name().to_string_lossy().ends_with(".partial"));
                open.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum::<u64>() > 200_000
            });
            assert!(running.kill());
        }
        // The end of the source, in order; then once more.
        let end = live.replace("rate=500", "rate=500&frames=200");
        let info = std::fs::read_to_string(place.at("run/run.json")).unwrap();
        std::fs::write(place.at("run/run.json"), info.replace(live, &end)).unwrap();
        let report = place.learn(&end, "run", &more).ok().json();
        assert!(report["recovered_rows"].as_u64().unwrap() > 100, "{report}");
        let rows = rows(&place.at("run/embeddings"));
        let frames: std::collections::BTreeSet<u64> = rows.iter().map(|row| row.0.frame).collect();
        assert_eq!(frames.len(), rows.len(), "a frame was given twice");
        // Two lives that were killed and one that was not, each far from the others.
        assert_eq!(frames.iter().map(|frame| frame >> 20).collect::<std::collections::BTreeSet<_>>().len(), 3);
    }
}

#[test]
fn exports_that_are_missing_at_resume_are_told_and_the_run_goes_on() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &["--set", "export.rotate_megabytes=0.05"]).ok();
    std::fs::remove_file(place.at("run/embeddings/0001.npy")).unwrap();
    std::fs::write(place.at("run/embeddings/0000.npy"), "cut").unwrap();
    let ran = place.learn(PATTERN, "run", &["--set", "export.rotate_megabytes=0.05", "--resume"]).ok();
    ran.said(&["file 0001 is missing", "0000.npy"]);
    let faults = journal::read(&place.at("run")).unwrap().into_iter().filter(|event| event["event"] == "fault");
    assert_eq!(faults.count(), 2);
}

#[test]
fn a_start_that_comes_to_nothing_leaves_nothing() {
    let place = TestDir::new();
    std::fs::create_dir(place.at("images")).unwrap();
    std::fs::write(place.at("images/a.jpg"), b"\xff\xd8\xff\xe0 cut").unwrap();
    let source = place.at("images");
    let source = source.to_str().unwrap();
    for verb in ["learn", "embed"] {
        let ran = place.run(&[verb, "--source", source, "--encoder", common::ENCODER, "--out", "new"]);
        println!("{}", ran.err);
        assert!(!ran.status.success());
        assert!(!place.at("new").exists(), "{verb}: {:?}", tree(&place.at("new")).keys());
    }
    place.learn(PATTERN, "new", &[]).ok();
}
