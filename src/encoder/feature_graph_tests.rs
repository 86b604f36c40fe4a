#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::config::{self, Size};
use crate::encoder::Encoder;
use crate::encoder::first_run::fixed_image;
use crate::encoder::tests::runtime;

const SIDE: u32 = 16;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn card(taps: &[&str]) -> ModelCard {
    let taps = taps.iter().map(|tap| tap.parse().unwrap()).collect();
    let path = data("taps.onnx");
    let sha256 = crate::files::sha256_file(&path).unwrap();
    let tiny = ModelCard::beside(&data("tiny.onnx")).unwrap();
    ModelCard { name: "taps".into(), size: Size::square(SIDE), multiple_of: 4, taps, sha256, ..tiny }
}

fn open(card: &ModelCard) -> Result<Encoder> {
    let config = config::Encoder { threads: 1, ..config::Encoder::default() };
    Encoder::open(&runtime(), &data("taps.onnx"), card, &config)
}

/// The latent that the encoder computes for the picture of the golden values.
fn latent(encoder: &mut Encoder) -> Vec<f32> {
    let mut out = vec![0.0; encoder.dim()];
    encoder.encode(&fixed_image(Size::square(SIDE)), &mut out).unwrap();
    out
}

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(data("taps.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn near(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-6)
}

#[test]
fn every_pooling_agrees_with_numpy() {
    let golden = golden();
    assert_eq!(golden["side"], SIDE);
    for case in golden["cases"].as_array().unwrap() {
        let taps: Vec<&str> = case["taps"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        let mut encoder = open(&card(&taps)).unwrap();
        let (found, expected) = (latent(&mut encoder), numbers(&case["latent"]));
        assert!(near(&found, &expected), "{taps:?}: {found:?}, numpy {expected:?}");
        let names: Vec<&str> = encoder.parts().iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, taps);
        assert_eq!(encoder.parts().iter().map(|part| part.len).sum::<usize>(), encoder.dim());
        assert_eq!(encoder.sha256(), card(&[]).sha256, "the file's, whatever is added to it");
    }
}

#[test]
fn a_map_whose_channels_come_last_is_pooled_the_same() {
    for pooling in ["mean", "max", "gem3"] {
        let first = latent(&mut open(&card(&[&format!("map:{pooling}")])).unwrap());
        let last = ModelCard { layout: TensorLayout::Hwd, ..card(&[&format!("map_last:{pooling}")]) };
        // `map` is `map_last` with values below the floor raised to it, which only the mean sees.
        let last = latent(&mut open(&last).unwrap());
        assert_eq!(near(&first, &last), pooling != "mean", "{pooling}: {first:?} {last:?}");
    }
}

#[test]
fn a_grid_is_one_row_of_cells_in_either_layout() {
    let golden = golden();
    let shape: Vec<usize> =
        golden["grid"]["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    for (output, layout) in [("grid", TensorLayout::Dhw), ("map_last", TensorLayout::Hwd)] {
        let card = ModelCard { kind: OutputKind::Grid, output: output.into(), layout, ..card(&[]) };
        let mut encoder = open(&card).unwrap();
        assert_eq!(encoder.grid().unwrap().as_slice(), shape);
        assert!(near(&latent(&mut encoder), &numbers(&golden["grid"]["values"])), "{output}");
    }
    assert_eq!(open(&card(&["map:mean"])).unwrap().grid(), None);
}

fn refused(card: &ModelCard) -> String {
    let error = open(card).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::CheckFailed, "{error}");
    error.to_string()
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let text = refused(&card(&["mapp:gem3"]));
    for part in ["it has no tensor \"mapp\"", "\n    map\n", "Its last maps:", "map [1, 4, 4, 4]"] {
        assert!(text.contains(part), "missing {part:?} in\n{text}");
    }
    for (tap, says) in [
        ("tokens:gem3", "the tensor is [1, 17, 4] for one image; poolings for that: mean, tokens, cls"),
        ("map:cls", "the tensor is [1, 4, 4, 4] for one image; poolings for that: mean, gem3, max"),
        ("output:max", "the tensor is [1, 4] for one image; poolings for that: as-is"),
        ("map:as-is", "poolings for that: mean, gem3, max"),
        ("whole:mean", "tensor whole cannot be a latent: floats are needed"),
    ] {
        let text = refused(&card(&["map:mean", tap]));
        assert!(text.contains(says), "missing {says:?} in\n{text}");
    }
    let grid = |output: &str| ModelCard { kind: OutputKind::Grid, output: output.into(), ..card(&[]) };
    assert!(refused(&grid("tokens")).contains("is [1, 17, 4] for one image; kind = \"grid\" needs [n, h, w, d]"));
    assert!(refused(&grid("nothing")).contains("it has no tensor \"nothing\""));
}

#[test]
fn the_configuration_goes_before_the_card() {
    let with = |taps: &[&str]| {
        let taps = taps.iter().map(|tap| (*tap).to_owned()).collect();
        card(&["map:gem3"]).with(&config::Encoder { taps, ..config::Encoder::default() })
    };
    assert_eq!(with(&[]).unwrap(), card(&["map:gem3"]));
    assert_eq!(with(&["output"]).unwrap(), card(&[]));
    assert_eq!(with(&["map:mean", "output"]).unwrap(), card(&["map:mean", "output:as-is"]));
    let grid = ModelCard { kind: OutputKind::Grid, ..card(&[]) };
    let error =
        grid.with(&config::Encoder { taps: vec!["map:mean".into()], ..config::Encoder::default() }).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    assert!(error.to_string().contains("encoder.taps: the latent of taps is a grid"), "{error}");
}

#[test]
fn a_model_without_taps_stays_as_it_is() {
    let bytes = std::fs::read(data("taps.onnx")).unwrap();
    let model = FeatureModel::new(&runtime(), bytes.clone(), &card(&[]), "taps").unwrap();
    assert_eq!((model.bytes, model.output.as_str(), model.grid), (bytes, "latent", None));
    assert_eq!(open(&card(&[])).unwrap().parts(), [FeatureSlice { name: "output:as-is".into(), len: 4 }]);
}

#[test]
fn what_no_tap_needs_is_not_computed() {
    let bytes = std::fs::read(data("taps.onnx")).unwrap();
    let model = |taps: &[&str]| FeatureModel::new(&runtime(), bytes.clone(), &card(taps), "taps").unwrap().bytes;
    let map = model(&["map:max"]);
    let map = GraphEditor::read(&map).unwrap();
    let (tensors, weights) = (map.graph().tensors(), map.graph().initializer.len());
    assert!(tensors.contains(&"map") && !tensors.contains(&"tokens") && !tensors.contains(&"latent"), "{tensors:?}");
    // Two weights of the convolution and two for the unit length; the shape of `Reshape` is gone.
    assert_eq!(weights, 4);
    let tokens = model(&["tokens:cls", "output"]);
    let tokens = GraphEditor::read(&tokens).unwrap().graph().tensors().join(" ");
    assert!(
        tokens.contains("patches class tokens") && tokens.contains("latent") && !tokens.contains("whole"),
        "{tokens}"
    );
}
