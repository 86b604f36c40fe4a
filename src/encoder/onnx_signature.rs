//! Reads what an ONNX file declares (inputs, outputs and external files) without ONNX Runtime.
//!
//! Only the required messages and fields are declared (`onnx.proto`, field numbers in `tag`); the weights are
//! skipped.
use std::fmt;

use prost::Message;

use super::not_onnx;
use crate::error::{Error, Result};
use crate::onnx::proto::ModelView;

/// The `TensorProto.DataType` of 32-bit floats.
pub(super) const FLOAT32: i32 = 1;
/// The `TensorProto.DataType` of 8-bit pixels.
pub(super) const UINT8: i32 = 2;
/// The `TensorProto.DataType` of 16-bit floats.
pub(super) const HALF: i32 = 10;
/// The `TensorProto.DataType` of 64-bit floats.
pub(super) const DOUBLE: i32 = 11;
/// The `TensorProto.DataType` of bfloat16, 16-bit floats with the exponent range of 32-bit floats.
pub(super) const BFLOAT: i32 = 16;
/// The 16-bit float types.
const HALVES: [i32; 2] = [HALF, BFLOAT];
/// Operators of models in 8-bit integers.
const QUANTISED: [&str; 7] = [
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
];

#[derive(Clone, PartialEq, prost::Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NodeProto {
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TensorProto {
    #[prost(int32, tag = "2")]
    element: i32,
    #[prost(string, tag = "8")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<ShapeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<DimProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DimProto {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
    #[prost(string, tag = "2")]
    name: String,
}

/// One dimension of a tensor: fixed, or free (`None`) with a readable name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dim {
    pub(super) fixed: Option<i64>,
    name: String,
}

/// An input or an output.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorSpec {
    pub(super) name: String,
    /// `TensorProto.DataType`; `None` if it is not a tensor (a sequence or a map).
    pub(super) element: Option<i32>,
    /// The declared shape; `None` if none is declared.
    pub(super) shape: Option<Vec<Dim>>,
}

/// Inputs (without those that are weights), outputs, and the names of files that hold weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelSignature {
    pub(super) inputs: Vec<TensorSpec>,
    pub(super) outputs: Vec<TensorSpec>,
    pub(super) external: Vec<String>,
    /// Evidence that the model is not in 32-bit floats throughout: `52 quantised nodes`, `30 weights in 16-bit
    /// floats`.
    pub(super) reduced: Option<String>,
    /// The model has operators of 8-bit integers.
    pub(super) quantised: bool,
}

impl ModelSignature {
    /// Reads the bytes of an ONNX file; `what` names it in the error.
    pub(super) fn read(bytes: &[u8], what: &str) -> Result<Self> {
        let not_onnx = |why: String| {
            Error::runtime(match not_onnx::kind(bytes) {
                Some(found) => format!("{what} is not an ONNX model: {found}"),
                None => {
                    format!("{what} is not an ONNX model: {why}. Give the .onnx file itself, complete, in binary form")
                }
            })
        };
        let model = ModelProto::decode(bytes).map_err(|e| not_onnx(e.to_string()))?;
        let graph = model.graph.ok_or_else(|| not_onnx(format!("{} bytes without a graph", bytes.len())))?;
        if graph.output.is_empty() {
            return Err(not_onnx("its graph has no output".into()));
        }
        let weights: std::collections::BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let inputs = graph.input.iter().filter(|i| !weights.contains(i.name.as_str())).map(TensorSpec::new).collect();
        let view = ModelView::decode(bytes).map_err(|e| not_onnx(e.to_string()))?;
        let external = view.external().into_iter().map(str::to_owned).collect();
        let quantised = graph.node.iter().filter(|node| QUANTISED.contains(&node.op_type.as_str())).count();
        let halves = graph.initializer.iter().filter(|tensor| HALVES.contains(&tensor.element)).count();
        let reduced = match (quantised, halves) {
            (0, 0) => None,
            (0, n) => Some(format!("{n} weights in 16-bit floats")),
            (n, _) => Some(format!("{n} quantised nodes")),
        };
        Ok(Self {
            inputs,
            outputs: graph.output.iter().map(TensorSpec::new).collect(),
            external,
            reduced,
            quantised: quantised > 0,
        })
    }

    /// True if `input` declares a fixed batch size.
    pub(super) fn fixed_images(&self, input: &str) -> bool {
        let port = self.inputs.iter().find(|port| port.name == input);
        port.and_then(|port| port.shape.as_ref()?.first()).is_some_and(|dim| dim.fixed.is_some())
    }

    /// For example `inputs image: float32 [n, 3, h, w]; outputs latent: float32 [n, 32]`.
    pub(super) fn describe(&self) -> String {
        format!("inputs {}; outputs {}", list(&self.inputs), list(&self.outputs))
    }
}

fn list(ports: &[TensorSpec]) -> String {
    if ports.is_empty() {
        return "none".into();
    }
    ports.iter().map(TensorSpec::to_string).collect::<Vec<_>>().join(", ")
}

impl TensorSpec {
    fn new(value: &ValueInfoProto) -> Self {
        let tensor = value.kind.as_ref().and_then(|k| k.tensor.as_ref());
        let dims = |s: &ShapeProto| {
            s.dim.iter().map(|d| Dim { fixed: d.value.filter(|n| *n >= 0), name: d.name.clone() }).collect()
        };
        let shape = tensor.and_then(|t| t.shape.as_ref()).map(dims);
        Self { name: value.name.clone(), element: tensor.map(|t| t.element), shape }
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(element) = self.element else { return write!(f, "{}: not a tensor", self.name) };
        write!(f, "{}: {}", self.name, element_name(element))?;
        match &self.shape {
            None => write!(f, " of undeclared shape"),
            Some(dims) => {
                let dims: Vec<String> = dims
                    .iter()
                    .map(|d| match d.fixed {
                        Some(n) => n.to_string(),
                        None if d.name.is_empty() => "?".into(),
                        None => d.name.clone(),
                    })
                    .collect();
                write!(f, " [{}]", dims.join(", "))
            }
        }
    }
}

/// Floats of any width.
pub(super) fn is_float(element: i32) -> bool {
    [FLOAT32, HALF, DOUBLE, BFLOAT].contains(&element)
}

/// Numeric types: neither strings nor booleans.
pub(super) fn is_number(element: i32) -> bool {
    is_float(element) || (UINT8..=7).contains(&element) || [12, 13].contains(&element)
}

/// Names of `TensorProto.DataType`.
fn element_name(element: i32) -> &'static str {
    match element {
        FLOAT32 => "float32",
        UINT8 => "uint8",
        3 => "int8",
        4 => "uint16",
        5 => "int16",
        6 => "int32",
        7 => "int64",
        8 => "string",
        9 => "bool",
        HALF => "float16",
        DOUBLE => "float64",
        12 => "uint32",
        13 => "uint64",
        BFLOAT => "bfloat16",
        _ => "of another type",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn outline(name: &str) -> ModelSignature {
        let path = format!("{}/tests/data/{name}.onnx", env!("CARGO_MANIFEST_DIR"));
        ModelSignature::read(&std::fs::read(path).unwrap(), name).unwrap()
    }

    #[test]
    fn tells_inputs_and_outputs() {
        assert_eq!(
            outline("two_outputs").describe(),
            "inputs image: float32 [n, 3, h, w]; outputs grid: float32 [n, 4, gh, gw], latent: float32 [n, 4]"
        );
        assert_eq!(outline("fixed").describe(), "inputs image: float32 [1, 3, 32, 32]; outputs latent: float32 [1, 4]");
        assert!(outline("undeclared").describe().ends_with("latent: float32 of undeclared shape"));
        assert!(outline("half").describe().contains("image: float16 "));
        assert_eq!(outline("external").external, ["external.bin"]);
        assert!(outline("tiny").external.is_empty() && outline("tiny").reduced.is_none());
        assert!(outline("tiny_int8").reduced.is_some_and(|what| what.ends_with(" quantised nodes")));
    }

    #[test]
    fn refuses_what_is_not_onnx() {
        for bytes in [&b"definitely no model"[..], b"", &[0xff; 64], b"\x7fELF\x02\x01\x01", b"{\"a\": 1}"] {
            let text = ModelSignature::read(bytes, "models/x.onnx").unwrap_err().to_string();
            assert!(text.starts_with("models/x.onnx is not an ONNX model: "), "{text}");
        }
        let whole = std::fs::read(format!("{}/tests/data/tiny.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for cut in [1, 100, whole.len() / 2, whole.len() - 1] {
            assert!(ModelSignature::read(&whole[..cut], "cut").is_err(), "cut at {cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            if let Ok(outline) = ModelSignature::read(&bytes, "random") {
                proptest::prop_assert!(!outline.outputs.is_empty() && !outline.describe().is_empty());
            }
        }
    }
}
