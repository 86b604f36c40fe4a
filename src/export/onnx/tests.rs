#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
use ndarray::{Array1, Array2};
use proptest::prelude::*;
use prost::Message;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::head::{EmbeddingKind, HeadParams, Mlp};
use crate::onnx::proto::{ModelView, Node, Opset, StringEntry, Tensor, TensorShape, TensorType, Type, ValueInfo};
use crate::onnx::protobuf_wire;

/// The parts of a model that these tests look at.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<Opset>,
    #[prost(message, repeated, tag = "14")]
    metadata: Vec<StringEntry>,
    /// An unknown field.
    #[prost(bytes = "vec", tag = "5000")]
    unknown: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeWithGraph>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Weight>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "13")]
    value_info: Vec<ValueInfo>,
    #[prost(fixed32, tag = "6000")]
    unknown: u32,
    #[prost(double, tag = "6001")]
    unknown_wide: f64,
}

#[derive(Clone, PartialEq, Message)]
struct NodeWithGraph {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(message, optional, tag = "6")]
    g: Option<Graph>,
    #[prost(int32, tag = "20")]
    r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Weight {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

fn value(d: i64) -> Dimension {
    Dimension { dim_value: Some(d), dim_param: None }
}

fn param(name: &str) -> Dimension {
    Dimension { dim_value: None, dim_param: Some(name.into()) }
}

fn info(name: &str, dim: &[Dimension]) -> ValueInfo {
    let tensor_type = TensorType { elem_type: 1, shape: Some(TensorShape { dim: dim.to_vec() }) };
    ValueInfo { name: name.into(), r#type: Some(Type { tensor_type: Some(tensor_type) }) }
}

fn node(op: &str, input: &[&str], output: &[&str]) -> NodeWithGraph {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let name = format!("{op}_0");
    NodeWithGraph { input: texts(input), output: texts(output), name, op_type: op.into(), attribute: vec![] }
}

/// `image [batch, 3, h, w] -> latent [batch, 3]`, with a second output that is not requested.
fn model() -> Model {
    let axis = Attribute { name: "axis".into(), i: Some(1), g: None, r#type: 2 };
    let mut pool = node("GlobalAveragePool", &["image"], &["pooled"]);
    pool.name = String::new();
    let flatten = NodeWithGraph { attribute: vec![axis], ..node("Flatten", &["pooled"], &["latent"]) };
    let dims = [param("batch"), value(3), param("h"), param("w")];
    Model {
        ir_version: 4,
        producer_name: "test".into(),
        graph: Some(Graph {
            node: vec![pool, flatten],
            name: "g".into(),
            initializer: vec![Weight {
                dims: vec![1],
                data_type: 1,
                name: "w".into(),
                raw_data: vec![0; 4],
                data_location: 0,
            }],
            input: vec![info("image", &dims)],
            output: vec![info("pooled", &dims), info("latent", &[param("batch"), value(3)])],
            value_info: vec![info("pooled", &dims)],
            unknown: 77,
            unknown_wide: 0.1,
        }),
        opset_import: vec![Opset { domain: "other".into(), version: 1 }, Opset { domain: String::new(), version: 9 }],
        metadata: vec![StringEntry { key: "k".into(), value: "old".into() }],
        unknown: vec![1, 2, 3],
    }
}

fn learned(form: EmbeddingKind, with_mlp: bool) -> Head {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let mut random = |n: usize| Array1::from_shape_simple_fn(n, || rng.next_u32() as f32 / u32::MAX as f32 - 0.5);
    let (d, k, h) = (3, 2, 4);
    let mut matrix =
        |rows: usize, columns: usize| random(rows * columns).into_shape_with_order((rows, columns)).unwrap();
    let (slow, w1, w2): (Array2<f32>, _, _) = (matrix(d, k), matrix(h, k), matrix(k, h));
    let mlp = Mlp { w1, b1: random(h), gamma: random(h), beta: random(h), w2, b2: random(k) };
    Head::Learned(HeadParams { mean: random(d), slow, mlp: with_mlp.then_some(mlp), alpha: 0.3, form })
}

fn merge(model: &[u8], latent: &str, head: &Head, meta: &[(String, String)]) -> Result<Vec<u8>> {
    MergeOptions { model, input: None, latent, grid: None, head, cells: false, meta }.bytes()
}

fn merge_to_model(model: &Model, output: &str, head: &Head) -> Model {
    let meta = [("space".to_owned(), "abc".to_owned()), ("k".to_owned(), "new".to_owned())];
    Model::decode(&*merge(&model.encode_to_vec(), output, head, &meta).unwrap()).unwrap()
}

fn why(model: &Model, output: &str) -> String {
    merge(&model.encode_to_vec(), output, &learned(EmbeddingKind::Single, true), &[]).unwrap_err().chain()
}

/// Evaluates the appended nodes for one row, from their definitions in the ONNX standard.
fn compute(graph: &Graph, latent: (&str, &[f32])) -> Vec<f32> {
    let mut values: std::collections::BTreeMap<String, (Vec<usize>, Vec<f32>)> = Default::default();
    for weight in &graph.initializer {
        let dims: Vec<usize> = weight.dims.iter().map(|n| *n as usize).collect();
        let numbers: Vec<f32> = bytemuck::pod_collect_to_vec(&weight.raw_data);
        assert_eq!(numbers.len(), dims.iter().product::<usize>(), "{}", weight.name);
        assert!(values.insert(weight.name.clone(), (dims, numbers)).is_none(), "two weights {}", weight.name);
    }
    values.insert(latent.0.to_owned(), (vec![1, latent.1.len()], latent.1.to_vec()));
    for node in graph.node.iter().filter(|node| node.name.starts_with("afterimage")) {
        let input =
            |i: usize| values.get(&node.input[i]).unwrap_or_else(|| panic!("{} before it is made", node.input[i]));
        let one = |f: &dyn Fn(f32) -> f32| (input(0).0.clone(), input(0).1.iter().map(|x| f(*x)).collect::<Vec<_>>());
        let two = |f: &dyn Fn(f32, f32) -> f32| {
            let ((shape, x), (_, y)) = (input(0), input(1));
            assert!(y.len() == 1 || y.len() == x.len(), "{}", node.name);
            (shape.clone(), x.iter().enumerate().map(|(i, x)| f(*x, y[i % y.len()])).collect())
        };
        let value = match node.op_type.as_str() {
            "Add" => two(&|x, y| x + y),
            "Sub" => two(&|x, y| x - y),
            "Mul" => two(&|x, y| x * y),
            "Div" => two(&|x, y| x / y),
            "Max" => two(&f32::max),
            "Sqrt" => one(&f32::sqrt),
            "Erf" => one(&|x| erf(f64::from(x)) as f32),
            "MatMul" => {
                let ((left, x), (right, w)) = (input(0), input(1));
                assert_eq!(left[1], right[0], "{}", node.name);
                let sum = |j: usize| (0..right[0]).map(|i| x[i] * w[i * right[1] + j]).sum();
                (vec![1, right[1]], (0..right[1]).map(sum).collect())
            }
            "Concat" => {
                assert_eq!(
                    (node.attribute[0].name.as_str(), node.attribute[0].i, node.attribute[0].r#type),
                    ("axis", Some(1), 2)
                );
                let both = [&input(0).1[..], &input(1).1].concat();
                (vec![1, both.len()], both)
            }
            other => panic!("{other} is not among the operators that never changed"),
        };
        assert!(values.insert(node.output[0].clone(), value).is_none(), "two tensors {}", node.output[0]);
    }
    values[OUTPUT].1.clone()
}

/// Maclaurin series of erf, accurate enough for small arguments.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// The definition of the head, in f64.
fn expected(head: &Head, latent: &[f32]) -> Vec<f64> {
    let unit = |x: Vec<f64>| {
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.iter().map(|x| x / norm).collect::<Vec<_>>()
    };
    let wide = |x: &Array2<f32>| x.mapv(f64::from);
    let f = unit(latent.iter().map(|x| f64::from(*x)).collect());
    let Head::Learned(head) = head else { return f };
    let centred = Array1::from(f.clone()) - head.mean.mapv(f64::from);
    let mut y = wide(&head.slow).t().dot(&centred);
    let slow = unit(y.to_vec());
    if let Some(mlp) = &head.mlp {
        let u = wide(&mlp.w1).dot(&y) + mlp.b1.mapv(f64::from);
        let centred = &u - u.mean().unwrap();
        let deviation = (centred.mapv(|x| x * x).mean().unwrap() + 1e-5).sqrt();
        let u = centred / deviation * mlp.gamma.mapv(f64::from) + mlp.beta.mapv(f64::from);
        let u = u.mapv(|x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt())));
        y = y + (wide(&mlp.w2).dot(&u) + mlp.b2.mapv(f64::from)) * f64::from(head.alpha);
    }
    let s = unit(y.to_vec());
    match head.form {
        EmbeddingKind::Single => s,
        EmbeddingKind::BesideFrozen => f.iter().chain(&s).map(|x| x / 2f64.sqrt()).collect(),
        EmbeddingKind::Mean => unit(slow.iter().zip(&s).map(|(a, b)| a + b).collect()),
    }
}

#[test]
fn the_encoder_stays_as_it_is_and_the_head_comes_after_it() {
    let before = model();
    let after = merge_to_model(&before, "latent", &learned(EmbeddingKind::BesideFrozen, true));
    let graph = after.graph.clone().unwrap();
    let kept = Graph {
        node: graph.node[..2].to_vec(),
        // Not needed by any node.
        initializer: before.graph.clone().unwrap().initializer,
        output: before.graph.clone().unwrap().output,
        ..graph.clone()
    };
    let metadata = vec![
        StringEntry { key: "space".into(), value: "abc".into() },
        StringEntry { key: "k".into(), value: "new".into() },
    ];
    assert_eq!(after.metadata, metadata);
    assert_eq!(Model { graph: Some(kept), metadata: before.metadata.clone(), ..after }, before);
    assert_eq!(graph.output, [info(OUTPUT, &[param("batch"), value(5)])]);
    let outputs: Vec<&str> = graph.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
    assert_eq!(outputs.last(), Some(&OUTPUT));
    assert!(outputs[2..outputs.len() - 1].iter().all(|name| name.starts_with("afterimage_")), "{outputs:?}");
}

#[test]
fn the_nodes_compute_the_head() {
    let latent = [3.0, -1.0, 0.5];
    for head in [
        Head::Identity { dim: 3 },
        learned(EmbeddingKind::Single, false),
        learned(EmbeddingKind::Single, true),
        learned(EmbeddingKind::BesideFrozen, false),
        learned(EmbeddingKind::BesideFrozen, true),
        learned(EmbeddingKind::Mean, false),
        learned(EmbeddingKind::Mean, true),
    ] {
        let after = merge_to_model(&model(), "latent", &head);
        let found = compute(&after.graph.unwrap(), ("latent", &latent));
        let expected = expected(&head, &latent);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected} {head:?}");
        }
    }
}

#[test]
fn a_latent_of_zeros_stays_zero() {
    let graph = merge_to_model(&model(), "latent", &Head::Identity { dim: 3 }).graph.unwrap();
    assert_eq!(compute(&graph, ("latent", &[0.0; 3])), [0.0; 3]);
}

#[test]
fn names_of_ours_that_the_encoder_has_are_avoided() {
    let mut model = model();
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].output = vec!["afterimage_weight_1".into()];
    graph.node[1].input = vec!["afterimage_weight_1".into()];
    graph.initializer[0].name = "afterimage2_x".into();
    let after = merge_to_model(&model, "latent", &learned(EmbeddingKind::Single, true)).graph.unwrap();
    assert!(after.initializer[1..].iter().all(|weight| weight.name.starts_with("afterimage3_")));
    assert_eq!(compute(&after, ("latent", &[1.0, 2.0, 3.0])).len(), 2);
}

#[test]
fn an_encoder_with_a_tensor_named_as_the_output_gives_the_name_up() {
    let mut model = model();
    let graph = model.graph.as_mut().unwrap();
    graph.node[1].output = vec![OUTPUT.into()];
    graph.output[1].name = OUTPUT.into();
    graph.value_info.push(info(OUTPUT, &[param("batch"), value(3)]));
    let after = merge_to_model(&model, OUTPUT, &learned(EmbeddingKind::Single, true)).graph.unwrap();
    let renamed = "afterimage_encoder_embedding";
    assert_eq!(after.node[1].output, [renamed]);
    assert_eq!(after.value_info[1].name, renamed);
    assert_eq!(compute(&after, (renamed, &[1.0, 2.0, 3.0])).len(), 2);
    // A subgraph in a node that uses a tensor of the enclosing graph.
    let mut within = self::model();
    let graph = within.graph.as_mut().unwrap();
    graph.node[0].output = vec![OUTPUT.into()];
    let inner = Graph { node: vec![node("Neg", &[OUTPUT], &["negative"])], ..Graph::default() };
    let branch = Attribute { name: "then_branch".into(), i: None, g: Some(inner), r#type: 5 };
    graph.node.insert(1, NodeWithGraph { attribute: vec![branch], ..node("If", &["w"], &["pooled"]) });
    let merged = merge_to_model(&within, "latent", &learned(EmbeddingKind::Single, true)).graph.unwrap();
    assert_eq!(merged.node[0].output, [renamed]);
    assert_eq!(merged.node[1].attribute[0].g.as_ref().unwrap().node[0].input, [renamed]);
    // A merged model can be merged again.
    let again = Model { graph: Some(after), ..model.clone() };
    let head = Head::Identity { dim: 2 };
    assert!(merge(&again.encode_to_vec(), OUTPUT, &head, &[]).is_ok());
    model.graph.as_mut().unwrap().input[0].name = OUTPUT.into();
    assert!(why(&model, OUTPUT).contains("an input named \"embedding\""));
}

#[test]
fn a_model_of_an_old_format_is_written_in_one_that_knows_what_is_added() {
    for (version, expected) in [(3, 4), (4, 4), (8, 8)] {
        let old = Model { ir_version: version, ..model() }.encode_to_vec();
        let merged = merge(&old, "latent", &learned(EmbeddingKind::Single, true), &[]).unwrap();
        assert_eq!(ModelView::decode(merged.as_slice()).unwrap().ir_version, expected, "from {version}");
    }
}

#[test]
fn an_encoder_that_cannot_be_merged_is_refused_with_the_reason() {
    let with = |change: &dyn Fn(&mut Model, &mut Graph)| {
        let mut model = model();
        let mut graph = model.graph.take().unwrap();
        change(&mut model, &mut graph);
        model.graph = Some(graph);
        why(&model, "latent")
    };
    assert!(why(&model(), "features").contains("no output \"features\", its outputs are: pooled, latent"));
    assert!(why(&model(), "pooled").contains("has 4 dimensions"));
    assert!(with(&|model, _| model.opset_import[1].version = 8).contains("opset 8, 9"));
    assert!(with(&|model, _| model.opset_import.clear()).contains("opset 0, 9"));
    assert!(with(&|_, graph| graph.node.clear()).contains("no graph"));
    assert!(with(&|_, graph| graph.initializer[0].data_location = 1).contains("lie in another file"));
    let four = [param("n"), value(4)];
    assert!(with(&|_, graph| graph.output[1] = info("latent", &four)).contains("4 numbers a row, the head takes 3"));
    let half = |_: &mut Model, graph: &mut Graph| {
        graph.output[1].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = 10;
    };
    assert!(with(&half).contains("element type 10"));
    let inner = |_: &mut Model, graph: &mut Graph| {
        let inner = Graph {
            initializer: vec![Weight { data_location: 1, ..graph.initializer[0].clone() }],
            ..Graph::default()
        };
        graph.node[0].attribute = vec![Attribute { name: "body".into(), i: None, g: Some(inner), r#type: 5 }];
    };
    assert!(with(&inner).contains("lie in another file"));
    let twice = [model().encode_to_vec(), model().encode_to_vec()].concat();
    assert!(merge(&twice, "latent", &learned(EmbeddingKind::Single, true), &[]).unwrap_err().chain().contains("twice"));
}

#[test]
fn an_output_without_a_shape_gets_rows_of_any_number() {
    let mut model = model();
    model.graph.as_mut().unwrap().output[1].r#type = None;
    let after = merge_to_model(&model, "latent", &learned(EmbeddingKind::Single, true)).graph.unwrap();
    assert_eq!(after.output, [info(OUTPUT, &[param("n"), value(2)])]);
}

#[test]
fn graphs_that_lie_too_deep_are_refused() {
    let mut inner = Graph { node: vec![node("Neg", &[OUTPUT], &["x"])], ..Graph::default() };
    for _ in 0..100 {
        let attribute = Attribute { name: "body".into(), i: None, g: Some(inner), r#type: 5 };
        inner = Graph {
            node: vec![NodeWithGraph { attribute: vec![attribute], ..node("Loop", &[], &[]) }],
            ..Graph::default()
        };
    }
    let mut model = model();
    model.graph.as_mut().unwrap().node.extend(inner.node);
    assert!(why(&model, "latent").contains("not ONNX"));
}

#[test]
fn every_truncation_is_refused_or_whole() {
    let bytes = model().encode_to_vec();
    let head = learned(EmbeddingKind::BesideFrozen, true);
    for length in 0..bytes.len() {
        // Truncation at the end of a field leaves a shorter model, which is rejected or merged; none may panic.
        if let Ok(merged) = merge(&bytes[..length], "latent", &head, &[]) {
            Model::decode(&*merged).unwrap();
        }
    }
    merge(b"not a model at all", "latent", &head, &[]).unwrap_err();
    merge(&[0xff; 40], "latent", &head, &[]).unwrap_err();
}

proptest! {
    #[test]
    fn no_change_of_bytes_panics(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4)) {
        let mut bytes = model().encode_to_vec();
        let length = bytes.len();
        for (at, value) in changes {
            bytes[at % length] = value;
        }
        if let Ok(merged) = merge(&bytes, "latent", &learned(EmbeddingKind::BesideFrozen, true), &[]) {
            ModelView::decode(&*merged).unwrap();
        }
    }

    #[test]
    fn fields_put_together_are_the_message(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut length = 0;
        for field in protobuf_wire::fields(&bytes) {
            match field {
                Ok(field) => length += field.whole.len(),
                Err(_) => return Ok(()),
            }
        }
        prop_assert_eq!(length, bytes.len());
    }
}

#[test]
fn messages_of_ours_are_read_back_as_nodes_and_weights() {
    let mut graph = GraphBuilder::new("p_");
    head::build(&mut graph, &learned(EmbeddingKind::BesideFrozen, true), "latent");
    let (nodes, weights) = graph.finish(OUTPUT);
    let mut bytes = Vec::new();
    nodes.iter().for_each(|node| protobuf_wire::put_message(1, node, &mut bytes));
    let payloads: Vec<_> =
        protobuf_wire::fields(&bytes).map(|field| Node::decode(field.unwrap().payload).unwrap()).collect();
    assert_eq!(payloads, nodes);
    let names: std::collections::BTreeSet<&str> = weights.iter().map(|weight: &Tensor| weight.name.as_str()).collect();
    assert_eq!(names.len(), weights.len());
}
