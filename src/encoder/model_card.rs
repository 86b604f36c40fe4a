//! The model card: what an encoder expects, what it outputs, and where it comes from.
//!
//! `NAME.toml` is next to `NAME.onnx`. All mistakes in a card are reported at once.
use std::path::Path;

use super::card_parser;
use crate::config;
use crate::config::size::{MAX_SIDE, MIN_SIDE, Size};
use crate::config::taps::{self, FeatureTap};
use crate::error::{Error, Result};
use crate::files::{read_bounded, sha256_hex};

/// Upper bound on the size of a card: it is a page of text.
const MAX_CARD_BYTES: u64 = 64 * 1024;
/// An ONNX file is one protobuf message, which holds less than 2 GiB.
pub(super) const MAX_MODEL_BYTES: u64 = 2 * 1024 * 1024 * 1024 - 1;
/// Version of the preprocessing in [`super::Preprocess`]; raised whenever the same frame would give another tensor.
const PREPARE_VERSION: u32 = 2;

/// Order of the colour planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red first.
    Rgb,
    /// Blue first (models trained on OpenCV images).
    Bgr,
}

/// How a frame of another aspect ratio is resized to the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeMode {
    /// Scales each side to fit; nothing is cropped.
    Stretch,
    /// Scales the frame until it covers the input and crops the longer axis to its centre.
    Crop,
}

/// What the output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// One latent per image, `[n, d]`.
    Vector,
    /// One vector for each cell of a grid, `[n, h, w, d]` or `[n, d, h, w]`; see [`TensorLayout`].
    Grid,
}

/// Order of the dimensions of the model's grids and feature maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorLayout {
    /// `[n, h, w, d]`.
    Hwd,
    /// `[n, d, h, w]`.
    Dhw,
}

/// A validated model card.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCard {
    /// Name of the model.
    pub name: String,
    /// What the output holds: one latent or a grid.
    pub kind: OutputKind,
    /// Name of the input: `[n, 3, h, w]`, float32.
    pub input: String,
    /// Name of the output, float32: `[n, d]`, or a grid, which may be any tensor of the graph.
    pub output: String,
    /// Tensors to read from the model (the output itself if empty); always empty for grids.
    pub taps: Vec<FeatureTap>,
    /// Order of the dimensions of grids and of tapped maps (default `dhw`).
    pub layout: TensorLayout,
    /// Size of the input in pixels.
    pub size: Size,
    /// Input sizes must be a multiple of this (default 1).
    pub multiple_of: u32,
    /// Order of the colour planes; `mean` and `std` use the same order.
    pub channels: ChannelOrder,
    /// Subtracted from pixel values of 0 to 1, per plane.
    pub mean: [f32; 3],
    /// Divides the difference, per plane.
    pub std: [f32; 3],
    /// How a frame of another aspect ratio is resized to the input (default `stretch`).
    pub fit: ResizeMode,
    /// Mean brightness, 0 to 1, that frames are brought to before `mean` is subtracted; `None` leaves the exposure
    /// unchanged.
    pub exposure: Option<f32>,
    /// For a grid whose cells do not divide the input evenly: the centre of the first cell and the step between
    /// cells, in input pixels along each axis (keys `cell_first` and `cell_step`).
    pub cells: Option<[f64; 2]>,
    /// If set, encodes only the window around motion (`preprocess.motion_crop`; not a key of the card): the number of
    /// seconds after which a static object becomes background.
    pub motion_crop: Option<f64>,
    /// Where the model comes from.
    pub source: String,
    /// The licence of the model.
    pub licence: String,
    /// SHA-256 of the ONNX file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// For a quantised model: the 32-bit float model that it was made from, with the same input and tensors.
    pub reference: Option<ReferenceModel>,
}

/// The model that a quantised one was made from: keys `reference` and `reference_sha256` of its card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceModel {
    /// Name of the ONNX file, in the folder of the card.
    pub file: String,
    /// SHA-256 of that file.
    pub sha256: String,
}

impl ModelCard {
    /// Reads the card of `model`: the file with the same name and the extension `.toml`.
    ///
    /// # Errors
    /// The model or the card does not exist (the message describes the model and names the command that writes a
    /// card), or the card has mistakes (the message lists all of them).
    pub fn beside(model: &Path) -> Result<Self> {
        regular_file(model)?;
        let path = model.with_extension("toml");
        if !path.exists() {
            return Err(card_parser::missing(model, &path));
        }
        regular_file(&path)?;
        let bytes = read_bounded(&path, MAX_CARD_BYTES)?;
        let text = String::from_utf8(bytes)
            .map_err(|e| Error::config(format!("model card {}: is not UTF-8 text", path.display())).with_source(e))?;
        card_parser::parse(&text, &path.display().to_string())
    }

    /// Returns this card with the size in use: `input_size`, or the card's own if that is unset.
    ///
    /// # Errors
    /// A side of `input_size` is not a multiple of `multiple_of`, or is out of range.
    pub fn sized(mut self, input_size: Size) -> Result<Self> {
        if input_size.is_unset() {
            return Ok(self);
        }
        let asked = format!("encoder.input_size = {}: {}", input_size.written(), self.name);
        let own = self.size.written();
        let step = self.multiple_of.max(1);
        if !input_size.is_allowed() || input_size.sides().iter().any(|side| !side.is_multiple_of(step)) {
            let below =
                |side: u32| (side / step * step).max(MIN_SIDE.div_ceil(step) * step).min(MAX_SIDE / step * step);
            let near = Size { height: below(input_size.height), width: below(input_size.width) };
            let above = Size { height: near.height + step, width: near.width + step };
            let above = if above.is_allowed() { format!(" or {}", above.written()) } else { String::new() };
            return Err(Error::config(format!(
                "{asked} takes multiples of {step} from {MIN_SIDE} to {MAX_SIDE} pixels; for example {}{above}, or 0 for \
                 the {own} of its card",
                near.written()
            )));
        }
        self.size = input_size;
        Ok(self)
    }

    /// Returns this card with the preprocessing in use: the settings in `config` override the card.
    ///
    /// # Errors
    /// `preprocess.exposure` is not an allowed value.
    pub fn prepared(mut self, config: &config::Preprocess) -> Result<Self> {
        self.exposure = config.level(self.exposure).map_err(Error::config)?;
        self.motion_crop = config.motion_crop.then_some(config.background_secs);
        Ok(self)
    }

    /// Returns this card with the size and the taps in use: those of `config`, or the card's own if `config` names
    /// none.
    ///
    /// # Errors
    /// Those of [`ModelCard::sized`]; taps for a model whose latent is a grid.
    pub fn with(self, config: &config::Encoder) -> Result<Self> {
        let mut card = self.sized(config.input_size)?;
        let wrong = |wrong: Vec<String>| Error::config(format!("encoder.taps has {}", wrong.join("; ")));
        if let Some(taps) = taps::parse(&config.taps).map_err(wrong)? {
            card.taps = taps;
        }
        if card.kind == OutputKind::Grid && !card.taps.is_empty() {
            return Err(Error::config(format!(
                "encoder.taps: the latent of {} is a grid (kind = \"grid\"), which has no taps; leave encoder.taps empty, \
                 or say kind = \"vector\" in its card",
                card.name
            )));
        }
        Ok(card)
    }

    /// True when the latent is not an output of the model as it stands ([`super::FeatureModel`]).
    pub fn changes_model(&self) -> bool {
        self.kind == OutputKind::Grid || !self.taps.is_empty()
    }

    /// Lists suspicious values: `mean` and `std` that do not match pixels of 0 to 1.
    pub fn doubt(&self) -> Option<String> {
        let largest = self.mean.iter().fold(0.0, |most: f32, mean| most.max(mean.abs()));
        let least = self.std.iter().copied().fold(f32::INFINITY, f32::min);
        (largest > 1.5 || least > 2.0).then(|| {
            let by_255 = |values: [f32; 3]| values.map(|value| format!("{:.4}", value / 255.0)).join(", ");
            format!(
                "mean and std of its card seem to be of pixels of 0 to 255; here pixels are 0 to 1. Divide both by 255: mean = [{}], \
                 std = [{}]",
                by_255(self.mean),
                by_255(self.std)
            )
        })
    }

    /// SHA-256 over everything that decides which latent a frame gets from given weights: output, size and
    /// preprocessing. Call it on the card that [`ModelCard::with`] and [`ModelCard::prepared`] return.
    pub fn hash(&self) -> String {
        let bits = |v: [f32; 3]| v.map(|x| format!("{:08x}", x.to_bits())).join(" ");
        let mut text = format!(
            "prepare {PREPARE_VERSION}\nkind {:?}\noutput {}\nsize {}\nchannels {:?}\nmean {}\nstd {}\nfit {:?}\n",
            self.kind,
            self.output,
            self.size.written(),
            self.channels,
            bits(self.mean),
            bits(self.std),
            self.fit
        );
        // Hashed only if present, so that a card without the key keeps the hash from before it existed.
        if let Some(level) = self.exposure {
            text += &format!("exposure {:08x}\n", level.to_bits());
        }
        if let Some(secs) = self.motion_crop {
            text += &format!("motion crop {:016x}\n", secs.to_bits());
        }
        // Unused settings are not hashed, so that earlier hashes stay valid.
        if self.changes_model() {
            text += &format!("layout {:?}\n", self.layout);
        }
        for tap in &self.taps {
            text += &format!("tap {tap}\n");
        }
        sha256_hex(text.as_bytes())
    }
}

/// Gives a clear error if `path` does not exist, or is a folder, a pipe or a device (which could be read forever).
pub(super) fn regular_file(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(m) if m.is_file() => Ok(()),
        Ok(m) if m.is_dir() => Err(Error::runtime(format!("{} is a folder; a file is needed", path.display()))),
        Ok(_) => Err(Error::runtime(format!("{} is not a regular file", path.display()))),
        Err(e) => Err(Error::io("cannot open", path, e)),
    }
}

#[cfg(test)]
#[path = "model_card_tests.rs"]
mod tests;
