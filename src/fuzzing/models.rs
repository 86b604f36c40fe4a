//! Fuzz targets for the files of an encoder: the ONNX file, its model card, and the runtime library.
use std::sync::OnceLock;

use super::{file, text};
use crate::config::Size;
use crate::encoder::fuzzing;
use crate::export::onnx::{Batch, Input, MergeOptions, batch_of, fixed_targets, free};
use crate::head::{Grid, Head};
use crate::onnx::graph_editor::{GraphEdit, GraphEditor, any_rows, sized, tensor_of};
use crate::onnx::{proto, protobuf_wire};

pub(super) fn onnx(bytes: &[u8]) -> bool {
    let outlined = fuzzing::outline(bytes);
    // The checks before a merge; a model without such an input is an error.
    let _ = (batch_of(bytes, "latent"), fixed_targets(bytes, 4), free(bytes, 4));
    let Ok(surgery) = GraphEditor::read(bytes) else { return false };
    surgery.free_prefix();
    surgery.graph().tensors();
    let names: Vec<String> = surgery.graph().names().iter().map(|name| (*name).to_owned()).collect();
    let middle = names.get(names.len() / 2).cloned().unwrap_or_default();
    let last = names.last().cloned().unwrap_or_default();
    let meta = [("key".to_owned(), "value".to_owned())];
    for prune in [false, true] {
        let change = GraphEdit {
            outputs: vec![tensor_of(&middle, any_rows(), &[3])],
            prune,
            meta: &meta,
            rename: vec![(&middle, "first"), (&last, "second")],
            input: Some(tensor_of("image", sized(4), &[3, 32, 32])),
            ..GraphEdit::default()
        };
        if let Ok(changed) = surgery.apply(&change) {
            // Renaming to an existing name makes the model invalid.
            let _ = GraphEditor::read(&changed);
        }
    }
    if let Ok(graph) = protobuf_wire::only_message(bytes, proto::MODEL_GRAPH) {
        protobuf_wire::with_message(bytes, proto::MODEL_GRAPH, graph).unwrap();
    }
    outlined
}

pub(super) fn merge_onnx(bytes: &[u8]) -> bool {
    static HEAD: OnceLock<Head> = OnceLock::new();
    let head = HEAD.get_or_init(|| super::seeds::head(32));
    let input = || Some(Input { name: "image", size: Size::square(32), batch: Batch::Dynamic });
    let of_vector =
        MergeOptions { model: bytes, input: input(), latent: "latent", grid: None, head, cells: false, meta: &[] };
    let grid = Some(Grid { rows: 8, columns: 8, dim: 32 });
    let of_grid = MergeOptions { model: bytes, input: input(), latent: "grid8", grid, head, cells: true, meta: &[] };
    [of_vector, of_grid].iter().filter(|merge| merge.bytes().is_ok()).count() > 0
}

pub(super) fn card(bytes: &[u8]) -> bool {
    fuzzing::card(&text(bytes))
}

pub(super) fn proposed_card(bytes: &[u8]) -> bool {
    fuzzing::proposed_card(&file("model.onnx", bytes));
    true
}

pub(super) fn library(bytes: &[u8]) -> bool {
    fuzzing::library(&file("library.so", bytes))
}
