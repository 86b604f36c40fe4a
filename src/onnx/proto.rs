//! The few messages of `onnx.proto` (ONNX, `onnx/onnx.proto`, ir_version 4 and later) that are written, and views of
//! those that are checked. `prost` skips the fields that are not declared here, so large weights are not copied.
use std::collections::BTreeSet;

use prost::Message;

/// `ModelProto.ir_version`
pub(crate) const MODEL_IR_VERSION: u32 = 1;
/// `ModelProto.graph`
pub(crate) const MODEL_GRAPH: u32 = 7;
/// `ModelProto.metadata_props`
pub(crate) const MODEL_METADATA: u32 = 14;
/// `GraphProto.node`
pub(crate) const GRAPH_NODE: u32 = 1;
/// `GraphProto.initializer`
pub(crate) const GRAPH_INITIALIZER: u32 = 5;
/// `GraphProto.input`
pub(crate) const GRAPH_INPUT: u32 = 11;
/// `GraphProto.output`
pub(crate) const GRAPH_OUTPUT: u32 = 12;
/// `GraphProto.value_info`
pub(crate) const GRAPH_VALUE_INFO: u32 = 13;
/// `NodeProto.input`
pub(crate) const NODE_INPUT: u32 = 1;
/// `NodeProto.output`
pub(crate) const NODE_OUTPUT: u32 = 2;
/// `TensorProto.DataType.FLOAT`
pub(crate) const FLOAT: i32 = 1;
/// `TensorProto.DataType.INT64`
pub(crate) const INT64: i32 = 7;
/// `TensorProto.DataType.FLOAT16`
pub(crate) const FLOAT16: i32 = 10;
/// `AttributeProto.AttributeType.INT`
pub(crate) const ATTRIBUTE_INT: i32 = 2;
/// `AttributeProto.AttributeType.INTS`
pub(crate) const ATTRIBUTE_INTS: i32 = 7;
/// `TensorProto.DataLocation.EXTERNAL`
const EXTERNAL: i32 = 1;

/// `NodeProto`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<Attribute>,
}

/// `AttributeProto` with one integer or a list of them.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attribute {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    // Optional, so that a zero is written too.
    #[prost(int64, optional, tag = "3")]
    pub(crate) i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(crate) ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub(crate) r#type: i32,
}

/// `TensorProto`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) raw_data: Vec<u8>,
}

/// `ValueInfoProto`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) r#type: Option<Type>,
}

/// `TypeProto`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor_type: Option<TensorType>,
}

/// `TypeProto.Tensor`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShape>,
}

/// `TensorShapeProto`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`: at most one of the two is set.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(crate) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(crate) dim_param: Option<String>,
}

/// `StringStringEntryProto`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StringEntry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// `OperatorSetIdProto`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Opset {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

/// The checked fields of a `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelView {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<GraphView>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<Opset>,
    #[prost(message, repeated, tag = "25")]
    pub(crate) functions: Vec<FunctionView>,
}

/// The checked fields of a `FunctionProto`: operators that the model defines itself.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FunctionView {
    #[prost(message, repeated, tag = "7")]
    pub(crate) node: Vec<NodeView>,
}

/// The checked fields of a `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphView {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<NodeView>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<TensorView>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "15")]
    pub(crate) sparse_initializer: Vec<SparseView>,
}

/// The checked fields of a `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeView {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<AttributeView>,
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
}

/// The checked fields of an `AttributeProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeView {
    #[prost(message, optional, tag = "5")]
    pub(crate) t: Option<TensorView>,
    #[prost(message, optional, tag = "6")]
    pub(crate) g: Option<GraphView>,
    #[prost(message, repeated, tag = "10")]
    pub(crate) tensors: Vec<TensorView>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) graphs: Vec<GraphView>,
    #[prost(message, optional, tag = "22")]
    pub(crate) sparse_tensor: Option<SparseView>,
    #[prost(message, repeated, tag = "23")]
    pub(crate) sparse_tensors: Vec<SparseView>,
}

/// The checked fields of a `TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorView {
    #[prost(int64, repeated, tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external_data: Vec<StringEntry>,
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

/// The checked fields of a `SparseTensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SparseView {
    #[prost(message, optional, tag = "1")]
    pub(crate) values: Option<TensorView>,
    #[prost(message, optional, tag = "2")]
    pub(crate) indices: Option<TensorView>,
}

impl NodeView {
    /// Adds the node's inputs and what its subgraphs use from the graph around them (and names local to them, which is
    /// harmless).
    fn gather_uses<'a>(&'a self, used: &mut BTreeSet<&'a str>) {
        used.extend(self.input.iter().map(String::as_str));
        for graph in self.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
            graph.node.iter().for_each(|node| node.gather_uses(used));
            used.extend(graph.output.iter().map(|output| output.name.as_str()));
        }
    }
}

impl GraphView {
    /// All names of tensors and nodes, including those in subgraphs.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.gather_names(&mut names);
        names
    }

    /// Tensors that nodes of the graph itself compute, in topological order.
    pub(crate) fn tensors(&self) -> Vec<&str> {
        let outputs = self.node.iter().flat_map(|node| &node.output);
        outputs.map(String::as_str).filter(|name| !name.is_empty()).collect()
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

    /// The nodes, by position, that the tensors `wanted` need, and every tensor that those nodes use.
    pub(crate) fn needed<'a>(&'a self, wanted: impl Iterator<Item = &'a str>) -> (Vec<bool>, BTreeSet<&'a str>) {
        let mut used: BTreeSet<&str> = wanted.collect();
        let mut keep = vec![false; self.node.len()];
        // One round is enough if the nodes are in topological order, as the standard requires; other files take more.
        loop {
            let before = used.len();
            for (keep, node) in keep.iter_mut().zip(&self.node).rev() {
                let wanted = node.output.iter().any(|name| !name.is_empty() && used.contains(name.as_str()));
                if wanted && !std::mem::replace(keep, true) {
                    node.gather_uses(&mut used);
                }
            }
            if used.len() == before {
                return (keep, used);
            }
        }
    }

    /// The subgraphs in the attributes of its nodes.
    pub(crate) fn subgraphs(&self) -> impl Iterator<Item = &GraphView> {
        let attributes = self.node.iter().flat_map(|node| &node.attribute);
        attributes.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
    }
}

impl ModelView {
    /// Files that hold tensor values: weights and constants, including those in subgraphs and functions.
    pub(crate) fn external(&self) -> BTreeSet<&str> {
        let mut files = BTreeSet::new();
        self.graph.iter().for_each(|graph| graph.gather_files(&mut files));
        self.functions.iter().flat_map(|function| &function.node).for_each(|node| node.gather_files(&mut files));
        files
    }
}

impl GraphView {
    fn gather_files<'a>(&'a self, files: &mut BTreeSet<&'a str>) {
        files.extend(self.initializer.iter().filter_map(TensorView::file));
        files.extend(self.sparse_initializer.iter().flat_map(SparseView::files));
        self.node.iter().for_each(|node| node.gather_files(files));
    }
}

impl NodeView {
    fn gather_files<'a>(&'a self, files: &mut BTreeSet<&'a str>) {
        for attribute in &self.attribute {
            files.extend(attribute.t.iter().chain(&attribute.tensors).filter_map(TensorView::file));
            let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
            files.extend(sparse.flat_map(SparseView::files));
            attribute.g.iter().chain(&attribute.graphs).for_each(|graph| graph.gather_files(files));
        }
    }
}

impl TensorView {
    /// The external file that holds the values, if any; empty if the model does not name it.
    fn file(&self) -> Option<&str> {
        let location = || self.external_data.iter().find(|entry| entry.key == "location");
        (self.data_location == EXTERNAL).then(|| location().map_or("", |entry| &entry.value))
    }
}

impl SparseView {
    fn files(&self) -> impl Iterator<Item = &str> {
        self.values.iter().chain(&self.indices).filter_map(TensorView::file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away(file: &str) -> TensorView {
        let entry = StringEntry { key: "location".into(), value: file.into() };
        TensorView { external_data: vec![entry], data_location: EXTERNAL, ..TensorView::default() }
    }

    fn sparse(values: &str, indices: &str) -> SparseView {
        SparseView { values: Some(away(values)), indices: Some(away(indices)) }
    }

    #[test]
    fn values_in_other_files_are_found_wherever_tensors_are() {
        let all = AttributeView {
            t: Some(away("t")),
            tensors: vec![away("tensors")],
            sparse_tensor: Some(sparse("sparse", "sparse indices")),
            sparse_tensors: vec![sparse("sparse list", "indices list")],
            ..AttributeView::default()
        };
        let node = |attribute| NodeView { attribute: vec![attribute], ..NodeView::default() };
        let within = GraphView { initializer: vec![away("branch")], node: vec![node(all)], ..GraphView::default() };
        let loops = GraphView { initializer: vec![away("body")], ..GraphView::default() };
        let nested = AttributeView { g: Some(within), graphs: vec![loops], ..AttributeView::default() };
        let graph = GraphView {
            initializer: vec![TensorView::default(), away("weights")],
            sparse_initializer: vec![sparse("initializer", "initializer indices")],
            node: vec![node(nested)],
            ..GraphView::default()
        };
        let constant = AttributeView { t: Some(away("function")), ..AttributeView::default() };
        let functions = vec![FunctionView { node: vec![node(constant)] }];
        let model = ModelView { graph: Some(graph), functions, ..ModelView::default() };
        let files = model.external();
        let expected = [
            "body",
            "branch",
            "function",
            "indices list",
            "initializer",
            "initializer indices",
            "sparse",
            "sparse indices",
            "sparse list",
            "t",
            "tensors",
            "weights",
        ];
        assert_eq!(files.into_iter().collect::<Vec<_>>(), expected);
        // Checks the field numbers: what is written can be read back.
        let again = ModelView::decode(model.encode_to_vec().as_slice());
        assert_eq!(again.as_ref().map(|model| model.external().len()), Ok(expected.len()));
    }
}
