//! Rewrites a model so that its output is the latent itself: pooled and concatenated taps, or a flattened grid.
//!
//! With taps `t` of tensors `x_t`, the output is `f = unit([unit(pool_t(x_t)) for each t])`, `[n, d]`: each part has
//! the same weight whatever its scale. A grid becomes `[n, h * w * d]`, in row-major order of cells. The nodes are
//! appended to the graph (`crate::onnx`), so a frame still costs one pass. Shapes come from running one image, not
//! from the file.
use ndarray::{ArrayView1, Axis};

use super::FeatureSlice;
use super::graph_adapter::{AdaptedGraph, adapt};
use super::input_adapter::{BatchKind, InputAdapter};
use super::model_card::{ModelCard, OutputKind, TensorLayout};
use super::onnx_signature::{FLOAT32, ModelSignature, is_float};
use super::runtime::Runtime;
use super::shape_probe::{self, ProbedShapes};
use super::validate::NEEDS_VECTOR;
use crate::config::taps::{FeatureTap, OUTPUT, Pooling};
use crate::error::{Error, Result};
use crate::onnx::Found;
use crate::onnx::graph_builder::GraphBuilder;
use crate::onnx::graph_editor::{GraphEdit, GraphEditor, any_rows, sized, tensor_of};

/// Lower bound on values before [`Pooling::Gem`] raises them to its power.
const GEM_FLOOR: f32 = 1e-6;

/// A model whose output is the latent.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureModel {
    /// The ONNX file; unchanged if nothing had to be added.
    pub bytes: Vec<u8>,
    /// Name of the output, `[n, d]`.
    pub output: String,
    /// The parts that the latent consists of; empty if nothing was added, because only a run then reveals the length.
    pub parts: Vec<FeatureSlice>,
    /// `[h, w, d]` if the latent is a grid.
    pub grid: Option<[usize; 3]>,
}

impl FeatureModel {
    /// Adds to the model in `bytes` the nodes that `card` (with the size and taps in use, [`ModelCard::with`]) asks
    /// for. `what` names the model in errors.
    ///
    /// # Errors
    /// Refused: tensors that the graph does not have or that do not match their pooling or kind, and models that
    /// cannot be extended (opset below 9, weights in other files).
    pub fn new(runtime: &Runtime, bytes: Vec<u8>, card: &ModelCard, what: &str) -> Result<Self> {
        let refused = |why: String| Error::check_failed(format!("{what}: {why}"));
        if !card.changes_model() && is_usual(&bytes, card, what)? {
            return Ok(Self { bytes, output: card.output.clone(), parts: Vec::new(), grid: None });
        }
        let plain = FeatureTap { tensor: OUTPUT.into(), pooling: Pooling::AsIs };
        let mut taps =
            if card.changes_model() && card.kind == OutputKind::Vector { card.taps.clone() } else { vec![plain] };
        let tensors = {
            let model = GraphEditor::read(&bytes).map_err(refused)?;
            let known = model.graph().tensors();
            taps.iter_mut().for_each(|tap| tap.name_longest(&known));
            let name = |tap: &FeatureTap| if tap.tensor == OUTPUT { card.output.clone() } else { tap.tensor.clone() };
            let tensors: Vec<String> = taps.iter().map(name).collect();
            shape_probe::known(runtime, &model, card, &tensors).map_err(refused)?;
            tensors
        };
        let adapted = adapt(runtime, bytes, card, &tensors).map_err(refused)?;
        Self::over(runtime, &adapted, card, &taps, &tensors).map_err(refused)
    }

    /// Pools the `taps`, which read `tensors`, of a model with the usual input.
    fn over(
        runtime: &Runtime,
        adapted: &AdaptedGraph,
        card: &ModelCard,
        taps: &[FeatureTap],
        tensors: &[String],
    ) -> Found<Self> {
        let model = GraphEditor::read(&adapted.bytes)?;
        let seen = shape_probe::run(runtime, &model, card, tensors)?;
        let mut graph = GraphBuilder::new(&model.free_prefix());
        let mut rows = Vec::new();
        for (name, seen) in tensors.iter().zip(&seen) {
            rows.push(of_one_image(&mut graph, name, seen, adapted.images)?);
        }
        let (tensors, shapes): (Vec<String>, Vec<Vec<usize>>) = rows.into_iter().unzip();
        let (output, parts, grid) = if card.kind == OutputKind::Grid {
            let (row, grid) = flat_grid(&mut graph, &tensors[0], &shapes[0], card.layout)?;
            let part = FeatureSlice { name: taps[0].to_string(), len: grid.iter().product() };
            (row, vec![part], Some(grid))
        } else if card.taps.is_empty() {
            let (row, len) = pool(&mut graph, &tensors[0], &shapes[0], Pooling::AsIs, card.layout)
                .ok_or_else(|| format!("output {} is {:?} for one image: {NEEDS_VECTOR}", card.output, shapes[0]))?;
            // A separate node, so that the output can be declared anew.
            (graph.node("Identity", &[&row]), vec![FeatureSlice { name: taps[0].to_string(), len }], None)
        } else {
            let (row, parts) = joined(&mut graph, taps, &tensors, &shapes, card.layout)?;
            (row, parts, None)
        };
        let dim = parts.iter().map(|part| part.len).sum();
        let (nodes, weights) = graph.finish(&output);
        // If nothing the graph computes has a batch dimension, the model cannot take more than one image.
        let alone = adapted.images == BatchKind::Free && seen.iter().any(|seen| seen.shape.len() == 1);
        let [height, width] = card.size.dims();
        let input = alone.then(|| tensor_of(&card.input, sized(1), &[3, height, width]));
        let outputs = vec![tensor_of(&output, any_rows(), &[dim])];
        let bytes = model.apply(&GraphEdit { nodes, weights, outputs, input, prune: true, ..GraphEdit::default() })?;
        Ok(Self { bytes, output, parts, grid })
    }
}

/// True if the model already outputs the latent: one usual input, and an output declared as rows of 32-bit floats.
fn is_usual(bytes: &[u8], card: &ModelCard, what: &str) -> Result<bool> {
    let outline = ModelSignature::read(bytes, what)?;
    let output = outline.outputs.iter().find(|output| output.name == card.output);
    let rows = output.is_some_and(|output| {
        output.element == Some(FLOAT32) && output.shape.as_ref().is_some_and(|shape| shape.len() == 2)
    });
    let input = outline.inputs.as_slice();
    Ok(
        rows && matches!(input, [one] if one.name == card.input && InputAdapter::of(one).is_ok_and(|form| form.is_plain()))
    )
}

/// Converts the tensor `name`, with the shape `seen`, to 32-bit floats with a first dimension for one image; returns
/// its name and shape.
fn of_one_image(
    graph: &mut GraphBuilder,
    name: &str,
    seen: &ProbedShapes,
    images: BatchKind,
) -> Found<(String, Vec<usize>)> {
    if !is_float(seen.element) {
        return Err(format!("tensor {name} cannot be a latent: floats are needed, it has whole numbers"));
    }
    let (mut x, mut shape) = (name.to_owned(), seen.shape.clone());
    if seen.element != FLOAT32 {
        x = graph.cast(&x, FLOAT32);
    }
    if let BatchKind::Fixed(n) = images
        && n > 1
    {
        if shape.first() != Some(&n) {
            return Err(format!("tensor {name} is {shape:?} for {n} images: they are not in its first dimension"));
        }
        x = graph.first_row(&x);
        shape[0] = 1;
    }
    if shape.len() == 1 || (images == BatchKind::Unbatched && shape.first() != Some(&1)) {
        shape.insert(0, 1);
        let sizes: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
        x = graph.reshape(&x, &sizes);
    }
    Ok((x, shape))
}

/// Pools every tap, normalises each, concatenates them, and normalises the result.
fn joined(
    graph: &mut GraphBuilder,
    taps: &[FeatureTap],
    tensors: &[String],
    shapes: &[Vec<usize>],
    layout: TensorLayout,
) -> Found<(String, Vec<FeatureSlice>)> {
    let (mut rows, mut parts) = (Vec::new(), Vec::new());
    for ((tap, tensor), shape) in taps.iter().zip(tensors).zip(shapes) {
        let (row, len) = pool(graph, tensor, shape, tap.pooling, layout).ok_or_else(|| misfit(tap, shape))?;
        rows.push(graph.unit(&row, len));
        parts.push(FeatureSlice { name: tap.to_string(), len });
    }
    if let [one] = rows.as_slice() {
        return Ok((one.clone(), parts));
    }
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let dim = parts.iter().map(|part| part.len).sum();
    let all = graph.concat(&rows);
    Ok((graph.unit(&all, dim), parts))
}

/// Pools `tensor` of `shape` (for one image) to `[n, d]` and returns `d`; `None` if the pooling does not accept such
/// a shape.
fn pool(
    graph: &mut GraphBuilder,
    tensor: &str,
    shape: &[usize],
    pooling: Pooling,
    layout: TensorLayout,
) -> Option<(String, usize)> {
    Some(match (shape, pooling) {
        (&[1, d], Pooling::AsIs) => (tensor.to_owned(), d),
        // `[n, d, 1, 1]` and similar shapes.
        ([1, dims @ ..], Pooling::AsIs) if dims.iter().filter(|n| **n > 1).count() <= 1 => {
            (graph.flatten(tensor), dims.iter().product())
        }
        (&[1, t, d], Pooling::Mean) => (weighted(graph, tensor, &vec![1.0 / t as f32; t]), d),
        (&[1, t, d], Pooling::Tokens) if t > 1 => {
            let mut shares = vec![1.0 / (t - 1) as f32; t];
            shares[0] = 0.0;
            (weighted(graph, tensor, &shares), d)
        }
        (&[1, t, d], Pooling::Cls) => {
            let mut shares = vec![0.0; t];
            shares[0] = 1.0;
            (weighted(graph, tensor, &shares), d)
        }
        (&[1, a, _, b], Pooling::Mean | Pooling::Gem(_) | Pooling::Max) => {
            let (cells, d) = match layout {
                TensorLayout::Dhw => (tensor.to_owned(), a),
                TensorLayout::Hwd => (graph.transpose(tensor, &[0, 3, 1, 2]), b),
            };
            (over_cells(graph, &cells, pooling), d)
        }
        _ => return None,
    })
}

/// `[n, t, d]` to `[n, d]`: the weighted sum of the tokens. (`Slice` and `Gather` would depend on the opset; a
/// product has had the same form since the first one.)
fn weighted(graph: &mut GraphBuilder, tensor: &str, shares: &[f32]) -> String {
    let shares = graph.matrix(ArrayView1::from(shares).insert_axis(Axis(0)));
    let sum = graph.node("MatMul", &[&shares, tensor]);
    graph.flatten(&sum)
}

/// `[n, d, h, w]` to `[n, d]`.
fn over_cells(graph: &mut GraphBuilder, cells: &str, pooling: Pooling) -> String {
    let Pooling::Gem(p) = pooling else {
        let op = if pooling == Pooling::Max { "GlobalMaxPool" } else { "GlobalAveragePool" };
        let pooled = graph.node(op, &[cells]);
        return graph.flatten(&pooled);
    };
    let floor = graph.scalar(GEM_FLOOR);
    let positive = graph.node("Max", &[cells, &floor]);
    // Small integer powers become products: exact, and fast on every provider.
    let raised = match p {
        1.0 => positive,
        2.0 => graph.node("Mul", &[&positive, &positive]),
        3.0 => {
            let square = graph.node("Mul", &[&positive, &positive]);
            graph.node("Mul", &[&square, &positive])
        }
        _ => {
            let power = graph.scalar(p as f32);
            graph.node("Pow", &[&positive, &power])
        }
    };
    let pooled = graph.node("GlobalAveragePool", &[&raised]);
    let mean = graph.flatten(&pooled);
    let root = graph.scalar((1.0 / p) as f32);
    graph.node("Pow", &[&mean, &root])
}

/// Flattens a grid of `shape` to `[n, h * w * d]` and returns `[h, w, d]`.
fn flat_grid(
    graph: &mut GraphBuilder,
    tensor: &str,
    shape: &[usize],
    layout: TensorLayout,
) -> Found<(String, [usize; 3])> {
    let &[1, a, b, c] = shape else {
        return Err(format!(
            "the output {tensor} is {shape:?} for one image; kind = \"grid\" needs [n, h, w, d] or [n, d, h, w]: name \
             such a tensor of the graph in the card, or say kind = \"vector\" for an output [n, d]"
        ));
    };
    let (cells, grid) = match layout {
        TensorLayout::Hwd => (tensor.to_owned(), [a, b, c]),
        TensorLayout::Dhw => (graph.transpose(tensor, &[0, 2, 3, 1]), [b, c, a]),
    };
    Ok((graph.flatten(&cells), grid))
}

/// Explains that the pooling of a tap does not accept the shape of the tensor.
fn misfit(tap: &FeatureTap, shape: &[usize]) -> String {
    let fits = match shape {
        [1, _] => "as-is",
        [1, _, _] => "mean, tokens, cls",
        [1, _, _, _] => "mean, gem3, max",
        _ => "none; tap a tensor [n, d], [n, t, d] or [n, d, h, w]",
    };
    format!("encoder.taps has \"{tap}\": the tensor is {shape:?} for one image; poolings for that: {fits}")
}

#[cfg(test)]
#[path = "feature_graph_tests.rs"]
mod tests;
