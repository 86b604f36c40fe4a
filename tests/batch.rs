//! `embed --batch`: encodes several frames per inference and writes the same rows.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::Path;

use common::{ENCODER, TestDir, rows};

const SOURCE: &str = "pattern://3?frames=103&segments=9&width=64&height=48";

/// Least cosine between two lists of rows, whose records must be the same.
fn least_cosine(a: &Path, b: &Path) -> f64 {
    let (a, b) = (rows(a), rows(b));
    assert_eq!(a.len(), b.len());
    let one = |(a, b): (&[u32], &[u32])| {
        let value = |bits: &u32| f64::from(f32::from_bits(*bits));
        let sum = |x: &[u32], y: &[u32]| x.iter().zip(y).map(|(x, y)| value(x) * value(y)).sum::<f64>();
        sum(a, b) / (sum(a, a) * sum(b, b)).sqrt()
    };
    a.iter().zip(&b).for_each(|(a, b)| assert_eq!(a.0, b.0));
    a.iter().zip(&b).map(|(a, b)| one((&a.1, &b.1))).fold(1.0, f64::min)
}

#[test]
fn rows_are_those_of_single_frames_and_the_same_every_time() {
    let place = TestDir::new();
    let embed = |out: &str, batch: &str| {
        let args = ["embed", "--encoder", ENCODER, "--source", SOURCE, "--out", out, "--batch", batch, "--json"];
        let report = place.run(&args).ok().json();
        assert_eq!(report["frames"], 103, "{report}");
        place.at(out).join("embeddings")
    };
    let single = embed("one", "1");
    // A last run of fewer, one that all frames fill, and one larger than the source.
    for batch in ["2", "8", "103", "200"] {
        let together = embed(batch, batch);
        let least = least_cosine(&single, &together);
        assert!(least >= 0.999_999, "{batch}: {least}");
    }
    assert_eq!(rows(&embed("again", "8")), rows(&place.at("8/embeddings")), "the same bits");
}

#[test]
fn what_takes_one_frame_at_a_time_is_refused() {
    let place = TestDir::new();
    let embed = |more: &[&str]| place.run(&[&["embed", "--out", "a", "--batch", "4"], more].concat());
    fs::copy(Path::new(ENCODER).with_file_name("fixed.onnx"), place.at("m.onnx")).unwrap();
    let card = fs::read_to_string(Path::new(ENCODER).with_extension("toml")).unwrap();
    let sums = [Path::new(ENCODER), &place.at("m.onnx")].map(|path| afterimage::files::sha256_file(path).unwrap());
    fs::write(place.at("m.toml"), card.replace(&sums[0], &sums[1])).unwrap();
    embed(&["--encoder", "m.onnx", "--source", SOURCE]).fails(2, &["--batch 4", "takes one image at a time"]);
    embed(&["--encoder", ENCODER, "--source", "pattern://1?live=true&frames=9"]).fails(2, &["live source"]);
    fs::write(place.at("det.txt"), "1,-1,5,5,30,30,1\n").unwrap();
    embed(&["--encoder", ENCODER, "--source", SOURCE, "--boxes", "det.txt"]).fails(2, &["--batch 4 with --boxes"]);
    place
        .run(&["embed", "--out", "a", "--batch", "0", "--encoder", ENCODER, "--source", SOURCE])
        .fails(2, &["1..=256"]);
    assert!(!place.at("a").exists());
}
