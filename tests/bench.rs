//! `bench` in the built binary. No timings are checked, because a test machine may be busy.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(source: &str, folder: &Path, more: &[&str]) -> Output {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny.onnx");
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.args(["bench", "--encoder"]).arg(model).args(["--source", source, "--secs", "0.3", "--rounds", "1"]);
    command.args(more).env("TMPDIR", folder).output().unwrap()
}

/// Temporary folders of ours (ONNX Runtime leaves a file of its own).
fn left_in(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("afterimage")).count()
}

#[test]
fn all_three_ways_are_measured_and_learning_happens() {
    let folder = tempfile::tempdir().unwrap();
    let done = bench("pattern://7?frames=400&segments=40", folder.path(), &["--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    for path in [
        "/raw/fps",
        "/embed/fps",
        "/embed/p50_ms",
        "/embed/p99_ms",
        "/learn/fps",
        "/learn/p50_ms",
        "/learn/p99_ms",
        "/learn/step_ms",
        "/peak_mb",
        "/ratios/embed_fps",
        "/ratios/learn_fps",
        "/ratios/learn_p99",
    ] {
        assert!(json.pointer(path).and_then(Value::as_f64).is_some_and(|x| x > 0.0), "{path} in {json}");
    }
    for way in ["embed", "learn"] {
        let at = |figure: &str| json[way][figure].as_f64().unwrap();
        assert!(at("p50_ms") <= at("p99_ms"), "{json}");
    }
    assert_eq!(json["frames"], 256, "no more than these are held: {json}");
    assert_eq!(json["rounds"].as_array().unwrap().len(), 1);
    assert_eq!(left_in(folder.path()), 0);
}

#[test]
fn people_get_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let done = bench(
        "pattern://7?frames=60&segments=6",
        folder.path(),
        &["--set", "learn.first_fit_frames=32", "--batch", "3"],
    );
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(text.lines().any(|line| line.starts_with("batch 3 ")), "{text}");
    assert!(text.contains("of raw") && text.contains(">= 0.95") && text.contains("gradient steps"), "{text}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let said = |source: &str, more: &[&str], code: i32| {
        let done = bench(source, folder.path(), more);
        let text = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{text}");
        assert!(done.stdout.is_empty());
        text
    };
    // One frame alone holds no pair.
    assert!(said("pattern://7?frames=1&segments=1", &[], 1).contains("no pair to learn from"));
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny.onnx");
    for secs in ["0", "nan", "1e9"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
        command.args(["bench", "--source", "pattern://7", "--secs", secs, "--encoder"]).arg(&model);
        let done = command.output().unwrap();
        assert_eq!(done.status.code(), Some(2));
        assert!(String::from_utf8(done.stderr).unwrap().contains("--secs"));
    }
    assert_eq!(left_in(folder.path()), 0);
}

#[test]
fn a_step_of_every_objective_is_timed() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.args(["bench", "step", "--json", "--latent", "48", "--steps", "1", "--rounds", "1"]);
    for set in ["head.dim=16", "head.hidden=24", "learn.objective.queue_len=70", "learn.objective.batch_pairs=16"] {
        command.args(["--set", set]);
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (&json["latent"], &json["hidden"], &json["out"], &json["pairs"]),
        (&48.into(), &24.into(), &16.into(), &16.into())
    );
    let steps = json["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["ms"].as_f64().is_some_and(|ms| ms > 0.0)), "{json}");
    let names: Vec<&str> = steps.iter().map(|step| step["objective"].as_str().unwrap()).collect();
    for name in ["nt-xent", "moco, queue of keys", "moco, queue of latents", "vicreg", "byol", "simsiam"] {
        assert!(names.contains(&name), "{name} in {json}");
    }
    let done =
        Command::new(env!("CARGO_BIN_EXE_afterimage")).args(["bench", "step", "--objective", "luck"]).output().unwrap();
    assert_eq!(done.status.code(), Some(2), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stderr).contains("known are nt-xent, moco"));
}

#[test]
fn every_way_of_export_is_measured_with_its_reader() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny.onnx");
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    command.args([
        "bench",
        "exports",
        "--source",
        "pattern://7?frames=60&segments=6",
        "--secs",
        "0.1",
        "--rounds",
        "1",
    ]);
    let done = command.args(["--json", "--encoder"]).arg(model).env("TMPDIR", folder.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    let ways = json["ways"].as_array().unwrap();
    let names: Vec<&str> = ways.iter().map(|way| way["way"].as_str().unwrap()).collect();
    assert_eq!(names, ["nothing", "npy", "npy f16", "parquet", "safetensors", "npy, latents", "ring", "socket"]);
    assert!(
        ways.iter().all(|way| ["fps", "of_nothing", "cpu_of_nothing"].iter().all(|key| way[key].as_f64() > Some(0.0)))
    );
    assert!(json["ring"]["p50_ms"].as_f64().unwrap() <= json["ring"]["p99_ms"].as_f64().unwrap(), "{json}");
    assert_eq!(left_in(folder.path()), 0);
}
