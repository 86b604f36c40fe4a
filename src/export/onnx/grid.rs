//! Heads on grid latents as ONNX nodes.
use ndarray::{Array2, Axis, s};

use super::head::{linear, projected};
use crate::head::{Context, Grid, GridHead, Head};
use crate::onnx::graph_builder::GraphBuilder;

/// Appends the nodes of `head` on the tensor `latent`, `[n, h w d]`.
pub(super) fn build(graph: &mut GraphBuilder, head: &Head, grid: Grid, latent: &str) {
    match head {
        Head::Grid(over) => embedding(graph, over, latent),
        Head::Pooled { head, .. } => build(graph, head, grid, latent),
        Head::Identity { .. } | Head::Learned(_) => {
            let cells = cells_of(graph, grid, latent);
            let pooled = mean(graph, grid, &cells);
            let flat = graph.flatten(&pooled);
            super::head::build(graph, head, &flat);
        }
    }
}

/// Appends the nodes that embed all cells of the tensor `latent`, `[n, h w d]` to `[n, h, w, k]`, as
/// [`Head::embed_cells`] does.
pub(super) fn cells(graph: &mut GraphBuilder, head: &Head, grid: Grid, latent: &str) {
    let unit = match head {
        Head::Pooled { head, .. } => return cells(graph, head, grid, latent),
        Head::Grid(over) => {
            let z = values(graph, over, latent);
            graph.unit(&z, over.learned.slow.ncols())
        }
        Head::Identity { .. } | Head::Learned(_) => {
            let rows = graph.reshape(latent, &[-1, grid.dim as i64]);
            super::head::embedding(graph, head, &rows)
        }
    };
    graph.reshape(&unit, &[-1, grid.rows as i64, grid.columns as i64, head.dim_out() as i64]);
}

fn embedding(graph: &mut GraphBuilder, head: &GridHead, latent: &str) {
    let z = values(graph, head, latent);
    let pooled = mean(graph, head.grid, &z);
    let flat = graph.flatten(&pooled);
    graph.unit(&flat, head.learned.slow.ncols());
}

/// The head's output for every cell before normalization: `[n, h w, k]`.
fn values(graph: &mut GraphBuilder, head: &GridHead, latent: &str) -> String {
    let grid = head.grid;
    let cells = cells_of(graph, grid, latent);
    // Divide all cells of an image by the length of their mean.
    let pooled = mean(graph, grid, &cells);
    let squares = graph.node("Mul", &[&pooled, &pooled]);
    let ones = graph.matrix(Array2::ones((grid.dim, 1)).view());
    let sum = graph.node("MatMul", &[&squares, &ones]);
    let length = graph.node("Sqrt", &[&sum]);
    let tiny = graph.scalar(f32::MIN_POSITIVE);
    let safe = graph.node("Max", &[&length, &tiny]);
    let cells = graph.node("Div", &[&cells, &safe]);
    let z = projected(graph, &head.learned, &cells);
    let Some(network) = &head.context else { return z };
    let unit = graph.unit(&z, network.channels());
    let length = graph.scalar((network.channels() as f32).sqrt());
    let equal = graph.node("Mul", &[&unit, &length]);
    context(graph, grid, network, equal)
}

/// `[n, h w d]` to `[n, h w, d]`.
fn cells_of(graph: &mut GraphBuilder, grid: Grid, latent: &str) -> String {
    graph.reshape(latent, &[-1, grid.cells() as i64, grid.dim as i64])
}

/// `[n, h w, d]` to `[n, 1, d]`.
fn mean(graph: &mut GraphBuilder, grid: Grid, cells: &str) -> String {
    let shares = graph.matrix(Array2::from_elem((1, grid.cells()), 1.0 / grid.cells() as f32).view());
    graph.node("MatMul", &[&shares, cells])
}

/// The blocks of the context network on `x: [n, h w, c]`. A neighbour is fetched by multiplying with a 0/1 matrix `[h
/// w, h w]`.
fn context(graph: &mut GraphBuilder, grid: Grid, network: &Context<f32>, mut x: String) -> String {
    let (m, cells, w) = (network.width(), grid.cells(), grid.columns);
    let fetch = |up: usize, right: isize| {
        Array2::from_shape_fn((cells, cells), |(to, from)| {
            let column = (to % w).checked_add_signed(right).filter(|c| *c < w);
            let row = (to / w).checked_sub(up);
            f32::from(u8::from(row.zip(column).is_some_and(|(r, c)| r * w + c == from)))
        })
    };
    let across = [fetch(0, -1), fetch(0, 0), fetch(0, 1)].map(|x| graph.matrix(x.view()));
    let down = [fetch(1, 0), fetch(0, 0)].map(|x| graph.matrix(x.view()));
    for n in 0..network.blocks() {
        let first = linear(graph, network.w_in.index_axis(Axis(0), n), &network.b_in.row(n).to_owned(), &x);
        let mut act = graph.node("Relu", &[&first]);
        for (taps, weights, bias) in
            [(&across[..], &network.w_across, &network.b_across), (&down[..], &network.w_down, &network.b_down)]
        {
            let mut sum = graph.vector(&bias.row(n).to_owned());
            for (tap, matrix) in taps.iter().enumerate() {
                let there = graph.node("MatMul", &[matrix, &act]);
                let weight = graph.matrix(weights.slice(s![n, .., tap * m..(tap + 1) * m]).t());
                let part = graph.node("MatMul", &[&there, &weight]);
                sum = graph.node("Add", &[&part, &sum]);
            }
            act = sum;
        }
        let act = graph.node("Relu", &[&act]);
        let out = linear(graph, network.w_out.index_axis(Axis(0), n), &network.b_out.row(n).to_owned(), &act);
        x = graph.node("Add", &[&x, &out]);
    }
    x
}
