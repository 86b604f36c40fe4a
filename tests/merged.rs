//! `export`: batches, cells, 16-bit floats, and what is rejected.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::Path;

use afterimage::config::Size;
use afterimage::encoder::{OnnxModel, runtime};
use afterimage::files::sha256_file;
use common::{ENCODER, PATTERN, TestDir};

const SHORT: &str = "pattern://7?frames=40&segments=4&width=64&height=48";

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}.onnx", env!("CARGO_MANIFEST_DIR"))
}

/// A run over a model of `tests/data` whose own head is frozen (too few frames to learn from).
fn run_over(place: &TestDir, name: &str) -> String {
    let (tiny, card) = (Path::new(ENCODER), format!("{name}.toml"));
    fs::copy(data(name), place.at(&format!("{name}.onnx"))).unwrap();
    let [of_tiny, of_this] = [tiny, Path::new(&data(name))].map(|path| sha256_file(path).unwrap());
    let text = fs::read_to_string(tiny.with_extension("toml")).unwrap().replace(&of_tiny, &of_this);
    fs::write(place.at(&card), text).unwrap();
    let (encoder, out) = (format!("{name}.onnx"), format!("run-{name}"));
    place.run(&["learn", "--config", "learn.toml", "--encoder", &encoder, "--source", SHORT, "--out", &out]).ok();
    out
}

fn export(place: &TestDir, run: &str, more: &[&str]) -> common::Output {
    place.run(&[&["export", "--run", run, "--onnx", "out/m.onnx", "--json"], more].concat())
}

/// Nothing is left of what did not pass.
fn nothing_written(place: &TestDir) {
    assert_eq!(fs::read_dir(place.at("out")).map_or(0, Iterator::count), 0);
}

#[test]
fn any_batch_or_one_size_in_32_and_16_bits() {
    let place = TestDir::new();
    place.learn(PATTERN, "run", &[]).ok();
    let runtime = runtime::load("").unwrap();
    let image: Vec<f32> = (0..3 * 32 * 32).map(|i| (i as f32 * 0.37).sin()).collect();
    for (more, needed) in
        [(&[][..], 0.99999), (&["--dtype", "f16"], 0.999), (&["--dtype", "f16", "--io", "f16"], 0.999)]
    {
        let report = export(&place, "run", &[more, &["--source", PATTERN]].concat()).ok().json();
        assert!(report["head"].as_u64() >= Some(1), "{report}");
        assert_eq!((&report["batch"], report["source"].as_str()), (&"dynamic".into(), Some(PATTERN)), "{report}");
        assert!(report["least_cosine"].as_f64().unwrap() >= needed, "{report}");
        assert!(report["least_batch_cosine"].as_f64().unwrap() >= 0.9999, "{report}");
        let dynamic = fs::read(place.at("out/m.onnx")).unwrap();
        // Key and value of an entry: pictures are to be turned as EXIF says before anything else.
        let entry = b"afterimage.orientation\x12\x04exif";
        assert!(dynamic.windows(entry.len()).any(|bytes| bytes == entry));
        let mut whole = OnnxModel::open(&runtime, &dynamic, Size::square(32)).unwrap();
        let alone = whole.run(&image).unwrap().remove(0);
        let five = whole.run(&image.repeat(5)).unwrap().remove(0);
        assert!(five.chunks_exact(alone.len()).all(|row| row.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-3)));

        let fixed = export(&place, "run", &[more, &["--batch", "4"]].concat()).ok().json();
        assert_eq!((&fixed["batch"], &fixed["least_batch_cosine"]), (&"4".into(), &serde_json::Value::Null), "{fixed}");
        let mut whole =
            OnnxModel::open(&runtime, &fs::read(place.at("out/m.onnx")).unwrap(), Size::square(32)).unwrap();
        assert_eq!(whole.run(&image.repeat(4)).unwrap()[0].len(), 4 * alone.len());
        assert!(whole.run(&image).unwrap_err().to_string().contains("4"));
    }
    let halves = export(&place, "run", &["--dtype", "f16"]).ok().json()["bytes"].as_u64().unwrap();
    let whole = export(&place, "run", &[]).ok().json()["bytes"].as_u64().unwrap();
    assert!(halves < whole * 3 / 4, "{halves} of {whole} bytes");
}

#[test]
fn an_encoder_for_one_image_takes_more_where_its_graph_can() {
    let place = TestDir::new();
    for name in ["fixed", "reshaped"] {
        let run = run_over(&place, name);
        assert_eq!(export(&place, &run, &[]).ok().json()["batch"], "1");
        for batch in ["dynamic", "8"] {
            let report = export(&place, &run, &["--batch", batch]).ok().json();
            assert!(report["least_cosine"].as_f64().unwrap() >= 0.99999 && report["batch"] == batch, "{report}");
        }
        fs::remove_dir_all(place.at("out")).unwrap();
    }
    let run = run_over(&place, "token");
    for batch in ["dynamic", "3"] {
        let parts = ["holds its batch of 1", "Expand \"tokens\" to [1, 4]", "dynamic_axes", "take --batch 1"];
        export(&place, &run, &["--batch", batch]).fails(3, &parts);
        nothing_written(&place);
    }
    export(&place, &run, &["--batch", "1"]).ok();
}

#[test]
fn what_would_mislead_is_not_written() {
    let place = TestDir::new();
    let run = run_over(&place, "mixed");
    export(&place, &run, &[]).fails(3, &["another embedding in a batch than alone", "least cosine 0.", "--batch 1"]);
    nothing_written(&place);
    export(&place, &run, &["--batch", "1"]).ok();
    fs::remove_file(place.at("out/m.onnx")).unwrap();
    let run = run_over(&place, "large");
    export(&place, &run, &["--dtype", "f16"]).fails(3, &["\"wide\"", "7e4", "65504", "--dtype f32"]);
    nothing_written(&place);
    export(&place, &run, &[]).ok();
    // Where only the first convolutions are to blame, these stay in 32 bits.
    let run = run_over(&place, "deep");
    let report = export(&place, &run, &["--dtype", "f16"]).ok().said(&["\"by0\"", "the first 4 of 9"]).json();
    assert_eq!(report["f32_convolutions"], 4, "{report}");
}

#[test]
fn arguments_that_make_no_sense() {
    let place = TestDir::new();
    place.learn(SHORT, "run", &[]).ok();
    export(&place, "run", &["--io", "f16"]).fails(2, &["--io f16 goes with --dtype f16"]);
    export(&place, "run", &["--grid"]).fails(2, &["the latents of tiny are vectors"]);
    for batch in ["0", "-1", "257", "many"] {
        export(&place, "run", &[&format!("--batch={batch}")])
            .fails(2, &["must be `dynamic`, or a number from 1 to 256"]);
    }
    export(&place, "run", &["--source", "nowhere"]).fails(1, &["nowhere"]);
    nothing_written(&place);
}
