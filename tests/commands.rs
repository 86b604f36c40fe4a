//! The diagnostic commands of the built binary.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny.onnx");

fn afterimage(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afterimage")).arg("-q").args(args).current_dir(folder).output().unwrap()
}

/// Exit code, standard output, standard error.
fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Learns until a head is promoted and used; which seed that takes is no matter of these tests. The seed.
fn learned(folder: &Path) -> u32 {
    for seed in 1..20 {
        let source = format!("pattern://{seed}?frames=400&segments=40");
        let sets = [
            "learn.first_fit_frames=64",
            "learn.promote_lag_frames=32",
            "head.dim=16",
            "promotion.min_blocks=2",
            "promotion.holdout_every=2",
            "promotion.quantile=0.5",
        ];
        let mut args = vec!["learn", "--source", &source, "--encoder", MODEL, "--out", "run"];
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        let (code, _, error) = told(&afterimage(folder, &args));
        assert_eq!(code, Some(0), "{error}");
        let names = fs::read_dir(folder.join("run/embeddings")).unwrap().map(|entry| entry.unwrap().path());
        let records = names.filter(|name| name.extension().is_some_and(|end| end == "jsonl"));
        if records.into_iter().any(|name| fs::read_to_string(name).unwrap().contains("\"head\":1,")) {
            return seed;
        }
        fs::remove_dir_all(folder.join("run")).unwrap();
    }
    panic!("no head was promoted with any seed");
}

#[test]
fn a_run_is_checked_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let source = format!("pattern://{}?frames=400&segments=40", learned(at));

    let (code, text, error) = told(&afterimage(at, &["check", "--run", "run", "--encoder", MODEL]));
    assert_eq!(code, Some(0), "{text}{error}");
    for part in ["the one that the run was made with", "ok    heads/0001", "400 rows", "rows of head 1, space"] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.contains("warn") && !text.contains("fail"), "{text}");

    let sheet =
        ["contact-sheet", "--run", "run", "--source", &source, "--out", "new/sheet.png", "--queries", "3", "--json"];
    let (code, text, error) = told(&afterimage(at, &sheet));
    assert_eq!(code, Some(0), "{error}");
    let json: Value = serde_json::from_str(&text).unwrap();
    let picture = image::open(at.join("new/sheet.png")).unwrap();
    // Pictures of 125 x 94 pixels: 180 to the first row, 3 rows of 154 with captions, less a gap, and 56 below.
    assert_eq!((picture.width(), picture.height()), (1400, 676));
    assert_eq!((&json["path"], &json["width"], &json["height"]), (&"new/sheet.png".into(), &1400.into(), &676.into()));
    assert!(json["head"].as_u64() >= Some(1) && json["frames"] == 400 && json["segments"] == 40, "{json}");
    let queries = json["queries"].as_array().unwrap();
    assert_eq!(queries.len(), 3);
    for query in queries {
        for group in ["frozen", "adapted"] {
            let found = query[group].as_array().unwrap();
            assert_eq!(found.len(), 4, "{query}");
            // Ten frames a segment, which the source marks: never the query's own.
            assert!(found.iter().all(|cell| cell["segment"] != query["segment"]), "{query}");
            assert!(found.is_sorted_by_key(|cell| -cell["cosine"].as_f64().unwrap()), "{query}");
        }
    }
    let names: Vec<_> = fs::read_dir(at.join("new")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["sheet.png"], "nothing is left beside it");

    let head = at.join("run/heads/0001.safetensors");
    let mut bytes = fs::read(&head).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&head, bytes).unwrap();
    let (code, text, _) = told(&afterimage(at, &["check", "--run", "run"]));
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("fail  heads/0001.safetensors") && text.contains("checksum"), "{text}");
    assert!(text.contains("ok    state.safetensors"), "the rest is checked too: {text}");
}

#[test]
fn without_a_head_the_sheet_has_one_group_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let source = "pattern://5?frames=60&segments=6";
    let (code, _, error) = told(&afterimage(at, &["learn", "--source", source, "--encoder", MODEL, "--out", "run"]));
    assert_eq!(code, Some(0), "{error}");
    let (code, text, error) =
        told(&afterimage(at, &["contact-sheet", "--run", "run", "--source", source, "--out", "s.png"]));
    assert_eq!(code, Some(0), "{error}");
    assert!(text.contains("6 queries of 60 frames in 6 segments") && text.contains("no head was promoted"), "{text}");
    assert_eq!(image::open(at.join("s.png")).unwrap().width(), 1400);

    let refused = |source: &str, out: &str| {
        let (code, _, error) =
            told(&afterimage(at, &["contact-sheet", "--run", "run", "--source", source, "--out", out]));
        assert_eq!(code, Some(2), "{error}");
        assert!(!at.join("t.png").exists());
        error
    };
    assert!(refused("pattern://5?live=true", "t.png").contains("is live"));
    assert!(refused("pattern://5?frames=5&segments=1", "t.png").contains("too short"));
    assert!(refused(source, "t.jpg").contains("PNG"));
}

#[test]
fn doctor_finds_what_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text, error) = told(&afterimage(folder.path(), &["doctor", "--encoder", MODEL]));
    assert_eq!(code, Some(0), "{text}{error}");
    for part in ["afterimage: ", "processor: ", "memory: ", "ONNX Runtime: 1.", "model card: tiny", "32 x 32 px to 32"]
    {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(
        !text.contains("fail") && text.contains("ms from picture to latent") && text.contains("current folder"),
        "{text}"
    );

    let args = ["doctor", "--json", "--set", "encoder.onnxruntime=/nowhere/libonnxruntime.so"];
    let (code, text, _) = told(&afterimage(folder.path(), &args));
    assert_eq!(code, Some(3), "{text}");
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    let failed: Vec<&Value> = list.iter().filter(|line| line["status"] == "fail").collect();
    assert!(failed.len() == 1 && failed[0]["what"] == "ONNX Runtime", "{failed:?}");
    assert!(list.iter().all(|line| line["found"].is_string() && line["todo"].is_string()), "{text}");
}

#[test]
fn check_says_what_it_can_check_and_lists_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let check = |args: &[&str]| told(&afterimage(folder.path(), &[&["check"], args].concat()));
    let (code, _, error) = check(&[]);
    assert!(code == Some(2) && error.contains("--config") && error.contains("--run"), "{error}");
    let (code, text, _) = check(&["--set", "learn.sed=1", "--set", "head.dim=0", "--encoder", MODEL]);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("did you mean seed?") && text.contains("head.dim = 0") && text.contains("not checked"));
    let (code, text, _) = check(&["--encoder", MODEL, "--set", "encoder.input_size=64"]);
    assert!(code == Some(0) && text.contains("64 x 64 px to 32 values"), "{text}");
    // A model that gives NaN, with a card that fits it.
    let nan = Path::new(MODEL).with_file_name("nan.onnx");
    fs::copy(&nan, folder.path().join("nan.onnx")).unwrap();
    let (code, text, _) = check(&["--encoder", "nan.onnx"]);
    assert!(code == Some(78) && text.contains("fail  model card"), "{text}");
    let sum = afterimage::files::sha256_file(&nan).unwrap();
    let card = fs::read_to_string(Path::new(MODEL).with_extension("toml")).unwrap();
    let line = card.lines().find(|line| line.starts_with("sha256")).unwrap();
    fs::write(folder.path().join("nan.toml"), card.replace(line, &format!("sha256 = \"{sum}\""))).unwrap();
    let (code, text, _) = check(&["--encoder", "nan.onnx"]);
    assert!(code == Some(3) && text.contains("not finite"), "{text}");
    let (code, text, _) = check(&["--encoder", "missing.onnx"]);
    assert!(code == Some(1) && text.contains("missing.onnx"), "{text}");
}
