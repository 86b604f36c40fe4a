//! Reads and edits ONNX files: appends nodes and weights to a graph and leaves its own bytes as they are, so that
//! unknown parts of a model survive.
//!
//! `protobuf_wire` copies fields verbatim, `proto` declares the few messages that are written or checked,
//! `graph_builder` makes nodes (operators whose definition is unchanged since opset 9), and `graph_editor` inserts them
//! into a model.
pub(crate) mod graph_builder;
pub(crate) mod proto;
pub(crate) mod graph_editor;
pub(crate) mod protobuf_wire;

/// A result whose error says why a model cannot be read or edited.
pub(crate) type Found<T> = std::result::Result<T, String>;
