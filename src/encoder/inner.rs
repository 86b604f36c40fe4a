//! Tensors within a model: their shapes, found by running one image, and help for names that are not there.
use ort::session::SessionInputValue;
use ort::value::TensorRef;

use super::card::Card;
use super::first::fixed_image;
use super::provider;
use super::runtime::Runtime;
use crate::config::load::distance;
use crate::onnx::Found;
use crate::onnx::proto::ValueInfo;
use crate::onnx::surgery::{Change, Surgery};

/// Names that a message shows, of each sort.
const SHOWN: usize = 5;

/// The shapes that `tensors` of the graph have for one image of the card's size, in the same order.
pub(super) fn shapes(runtime: &Runtime, model: &Surgery, card: &Card, tensors: &[String]) -> Found<Vec<Vec<usize>>> {
    let known = model.graph().tensors();
    if let Some(name) = tensors.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(unknown(runtime, model, card, name));
    }
    run(runtime, model, card, tensors)
}

fn run(runtime: &Runtime, model: &Surgery, card: &Card, tensors: &[String]) -> Found<Vec<Vec<usize>>> {
    // Without a type: ONNX Runtime knows it from the nodes.
    let mut outputs: Vec<ValueInfo> = Vec::new();
    for name in tensors {
        if !outputs.iter().any(|output| output.name == *name) {
            outputs.push(ValueInfo { name: name.clone(), r#type: None });
        }
    }
    let bytes = model.apply(&Change { outputs, prune: true, ..Change::default() })?;
    let failed =
        |e: ort::Error| format!("its inner tensors cannot be looked at: ONNX Runtime {}: {e}", runtime.version);
    let mut session = provider::plain(runtime, &bytes).map_err(failed)?;
    drop(bytes);
    let (side, image) = (card.size as usize, fixed_image(card.size));
    let input = TensorRef::from_array_view(([1, 3, side, side], &*image)).map_err(failed)?;
    let found = session.run([SessionInputValue::from(input)]).map_err(failed)?;
    let shape = |name: &String| {
        let tensor = found.get(name).ok_or_else(|| format!("tensor {name} is not computed for an image"))?;
        let (shape, _) = tensor
            .try_extract_tensor::<f32>()
            .map_err(|e| format!("tensor {name} cannot be a latent, float32 is needed: {e}"))?;
        Ok(shape.iter().map(|n| *n as usize).collect())
    };
    tensors.iter().map(shape).collect()
}

/// What to say when the graph has no tensor of this name: the nearest names, and some that are worth a try.
fn unknown(runtime: &Runtime, model: &Surgery, card: &Card, name: &str) -> String {
    let graph = model.graph();
    let last = name.rsplit('/').next().unwrap_or(name);
    let mut near = graph.tensors();
    near.sort_by_cached_key(|known| (!known.contains(last), distance(known, name)));
    near.truncate(SHOWN);
    let maps = ["Conv", "Clip", "Relu", "Add", "Mul", "Gelu", "LayerNormalization"];
    let outputs = graph.node.iter().rev().filter(|node| maps.contains(&node.op_type.as_str()));
    let last: Vec<String> = outputs.filter_map(|node| node.output.first()).take(SHOWN).cloned().collect();
    let last = match run(runtime, model, card, &last) {
        Ok(shapes) => last.iter().zip(shapes).map(|(name, shape)| format!("{name} {shape:?}")).collect(),
        Err(_) => last,
    };
    format!(
        "it has no tensor {name:?}. Names like it:\n    {}\n  Its last maps:\n    {}",
        near.join("\n    "),
        last.join("\n    ")
    )
}
