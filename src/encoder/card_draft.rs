//! Drafts model cards from a model's graph: finds the image input, the latent output and the input size.
use std::path::Path;

use prost::Message;
use toml::Value;

use super::card_parser;
use super::input_adapter::InputAdapter;
use super::model_card::{MAX_MODEL_BYTES, ModelCard, regular_file};
use super::onnx_signature::{ModelSignature, TensorSpec, is_float};
use super::output_check::GraphFacts;
use super::preset;
use super::validate;
use crate::config::Size;
use crate::error::{Error, Result};
use crate::files::{read_bounded, sha256_hex};
use crate::onnx::proto::ModelView;

/// Common training resolutions, the most likely first.
const SIDES: [u32; 8] = [224, 96, 112, 128, 160, 192, 256, 384];
/// Output names that suggest a latent, and names that rule it out.
const GOOD: [&str; 8] = ["pool", "embed", "feat", "latent", "repr", "descriptor", "encod", "vector"];
const BAD: [&str; 9] = ["logit", "prob", "score", "class", "softmax", "label", "text", "loss", "argmax"];

/// A drafted card that has not been tried yet.
#[derive(Debug, Clone)]
pub struct CardDraft {
    /// Text of the card file.
    pub text: String,
    /// The parsed card.
    pub card: ModelCard,
    /// Reasons for the choices in it, as readable text.
    pub why: Vec<String>,
}

/// What the user already knows about the model.
#[derive(Debug, Clone, Default)]
pub struct CardRequest {
    /// Name of a preset.
    pub preset: Option<String>,
    /// Input size.
    pub size: Option<Size>,
    /// Name of the tensor that holds the latent.
    pub output: Option<String>,
}

/// Drafts cards for `model`, the most likely first.
///
/// # Errors
/// The file is not ONNX, keeps its weights in other files, or has no image input or no output that could be a latent.
pub fn draft(model: &Path, wish: &CardRequest) -> Result<Vec<CardDraft>> {
    regular_file(model)?;
    let bytes = read_bounded(model, MAX_MODEL_BYTES)?;
    let what = model.display().to_string();
    let outline = ModelSignature::read(&bytes, &what)?;
    validate::whole(&outline, model)?;
    let (input, form) = image(&outline, &what)?;
    let sides = match (wish.size, form.sides) {
        (Some(size), _) => vec![size],
        (None, [Some(height), Some(width)]) => vec![side(height, width, &what)?],
        (None, [None, None]) => SIDES.map(Size::square).to_vec(),
        (None, [height, width]) => {
            let side = height.or(width).unwrap_or_default();
            vec![self::side(side, side, &what)?]
        }
    };
    let (recipe, why_recipe) = recipe(&bytes, form, &outline, wish)?;
    let reads = latents(&bytes, &outline, wish, &what)?;
    let sha256 = sha256_hex(&bytes);
    let mut all = Vec::new();
    for (output, taps, why_output) in &reads {
        for size in &sides {
            let text = text(model, &CardParts { input, form, output, taps, size: *size, recipe, sha256: &sha256 });
            let card = card_parser::parse(&text, "that is written")?;
            let mut why = vec![format!("input {input}"), why_output.clone(), why_recipe.clone()];
            if form.sides == [None; 2] && wish.size.is_none() {
                why.push(format!("size {}: the graph takes several; the first that runs", size.written()));
            }
            all.push(CardDraft { text, card, why });
        }
    }
    Ok(all)
}

/// Finds the input that takes images.
fn image<'a>(outline: &'a ModelSignature, what: &str) -> Result<(&'a TensorSpec, InputAdapter)> {
    let mut reasons = Vec::new();
    let mut found = Vec::new();
    for port in &outline.inputs {
        match InputAdapter::of(port) {
            Ok(form) => found.push((port, form)),
            Err(why) => reasons.push(why),
        }
    }
    // If there are several, prefer one that declares three channels.
    found.sort_by_key(|(port, _)| port.shape.is_none());
    found.into_iter().next().ok_or_else(|| {
        let reasons = if reasons.is_empty() { "it has no input".into() } else { reasons.join("; ") };
        Error::check_failed(format!("{what} is no encoder of images: {reasons}"))
    })
}

fn side(height: i64, width: i64, what: &str) -> Result<Size> {
    let size = u32::try_from(height).ok().zip(u32::try_from(width).ok()).map(|(height, width)| Size { height, width });
    size.filter(|size| size.is_allowed()).ok_or_else(|| {
        Error::check_failed(format!(
            "{what}: its input has {height} x {width} pixels; an encoder's sides have 8 to 4096"
        ))
    })
}

/// Chooses the preset and gives the reason.
fn recipe(
    bytes: &[u8],
    form: InputAdapter,
    outline: &ModelSignature,
    wish: &CardRequest,
) -> Result<(&'static str, String)> {
    if let Some(name) = &wish.preset {
        let preset = preset::named(name)
            .ok_or_else(|| Error::usage(format!("--preset {name}: must be one of {}", preset::names())))?;
        return Ok((preset.name, format!("preset {}: as asked", preset.name)));
    }
    if !is_float(form.element) {
        return Ok(("raw255", "preset raw255: the input takes whole numbers, pixels of 0 to 255".into()));
    }
    let graph = ModelView::decode(bytes).ok().and_then(|model| model.graph).unwrap_or_default();
    let mut at: Vec<&str> = outline.inputs.iter().map(|port| port.name.as_str()).collect();
    for node in &graph.node {
        if !node.input.iter().any(|input| at.contains(&input.as_str())) {
            continue;
        }
        match node.op_type.as_str() {
            "Transpose" | "Cast" | "Identity" => at.extend(node.output.iter().map(String::as_str)),
            "Sub" | "Div" | "Mul" | "Add" => {
                return Ok((
                    "raw255",
                    format!(
                        "preset raw255, a guess: the graph begins with {}, so that it seems to scale pixels itself",
                        node.op_type
                    ),
                ));
            }
            _ => break,
        }
    }
    if outline.outputs.iter().any(|port| port.name == "image_embeds") {
        return Ok(("clip", "preset clip, a guess by the name of the output".into()));
    }
    Ok(("imagenet", "preset imagenet, a guess: no graph says it; another with --preset".into()))
}

/// Lists the outputs (and taps) that may be the latent, the most likely first, with reasons.
fn latents(
    bytes: &[u8],
    outline: &ModelSignature,
    wish: &CardRequest,
    what: &str,
) -> Result<Vec<(String, Vec<String>, String)>> {
    if let Some(output) = &wish.output {
        return Ok(vec![(output.clone(), Vec::new(), format!("output {output}: as asked"))]);
    }
    let known = GraphFacts::of_output(bytes);
    let mut found: Vec<(i64, String, Vec<String>, String)> = Vec::new();
    for (place, port) in outline.outputs.iter().enumerate() {
        if !port.element.is_some_and(is_float) {
            continue;
        }
        let name = port.name.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        let mut worth = -(place as i64);
        worth += if has(&GOOD) { 100 } else { 0 };
        worth -= if has(&BAD) { 200 } else { 0 };
        let (worth_of_form, taps) = read_as(port);
        worth += worth_of_form;
        let of = known.with(&port.name);
        let scores = of.scores();
        worth -= if scores.is_some() { 300 } else { 0 };
        let of_each = !taps.is_empty();
        found.push((worth, port.name.clone(), taps, format!("output {port}")));
        if let Some((why, better)) = scores {
            let told = format!("tensor {better:?} instead of output {}: {why}", port.name);
            // Class probabilities are not an embedding. Logits may be one, and the tensor before them is a guess.
            let worth = if of.gives_shares() { worth + 150 } else { worth - 1000 };
            // Scores per cell or token are computed from its features.
            let pooling = if of_each { "mean" } else { "as-is" };
            found.push((worth, port.name.clone(), vec![format!("{better}:{pooling}")], told));
        }
    }
    found.sort_by_key(|(worth, ..)| -*worth);
    if found.is_empty() {
        return Err(Error::check_failed(format!(
            "{what} has no output that could be a latent: floats are needed, [n, d]. It has {}",
            outline.describe()
        )));
    }
    Ok(found.into_iter().map(|(_, output, taps, why)| (output, taps, why)).collect())
}

/// Rates how likely an output of this shape is a latent, and how to read it: vectors as they are, maps and tokens
/// pooled.
fn read_as(port: &TensorSpec) -> (i64, Vec<String>) {
    let Some(dims) = &port.shape else { return (0, Vec::new()) };
    let more = dims.iter().skip(1).filter(|dim| dim.fixed != Some(1)).count();
    match dims.len() {
        1 | 2 => (1000, Vec::new()),
        3 | 4 if more <= 1 => (1000, Vec::new()),
        3 | 4 => (0, vec!["output:mean".into()]),
        _ => (-2000, Vec::new()),
    }
}

struct CardParts<'a> {
    input: &'a TensorSpec,
    form: InputAdapter,
    output: &'a str,
    taps: &'a [String],
    size: Size,
    recipe: &'a str,
    sha256: &'a str,
}

fn text(model: &Path, parts: &CardParts) -> String {
    let quoted = |text: &str| Value::String(text.into()).to_string();
    let name = model.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    let CardParts { input, form, output, taps, size, recipe, sha256 } = parts;
    let multiple = match form.sides {
        [None, None] if size.sides().iter().all(|side| side.is_multiple_of(32)) => 32,
        [None, None] => 1,
        _ => common(size.height, size.width),
    };
    let taps: Vec<String> = taps.iter().map(|tap| quoted(tap)).collect();
    let taps = if taps.is_empty() { String::new() } else { format!("taps = [{}]\n", taps.join(", ")) };
    format!(
        "# Written by `afterimage card` and tried. Check preset, source and licence: no graph says them (docs/encoders.md).\n\
         name = {name}\nkind = \"vector\"\ninput = {input}\noutput = {output}\n{taps}size = {size}\nmultiple_of = {multiple}\n\
         preset = {recipe}\nfit = \"stretch\"\nsource = \"where the model is from\"\nlicence = \"its licence\"\nsha256 = \"{sha256}\"\n",
        name = quoted(&name),
        input = quoted(&input.name),
        output = quoted(output),
        size = size.written(),
        recipe = quoted(recipe),
    )
}

/// Greatest common divisor.
fn common(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common(b, a % b) }
}
