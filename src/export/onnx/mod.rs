//! Encoder and head in one ONNX file.
//!
//! The encoder's bytes are copied as they are; nodes and weights of the head are appended to its graph, so nothing of
//! the encoder that we do not know gets lost. Only operators of opset 9 and later in their unchanged form are used.
mod graph;
mod proto;
#[cfg(test)]
mod tests;
mod wire;

use prost::Message;

use crate::error::{Error, Result};
use crate::head::Head;
use proto::{Dimension, ModelView, StringEntry, TensorShape, TensorType, Type, ValueInfo};

/// A part of the work, or why it cannot be done.
type Found<T> = std::result::Result<T, String>;

/// Name of the merged model's one output: `[n, d]`, unit rows.
pub const OUTPUT: &str = "embedding";

/// Least opset: `Erf` is of 9.
const MIN_OPSET: i64 = 9;

/// Least version of the format: weights need not be inputs from 4 on.
const MIN_IR_VERSION: i64 = 4;

/// Protocol buffers end at 2 GiB.
const MAX_BYTES: usize = i32::MAX as usize;

/// `model` (the bytes of an ONNX file) with `head` after its output `card_output` (the latent, `[n, d]`): the only
/// output is [`OUTPUT`], `[n, head dim]`. `meta` are entries for `metadata_props`.
///
/// Unit length is `x / max(|x|, least positive f32)`, as at run time; the sums run in f32.
/// # Errors
/// What is not ONNX, too old, has weights in other files, has no such output, or one that is no `[n, d]` of f32 with
/// the head's `d`.
pub fn merge(model: &[u8], card_output: &str, head: &Head, meta: &[(String, String)]) -> Result<Vec<u8>> {
    merged(model, card_output, head, meta).map_err(|why| Error::work(format!("cannot merge encoder and head: {why}")))
}

fn merged(model: &[u8], card_output: &str, head: &Head, meta: &[(String, String)]) -> Found<Vec<u8>> {
    let view = ModelView::decode(model).map_err(|error| format!("the encoder's file is not ONNX: {error}"))?;
    let view_of_graph = check(&view)?;
    let (dim_in, dim_out) = dims(head);
    let rows = rows_of_latent(view_of_graph, card_output, dim_in)?;
    let names = view_of_graph.names();
    let prefix = free_prefix(&names);

    // An encoder that calls a tensor of its own `embedding` gives that name up.
    let renamed = format!("{prefix}encoder_{OUTPUT}");
    let taken = names.contains(&OUTPUT);
    if taken && view_of_graph.input.iter().any(|input| input.name == OUTPUT) {
        return Err(format!("the encoder has an input named {OUTPUT:?}, which is the name of the merged output"));
    }
    let latent = if taken && card_output == OUTPUT { renamed.as_str() } else { card_output };

    let mut graph = Vec::new();
    for field in wire::fields(wire::only_message(model, proto::MODEL_GRAPH)?) {
        let field = field?;
        if field.number == proto::GRAPH_OUTPUT {
            continue;
        }
        if taken {
            wire::rename(&field, wire::Kind::Graph, OUTPUT, &renamed, &mut graph)?;
        } else {
            graph.extend_from_slice(field.whole);
        }
    }
    let (nodes, weights) = graph::build(head, latent, &prefix, OUTPUT);
    nodes.iter().for_each(|node| wire::put_message(proto::GRAPH_NODE, node, &mut graph));
    weights.iter().for_each(|weight| wire::put_message(proto::GRAPH_INITIALIZER, weight, &mut graph));
    wire::put_message(proto::GRAPH_OUTPUT, &output(rows, dim_out), &mut graph);

    let mut out = Vec::with_capacity(model.len() + graph.len() / 2);
    for field in wire::fields(model) {
        let field = field?;
        match field.number {
            proto::MODEL_GRAPH => wire::put_bytes(proto::MODEL_GRAPH, &graph, &mut out),
            proto::MODEL_METADATA if replaced(field.payload, meta)? => {}
            _ => out.extend_from_slice(field.whole),
        }
    }
    for (key, value) in meta {
        let entry = StringEntry { key: key.clone(), value: value.clone() };
        wire::put_message(proto::MODEL_METADATA, &entry, &mut out);
    }
    if out.len() > MAX_BYTES {
        return Err(format!("the merged model would have {} bytes, the format ends at 2 GiB", out.len()));
    }
    Ok(out)
}

/// Dimensions of the latent and of the embedding.
fn dims(head: &Head) -> (usize, usize) {
    match head {
        Head::Identity { dim } => (*dim, *dim),
        Head::Learned(learned) => {
            let (d, k) = learned.slow.dim();
            (d, if learned.beside_frozen { d + k } else { k })
        }
    }
}

fn check(view: &ModelView) -> Found<&proto::GraphView> {
    let graph = view.graph.as_ref().filter(|graph| !graph.node.is_empty());
    let graph = graph.ok_or("the encoder's file is not ONNX: it has no graph with nodes")?;
    if view.ir_version < MIN_IR_VERSION {
        let found = view.ir_version;
        return Err(format!("the encoder has ir_version {found}, {MIN_IR_VERSION} or later is needed: convert it"));
    }
    let ours = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let opset = view.opset_import.iter().find(|opset| ours(&opset.domain)).map_or(0, |opset| opset.version);
    if opset < MIN_OPSET {
        return Err(format!("the encoder is of opset {opset}, {MIN_OPSET} or later is needed: convert it"));
    }
    if let Some(tensor) = graph.external() {
        return Err(format!("the encoder's weights ({tensor:?}) lie in other files: save it as one file first"));
    }
    Ok(graph)
}

/// The first dimension of the latent, after checking that it is `[n, dim]` of f32 as far as the model says.
fn rows_of_latent(graph: &proto::GraphView, name: &str, dim: usize) -> Found<Dimension> {
    let Some(info) = graph.output.iter().find(|output| output.name == name) else {
        let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        return Err(format!("the encoder has no output {name:?}, its outputs are: {}", names.join(", ")));
    };
    let free = Dimension { dim_value: None, dim_param: Some("n".into()) };
    let Some(tensor) = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else { return Ok(free) };
    if tensor.elem_type != proto::FLOAT {
        return Err(format!("output {name:?} of the encoder has element type {}, 1 (f32) is needed", tensor.elem_type));
    }
    let Some(shape) = &tensor.shape else { return Ok(free) };
    let [rows, columns] = shape.dim.as_slice() else {
        return Err(format!("output {name:?} of the encoder has {} dimensions, [n, d] is needed", shape.dim.len()));
    };
    match columns.dim_value {
        Some(d) if d != dim as i64 => {
            Err(format!("output {name:?} of the encoder has {d} numbers a row, the head takes {dim}: other encoder?"))
        }
        _ if *rows == Dimension::default() => Ok(free),
        _ => Ok(rows.clone()),
    }
}

fn output(rows: Dimension, dim: usize) -> ValueInfo {
    let columns = Dimension { dim_value: Some(dim as i64), dim_param: None };
    let shape = TensorShape { dim: vec![rows, columns] };
    let tensor_type = TensorType { elem_type: proto::FLOAT, shape: Some(shape) };
    ValueInfo { name: OUTPUT.into(), r#type: Some(Type { tensor_type: Some(tensor_type) }) }
}

/// A beginning of names that no name of the model has.
fn free_prefix(names: &std::collections::BTreeSet<&str>) -> String {
    let taken = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    let mut prefix = "afterimage_".to_owned();
    let mut count = 1;
    while taken(&prefix) {
        count += 1;
        prefix = format!("afterimage{count}_");
    }
    prefix
}

/// Whether this entry of `metadata_props` has a key that `meta` sets anew.
fn replaced(entry: &[u8], meta: &[(String, String)]) -> Found<bool> {
    let entry = StringEntry::decode(entry).map_err(|error| error.to_string())?;
    Ok(meta.iter().any(|(key, _)| *key == entry.key))
}
