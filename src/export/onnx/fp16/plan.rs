//! Plans which nodes run in f16.
use std::collections::{BTreeMap, BTreeSet};

use super::Fp16Conversion;
use crate::onnx::proto::{FLOAT, GraphView};

/// Operators that run in f16 whatever the type of their inputs.
const HEAVY: [&str; 4] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];
/// Operators that run in f16 if their image-dependent inputs are in f16.
#[rustfmt::skip]
const LIGHT: [&str; 38] = [
    "Abs", "Add", "BatchNormalization", "Clip", "Concat", "DepthToSpace", "Div", "Elu", "Erf", "Expand", "Flatten", "Gather",
    "Gelu", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "MaxPool", "Min", "Mul", "Neg",
    "PRelu", "Pad", "Relu", "Reshape", "Sigmoid", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Tanh", "Tile",
    "Transpose", "Unsqueeze", "Where",
];
/// Appended weights with at least this many numbers are stored in f16.
const LARGE: i64 = 4096;

/// The nodes that compute in f16, and the tensors stored in f16.
pub(super) struct Fp16Plan<'a> {
    pub(super) nodes: Vec<bool>,
    /// Number of convolutions and matrix products on image data.
    pub(super) heavy: usize,
    pub(super) halves: BTreeSet<&'a str>,
    /// Tensors that were in f32 before.
    pub(super) floats: BTreeSet<&'a str>,
}

impl<'a> Fp16Plan<'a> {
    pub(super) fn new(of: &Fp16Conversion<'a>, graph: &'a GraphView) -> Self {
        let inputs: BTreeSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        let weights = graph.initializer.iter().filter(|weight| weight.data_type == FLOAT);
        let weights: BTreeMap<&str, i64> = weights.map(|w| (w.name.as_str(), w.dims.iter().product())).collect();
        let mut floats: BTreeSet<&str> = of.floats.iter().map(String::as_str).collect();
        floats.extend(weights.keys().copied().chain([of.input]));

        let mut halves: BTreeSet<&str> = of.io.then_some(of.input).into_iter().collect();
        let mut of_image = BTreeSet::from([of.input]);
        let (mut nodes, mut heavy) = (Vec::with_capacity(graph.node.len()), 0);
        for node in &graph.node {
            let mut from_image = node.input.iter().map(String::as_str).filter(|name| of_image.contains(name));
            let light = || from_image.clone().any(|name| halves.contains(name));
            let ours = node.output.first().is_none_or(|name| !of.encoder.contains(name));
            let standard = node.domain.is_empty() || node.domain == "ai.onnx";
            let is = |list: &[&str]| list.contains(&node.op_type.as_str());
            let own = standard && !ours;
            let is_heavy = own && is(&HEAVY) && from_image.clone().next().is_some();
            heavy += usize::from(is_heavy);
            let half = is_heavy && heavy > of.first || own && is(&LIGHT) && light();
            if from_image.next().is_some() && !is(&["Shape", "Size"]) {
                of_image.extend(node.output.iter().map(String::as_str));
            }
            if half {
                halves.extend(node.output.iter().map(String::as_str).filter(|name| floats.contains(name)));
            }
            nodes.push(half);
        }
        let users = |name: &str, half: bool| {
            let mut all = graph.node.iter().zip(&nodes);
            all.any(|(node, is)| *is == half && node.input.iter().any(|input| input == name))
        };
        let kept: Vec<&str> = weights
            .iter()
            .filter(|(name, numbers)| {
                let own = of.encoder.contains(**name);
                let fits = if own { users(name, true) && !users(name, false) } else { **numbers >= LARGE };
                fits && !inputs.contains(*name)
            })
            .map(|(name, _)| *name)
            .collect();
        halves.extend(kept);
        Self { nodes, heavy, halves, floats }
    }
}
