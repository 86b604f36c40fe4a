#![allow(clippy::unwrap_used, reason = "tests")]
use std::fs;

use super::*;
use crate::config::Size;
use crate::encoder::{OnnxModel, float_tensors, runtime};
use crate::export::onnx::{Batch, Input, MergeOptions};
use crate::head::Head;
use crate::onnx::proto::{ModelView, TensorView};

/// A model of `tests/data` with the frozen head, and what `halve` needs to know about it.
struct Merged {
    bytes: Vec<u8>,
    encoder: BTreeSet<String>,
    floats: BTreeSet<String>,
}

impl Merged {
    fn new(name: &str, dim: usize) -> Self {
        let model = fs::read(format!("{}/tests/data/{name}.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let input = Some(Input { name: "image", size: Size::square(32), batch: Batch::Dynamic });
        let head = &Head::Identity { dim };
        let bytes = MergeOptions { model: &model, input, latent: "latent", grid: None, head, cells: false, meta: &[] }
            .bytes()
            .unwrap();
        let floats = float_tensors(&runtime::load("").unwrap(), &bytes).unwrap();
        Self { bytes, encoder: names_of(&model).unwrap(), floats }
    }

    fn halves(&self, io: bool, first: usize) -> Fp16Conversion<'_> {
        Fp16Conversion { model: &self.bytes, input: "image", encoder: &self.encoder, floats: &self.floats, io, first }
    }
}

fn graph(bytes: &[u8]) -> GraphView {
    ModelView::decode(bytes).unwrap().graph.unwrap()
}

/// A wave pattern as an image.
fn image() -> Vec<f32> {
    (0..3 * 32 * 32).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn run(bytes: &[u8]) -> Vec<f32> {
    OnnxModel::open(&runtime::load("").unwrap(), bytes, Size::square(32)).unwrap().run(&image()).unwrap().remove(0)
}

#[test]
fn convolutions_run_in_f16_and_means_lengths_and_the_head_do_not() {
    let merged = Merged::new("tiny", 32);
    let all = halve(&merged.halves(false, 0)).unwrap();
    let after = graph(&all);
    let weights: BTreeMap<&str, i32> = after.initializer.iter().map(|w| (w.name.as_str(), w.data_type)).collect();
    let typed = |name: &str| weights.get(name).copied();
    let convolutions: Vec<&NodeView> = after.node.iter().filter(|node| node.op_type == "Conv").collect();
    assert_eq!(heavy(&merged.halves(false, 0)).unwrap(), convolutions.len());
    assert!(convolutions.iter().all(|node| node.input[1..].iter().all(|w| typed(w) == Some(FLOAT16))), "{weights:?}");
    let ours = after.initializer.iter().filter(|w: &&TensorView| w.name.starts_with("afterimage"));
    assert!(ours.clone().count() > 0 && ours.clone().all(|w| w.data_type == FLOAT), "the head's small weights stay");
    // One cast at the input and one before the mean: none between convolutions.
    let casts: Vec<_> = after.node.iter().filter(|node| node.op_type == "Cast").collect();
    let mean = after.node.iter().find(|node| node.op_type == "GlobalAveragePool").unwrap();
    assert_eq!(casts.len(), 2, "{casts:?}");
    assert_eq!((casts[0].input[0].as_str(), &casts[1].output[0]), ("image", &mean.input[0]));

    let (wide, small) = (run(&merged.bytes), run(&all));
    let cosine: f32 = wide.iter().zip(&small).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.9999 && wide != small, "{cosine}");
    let length: f32 = small.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-6, "unit length is made in f32: {length}");
    // The first convolutions stay in f32; if all of them do, the model is unchanged.
    let first = graph(&halve(&merged.halves(false, 1)).unwrap());
    let kinds: Vec<i32> = first.initializer.iter().map(|w| w.data_type).collect();
    assert!(
        kinds.contains(&FLOAT16) && kinds.iter().filter(|kind| **kind == FLOAT).count() > ours.count(),
        "{kinds:?}"
    );
    assert_eq!(run(&halve(&merged.halves(false, convolutions.len())).unwrap()), wide);
}

#[test]
fn input_and_output_are_in_f16_where_that_is_asked_for() {
    let merged = Merged::new("tiny", 32);
    let all = halve(&merged.halves(true, 0)).unwrap();
    let kind = |info: &ValueInfo| info.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().elem_type;
    let after = graph(&all);
    assert_eq!((kind(&after.input[0]), kind(&after.output[0])), (FLOAT16, FLOAT16));
    let (wide, small) = (run(&merged.bytes), run(&all));
    assert!(wide.iter().zip(&small).all(|(a, b)| (a - b).abs() < 2e-3));
    assert!(small.iter().all(|x| f16::from_f32(*x).to_f32() == *x));
}

#[test]
fn what_f16_cannot_hold_is_refused_with_its_name() {
    let why = |name, dim| halve(&Merged::new(name, dim).halves(false, 0)).unwrap_err().chain();
    let large = why("large", 4);
    assert!(large.contains("\"wide\"") && large.contains("7e4") && large.contains("65504"), "{large}");
    assert!(why("tiny_int8", 32).contains("8-bit integers"));
    // Its convolution stays in f32, so there is nothing to reject.
    let merged = Merged::new("large", 4);
    assert_eq!(run(&halve(&merged.halves(false, 2)).unwrap()), run(&merged.bytes));
}
