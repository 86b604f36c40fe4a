//! `merge` combines several runs into one that the other commands accept; `inspect` describes and plots a run.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use common::TestDir;

#[test]
fn merged_runs_are_a_run_and_runs_are_told_and_drawn() {
    let place = TestDir::new();
    for (seed, run) in [(7, "one"), (8, "two")] {
        let source = format!("pattern://{seed}?frames=1200&segments=120&width=64&height=48");
        place.learn(&source, run, &[]).ok();
    }
    let merged = place.run(&["merge", "one", "two", "-o", "both", "--json"]).ok().json();
    let told = |run: &str| place.run(&["inspect", run, "--json"]).ok().json();
    let (one, two) = (told("one"), told("two"));
    let samples =
        |json: &serde_json::Value| json["fits"].as_array().unwrap().last().unwrap()["samples"].as_u64().unwrap();
    assert_eq!(merged["learned"]["samples"].as_u64().unwrap(), samples(&one) + samples(&two));
    assert_eq!(merged["head"]["number"], 1, "{merged}");
    assert!(place.at("both/heads/0001.safetensors").exists() && place.at("both/latest").exists());
    place
        .run(&[
            "embed",
            "--run",
            "both",
            "--source",
            "pattern://9?frames=20&segments=2&width=64&height=48",
            "--out",
            "e",
        ])
        .ok();
    place.run(&["check", "--run", "both"]).ok();
    assert_eq!((&told("both")["exported"], &told("both")["promotions"]), (&1.into(), &1.into()));

    let drawn = place.run(&["inspect", "one", "--plot", "one.svg", "--json"]).ok().json();
    assert!(drawn["checks"].as_u64().unwrap() > 0 && drawn["bad_lines"] == 0, "{drawn}");
    let svg = std::fs::read_to_string(place.at("one.svg")).unwrap();
    for text in ["loss, nats", "rank (RankMe)", "alignment", "uniformity", "TR@1, share", "residual", "exported"] {
        assert!(svg.contains(text), "{text}");
    }
    place.run(&["inspect", "one", "--plot", "one.png"]).fails(2, &["OUT.svg"]);

    place.learn("pattern://7", "both", &["--resume"]).fails(2, &["both was merged from others", "cannot be resumed"]);
    place.run(&["merge", "one", "./one", "-o", "none"]).fails(2, &["./one is named twice"]);
    place.run(&["merge", "one", "two", "-o", "both"]).fails(2, &["both holds a run already"]);
    // Cut off, it leaves nothing that looks like a run, and is repeated to the same.
    let whole = common::tree(&place.at("both"));
    let mut running = place.start(&["merge", "one", "two", "-o", "again"]);
    running.wait_for_file(&place.at(".again.partial/run.json"));
    running.kill();
    std::fs::create_dir_all(place.at(".again.partial")).unwrap();
    std::fs::write(place.at(".again.partial/journal.jsonl"), "half").unwrap();
    if !place.at("again/run.json").exists() {
        assert!(!place.run(&["check", "--run", "again"]).status.success());
        place.run(&["merge", "one", "two", "-o", "again"]).ok();
    }
    common::assert_same(&common::tree(&place.at("again")), &whole);
    assert!(!place.at("both").join(".both.partial").exists() && !place.at(".both.partial").exists());
    std::fs::create_dir(place.at("full")).unwrap();
    std::fs::write(place.at("full/notes.txt"), "mine").unwrap();
    place.run(&["merge", "one", "two", "-o", "full"]).fails(2, &["full is not empty"]);
    // Another preparation: another space, so nothing to add up.
    let path = place.at("two/run.json");
    let mut info: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    info["card_hash"] = "another".into();
    std::fs::write(&path, info.to_string()).unwrap();
    place.run(&["merge", "one", "two", "-o", "none"]).fails(3, &["run two", "different spaces"]);
    place.run(&["merge", "one", "-o", "none"]).fails(2, &["RUN"]);
}
