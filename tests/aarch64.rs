//! Compares the 64-bit Arm binary with the one for this machine: the same embeddings and heads, except for rounding.
//! Runs only if `tools/test_aarch64.sh` provides the Arm binary (`AFTERIMAGE_AARCH64`, a script that emulates it).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use afterimage::checkpoint::load_head;
use afterimage::export::{Reader, Record};
use common::skip::{Needs, skip};
use common::{TestDir, learn_args};

/// Rows of both programs must be as near as this.
const LEAST_COSINE: f64 = 0.9999;

fn arm() -> Option<PathBuf> {
    let arm = std::env::var_os("AFTERIMAGE_AARCH64").map(PathBuf::from);
    if arm.is_none() {
        skip(Needs::Aarch64, "`make test-aarch64` runs this");
    }
    arm
}

fn emulated(program: &Path, place: &TestDir, args: &[&str]) -> serde_json::Value {
    let ran = Command::new(program).args(args).current_dir(place.path()).output().unwrap();
    assert!(ran.status.success(), "{args:?}: {:?}\n{}", ran.status, String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn rows(folder: &Path) -> Vec<(Record, Vec<f32>)> {
    Reader::open(folder).unwrap().map(|item| item.unwrap()).collect()
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

/// The least cosine of rows that belong together; everything in the records is the same but spaces (a space is named
/// after the bits of its head) and the last digits of the novelty.
fn least_cosine(one: &[(Record, Vec<f32>)], other: &[(Record, Vec<f32>)]) -> f64 {
    assert!(!one.is_empty() && one.len() == other.len());
    let pairs = one.iter().zip(other).map(|((ours, row), (theirs, same))| {
        let place =
            |record: &Record| (record.frame, record.stamp_ns, record.segment, record.head, record.provenance.clone());
        assert_eq!(place(ours), place(theirs));
        cosine(row, same)
    });
    pairs.fold(1.0, f64::min)
}

#[test]
fn a_short_learn_comes_to_the_same() {
    let Some(arm) = arm() else { return };
    let place = TestDir::new();
    // Images as they come from a disk; scenes that a head can be learned from, and gradient steps.
    common::write_folder(&place.at("frames"), "pattern://7?frames=900&segments=90&width=64&height=48", "jpg");
    let ours = place.learn("frames", "ours", &[]).ok().json();
    let theirs = emulated(&arm, &place, &learn_args("frames", "theirs"));
    for key in ["frames", "segments", "promotions", "steps"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert!(ours["promotions"].as_u64().unwrap() > 0 && ours["steps"].as_u64().unwrap() > 20, "{ours}");
    let [our_rows, their_rows] = ["ours", "theirs"].map(|run| rows(&place.at(run).join("embeddings")));
    let least = least_cosine(&our_rows, &their_rows);
    println!("learn: {} rows, least cosine {least:.7}", our_rows.len());
    assert!(least >= LEAST_COSINE, "{least}");

    let latest = |run: &str| {
        let heads = place.at(run).join("heads");
        let newest = fs::read_dir(heads)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "safetensors"));
        load_head(&newest.max().unwrap()).unwrap()
    };
    let (our_head, their_head) = (latest("ours"), latest("theirs"));
    assert_eq!(our_head.number, their_head.number);
    // The heads as maps: what each makes of every unit vector of the latent space.
    let dim = our_head.head.dim_in();
    let images = |head: &afterimage::head::Head| -> Vec<Vec<f32>> {
        (0..dim)
            .map(|i| {
                let latent: Vec<f32> = (0..dim).map(|j| if i == j { 1.0 } else { 0.0 }).collect();
                let mut out = vec![0.0; head.dim_out()];
                head.embed(&latent, &mut out, &mut afterimage::head::Scratch::default());
                out
            })
            .collect()
    };
    let (ours, theirs) = (images(&our_head.head), images(&their_head.head));
    let least = ours.iter().zip(&theirs).map(|(one, other)| cosine(one, other)).fold(1.0, f64::min);
    println!("head {}: least cosine over {dim} unit latents {least:.7}", our_head.number);
    assert!(least >= LEAST_COSINE, "{least}");
}

#[test]
fn a_real_encoder_gives_the_same() {
    let Some(arm) = arm() else { return };
    let place = TestDir::new();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR"));
    let encoder = bundled.join("models/moco-mobilenetv2.onnx");
    // Every Nth JPEG of the bundled set: emulation is slow.
    fs::create_dir(place.at("some")).unwrap();
    let stream = bundled.join("data/objects/stream");
    let mut images: Vec<PathBuf> = common::tree(&stream).into_keys().map(|name| stream.join(name)).collect();
    images.retain(|path| path.extension().is_some_and(|end| end == "jpg"));
    for (i, path) in images.iter().step_by(images.len() / 24).enumerate() {
        fs::copy(path, place.at(&format!("some/{i:04}.jpg"))).unwrap();
    }
    let args = |out| ["embed", "--source", "some", "--encoder", encoder.to_str().unwrap(), "--out", out, "--json"];
    place.run(&args("ours")).ok();
    emulated(&arm, &place, &args("theirs"));
    let [ours, theirs] = ["ours", "theirs"].map(|run| rows(&place.at(run).join("embeddings")));
    let least = least_cosine(&ours, &theirs);
    println!("embed: {} images, {} values, least cosine {least:.7}", ours.len(), ours[0].1.len());
    assert!(ours.len() >= 24 && least >= LEAST_COSINE, "{least}");
}
