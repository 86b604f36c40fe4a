//! Determines the shapes of a model's tensors by running one image, and helps with names that do not exist.
use ort::session::SessionInputValue;
use ort::value::{TensorElementType, TensorRef};

use super::first_run::fixed_image;
use super::model_card::ModelCard;
use super::onnx_signature::{BFLOAT, DOUBLE, FLOAT32, HALF};
use super::provider;
use super::runtime::Runtime;
use crate::onnx::Found;
use crate::onnx::graph_editor::{GraphEdit, GraphEditor};
use crate::onnx::proto::ValueInfo;
use strsim::levenshtein;

/// How many names of each kind a message shows.
const SHOWN: usize = 5;

/// Shape and type of a tensor for one image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ProbedShapes {
    pub(super) shape: Vec<usize>,
    /// Its `TensorProto.DataType`.
    pub(super) element: i32,
}

/// Refuses names that no tensor of the graph has, and suggests others.
pub(super) fn known(runtime: &Runtime, model: &GraphEditor, card: &ModelCard, tensors: &[String]) -> Found<()> {
    let known = model.graph().tensors();
    match tensors.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(unknown(runtime, model, card, name)),
        None => Ok(()),
    }
}

/// Returns all values of the tensor `output` of the model in `bytes` for one image.
pub(super) fn values(runtime: &Runtime, bytes: &[u8], card: &ModelCard, output: &str) -> Found<Vec<f32>> {
    let failed = |e: ort::Error| e.to_string();
    let mut session = provider::plain(runtime, bytes).map_err(failed)?;
    let ([height, width], image) = (card.size.dims(), fixed_image(card.size));
    let input = TensorRef::from_array_view(([1, 3, height, width], &*image)).map_err(failed)?;
    let found = session.run([SessionInputValue::from(input)]).map_err(failed)?;
    let tensor = found.get(output).ok_or("no such output")?;
    if let Ok((_, values)) = tensor.try_extract_tensor::<half::f16>() {
        return Ok(values.iter().map(|value| value.to_f32()).collect());
    }
    Ok(tensor.try_extract_tensor::<f32>().map_err(failed)?.1.to_vec())
}

/// Shapes and types of `tensors` of the graph for one image of the card's size, in the same order.
pub(super) fn run(
    runtime: &Runtime,
    model: &GraphEditor,
    card: &ModelCard,
    tensors: &[String],
) -> Found<Vec<ProbedShapes>> {
    // Without a type: ONNX Runtime infers it from the nodes.
    let mut outputs: Vec<ValueInfo> = Vec::new();
    for name in tensors {
        if !outputs.iter().any(|output| output.name == *name) {
            outputs.push(ValueInfo { name: name.clone(), r#type: None });
        }
    }
    let bytes = model.apply(&GraphEdit { outputs, prune: true, ..GraphEdit::default() })?;
    let failed = |e: ort::Error| {
        format!("it cannot be run for an image of {}: ONNX Runtime {}: {e}", card.size, runtime.version)
    };
    let mut session = provider::plain(runtime, &bytes).map_err(failed)?;
    drop(bytes);
    let ([height, width], image) = (card.size.dims(), fixed_image(card.size));
    let input = TensorRef::from_array_view(([1, 3, height, width], &*image)).map_err(failed)?;
    let found = session.run([SessionInputValue::from(input)]).map_err(failed)?;
    let seen = |name: &String| {
        let tensor = found.get(name).ok_or_else(|| format!("tensor {name} is not computed for an image"))?;
        let kind = tensor.dtype();
        let element = match kind.tensor_type() {
            Some(TensorElementType::Float32) => FLOAT32,
            Some(TensorElementType::Float16) => HALF,
            Some(TensorElementType::Float64) => DOUBLE,
            Some(TensorElementType::Bfloat16) => BFLOAT,
            _ => {
                return Err(format!(
                    "tensor {name} cannot be a latent: floats are needed, it is {kind} (classes and numbers of them are no latent)"
                ));
            }
        };
        let shape = kind.tensor_shape().map(|shape| shape.iter().map(|n| *n as usize).collect());
        Ok(ProbedShapes { shape: shape.unwrap_or_default(), element })
    };
    tensors.iter().map(seen).collect()
}

/// The message when the graph has no tensor of this name: the most similar names, and some worth trying.
fn unknown(runtime: &Runtime, model: &GraphEditor, card: &ModelCard, name: &str) -> String {
    let graph = model.graph();
    let last = name.rsplit('/').next().unwrap_or(name);
    let mut near = graph.tensors();
    near.sort_by_cached_key(|known| (!known.contains(last), levenshtein(known, name)));
    near.truncate(SHOWN);
    let maps = ["Conv", "Clip", "Relu", "Add", "Mul", "Gelu", "LayerNormalization"];
    let outputs = graph.node.iter().rev().filter(|node| maps.contains(&node.op_type.as_str()));
    let last: Vec<String> = outputs.filter_map(|node| node.output.first()).take(SHOWN).cloned().collect();
    let last = match run(runtime, model, card, &last) {
        Ok(seen) => last.iter().zip(seen).map(|(name, seen)| format!("{name} {:?}", seen.shape)).collect(),
        Err(_) => last,
    };
    format!(
        "it has no tensor {name:?}. Names like it:\n    {}\n  Its last maps:\n    {}",
        near.join("\n    "),
        last.join("\n    ")
    )
}
