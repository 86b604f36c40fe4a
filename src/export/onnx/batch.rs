//! Encoders whose graph is built for one batch size: finds what fixes it, and frees the batch dimension where possible.
use std::collections::BTreeMap;

use prost::Message;

use super::Batch;
use crate::error::{Error, Result};
use crate::onnx::graph_editor::GraphEditor;
use crate::onnx::proto::{self, GraphView, INT64, Tensor, TensorView};
use crate::onnx::{Found, protobuf_wire};

/// Maximum number of dimensions in the target of a reshape.
const DIMENSIONS: i64 = 16;

/// The batch size that the input `name` of a model declares.
/// # Errors
/// The bytes are not ONNX.
pub fn batch_of(model: &[u8], name: &str) -> Result<Batch> {
    let model = GraphEditor::read(model).map_err(Error::runtime)?;
    let input = model.graph().input.iter().find(|input| input.name == name);
    let shape = input.and_then(|info| info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref());
    let first = shape.and_then(|shape| shape.dim.first()?.dim_value);
    Ok(first.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0).map_or(Batch::Dynamic, Batch::Fixed))
}

/// Makes reshapes to a constant `[n, ..]` keep the actual batch size. This is correct only if the batch is the first
/// dimension of the reshaped tensor, which only running the model can show.
/// # Errors
/// The bytes are not ONNX.
pub fn free(model: &[u8], n: usize) -> Result<Vec<u8>> {
    freed(model, n).map_err(Error::runtime)
}

fn freed(bytes: &[u8], n: usize) -> Found<Vec<u8>> {
    let model = GraphEditor::read(bytes)?;
    let prefix = model.free_prefix();
    let mut targets = targets(bytes, model.graph(), n)?;
    targets.retain(|place, _| model.graph().node[*place].op_type == "Reshape");
    if targets.is_empty() {
        return Ok(bytes.to_vec());
    }
    let (mut graph, mut place) = (Vec::new(), 0);
    for field in protobuf_wire::fields(protobuf_wire::only_message(bytes, proto::MODEL_GRAPH)?) {
        let field = field?;
        let target = targets.get(&place).filter(|_| field.number == proto::GRAPH_NODE);
        place += usize::from(field.number == proto::GRAPH_NODE);
        let Some(target) = target else {
            graph.extend_from_slice(field.whole);
            continue;
        };
        let name = format!("{prefix}target_{place}");
        let constant = &model.graph().node[place - 1].input[1];
        let node =
            protobuf_wire::node_with(field.payload, |input| (input == constant).then(|| name.clone()), |_| None)?;
        protobuf_wire::put_bytes(proto::GRAPH_NODE, &node, &mut graph);
        // A zero copies the size of the input's dimension.
        let sizes = std::iter::once(&0).chain(&target[1..]);
        let raw_data = sizes.flat_map(|size: &i64| size.to_le_bytes()).collect();
        let tensor = Tensor { dims: vec![target.len() as i64], data_type: INT64, name, raw_data };
        protobuf_wire::put_message(proto::GRAPH_INITIALIZER, &tensor, &mut graph);
    }
    protobuf_wire::with_message(bytes, proto::MODEL_GRAPH, &graph)
}

/// Describes, for people, the constants in the graph that fix the batch size `n`. Empty if there are none.
pub fn fixed_targets(model: &[u8], n: usize) -> Vec<String> {
    let Ok(read) = GraphEditor::read(model) else { return Vec::new() };
    let nodes = &read.graph().node;
    let targets = targets(model, read.graph(), n).unwrap_or_default();
    let told =
        |(place, sizes): (usize, Vec<i64>)| format!("{} {:?} to {sizes:?}", nodes[place].op_type, nodes[place].name);
    targets.into_iter().map(told).take(3).collect()
}

/// Nodes that reshape a tensor to a constant size `[n, ..]`, by position, with the size.
fn targets(bytes: &[u8], graph: &GraphView, n: usize) -> Found<BTreeMap<usize, Vec<i64>>> {
    let constants = constants(bytes)?;
    let nodes = graph.node.iter().enumerate();
    let shaping = nodes.filter(|(_, node)| ["Reshape", "Expand"].contains(&node.op_type.as_str()));
    let target = |(place, node): (usize, &proto::NodeView)| {
        let sizes = constants.get(node.input.get(1)?)?;
        (sizes.len() > 1 && sizes.first() == Some(&(n as i64))).then(|| (place, sizes.clone()))
    };
    Ok(shaping.filter_map(target).collect())
}

/// Short integer lists in the graph, by name: weights, and outputs of `Constant`.
fn constants(bytes: &[u8]) -> Found<BTreeMap<String, Vec<i64>>> {
    let mut all = BTreeMap::new();
    let wrong = |error: prost::DecodeError| error.to_string();
    for field in protobuf_wire::fields(protobuf_wire::only_message(bytes, proto::MODEL_GRAPH)?) {
        let field = field?;
        let is_short = |t: &TensorView| t.data_type == INT64 && t.dims.len() == 1 && t.dims[0] <= DIMENSIONS;
        match field.number {
            proto::GRAPH_INITIALIZER if is_short(&TensorView::decode(field.payload).map_err(wrong)?) => {
                let list = List::decode(field.payload).map_err(wrong)?;
                all.insert(list.name.clone(), list.values());
            }
            proto::GRAPH_NODE => {
                let node = proto::NodeView::decode(field.payload).map_err(wrong)?;
                let tensor = node.attribute.first().and_then(|attribute| attribute.t.as_ref());
                if node.op_type == "Constant" && tensor.is_some_and(is_short) {
                    let node = Constant::decode(field.payload).map_err(wrong)?;
                    let list = node.attribute.into_iter().find_map(|value| value.t);
                    all.extend(node.output.into_iter().zip(list.map(|list| list.values())));
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// `TensorProto` with 64-bit integers.
#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

impl List {
    fn values(&self) -> Vec<i64> {
        let (raw, _) = self.raw_data.as_chunks::<8>();
        raw.iter().map(|bytes| i64::from_le_bytes(*bytes)).chain(self.int64_data.iter().copied()).collect()
    }
}

/// `NodeProto` of a `Constant`.
#[derive(Clone, PartialEq, Message)]
struct Constant {
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Value>,
}

/// `AttributeProto` with a tensor.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(message, optional, tag = "5")]
    t: Option<List>,
}
