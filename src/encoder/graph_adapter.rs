//! Adapts the input of a model to the form that all other code expects: one image input `[n, 3, h, w]` in 32-bit
//! floats.
//!
//! If the file has another input (channels last, 8-bit pixels, 16-bit floats, a fixed batch or none, extra inputs
//! beside the image), nodes before the graph convert it, so that nobody needs the model that it was exported from.
use super::input_adapter::{BatchKind, InputAdapter};
use super::model_card::ModelCard;
use super::onnx_signature::{FLOAT32, ModelSignature, TensorSpec, is_float};
use super::runtime::Runtime;
use super::shape_probe;
use crate::config::Size;
use crate::onnx::Found;
use crate::onnx::graph_builder::GraphBuilder;
use crate::onnx::graph_editor::{GraphEdit, GraphEditor, any_rows, sized, tensor_of};
use crate::onnx::proto::{Tensor, ValueInfo};

/// Tolerated difference between two runs of one model on one image, relative to the largest value.
const NEAR: f32 = 1e-3;

/// A model with the usual input.
pub(super) struct AdaptedGraph {
    pub(super) bytes: Vec<u8>,
    /// Batch size of the original graph. If it is more than one, the image is repeated, and the first row of each
    /// tensor counts.
    pub(super) images: BatchKind,
}

/// Adapts the input. `wanted` lists the tensors that are needed; if anything changes, no others are kept.
pub(super) fn adapt(runtime: &Runtime, bytes: Vec<u8>, card: &ModelCard, wanted: &[String]) -> Found<AdaptedGraph> {
    let outline = ModelSignature::read(&bytes, "the file").map_err(|error| error.to_string())?;
    let port = outline.inputs.iter().find(|port| port.name == card.input);
    let port = port.ok_or_else(|| format!("it has no input {:?}", card.input))?;
    let form = InputAdapter::of(port)?;
    if form.is_plain() && outline.inputs.len() == 1 {
        return Ok(AdaptedGraph { bytes, images: form.images });
    }
    pixels(&form, card)?;
    let model = GraphEditor::read(&bytes)?;
    let (_, used) = model.graph().needed(wanted.iter().map(String::as_str));
    let others = outline.inputs.iter().filter(|other| other.name != card.input);
    let constants: Found<Vec<Tensor>> =
        others.filter(|other| used.contains(other.name.as_str())).map(|other| constant(other, card.size)).collect();
    let plan = AdaptPlan { model: &model, card, wanted, form, constants: constants? };
    let BatchKind::Fixed(n) = form.images else {
        return Ok(AdaptedGraph { bytes: plan.bytes(form.images)?, images: form.images });
    };
    // A graph with a declared batch size often accepts another one too.
    let filled = plan.bytes(form.images)?;
    if n > 1
        && let Ok(free) = plan.bytes(BatchKind::Free)
        && let Ok(alone) = shape_probe::values(runtime, &free, card, &wanted[0])
        && let Ok(first) = shape_probe::values(runtime, &filled, card, &wanted[0])
        && alone.len() * n == first.len()
        && near(&alone, &first[..alone.len()])
    {
        return Ok(AdaptedGraph { bytes: free, images: BatchKind::Free });
    }
    if n > 1 {
        tracing::warn!(
            "the graph takes {n} images at once and holds that number: every image is given {n} times, which costs {n} times \
             the time; export the encoder with a free batch"
        );
    }
    Ok(AdaptedGraph { bytes: filled, images: form.images })
}

struct AdaptPlan<'a> {
    model: &'a GraphEditor<'a>,
    card: &'a ModelCard,
    wanted: &'a [String],
    form: InputAdapter,
    constants: Vec<Tensor>,
}

impl AdaptPlan<'_> {
    /// Builds the model with an input that takes `images` at once internally.
    fn bytes(&self, images: BatchKind) -> Found<Vec<u8>> {
        let (input, size) = (self.card.input.as_str(), self.card.size);
        let prefix = self.model.free_prefix();
        let own = format!("{prefix}input");
        let mut graph = GraphBuilder::new(&prefix);
        let last = self.form.build(&mut graph, input, size, images);
        debug_assert!(!last.is_empty());
        let (first, mut weights) = graph.finish(&own);
        weights.extend(self.constants.iter().cloned());
        let rows = if images == BatchKind::Free { any_rows() } else { sized(1) };
        let mut given = vec![input];
        given.extend(self.constants.iter().map(|constant| constant.name.as_str()));
        let mut outputs: Vec<ValueInfo> = Vec::new();
        for name in self.wanted {
            if !outputs.iter().any(|output| output.name == *name) {
                outputs.push(ValueInfo { name: name.clone(), r#type: None });
            }
        }
        self.model.apply(&GraphEdit {
            first,
            weights,
            given,
            more_inputs: vec![tensor_of(input, rows, &[3, size.dims()[0], size.dims()[1]])],
            outputs,
            rename: vec![(input, &own)],
            prune: true,
            ..GraphEdit::default()
        })
    }
}

/// Integers can only be pixels of 0 to 255.
fn pixels(form: &InputAdapter, card: &ModelCard) -> Found<()> {
    let ends = |plane: usize| [0.0, 1.0].map(|x: f32| (x - card.mean[plane]) / card.std[plane]);
    let fits = (0..3).all(|plane| {
        let [low, high] = ends(plane);
        low > -0.5 && high < 255.5 && high - low > 100.0
    });
    if is_float(form.element) || fits {
        return Ok(());
    }
    Err("its input takes whole numbers, pixels of 0 to 255: write preset = \"raw255\" into the card instead of mean and std".into())
}

/// Default value for an extra input beside the image, if its name reveals its purpose.
fn constant(port: &TensorSpec, size: Size) -> Found<Tensor> {
    let name = port.name.to_lowercase();
    let has = |part: &str| name.contains(part);
    let [height, width] = size.sides().map(|side| side as f32);
    let known: Option<Vec<f32>> = if has("im_shape") || has("image_shape") {
        Some(vec![height, width])
    } else if has("scale_factor") {
        Some(vec![1.0, 1.0])
    } else if has("keep_prob") {
        Some(vec![1.0])
    } else if has("training") || has("phase_train") || has("dropout") {
        Some(vec![0.0])
    } else {
        None
    };
    let ask = || {
        format!(
            "input {port} is needed beside the image, and it is not known what to give it. Name an output that does without it, or \
             make it a constant of the graph when exporting"
        )
    };
    let (values, element) = (known.ok_or_else(ask)?, port.element.ok_or_else(ask)?);
    let dims: Vec<i64> = port.shape.iter().flatten().map(|dim| dim.fixed.unwrap_or(1)).collect();
    let count = dims.iter().try_fold(1i64, |all, n| all.checked_mul(*n)).filter(|count| *count == values.len() as i64);
    count.ok_or_else(ask)?;
    let raw_data = values.iter().flat_map(|value| bytes_of(*value, element)).collect::<Vec<u8>>();
    if raw_data.is_empty() {
        return Err(ask());
    }
    Ok(Tensor { dims, data_type: element, name: port.name.clone(), raw_data })
}

/// Encodes `value` as the bytes of a `TensorProto`; `None` for unknown types.
fn bytes_of(value: f32, element: i32) -> Vec<u8> {
    match element {
        FLOAT32 => value.to_le_bytes().to_vec(),
        6 => (value as i32).to_le_bytes().to_vec(),
        7 => (value as i64).to_le_bytes().to_vec(),
        9 => vec![u8::from(value != 0.0)],
        11 => f64::from(value).to_le_bytes().to_vec(),
        _ => Vec::new(),
    }
}

fn near(a: &[f32], b: &[f32]) -> bool {
    let largest = a.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= NEAR * largest)
}
