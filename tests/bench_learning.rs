//! `bench learning` in the built binary, on small synthetic data sets.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::path::Path;

use common::{ENCODER, Output, TestDir, frames, write_image};
use serde_json::Value;

/// A stream of short scenes, and the first and later frames of other scenes as gallery and queries.
fn write_set(folder: &Path, seed: u64, segments: u32) {
    let uri = |seed: u64, frames: u32, segments: u32| {
        format!("pattern://{seed}?frames={frames}&segments={segments}&width=64&height=48")
    };
    let numbered = |uri: &str| {
        let (mut scene, mut place) = (0, 0);
        frames(uri).into_iter().map(move |frame| {
            (scene, place) = if frame.cut { (scene + 1, 0) } else { (scene, place + 1) };
            (scene, place, frame)
        })
    };
    for (scene, place, frame) in numbered(&uri(seed, 10 * segments, segments)) {
        write_image(&folder.join(format!("stream/{scene:03}/{place:02}.png")), &frame);
    }
    for (scene, place, frame) in numbered(&uri(seed + 100, 200, 20)) {
        let half = if place < 3 { "gallery" } else { "query" };
        write_image(&folder.join(format!("{half}/{scene:03}/{place:02}.png")), &frame);
    }
}

fn bench(place: &TestDir, args: &[&str]) -> Output {
    place.run(&[&["bench", "learning", "--config", "learn.toml", "--encoder", ENCODER], args].concat())
}

/// Accuracies are shares, and in the JSON where they belong.
fn assert_share(value: &Value) {
    assert!(value.as_f64().is_some_and(|x| (0.0..=1.0).contains(&x)), "{value}");
}

#[test]
fn every_candidate_of_every_objective_is_in_the_table() {
    let place = TestDir::new();
    write_set(&place.at("scenes"), 7, 120);
    let args = ["scenes", "--objectives", "nt-xent,vicreg", "--seeds", "2", "--out", "found"];
    let json = bench(&place, &[&args[..], &["--json"]].concat()).ok().json();
    let set = &json["learning"][0];
    assert_eq!(
        (&set["name"], &set["size"]["frames"], &set["size"]["classes"]),
        (&"scenes".into(), &1200.into(), &20.into())
    );
    let found = &set["found"];
    let labels: Vec<&str> =
        found["closed_form"].as_array().unwrap().iter().map(|r| r["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["frozen", "slow 24", "slow 16", "frozen+slow 56"]);
    let trials = found["trials"].as_array().unwrap();
    let of: Vec<(&str, u64)> =
        trials.iter().map(|t| (t["objective"].as_str().unwrap(), t["seed"].as_u64().unwrap())).collect();
    assert_eq!(of, [("nt-xent", 0), ("nt-xent", 1), ("vicreg", 0), ("vicreg", 1)]);
    for trial in trials {
        let trained: Vec<&str> =
            trial["trained"].as_array().unwrap().iter().map(|r| r["label"].as_str().unwrap()).collect();
        assert_eq!(trained, ["slow+mlp 24", "mean 24"]);
        assert!(trial["steps"].as_u64().unwrap() > 0, "{trial}");
        assert!(trial["regret"].as_f64().unwrap() >= 0.0, "nothing is better than the best: {trial}");
        for row in trial["trained"].as_array().unwrap().iter().chain(found["closed_form"].as_array().unwrap()) {
            ["knn1", "knn5", "linear", "next_frame", "auc"].iter().for_each(|key| assert_share(&row[key]));
            assert!(row["health"]["rank"].as_f64().unwrap() > 1.0, "{row}");
        }
        ["knn1", "knn5", "linear"].iter().for_each(|key| assert_share(&trial["adapted"][key]));
    }
    // Objectives and seeds train different residuals.
    let nears: Vec<String> = trials.iter().map(|t| t["trained"][0]["next_frame"].to_string()).collect();
    assert!((1..4).all(|i| nears[..i].iter().all(|other| *other != nears[i])), "{nears:?}");

    let markdown = std::fs::read_to_string(place.at("found/learning.md")).unwrap();
    for line in ["## scenes", "| slow 24 |", "| nt-xent, slow+mlp 24 |", "| vicreg, mean 24 |", "| nt-xent |"] {
        assert!(markdown.contains(line), "{line} in\n{markdown}");
    }
    let written: Value = serde_json::from_slice(&std::fs::read(place.at("found/learning.json")).unwrap()).unwrap();
    assert_eq!(written["learning"][0]["found"]["closed_form"], found["closed_form"]);
}

#[test]
fn the_learner_of_the_table_is_that_of_learn() {
    let place = TestDir::new();
    write_set(&place.at("scenes"), 7, 120);
    let json = bench(&place, &["scenes", "--objectives", "nt-xent", "--seeds", "1", "--json"]).ok().json();
    let found = &json["learning"][0]["found"];
    place.learn("scenes/stream", "run", &[]).ok();
    let eval = place.run(&["eval", "--run", "run", "--data", "scenes", "--json"]).ok().json();
    for key in ["knn1", "knn5"] {
        assert_eq!(found["closed_form"][0][key], eval["frozen"][key]);
    }
    // The last fit tried the same slow head, and measured the same.
    let journal = std::fs::read_to_string(place.at("run/journal.jsonl")).unwrap();
    let mut fits = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let last = fits.rfind(|event| event["candidates"].is_array()).unwrap();
    let close = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-9;
    let slow = &last["candidates"][0]["against_frozen"];
    for side in ["next_frame", "auc"] {
        assert!(close(&slow[side]["reference"], &found["closed_form"][0][side]), "{side}: {slow}");
        assert!(close(&slow[side]["candidate"], &found["closed_form"][1][side]), "{side}: {slow}");
    }
}

#[test]
fn instance_is_trained_wherever_it_stands() {
    let place = TestDir::new();
    write_set(&place.at("scenes"), 7, 120);
    let objectives = ["nt-xent", "instance", "nt-xent + instance"];
    let all = objectives.join(",");
    let args = ["scenes", "--objectives", &all, "--seeds", "1", "--set", "learn.augmentation.share=0.5", "--json"];
    let json = bench(&place, &args).ok().json();
    let trials = json["learning"][0]["found"]["trials"].as_array().unwrap();
    let nears: Vec<String> = trials.iter().map(|t| t["trained"][0]["next_frame"].to_string()).collect();
    assert!(trials.iter().all(|trial| trial["steps"].as_u64().unwrap() > 0), "{trials:?}");
    assert!(nears[0] != nears[1] && nears[0] != nears[2] && nears[1] != nears[2], "{objectives:?}: {nears:?}");
}

#[test]
fn one_learner_goes_through_all_sets() {
    let place = TestDir::new();
    write_set(&place.at("one"), 7, 80);
    write_set(&place.at("two"), 8, 80);
    let json = bench(&place, &["one", "two", "--in-sequence", "--seeds", "1", "--json"]).ok().json();
    let rows = json["sequence"]["after"].as_array().unwrap();
    let of: Vec<(u64, u64)> = rows.iter().map(|r| (r["seen"].as_u64().unwrap(), r["set"].as_u64().unwrap())).collect();
    assert_eq!(of, [(1, 0), (2, 0), (2, 1)]);
    assert_eq!(rows[0]["frozen"], rows[1]["frozen"]);
    let text = bench(&place, &["one", "two", "--in-sequence", "--seeds", "1"]).ok().out;
    assert!(text.contains("| set | frozen | after 1 | after 2 |") && text.contains("| two |"), "{text}");
}

#[test]
fn what_cannot_be_compared_is_said() {
    let place = TestDir::new();
    write_set(&place.at("scenes"), 7, 4);
    bench(&place, &["scenes", "--objectives", "nt_xent"]).fails(78, &["did you mean nt-xent?"]);
    std::fs::remove_dir_all(place.at("scenes/query")).unwrap();
    bench(&place, &["scenes", "--objectives", "nt-xent"]).fails(1, &["query"]);
}

#[test]
fn promotions_are_measured_across_spaces() {
    let place = TestDir::new();
    write_set(&place.at("scenes"), 7, 240);
    let bench = |more: &[&str]| {
        let args = ["bench", "spaces", "scenes", "--config", "learn.toml", "--encoder", ENCODER, "--json"];
        let often = ["--set", "head.candidates=['slow']", "--set", "learn.refit_growth=1.2"];
        place.run(&[&args[..], &often, more].concat()).ok().json()
    };
    let of = |json: &Value| json["sets"][0]["steps"].as_array().unwrap().clone();
    let json = bench(&[]);
    let (turned, free) = (of(&json), of(&bench(&["--set", "head.align=false"])));
    assert!(turned.len() > 1 && turned.len() == free.len(), "{json}");
    let first = &turned[0];
    assert_eq!(
        (&first["from"], &first["kind"], &first["taken"]),
        (&0.into(), &"head".into(), &serde_json::json!([1.0, 1.0]))
    );
    assert!(first["as_is"].is_null(), "the dimensions differ");
    let five = |step: &Value, key: &str| step[key][1].as_f64().unwrap();
    for (turned, free) in turned[1..].iter().zip(&free[1..]) {
        assert!(five(turned, "taken") > 0.95 && five(turned, "to_last") > 0.95, "{turned}");
        assert!(five(turned, "as_is") > 0.9 && five(free, "as_is") < five(turned, "as_is"), "{turned} {free}");
        // A turn changes nothing within a space, nor what a map can do.
        assert!((five(turned, "within") - five(free, "within")).abs() < 0.01, "{turned} {free}");
    }
    assert_share(&json["sets"][0]["accuracy"]["knn1"]);
}
