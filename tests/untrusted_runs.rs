//! A run folder from a stranger is only data: no command runs code, opens a source or reads a path that it names.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::skip::{Needs, skip};
use common::{PATTERN, TestDir};
use serde_json::{Value, json};

/// A library that leaves a file behind as soon as it is loaded.
fn evil_library(place: &TestDir) -> bool {
    let marker = place.at("CODE_RAN");
    let source = format!(
        "#include <stdio.h>\n__attribute__((constructor)) static void go(void) {{ FILE *f = fopen({:?}, \"w\"); if (f) fclose(f); }}",
        marker.to_str().unwrap()
    );
    fs::write(place.at("evil.c"), source).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(place.at("evil.so"))
        .arg(place.at("evil.c"))
        .status()
        .is_ok_and(|status| status.success());
    if !built {
        skip(Needs::Compiler, "there is no C compiler (cc)");
    }
    built
}

fn edit(run: &Path, change: impl FnOnce(&mut Value)) {
    let path = run.join("run.json");
    let mut info: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut info);
    fs::write(path, serde_json::to_vec(&info).unwrap()).unwrap();
}

#[test]
fn nothing_that_a_run_folder_names_is_loaded_or_opened() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &["--set", "export.latents=true"]).ok();
    place.learn(PATTERN, "other", &["--set", "learn.seed=1"]).ok();
    common::write_folder(&place.at("data/gallery"), "pattern://5?frames=20&segments=2&width=64&height=48", "png");
    common::write_folder(&place.at("data/query"), "pattern://5?frames=20&segments=2&width=64&height=48", "png");
    let picture = place.at("picture.png");
    common::write_image(&picture, &common::frames("pattern://5?frames=1&width=64&height=48")[0]);
    if !evil_library(&place) {
        return;
    }
    // Dlopening it would be noticed.
    let evil = place.at("evil.so");
    let seen = place.at("CODE_RAN");
    let marker = place.at("PIPELINE_RAN");
    edit(&place.at("run"), |info| {
        info["config"]["encoder"]["onnxruntime"] = json!(evil);
        info["config"]["encoder"]["providers"] = json!(["tensorrt", "cpu"]);
        info["config"]["encoder"]["tensorrt"]["cache_folder"] = json!(place.at("cache"));
        info["config"]["promotion"]["probe"] = json!(place.at("data/gallery"));
        info["config"]["mqtt"]["broker"] = json!("mqtt://127.0.0.1:9");
        info["config"]["metrics"]["listen"] = json!("127.0.0.1:1");
        info["config"]["stream"]["socket"] = json!(format!("unix:{}", place.at("socket").display()));
        info["sources"] = json!([format!("gst:fakesrc num-buffers=1 ! filesink location={}", marker.display())]);
    });
    let picture = picture.to_str().unwrap();
    let calls: [&[&str]; 11] = [
        &["embed", "--run", "run", "--source", "pattern://1?frames=9", "--out", "embedded"],
        &["eval", "--data", "data", "--run", "run"],
        &["export", "--run", "run", "--onnx", "merged.onnx"],
        &["contact-sheet", "--run", "run", "--source", "pattern://1?frames=20", "--out", "sheet.png"],
        &["search", "--run", "run", "--image", picture],
        &["check", "--run", "run"],
        &["inspect", "run"],
        &["merge", "run", "other", "-o", "merged"],
        &["replay", "--run", "run", "--out", "replayed"],
        &["bench", "reid", "--help"],
        &["migrate", "--run", "run", "--to", "newest", "--out", "migrated", "run/embeddings/0000.npy"],
    ];
    for call in calls {
        let ran = place.run(call);
        assert!(!seen.exists(), "`{}` loaded the library that run.json names\n{}", call.join(" "), ran.err);
        for path in [&marker, &place.at("socket"), &place.at("cache")] {
            assert!(!path.exists(), "`{}` made {}\n{}", call.join(" "), path.display(), ran.err);
        }
        if call[0] == "embed" {
            ran.ok().said(&["not taken from run.json", "encoder.onnxruntime", "promotion.probe", "encoder.providers"]);
        } else if call[0] != "migrate" && call[0] != "check" {
            ran.ok();
        }
    }
    // Who asks for it gets it, and the library is none of ONNX Runtime.
    let asked = format!("encoder.onnxruntime={}", evil.display());
    let ran =
        place.run(&["embed", "--run", "run", "--source", "pattern://1?frames=9", "--out", "asked", "--set", &asked]);
    assert!(!ran.status.success() && seen.exists(), "the test proves nothing: {}", ran.err);
}

#[test]
fn an_encoder_that_a_run_folder_names_is_read_as_a_model_only_if_it_is_the_runs() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &[]).ok();
    let other = place.at("other.onnx");
    fs::write(&other, b"not a model").unwrap();
    edit(&place.at("run"), |info| info["encoder"] = json!(other));
    let args = ["embed", "--run", "run", "--source", "pattern://1?frames=9", "--out", "embedded"];
    place.run(&args).fails(3, &["was made with another encoder"]);
}
