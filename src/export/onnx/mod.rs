//! Encoder and head in one ONNX file.
//!
//! The encoder's bytes are copied as they are; nodes and weights of the head are appended to its graph, so nothing of
//! the encoder that we do not know gets lost. Only operators of opset 9 and later in their unchanged form are used.
mod grid;
mod head;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::head::{Grid, Head};
use crate::onnx::Found;
use crate::onnx::build::Builder;
use crate::onnx::proto::{self, Dimension, GraphView};
use crate::onnx::surgery::{Change, Surgery, any_rows, rows_of};

/// Name of the merged model's one output: `[n, d]`, unit rows.
pub const OUTPUT: &str = "embedding";

/// `model` (the bytes of an ONNX file) with `head` after its output `card_output` (the latent, `[n, d]`): the only
/// output is [`OUTPUT`], `[n, head dim]`. Where the latent is a `grid`, `[n, h w d]`, a head over vectors gets it pooled.
/// `meta` are entries for `metadata_props`.
///
/// Unit length is `x / max(|x|, least positive f32)`, as at run time; the sums run in f32.
/// # Errors
/// What is not ONNX, too old, has weights in other files, has no such output, or one that is no `[n, d]` of f32 with
/// the head's `d`.
pub fn merge(
    model: &[u8],
    card_output: &str,
    grid: Option<Grid>,
    head: &Head,
    meta: &[(String, String)],
) -> Result<Vec<u8>> {
    merged(model, card_output, grid, head, meta)
        .map_err(|why| Error::work(format!("cannot merge encoder and head: {why}")))
}

fn merged(
    model: &[u8],
    card_output: &str,
    grid: Option<Grid>,
    head: &Head,
    meta: &[(String, String)],
) -> Found<Vec<u8>> {
    let model = Surgery::read(model)?;
    let (dim_in, dim_out) = (grid.map_or(head.dim_in(), Grid::numbers), head.dim_out());
    let rows = rows_of_latent(model.graph(), card_output, dim_in)?;
    let prefix = model.free_prefix();

    // An encoder that calls a tensor of its own `embedding` gives that name up.
    let renamed = format!("{prefix}encoder_{OUTPUT}");
    let taken = model.graph().names().contains(&OUTPUT);
    if taken && model.graph().input.iter().any(|input| input.name == OUTPUT) {
        return Err(format!("the encoder has an input named {OUTPUT:?}, which is the name of the merged output"));
    }
    let latent = if taken && card_output == OUTPUT { renamed.as_str() } else { card_output };

    let mut graph = Builder::new(&prefix);
    match grid {
        Some(shape) => grid::build(&mut graph, head, shape, latent),
        None => head::build(&mut graph, head, latent),
    }
    let (nodes, weights) = graph.finish(OUTPUT);
    let outputs = vec![rows_of(OUTPUT, rows, dim_out)];
    let rename = taken.then_some((OUTPUT, renamed.as_str()));
    model.apply(&Change { nodes, weights, outputs, rename, prune: false, meta })
}

/// The first dimension of the latent, after checking that it is `[n, dim]` of f32 as far as the model says.
fn rows_of_latent(graph: &GraphView, name: &str, dim: usize) -> Found<Dimension> {
    let Some(info) = graph.output.iter().find(|output| output.name == name) else {
        let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        return Err(format!("the encoder has no output {name:?}, its outputs are: {}", names.join(", ")));
    };
    let free = any_rows();
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
