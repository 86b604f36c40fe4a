//! Builds nodes and weights to append to a graph.
use ndarray::{Array1, Array2, ArrayView2};

use super::proto::{ATTRIBUTE_INT, ATTRIBUTE_INTS, Attribute, FLOAT, INT64, Node, Tensor};

/// Collects nodes in topological order; their names begin with a prefix that the model does not use.
pub(crate) struct GraphBuilder {
    prefix: String,
    nodes: Vec<Node>,
    weights: Vec<Tensor>,
}

impl GraphBuilder {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), nodes: Vec::new(), weights: Vec::new() }
    }

    /// Returns all nodes and weights; the output of the last node is named `output`.
    pub(crate) fn finish(mut self, output: &str) -> (Vec<Node>, Vec<Tensor>) {
        self.call_last(output);
        (self.nodes, self.weights)
    }

    /// Names the output of the last node `output`.
    pub(crate) fn call_last(&mut self, output: &str) {
        if let Some(node) = self.nodes.last_mut() {
            node.output = vec![output.to_owned()];
        }
    }

    /// Adds a node without attributes; returns the name of its output.
    pub(crate) fn node(&mut self, op: &str, inputs: &[&str]) -> String {
        self.with(op, inputs, Vec::new())
    }

    fn with(&mut self, op: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        let name = format!("{}{}_{}", self.prefix, op.to_lowercase(), self.nodes.len());
        self.nodes.push(Node {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.into(),
            attribute,
        });
        name
    }

    /// `[n, ...]` to `[n, d]`.
    pub(crate) fn flatten(&mut self, x: &str) -> String {
        self.with("Flatten", &[x], vec![axis(1)])
    }

    /// Concatenates along the last axis: `[n, a]`, `[n, b]`, ... to `[n, a + b + ...]`.
    pub(crate) fn concat(&mut self, parts: &[&str]) -> String {
        self.with("Concat", parts, vec![axis(1)])
    }

    /// Dimension `i` of the result is dimension `order[i]` of `x`.
    pub(crate) fn transpose(&mut self, x: &str, order: &[i64]) -> String {
        let perm =
            Attribute { name: "perm".into(), ints: order.to_vec(), r#type: ATTRIBUTE_INTS, ..Attribute::default() };
        self.with("Transpose", &[x], vec![perm])
    }

    /// Casts `x` to the type `element` (`TensorProto.DataType`).
    pub(crate) fn cast(&mut self, x: &str, element: i32) -> String {
        let to =
            Attribute { name: "to".into(), i: Some(element.into()), r#type: ATTRIBUTE_INT, ..Attribute::default() };
        self.with("Cast", &[x], vec![to])
    }

    /// The first image of a batch, as a batch of one.
    pub(crate) fn first_row(&mut self, x: &str) -> String {
        let zero = self.whole_numbers(&[0]);
        self.with("Gather", &[x, &zero], vec![axis(0)])
    }

    /// Repeats `x` along dimensions of 1 until it has `shape`.
    pub(crate) fn expand(&mut self, x: &str, shape: &[i64]) -> String {
        let shape = self.whole_numbers(shape);
        self.node("Expand", &[x, &shape])
    }

    /// `x / max(|x|, smallest positive f32)`, row by row; `x: [n, dim]`.
    pub(crate) fn unit(&mut self, x: &str, dim: usize) -> String {
        let squares = self.node("Mul", &[x, x]);
        // The sum is a product with ones, because `ReduceSum` changed its signature in opset 13 and `ReduceL2` in 18.
        let ones = self.matrix(Array2::ones((dim, 1)).view());
        let sum = self.node("MatMul", &[&squares, &ones]);
        let norm = self.node("Sqrt", &[&sum]);
        let tiny = self.scalar(f32::MIN_POSITIVE);
        let safe = self.node("Max", &[&norm, &tiny]);
        self.node("Div", &[x, &safe])
    }

    /// Reshapes `x` to `shape`; one dimension may be -1, which is inferred.
    pub(crate) fn reshape(&mut self, x: &str, shape: &[i64]) -> String {
        let shape = self.whole_numbers(shape);
        self.node("Reshape", &[x, &shape])
    }

    fn whole_numbers(&mut self, values: &[i64]) -> String {
        let name = format!("{}weight_{}", self.prefix, self.weights.len());
        self.weights.push(Tensor {
            dims: vec![values.len() as i64],
            data_type: INT64,
            name: name.clone(),
            raw_data: values.iter().flat_map(|n| n.to_le_bytes()).collect(),
        });
        name
    }

    pub(crate) fn matrix(&mut self, values: ArrayView2<f32>) -> String {
        self.weight(&[values.nrows(), values.ncols()], values.iter())
    }

    pub(crate) fn vector(&mut self, values: &Array1<f32>) -> String {
        self.weight(&[values.len()], values.iter())
    }

    pub(crate) fn scalar(&mut self, value: f32) -> String {
        self.weight(&[], [value].iter())
    }

    /// Adds a weight; `values` in row-major order.
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

fn axis(i: i64) -> Attribute {
    Attribute { name: "axis".into(), i: Some(i), r#type: ATTRIBUTE_INT, ..Attribute::default() }
}
