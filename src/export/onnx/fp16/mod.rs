//! Converts the encoder in a merged file to 16-bit floats (binary16).
//!
//! Convolutions and matrix products run in f16. Elementwise operators and data movement keep the type of their input.
//! Everything else stays in f32 with casts around it: means, variances, powers, roots, softmax, and the appended nodes
//! (pooling, normalization, the head). Large weights of the head are stored in f16 and used in f32. What does not
//! depend on the image (shapes, resize factors) is unchanged. The first convolutions may stay in f32 too, because their
//! rounding errors grow with every later layer.
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use half::f16;
use prost::Message;

use self::plan::Fp16Plan;
use crate::error::{Error, Result};
use crate::onnx::graph_editor::GraphEditor;
use crate::onnx::proto::{
    self, ATTRIBUTE_INT, Attribute, FLOAT, FLOAT16, GraphView, Node, NodeView, Tensor, ValueInfo,
};
use crate::onnx::{Found, protobuf_wire};

/// Operators of models in 8-bit integers.
const QUANTISED: [&str; 5] = ["QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"];

/// A merged file, and what the conversion must know about it.
#[derive(Debug, Clone, Copy)]
pub struct Fp16Conversion<'a> {
    /// Bytes of the merged file.
    pub model: &'a [u8],
    /// Name of its input.
    pub input: &'a str,
    /// Names in the encoder's own graph ([`names_of`]); nodes with other names were appended.
    pub encoder: &'a BTreeSet<String>,
    /// Computed tensors that are in f32.
    pub floats: &'a BTreeSet<String>,
    /// Whether the input and outputs become f16 too.
    pub io: bool,
    /// Number of convolutions and matrix products, from the start, that stay in f32.
    pub first: usize,
}

/// How many convolutions and matrix products of the encoder run in f16 if none is excluded.
/// # Errors
/// The encoder cannot be converted: it uses 8-bit integers, or has subgraphs inside nodes.
pub fn heavy(of: &Fp16Conversion) -> Result<usize> {
    let model = GraphEditor::read(of.model).map_err(Error::runtime)?;
    suits(model.graph()).map_err(refused)?;
    Ok(Fp16Plan::new(&Fp16Conversion { first: 0, ..*of }, model.graph()).heavy)
}

/// Every name in the graph of a model.
/// # Errors
/// The bytes are not ONNX.
pub fn names_of(model: &[u8]) -> Result<BTreeSet<String>> {
    let model = GraphEditor::read(model).map_err(Error::runtime)?;
    Ok(model.graph().names().into_iter().map(str::to_owned).collect())
}

/// The file with the encoder in f16.
/// # Errors
/// A weight does not fit f16 (beyond 65504), or any error of [`heavy`].
pub fn halve(of: &Fp16Conversion) -> Result<Vec<u8>> {
    halved(of).map_err(refused)
}

fn refused(why: String) -> Error {
    Error::check_failed(format!("the encoder cannot be exported in f16: {why}"))
}

fn halved(of: &Fp16Conversion) -> Found<Vec<u8>> {
    let model = GraphEditor::read(of.model)?;
    let graph = model.graph();
    suits(graph)?;
    let plan = Fp16Plan::new(of, graph);
    let mut writer = Writer { plan: &plan, prefix: model.free_prefix(), casts: BTreeMap::new(), out: Vec::new() };
    let outputs: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let mut place = 0;
    for field in protobuf_wire::fields(protobuf_wire::only_message(of.model, proto::MODEL_GRAPH)?) {
        let field = field?;
        match field.number {
            proto::GRAPH_NODE => {
                writer.node(
                    &graph.node[place],
                    plan.nodes[place],
                    field.payload,
                    if of.io { &outputs } else { &[] },
                )?;
                place += 1;
            }
            proto::GRAPH_INITIALIZER => writer.weight(field.whole, field.payload)?,
            proto::GRAPH_VALUE_INFO => {}
            proto::GRAPH_INPUT | proto::GRAPH_OUTPUT if of.io => writer.port(field.number, field.payload)?,
            _ => writer.out.extend_from_slice(field.whole),
        }
    }
    if of.io {
        outputs.iter().for_each(|name| writer.put_cast(&wide(&writer.prefix, name), true, name));
    }
    protobuf_wire::with_message(of.model, proto::MODEL_GRAPH, &writer.out)
}

/// Rejects models that cannot be converted to f16.
fn suits(graph: &GraphView) -> Found<()> {
    if graph.subgraphs().next().is_some() {
        return Err(
            "it has nodes with graphs in them (If, Loop, Scan); simplify it, or leave f16 to your engine".into()
        );
    }
    match graph.node.iter().find(|node| QUANTISED.contains(&&*node.op_type)) {
        Some(node) => {
            Err(format!("it is in 8-bit integers already ({}); take --dtype f32, which keeps them", node.op_type))
        }
        None => Ok(()),
    }
}

/// Name of a model output before its cast.
fn wide(prefix: &str, output: &str) -> String {
    format!("{prefix}{output}_f32")
}

/// Writes the fields of the graph.
struct Writer<'a> {
    plan: &'a Fp16Plan<'a>,
    prefix: String,
    /// Names of cast tensors and their target type.
    casts: BTreeMap<(String, bool), String>,
    out: Vec<u8>,
}

impl Writer<'_> {
    /// Writes a node after the casts that it needs. Outputs in `wider` get another name ([`wide`]).
    fn node(&mut self, node: &NodeView, half: bool, payload: &[u8], wider: &[&str]) -> Found<()> {
        let mut cast = BTreeMap::new();
        for name in node.input.iter().map(String::as_str).filter(|name| self.plan.floats.contains(name)) {
            if self.plan.halves.contains(name) != half {
                cast.insert(name, self.cast(name, half));
            }
        }
        let output = |name: &str| wider.contains(&name).then(|| wide(&self.prefix, name));
        let inner = protobuf_wire::node_with(payload, |name| cast.get(name).cloned(), output)?;
        protobuf_wire::put_bytes(proto::GRAPH_NODE, &inner, &mut self.out);
        Ok(())
    }

    /// Name of `tensor` in the other type. Each cast is written only once.
    fn cast(&mut self, tensor: &str, half: bool) -> String {
        let key = (tensor.to_owned(), half);
        if let Some(name) = self.casts.get(&key) {
            return name.clone();
        }
        let name = format!("{}cast_{}", self.prefix, self.casts.len());
        self.put_cast(tensor, half, &name);
        self.casts.insert(key, name.clone());
        name
    }

    fn put_cast(&mut self, from: &str, half: bool, to: &str) {
        let kind = i64::from(if half { FLOAT16 } else { FLOAT });
        let attribute =
            vec![Attribute { name: "to".into(), i: Some(kind), r#type: ATTRIBUTE_INT, ..Attribute::default() }];
        let node = Node {
            input: vec![from.to_owned()],
            output: vec![to.to_owned()],
            name: format!("{}node_{to}", self.prefix),
            op_type: "Cast".into(),
            attribute,
        };
        protobuf_wire::put_message(proto::GRAPH_NODE, &node, &mut self.out);
    }

    /// Writes an initializer, in f16 if the plan says so.
    fn weight(&mut self, whole: &[u8], payload: &[u8]) -> Found<()> {
        let view = proto::TensorView::decode(payload).map_err(|error| error.to_string())?;
        if view.data_type != FLOAT || !self.plan.halves.contains(view.name.as_str()) {
            self.out.extend_from_slice(whole);
            return Ok(());
        }
        let weight = Weight::decode(payload).map_err(|error| error.to_string())?;
        let mut raw = Vec::with_capacity(payload.len() / 2);
        for value in weight.values() {
            let small = f16::from_f32(value);
            if !small.is_finite() {
                let (name, most) = (&weight.name, f16::MAX);
                return Err(format!("its weight {name:?} holds {value:e}, and f16 ends at {most}; take --dtype f32"));
            }
            raw.extend_from_slice(&small.to_le_bytes());
        }
        let tensor = Tensor { dims: weight.dims, data_type: FLOAT16, name: weight.name, raw_data: raw };
        protobuf_wire::put_message(proto::GRAPH_INITIALIZER, &tensor, &mut self.out);
        Ok(())
    }

    /// Writes an input or output in f16.
    fn port(&mut self, number: u32, payload: &[u8]) -> Found<()> {
        let mut info = ValueInfo::decode(payload).map_err(|error| error.to_string())?;
        if let Some(tensor) = info.r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut()) {
            tensor.elem_type = FLOAT16;
        }
        protobuf_wire::put_message(number, &info, &mut self.out);
        Ok(())
    }
}

/// `TensorProto` with 32-bit floats.
#[derive(Clone, PartialEq, Message)]
struct Weight {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

impl Weight {
    fn values(&self) -> impl Iterator<Item = f32> {
        let raw = self.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        raw.chain(self.float_data.iter().copied())
    }
}
