//! ONNX files taken apart and put together: nodes and weights are appended to a graph whose own bytes stay as they are,
//! so nothing of a model that we do not know gets lost.
//!
//! `wire` copies fields verbatim, `proto` declares the few messages that are written or checked, `build` makes nodes
//! (operators of opset 9 and later in their unchanged form), `surgery` puts them into a model.
pub(crate) mod graph_builder;
pub(crate) mod proto;
pub(crate) mod graph_editor;
pub(crate) mod protobuf_wire;

/// A part of the work, or why it cannot be done.
pub(crate) type Found<T> = std::result::Result<T, String>;
