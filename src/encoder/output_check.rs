//! Tries an encoder before trusting it: different images must give different latents, and the same image the same
//! latent twice. Also checks what the graph reveals about its output: class scores are not an embedding.
use prost::Message;

use super::model_card::ModelCard;
use super::session::Encoder;
use crate::config::taps::OUTPUT;
use crate::error::{Error, Result};
use crate::linalg::dot;
use crate::onnx::proto::{GraphView, ModelView, NodeView};

/// Tolerated relative difference between latents of the same image: accelerators are not bit-reproducible.
const SAME: f64 = 1e-3;
/// Relative difference below which latents do not distinguish different images.
const APART: f64 = 1e-6;
/// Cosine above which a warning is logged.
const ALIKE: f64 = 0.9999;
/// Operators that turn values into class probabilities.
const SHARES: [&str; 6] = ["Softmax", "LogSoftmax", "Hardmax", "Sigmoid", "ArgMax", "OneHot"];
/// Operators that change only shape or type.
const FORMS: [&str; 8] = ["Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "Dropout"];
/// Operators that generate random numbers.
const RANDOM: [&str; 6] =
    ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"];
/// Class counts of well-known datasets.
const CLASSES: [i64; 6] = [10, 100, 365, 1000, 1001, 21841];

/// What the graph of an encoder reveals about the output that its card names.
#[derive(Debug, Default)]
pub(super) struct GraphFacts {
    graph: GraphView,
    output: String,
}

impl GraphFacts {
    /// Reads the graph from `bytes`, the model file.
    pub(super) fn of(bytes: &[u8], card: &ModelCard) -> Self {
        let graph = ModelView::decode(bytes).ok().and_then(|model| model.graph).unwrap_or_default();
        Self { graph, output: card.output.clone() }
    }

    /// The same without a card, for [`GraphFacts::with`].
    pub(super) fn of_output(bytes: &[u8]) -> Self {
        let graph = ModelView::decode(bytes).ok().and_then(|model| model.graph).unwrap_or_default();
        Self { graph, output: String::new() }
    }

    /// The facts for another output of the same graph.
    pub(super) fn with(&self, output: &str) -> Self {
        Self { graph: self.graph.clone(), output: output.to_owned() }
    }

    fn maker(&self, tensor: &str) -> Option<&NodeView> {
        self.graph.node.iter().find(|node| node.output.iter().any(|output| output == tensor))
    }

    /// The node that computes `tensor`, ignoring changes of shape or type.
    fn source<'a>(&'a self, tensor: &'a str) -> Option<&'a NodeView> {
        let mut node = self.maker(tensor)?;
        for _ in 0..self.graph.node.len() {
            if !FORMS.contains(&node.op_type.as_str()) {
                break;
            }
            node = self.maker(node.input.first()?)?;
        }
        Some(node)
    }

    /// The input of the last layer before `tensor`: the features that the classifier uses.
    fn features<'a>(&'a self, tensor: &'a str) -> Option<&'a str> {
        let mut node = self.source(tensor)?;
        for _ in 0..4 {
            match node.op_type.as_str() {
                "Gemm" | "MatMul" => return node.input.first().map(String::as_str),
                "Add" => node = node.input.iter().find_map(|input| self.source(input).filter(|n| is_product(n)))?,
                _ => return None,
            }
        }
        None
    }

    /// If the output holds class scores: the reason, and the tensor to read instead.
    pub(super) fn scores(&self) -> Option<(String, String)> {
        let node = self.source(&self.output)?;
        let op = node.op_type.as_str();
        if SHARES.contains(&op) {
            let before = node.input.first()?;
            let before = if op == "OneHot" { self.source(before)?.input.first()? } else { before };
            let better = self.features(before).filter(|name| self.maker(name).is_some()).unwrap_or(before);
            return Some((format!("{op} comes last ({} before it)", quoted(before)), better.to_owned()));
        }
        let named = ["logit", "prob", "score", "class"].iter().any(|word| self.output.to_lowercase().contains(word));
        let shape = self.graph.output.iter().find(|output| output.name == self.output);
        let shape = shape.and_then(|info| info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref());
        let last = shape.and_then(|shape| shape.dim.last()?.dim_value);
        let counted = last.is_some_and(|last| CLASSES.contains(&last));
        let better = self.features(&self.output).filter(|name| self.maker(name).is_some());
        let why = if named {
            format!("it is called {}", quoted(&self.output))
        } else {
            format!("{} values of a last layer", last?)
        };
        (named || counted).then_some(())?;
        Some((why, better?.to_owned()))
    }

    /// True if the output comes from a softmax or a similar operator.
    pub(super) fn gives_shares(&self) -> bool {
        self.source(&self.output).is_some_and(|node| SHARES.contains(&node.op_type.as_str()))
    }

    /// Suggests what to write into the card instead of the output.
    pub(super) fn advice(&self) -> Option<String> {
        let (why, better) = self.scores()?;
        Some(format!(
            "output {} is scores of classes, as it seems: {why}. Read the tensor before: taps = [\"{better}:as-is\"]",
            quoted(&self.output)
        ))
    }

    /// Suggests another tensor: the features before a last layer, or else the last one that depends on the input.
    fn instead(&self) -> String {
        if let Some((_, better)) = self.scores() {
            return format!("; read the tensor before: taps = [\"{better}:as-is\"]");
        }
        let inputs: Vec<&str> = self.graph.input.iter().map(|input| input.name.as_str()).collect();
        let mut below: Vec<&str> = inputs;
        let mut last = None;
        for node in &self.graph.node {
            if node.input.iter().any(|input| below.contains(&input.as_str())) {
                below.extend(node.output.iter().map(String::as_str));
                let used = FORMS.iter().chain(&["GlobalAveragePool", "Gemm", "MatMul", "ReduceMean"]);
                if used.into_iter().any(|op| *op == node.op_type) && node.output.first() != Some(&self.output) {
                    last = node.output.first();
                }
            }
        }
        last.map_or(String::new(), |name| format!("; read a tensor before, for example taps = [\"{name}:as-is\"]"))
    }

    /// Nodes whose results differ from run to run.
    fn random(&self) -> Vec<String> {
        let training =
            |node: &NodeView| node.op_type == "Dropout" && node.input.get(2).is_some_and(|name| !name.is_empty());
        let nodes = self.graph.node.iter();
        let random = nodes.filter(|node| training(node) || RANDOM.contains(&node.op_type.as_str()));
        let name = |node: &NodeView| {
            let name = if node.name.is_empty() { node.output.first().unwrap_or(&node.name) } else { &node.name };
            format!("{} {}", node.op_type, quoted(name))
        };
        random.map(name).take(3).collect()
    }
}

fn is_product(node: &NodeView) -> bool {
    ["Gemm", "MatMul"].contains(&node.op_type.as_str())
}

fn quoted(name: &str) -> String {
    format!("{name:?}")
}

impl Encoder {
    /// Encodes different images, one of them twice. Returns warnings that are not grounds for refusal.
    ///
    /// # Errors
    /// Refused: the same image gives another latent, different images give the same one, or a latent is not finite.
    pub(super) fn try_pictures(&mut self, card: &ModelCard, known: &GraphFacts) -> Result<Vec<String>> {
        let mut latents = Vec::new();
        for picture in [0, 0, 1, 2] {
            let mut latent = vec![0.0; self.dim];
            self.encode(&picture_of(card, picture), &mut latent)?;
            if latent.iter().any(|value| !value.is_finite()) {
                return Err(Error::check_failed(format!(
                    "{}: values of the latent of a test picture are not finite; mean and std may be of another scale than the \
                     model's, or the model is broken",
                    self.what
                )));
            }
            latents.push(latent);
        }
        if apart(&latents[0], &latents[1]) > SAME {
            let random = known.random();
            let cause = if random.is_empty() { "some of its nodes are random".into() } else { random.join(", ") };
            return Err(Error::check_failed(format!(
                "{}: the same picture gives another latent each time ({cause}): it was exported in training mode. Export it again \
                 after model.eval()",
                self.what
            )));
        }
        let others = [(1, 2), (1, 3), (2, 3)];
        if others.iter().all(|&(a, b)| apart(&latents[a], &latents[b]) <= APART) {
            return Err(Error::check_failed(format!(
                "{}: three different test pictures give the same latent, so that it tells nothing of a picture (output \
                 {}){}",
                self.what,
                quoted(&known.output),
                known.instead()
            )));
        }
        let mut doubts: Vec<String> = known.advice().filter(|_| card.taps.is_empty()).into_iter().collect();
        doubts.extend(card.doubt());
        let least = others.iter().map(|&(a, b)| cosine(&latents[a], &latents[b])).fold(1.0, f64::min);
        if least > ALIKE {
            doubts.push(format!(
                "different test pictures have nearly the same latent (least cosine {least:.7}): mean and std of the card may be of \
                 another scale than the model's, or the tensor that is read says little ({OUTPUT} {})",
                quoted(&known.output)
            ));
        }
        Ok(doubts)
    }
}

/// A preprocessed test image: 0 is a colour gradient, 1 is coloured blocks, 2 is a disc on grey.
fn picture_of(card: &ModelCard, which: u32) -> Vec<f32> {
    let [height, width] = card.size.dims();
    let value = |plane: usize, y: usize, x: usize| -> f32 {
        let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
        match which {
            0 => [u, v, 1.0 - u][plane],
            1 => {
                let block = (8 * y / height * 8 + 8 * x / width + 64 * plane) as u32;
                (block.wrapping_mul(2_654_435_761) >> 24) as f32 / 255.0
            }
            _ if (u - 0.5).hypot(v - 0.5) < 0.3 => [0.9, 0.2, 0.1][plane],
            _ => 0.5,
        }
    };
    let pixel = |i: usize| {
        let (plane, y, x) = (i / (height * width), i / width % height, i % width);
        ((value(plane, y, x) * 255.0).round() / 255.0 - card.mean[plane]) / card.std[plane]
    };
    (0..card.size.values()).map(pixel).collect()
}

/// Distance between `a` and `b` relative to their length.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    let length = |v: &[f32]| f64::from(dot(v, v)).sqrt();
    let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    length(&difference) / length(a).max(length(b)).max(f64::MIN_POSITIVE)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let [ab, aa, bb] = [(a, b), (a, a), (b, b)].map(|(a, b)| f64::from(dot(a, b)));
    ab / (aa * bb).sqrt().max(f64::MIN_POSITIVE)
}
