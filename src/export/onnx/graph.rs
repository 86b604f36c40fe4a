//! The head as ONNX nodes.
use ndarray::{Array1, Array2, ArrayView2};

use super::proto::{ATTRIBUTE_INT, FLOAT, IntAttribute, Node, Tensor};
use crate::head::{Head, Learned, Mlp};

/// Epsilon of the layer norm, see [`Mlp`].
const NORM_EPSILON: f32 = 1e-5;

/// Nodes in the order of computing, and their weights.
pub(super) fn build(head: &Head, latent: &str, prefix: &str, output: &str) -> (Vec<Node>, Vec<Tensor>) {
    let mut graph = Builder { prefix, nodes: Vec::new(), weights: Vec::new() };
    match head {
        Head::Identity { dim } => graph.unit(latent, *dim),
        Head::Learned(learned) => graph.learned(learned, latent),
    };
    if let Some(node) = graph.nodes.last_mut() {
        node.output = vec![output.to_owned()];
    }
    (graph.nodes, graph.weights)
}

struct Builder<'a> {
    prefix: &'a str,
    nodes: Vec<Node>,
    weights: Vec<Tensor>,
}

impl Builder<'_> {
    /// `s = unit(y + alpha mlp(y))`, `y = W' (f - mu)`, `f = unit(latent)`; `s` or `[f, s] / sqrt(2)`.
    fn learned(&mut self, head: &Learned, latent: &str) -> String {
        let (d, k) = head.slow.dim();
        let frozen = self.unit(latent, d);
        let mean = self.vector(&head.mean);
        let centred = self.node("Sub", &[&frozen, &mean]);
        let slow = self.matrix(head.slow.view());
        let mut y = self.node("MatMul", &[&centred, &slow]);
        if let Some(mlp) = &head.mlp {
            let residual = self.mlp(mlp, &y);
            let alpha = self.scalar(head.alpha);
            let scaled = self.node("Mul", &[&residual, &alpha]);
            y = self.node("Add", &[&y, &scaled]);
        }
        let unit = self.unit(&y, k);
        if !head.beside_frozen {
            return unit;
        }
        let both = self.node("Concat", &[&frozen, &unit]);
        let axis = IntAttribute { name: "axis".into(), i: Some(1), r#type: ATTRIBUTE_INT };
        if let Some(concat) = self.nodes.last_mut() {
            concat.attribute = vec![axis];
        }
        let half = self.scalar(std::f32::consts::FRAC_1_SQRT_2);
        self.node("Mul", &[&both, &half])
    }

    /// `x / max(|x|, least positive f32)`, row by row.
    fn unit(&mut self, x: &str, dim: usize) -> String {
        let squares = self.node("Mul", &[x, x]);
        // A sum as a product with ones: `ReduceSum` changed its form with opset 13, `ReduceL2` with 18.
        let ones = self.matrix(Array2::ones((dim, 1)).view());
        let sum = self.node("MatMul", &[&squares, &ones]);
        let norm = self.node("Sqrt", &[&sum]);
        let tiny = self.scalar(f32::MIN_POSITIVE);
        let safe = self.node("Max", &[&norm, &tiny]);
        self.node("Div", &[x, &safe])
    }

    /// `W2 gelu(layer_norm(W1 y + b1) gamma + beta) + b2`; `gelu(x) = 0.5 x (1 + erf(x / sqrt(2)))`.
    fn mlp(&mut self, mlp: &Mlp<f32>, y: &str) -> String {
        let hidden = self.linear(mlp.w1.view(), &mlp.b1, y);
        let share = self.matrix(Array2::from_elem((mlp.b1.len(), 1), 1.0 / mlp.b1.len() as f32).view());
        let mean = self.node("MatMul", &[&hidden, &share]);
        let centred = self.node("Sub", &[&hidden, &mean]);
        let squares = self.node("Mul", &[&centred, &centred]);
        let variance = self.node("MatMul", &[&squares, &share]);
        let epsilon = self.scalar(NORM_EPSILON);
        let safe = self.node("Add", &[&variance, &epsilon]);
        let deviation = self.node("Sqrt", &[&safe]);
        let normal = self.node("Div", &[&centred, &deviation]);
        let gamma = self.vector(&mlp.gamma);
        let scaled = self.node("Mul", &[&normal, &gamma]);
        let beta = self.vector(&mlp.beta);
        let x = self.node("Add", &[&scaled, &beta]);

        let root = self.scalar(std::f32::consts::SQRT_2);
        let argument = self.node("Div", &[&x, &root]);
        let erf = self.node("Erf", &[&argument]);
        let one = self.scalar(1.0);
        let factor = self.node("Add", &[&erf, &one]);
        let product = self.node("Mul", &[&x, &factor]);
        let half = self.scalar(0.5);
        let gelu = self.node("Mul", &[&product, &half]);
        self.linear(mlp.w2.view(), &mlp.b2, &gelu)
    }

    /// `x W' + b`, `W: [out, in]`, rows `x`.
    fn linear(&mut self, w: ArrayView2<f32>, b: &Array1<f32>, x: &str) -> String {
        let w = self.matrix(w.t());
        let product = self.node("MatMul", &[x, &w]);
        let b = self.vector(b);
        self.node("Add", &[&product, &b])
    }

    fn node(&mut self, op: &str, inputs: &[&str]) -> String {
        let name = format!("{}{}_{}", self.prefix, op.to_lowercase(), self.nodes.len());
        self.nodes.push(Node {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.into(),
            attribute: Vec::new(),
        });
        name
    }

    fn matrix(&mut self, values: ArrayView2<f32>) -> String {
        self.weight(&[values.nrows(), values.ncols()], values.iter())
    }

    fn vector(&mut self, values: &Array1<f32>) -> String {
        self.weight(&[values.len()], values.iter())
    }

    fn scalar(&mut self, value: f32) -> String {
        self.weight(&[], [value].iter())
    }

    /// `values` in row-major order.
    fn weight<'v>(&mut self, dims: &[usize], values: impl Iterator<Item = &'v f32>) -> String {
        let name = format!("{}weight_{}", self.prefix, self.weights.len());
        self.weights.push(Tensor {
            dims: dims.iter().map(|n| *n as i64).collect(),
            data_type: FLOAT,
            name: name.clone(),
            raw_data: values.flat_map(|value| value.to_le_bytes()).collect(),
        });
        name
    }
}
