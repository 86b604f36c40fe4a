//! Merges the encoder and the head into one ONNX file.
//!
//! The encoder's bytes are copied unchanged and the nodes and weights of the head are appended to its graph, so unknown
//! parts of the encoder are preserved. The head uses only operators of opset 9 whose form has not changed since. `fp16`
//! converts the encoder in a merged file to 16-bit floats.
mod batch;
mod grid;
mod fp16;
mod head;
#[cfg(test)]
mod tests;

use crate::config::Size;
use crate::error::{Error, Result};
use crate::head::{Grid, Head};
use crate::onnx::Found;
use crate::onnx::graph_builder::GraphBuilder;
use crate::onnx::graph_editor::{GraphEdit, GraphEditor, any_rows, sized, tensor_of};
use crate::onnx::proto::{self, Dimension, GraphView, ValueInfo};

pub use batch::{batch_of, fixed_targets, free};
pub use fp16::{Fp16Conversion, halve, heavy, names_of};

/// Name of the merged model's output: `[n, d]`, unit rows.
pub const OUTPUT: &str = "embedding";
/// Name of the optional second output: `[n, h, w, d]`, unit cells.
pub const CELLS: &str = "cells";

/// Batch size of the merged model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// Any number of images.
    Dynamic,
    /// Always this many images.
    Fixed(usize),
}

/// The input of the merged model: `[n, 3, height, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Name of the input in the encoder.
    pub name: &'a str,
    /// Size in pixels.
    pub size: Size,
    /// The batch size `n`.
    pub batch: Batch,
}

/// The parts of a merged file.
#[derive(Debug, Clone, Copy)]
pub struct MergeOptions<'a> {
    /// Bytes of the encoder's ONNX file.
    pub model: &'a [u8],
    /// New declaration of the input; `None` keeps the existing one.
    pub input: Option<Input<'a>>,
    /// Output of the encoder that is the latent: `[n, d]`, or `[n, h w d]` for a grid.
    pub latent: &'a str,
    /// Shape of the latent if it is a grid.
    pub grid: Option<Grid>,
    /// The head. A head on vectors gets the pooled grid.
    pub head: &'a Head,
    /// Whether to add the output [`CELLS`], which needs a grid.
    pub cells: bool,
    /// Entries for `metadata_props`.
    pub meta: &'a [(String, String)],
}

impl MergeOptions<'_> {
    /// The model with the head after its latent. Outputs: [`OUTPUT`], `[n, head dim]`, and [`CELLS`] if requested.
    /// Nodes that they do not need are removed.
    ///
    /// Normalization is `x / max(|x|, smallest positive f32)`, as at run time; the sums run in f32.
    /// # Errors
    /// The bytes are not ONNX, or the model is too old, keeps weights in other files, or lacks the output; or the
    /// output is not `[n, d]` in f32 with the head's `d`.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        self.merged().map_err(|why| Error::runtime(format!("cannot merge encoder and head: {why}")))
    }

    fn merged(&self) -> Found<Vec<u8>> {
        let model = GraphEditor::read(self.model)?;
        let head = self.head;
        let dim_in = self.grid.map_or(head.dim_in(), Grid::numbers);
        let declared = rows_of_latent(model.graph(), self.latent, dim_in)?;
        let (input, rows) = match self.input {
            None => (None, declared),
            Some(input) => (Some(input.declared()), input.rows()),
        };
        // If the encoder uses one of our output names for its own tensor, that tensor is renamed.
        let prefix = model.free_prefix();
        let names = model.graph().names();
        let taken: Vec<&str> = [OUTPUT, CELLS].into_iter().filter(|name| names.contains(name)).collect();
        if let Some(name) = taken.iter().find(|name| model.graph().input.iter().any(|input| input.name == **name)) {
            return Err(format!("the encoder has an input named {name:?}, which is the name of a merged output"));
        }
        let renamed: Vec<String> = taken.iter().map(|name| format!("{prefix}encoder_{name}")).collect();
        let rename: Vec<(&str, &str)> = taken.iter().copied().zip(renamed.iter().map(String::as_str)).collect();
        let latent = rename.iter().find(|(from, _)| *from == self.latent).map_or(self.latent, |(_, to)| to);

        let mut graph = GraphBuilder::new(&prefix);
        let mut outputs = vec![tensor_of(OUTPUT, rows.clone(), &[head.dim_out()])];
        if self.cells {
            let grid = self.grid.ok_or("the latents are vectors, there are no cells")?;
            grid::cells(&mut graph, head, grid, latent);
            graph.call_last(CELLS);
            outputs.push(tensor_of(CELLS, rows, &[grid.rows, grid.columns, head.dim_out()]));
        }
        match self.grid {
            Some(shape) => grid::build(&mut graph, head, shape, latent),
            None => head::build(&mut graph, head, latent),
        }
        let (nodes, weights) = graph.finish(OUTPUT);
        model.apply(&GraphEdit {
            nodes,
            weights,
            outputs,
            input,
            rename,
            prune: true,
            meta: self.meta,
            ..GraphEdit::default()
        })
    }
}

impl Input<'_> {
    fn rows(&self) -> Dimension {
        match self.batch {
            Batch::Dynamic => any_rows(),
            Batch::Fixed(n) => sized(n),
        }
    }

    fn declared(&self) -> ValueInfo {
        let [height, width] = self.size.dims();
        tensor_of(self.name, self.rows(), &[3, height, width])
    }
}

/// The first dimension of the latent, after checking that the model declares it as `[n, dim]` in f32, as far as it
/// says.
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
