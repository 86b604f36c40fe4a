//! Adds nodes to a model and replaces its outputs.
use std::collections::BTreeSet;

use prost::Message;

use super::proto::{
    self, Dimension, GraphView, ModelView, Node, StringEntry, Tensor, TensorShape, TensorType, Type, ValueInfo,
};
use super::{Found, protobuf_wire};

/// Minimum opset: `Erf` was added in 9.
const MIN_OPSET: i64 = 9;
/// Minimum IR version that is written: from 4 on, weights need not be inputs. An older model is also valid in this
/// version.
const MIN_IR_VERSION: i64 = 4;
/// A protocol buffer is limited to 2 GiB.
const MAX_BYTES: usize = i32::MAX as usize;

/// An ONNX model that can be extended.
pub(crate) struct GraphEditor<'a> {
    bytes: &'a [u8],
    graph: GraphView,
    ir_version: i64,
}

/// The changes to make to a model.
#[derive(Default)]
pub(crate) struct GraphEdit<'a> {
    pub(crate) nodes: Vec<Node>,
    /// Nodes that come before the model's own nodes.
    pub(crate) first: Vec<Node>,
    pub(crate) weights: Vec<Tensor>,
    /// The outputs that replace the model's own.
    pub(crate) outputs: Vec<ValueInfo>,
    /// Redeclares the input of this name. The model's shape information inside the graph may then be wrong, and is left
    /// out.
    pub(crate) input: Option<ValueInfo>,
    /// Tensors of the model to rename, with their new names.
    pub(crate) rename: Vec<(&'a str, &'a str)>,
    /// Inputs of the model to remove: nodes compute them now, or they are weights.
    pub(crate) given: Vec<&'a str>,
    /// Inputs to add before all others.
    pub(crate) more_inputs: Vec<ValueInfo>,
    /// Removes what the outputs do not need: ONNX Runtime would compute it anyway and ask for unused inputs.
    pub(crate) prune: bool,
    /// Entries of `metadata_props`; they replace entries with the same key.
    pub(crate) meta: &'a [(String, String)],
}

impl<'a> GraphEditor<'a> {
    /// Reads the bytes of an ONNX file. Rejects files that are not ONNX, are too old, or keep weights in other files.
    pub(crate) fn read(bytes: &'a [u8]) -> Found<Self> {
        let view = ModelView::decode(bytes).map_err(|error| format!("the encoder's file is not ONNX: {error}"))?;
        if let Some(file) = view.external().first() {
            return Err(format!("weights of the encoder lie in another file ({file:?}): save it as one file first"));
        }
        let graph = view.graph.filter(|graph| !graph.node.is_empty());
        let graph = graph.ok_or("the encoder's file is not ONNX: it has no graph with nodes")?;
        let ours = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        let opset = view.opset_import.iter().find(|opset| ours(&opset.domain)).map_or(0, |opset| opset.version);
        if opset < MIN_OPSET {
            return Err(format!("the encoder is of opset {opset}, {MIN_OPSET} or later is needed: convert it"));
        }
        Ok(Self { bytes, graph, ir_version: view.ir_version })
    }

    pub(crate) fn graph(&self) -> &GraphView {
        &self.graph
    }

    /// A prefix that no name in the model begins with.
    pub(crate) fn free_prefix(&self) -> String {
        free_prefix(&self.graph.names())
    }

    /// Nodes and weights that nothing needs after the change: field number and position.
    fn unneeded(&self, change: &GraphEdit) -> BTreeSet<(u32, usize)> {
        let inputs = change.nodes.iter().flat_map(|node| &node.input).map(String::as_str);
        let wanted = inputs.chain(change.outputs.iter().map(|output| output.name.as_str()));
        let (keep, used) = self.graph.needed(wanted);
        let nodes = keep.iter().enumerate().filter(|(_, keep)| !**keep).map(|(i, _)| (proto::GRAPH_NODE, i));
        // A weight that is also declared as an input is its default value: without it the caller would have to supply
        // the input.
        let defaults: BTreeSet<&str> = self.graph.initializer.iter().map(|weight| weight.name.as_str()).collect();
        let inputs: BTreeSet<&str> = self.graph.input.iter().map(|input| input.name.as_str()).collect();
        let unused = self.graph.input.iter().enumerate();
        let unused = unused.filter(|(_, input)| ![&used, &defaults].iter().any(|names| names.contains(&*input.name)));
        let unused: Vec<usize> = unused.map(|(i, _)| i).collect();
        let weights = self.graph.initializer.iter().enumerate();
        let weights = weights.filter(|(_, weight)| ![&used, &inputs].iter().any(|names| names.contains(&*weight.name)));
        let inputs = unused.into_iter().map(|i| (proto::GRAPH_INPUT, i));
        nodes.chain(weights.map(|(i, _)| (proto::GRAPH_INITIALIZER, i))).chain(inputs).collect()
    }

    /// The bytes of the edited model.
    pub(crate) fn apply(&self, change: &GraphEdit) -> Found<Vec<u8>> {
        let mut graph = Vec::new();
        let unneeded = if change.prune { self.unneeded(change) } else { BTreeSet::new() };
        let (mut nodes, mut weights, mut inputs) = (0, 0, 0);
        change.more_inputs.iter().for_each(|input| protobuf_wire::put_message(proto::GRAPH_INPUT, input, &mut graph));
        change.first.iter().for_each(|node| protobuf_wire::put_message(proto::GRAPH_NODE, node, &mut graph));
        for field in protobuf_wire::fields(protobuf_wire::only_message(self.bytes, proto::MODEL_GRAPH)?) {
            let field = field?;
            let place = match field.number {
                proto::GRAPH_NODE => count(&mut nodes),
                proto::GRAPH_INITIALIZER => count(&mut weights),
                proto::GRAPH_INPUT => count(&mut inputs),
                _ => 0,
            };
            let anew = change.input.is_some() || !change.more_inputs.is_empty();
            let shapes = anew && field.number == proto::GRAPH_VALUE_INFO;
            if field.number == proto::GRAPH_OUTPUT || unneeded.contains(&(field.number, place)) || shapes {
                continue;
            }
            if field.number == proto::GRAPH_INPUT && is_one_of(field.payload, &change.given)? {
                continue;
            }
            match &change.input {
                Some(input) if field.number == proto::GRAPH_INPUT && is_of(field.payload, &input.name)? => {
                    protobuf_wire::put_message(proto::GRAPH_INPUT, input, &mut graph);
                }
                _ if change.rename.is_empty() => graph.extend_from_slice(field.whole),
                _ => protobuf_wire::rename(&field, protobuf_wire::WireType::Graph, &change.rename, &mut graph)?,
            }
        }
        change.nodes.iter().for_each(|node| protobuf_wire::put_message(proto::GRAPH_NODE, node, &mut graph));
        change
            .weights
            .iter()
            .for_each(|weight| protobuf_wire::put_message(proto::GRAPH_INITIALIZER, weight, &mut graph));
        change.outputs.iter().for_each(|output| protobuf_wire::put_message(proto::GRAPH_OUTPUT, output, &mut graph));

        let mut out = Vec::with_capacity(self.bytes.len() + graph.len() / 2);
        for field in protobuf_wire::fields(self.bytes) {
            let field = field?;
            match field.number {
                proto::MODEL_GRAPH => protobuf_wire::put_bytes(proto::MODEL_GRAPH, &graph, &mut out),
                proto::MODEL_IR_VERSION if self.ir_version < MIN_IR_VERSION => {
                    protobuf_wire::put_number(proto::MODEL_IR_VERSION, MIN_IR_VERSION as u64, &mut out);
                }
                proto::MODEL_METADATA if replaced(field.payload, change.meta)? => {}
                _ => out.extend_from_slice(field.whole),
            }
        }
        for (key, value) in change.meta {
            let entry = StringEntry { key: key.clone(), value: value.clone() };
            protobuf_wire::put_message(proto::MODEL_METADATA, &entry, &mut out);
        }
        if out.len() > MAX_BYTES {
            return Err(format!("the changed model would have {} bytes, the format ends at 2 GiB", out.len()));
        }
        Ok(out)
    }
}

/// Returns the position and increments it.
fn count(so_far: &mut usize) -> usize {
    *so_far += 1;
    *so_far - 1
}

/// Declares `name: [rows, ..dims]` of f32.
pub(crate) fn tensor_of(name: &str, rows: Dimension, dims: &[usize]) -> ValueInfo {
    let fixed = dims.iter().map(|n| sized(*n));
    let shape = TensorShape { dim: std::iter::once(rows).chain(fixed).collect() };
    let tensor_type = TensorType { elem_type: proto::FLOAT, shape: Some(shape) };
    ValueInfo { name: name.into(), r#type: Some(Type { tensor_type: Some(tensor_type) }) }
}

/// A dimension of fixed size `n`.
pub(crate) fn sized(n: usize) -> Dimension {
    Dimension { dim_value: Some(n as i64), dim_param: None }
}

/// A first dimension of any size.
pub(crate) fn any_rows() -> Dimension {
    Dimension { dim_value: None, dim_param: Some("n".into()) }
}

fn free_prefix(names: &BTreeSet<&str>) -> String {
    let taken = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    let mut prefix = "afterimage_".to_owned();
    let mut count = 1;
    while taken(&prefix) {
        count += 1;
        prefix = format!("afterimage{count}_");
    }
    prefix
}

/// True if this `ValueInfoProto` describes the tensor `name`.
fn is_of(info: &[u8], name: &str) -> Found<bool> {
    let info = ValueInfo::decode(info).map_err(|error| error.to_string())?;
    Ok(info.name == name)
}

/// True if this `ValueInfoProto` describes one of the tensors `names`.
fn is_one_of(info: &[u8], names: &[&str]) -> Found<bool> {
    let info = ValueInfo::decode(info).map_err(|error| error.to_string())?;
    Ok(names.contains(&info.name.as_str()))
}

/// True if `meta` replaces this entry of `metadata_props`.
fn replaced(entry: &[u8], meta: &[(String, String)]) -> Found<bool> {
    let entry = StringEntry::decode(entry).map_err(|error| error.to_string())?;
    Ok(meta.iter().any(|(key, _)| *key == entry.key))
}
