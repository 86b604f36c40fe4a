//! The few messages of `onnx.proto` (ONNX, `onnx/onnx.proto`, ir_version 4 and later) that are written, and views of
//! those that are checked: what is not named here is passed over by `prost`, large weights without a copy.
use std::collections::BTreeSet;

use prost::Message;

/// `ModelProto.graph`
pub(super) const MODEL_GRAPH: u32 = 7;
/// `ModelProto.metadata_props`
pub(super) const MODEL_METADATA: u32 = 14;
/// `GraphProto.node`
pub(super) const GRAPH_NODE: u32 = 1;
/// `GraphProto.initializer`
pub(super) const GRAPH_INITIALIZER: u32 = 5;
/// `GraphProto.output`
pub(super) const GRAPH_OUTPUT: u32 = 12;
/// `TensorProto.DataType.FLOAT`
pub(super) const FLOAT: i32 = 1;
/// `AttributeProto.AttributeType.INT`
pub(super) const ATTRIBUTE_INT: i32 = 2;
/// `TensorProto.DataLocation.EXTERNAL`
const EXTERNAL: i32 = 1;

/// `NodeProto`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<IntAttribute>,
}

/// `AttributeProto` with a whole number.
#[derive(Clone, PartialEq, Message)]
pub(super) struct IntAttribute {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    // Optional, so that a zero is written too.
    #[prost(int64, optional, tag = "3")]
    pub(super) i: Option<i64>,
    #[prost(int32, tag = "20")]
    pub(super) r#type: i32,
}

/// `TensorProto`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub(super) raw_data: Vec<u8>,
}

/// `ValueInfoProto`
#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) r#type: Option<Type>,
}

/// `TypeProto`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor_type: Option<TensorType>,
}

/// `TypeProto.Tensor`
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(super) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<TensorShape>,
}

/// `TensorShapeProto`
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`: one of both, or none.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(super) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) dim_param: Option<String>,
}

/// `StringStringEntryProto`
#[derive(Clone, PartialEq, Message)]
pub(super) struct StringEntry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `OperatorSetIdProto`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Opset {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

/// What is checked of a `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelView {
    #[prost(int64, tag = "1")]
    pub(super) ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<GraphView>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<Opset>,
}

/// What is checked of a `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GraphView {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<NodeView>,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<TensorView>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "15")]
    pub(super) sparse_initializer: Vec<SparseView>,
}

/// What is checked of a `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeView {
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<AttributeView>,
}

/// What is checked of an `AttributeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AttributeView {
    #[prost(message, optional, tag = "5")]
    pub(super) t: Option<TensorView>,
    #[prost(message, optional, tag = "6")]
    pub(super) g: Option<GraphView>,
    #[prost(message, repeated, tag = "10")]
    pub(super) tensors: Vec<TensorView>,
    #[prost(message, repeated, tag = "11")]
    pub(super) graphs: Vec<GraphView>,
}

/// What is checked of a `TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorView {
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(int32, tag = "14")]
    pub(super) data_location: i32,
}

/// What is checked of a `SparseTensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SparseView {
    #[prost(message, optional, tag = "1")]
    pub(super) values: Option<TensorView>,
    #[prost(message, optional, tag = "2")]
    pub(super) indices: Option<TensorView>,
}

impl GraphView {
    /// Every name of a tensor or node, also of graphs within nodes.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.gather_names(&mut names);
        names
    }

    fn gather_names<'a>(&'a self, names: &mut BTreeSet<&'a str>) {
        let infos = self.input.iter().chain(&self.output).map(|info| &info.name);
        names.extend(infos.chain(self.initializer.iter().map(|tensor| &tensor.name)).map(String::as_str));
        names.extend(self.sparse_initializer.iter().filter_map(|sparse| Some(sparse.values.as_ref()?.name.as_str())));
        for node in &self.node {
            names.extend(node.output.iter().chain([&node.name]).map(String::as_str));
        }
        self.subgraphs().for_each(|graph| graph.gather_names(names));
    }

    fn subgraphs(&self) -> impl Iterator<Item = &GraphView> {
        let attributes = self.node.iter().flat_map(|node| &node.attribute);
        attributes.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
    }

    /// The name of a tensor whose values lie in another file.
    pub(super) fn external(&self) -> Option<&str> {
        let attributes = self.node.iter().flat_map(|node| &node.attribute);
        let sparse = self.sparse_initializer.iter().flat_map(|sparse| sparse.values.iter().chain(&sparse.indices));
        let constants = attributes.flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors));
        let mut all = self.initializer.iter().chain(sparse).chain(constants);
        let here = all.find(|tensor| tensor.data_location == EXTERNAL).map(|tensor| tensor.name.as_str());
        here.or_else(|| self.subgraphs().find_map(GraphView::external))
    }
}
