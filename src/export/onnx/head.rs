//! The head as ONNX nodes.
use ndarray::{Array1, Array2, ArrayView2};

use crate::head::{EmbeddingKind, Head, HeadParams, Mlp};
use crate::onnx::graph_builder::GraphBuilder;

/// Epsilon of the layer norm, see [`Mlp`].
const NORM_EPSILON: f32 = 1e-5;

/// Appends the nodes of `head` on the tensor `latent`, one vector per image.
pub(super) fn build(graph: &mut GraphBuilder, head: &Head, latent: &str) {
    match head {
        Head::Identity { .. } | Head::Learned(_) => drop(embedding(graph, head, latent)),
        Head::Pooled { grid, .. } => super::grid::build(graph, head, *grid, latent),
        Head::Grid(over) => super::grid::build(graph, head, over.grid, latent),
    }
}

/// The embeddings of rows `latent: [.., d]` for a head on vectors.
pub(super) fn embedding(graph: &mut GraphBuilder, head: &Head, latent: &str) -> String {
    match head {
        Head::Learned(head) => learned(graph, head, latent),
        other => graph.unit(latent, other.dim_in()),
    }
}

/// `s = unit(y + alpha mlp(y))`, `y = W' (f - mu)`, `f = unit(latent)`. The embedding is made from these according to
/// its kind.
fn learned(graph: &mut GraphBuilder, head: &HeadParams, latent: &str) -> String {
    let (d, k) = head.slow.dim();
    let frozen = graph.unit(latent, d);
    let slow = slow(graph, head, &frozen);
    let y = with_residual(graph, head, &slow);
    let unit = graph.unit(&y, k);
    match head.form {
        EmbeddingKind::BesideFrozen => {}
        EmbeddingKind::Mean if head.mlp.is_some() => {
            let slow = graph.unit(&slow, k);
            let sum = graph.node("Add", &[&slow, &unit]);
            return graph.unit(&sum, k);
        }
        EmbeddingKind::Mean | EmbeddingKind::Single => return unit,
    }
    let both = graph.concat(&[&frozen, &unit]);
    let half = graph.scalar(std::f32::consts::FRAC_1_SQRT_2);
    graph.node("Mul", &[&both, &half])
}

/// `y + alpha mlp(y)`, `y = W' (f - mu)`; `f: [.., d]` to `[.., k]`.
pub(super) fn projected(graph: &mut GraphBuilder, head: &HeadParams, f: &str) -> String {
    let slow = slow(graph, head, f);
    with_residual(graph, head, &slow)
}

/// `y = W' (f - mu)`.
fn slow(graph: &mut GraphBuilder, head: &HeadParams, f: &str) -> String {
    let mean = graph.vector(&head.mean);
    let centred = graph.node("Sub", &[f, &mean]);
    let slow = graph.matrix(head.slow.view());
    graph.node("MatMul", &[&centred, &slow])
}

/// `y + alpha mlp(y)`.
fn with_residual(graph: &mut GraphBuilder, head: &HeadParams, y: &str) -> String {
    let Some(mlp) = &head.mlp else { return y.to_owned() };
    let residual = residual(graph, mlp, y);
    let alpha = graph.scalar(head.alpha);
    let scaled = graph.node("Mul", &[&residual, &alpha]);
    graph.node("Add", &[y, &scaled])
}

/// `W2 gelu(layer_norm(W1 y + b1) gamma + beta) + b2`; `gelu(x) = 0.5 x (1 + erf(x / sqrt(2)))`.
fn residual(graph: &mut GraphBuilder, mlp: &Mlp<f32>, y: &str) -> String {
    let hidden = linear(graph, mlp.w1.view(), &mlp.b1, y);
    let share = graph.matrix(Array2::from_elem((mlp.b1.len(), 1), 1.0 / mlp.b1.len() as f32).view());
    let mean = graph.node("MatMul", &[&hidden, &share]);
    let centred = graph.node("Sub", &[&hidden, &mean]);
    let squares = graph.node("Mul", &[&centred, &centred]);
    let variance = graph.node("MatMul", &[&squares, &share]);
    let epsilon = graph.scalar(NORM_EPSILON);
    let safe = graph.node("Add", &[&variance, &epsilon]);
    let deviation = graph.node("Sqrt", &[&safe]);
    let normal = graph.node("Div", &[&centred, &deviation]);
    let gamma = graph.vector(&mlp.gamma);
    let scaled = graph.node("Mul", &[&normal, &gamma]);
    let beta = graph.vector(&mlp.beta);
    let x = graph.node("Add", &[&scaled, &beta]);

    let root = graph.scalar(std::f32::consts::SQRT_2);
    let argument = graph.node("Div", &[&x, &root]);
    let erf = graph.node("Erf", &[&argument]);
    let one = graph.scalar(1.0);
    let factor = graph.node("Add", &[&erf, &one]);
    let product = graph.node("Mul", &[&x, &factor]);
    let half = graph.scalar(0.5);
    let gelu = graph.node("Mul", &[&product, &half]);
    linear(graph, mlp.w2.view(), &mlp.b2, &gelu)
}

/// `x W' + b`, `W: [out, in]`, for rows `x`.
pub(super) fn linear(graph: &mut GraphBuilder, w: ArrayView2<f32>, b: &Array1<f32>, x: &str) -> String {
    let w = graph.matrix(w.t());
    let product = graph.node("MatMul", &[x, &w]);
    let b = graph.vector(b);
    graph.node("Add", &[&product, &b])
}
