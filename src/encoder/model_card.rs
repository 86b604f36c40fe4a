//! The model card: what an encoder expects, what it gives, where it is from.
//!
//! `NAME.toml` lies beside `NAME.onnx`. Every mistake in it is reported at once.
use std::path::Path;

use super::card_parser;
use crate::config;
use crate::config::size::{MAX_SIDE, MIN_SIDE, Size};
use crate::config::taps::{self, FeatureTap};
use crate::error::{Error, Result};
use crate::files::{read_bounded, sha256_hex};

/// A card is a page of text.
const MAX_CARD_BYTES: u64 = 64 * 1024;
/// An ONNX file is one protobuf message, which holds less than 2 GiB.
pub(super) const MAX_MODEL_BYTES: u64 = 2 * 1024 * 1024 * 1024 - 1;
/// Version of the preparation in [`super::Preprocess`]; raised when the same frame would give another tensor.
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

/// How a frame of another aspect becomes the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeMode {
    /// Both sides are scaled; nothing is cut off.
    Stretch,
    /// Scaled until it covers the input; the middle of what is too long is kept.
    Crop,
}

/// What the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// One latent per image, `[n, d]`.
    Vector,
    /// A vector for each cell of a grid, `[n, h, w, d]` or `[n, d, h, w]`; see [`TensorLayout`].
    Grid,
}

/// Order of the dimensions of the model's grids and maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorLayout {
    /// `[n, h, w, d]`.
    Hwd,
    /// `[n, d, h, w]`.
    Dhw,
}

/// A checked model card.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCard {
    /// Name of the model.
    pub name: String,
    /// What the output is.
    pub kind: OutputKind,
    /// Name of the input: `[n, 3, h, w]`, float32.
    pub input: String,
    /// Name of the output, float32: `[n, d]`, or a grid, which may be any tensor of the graph.
    pub output: String,
    /// What is read of the model (the output as it is where there are none); never with a grid.
    pub taps: Vec<FeatureTap>,
    /// Order of the dimensions of grids and of tapped maps (`dhw` where the card does not say).
    pub layout: TensorLayout,
    /// Size of the input in pixels.
    pub size: Size,
    /// Other sizes must be a multiple of this (1 where the card does not say).
    pub multiple_of: u32,
    /// Order of the colour planes; `mean` and `std` follow it.
    pub channels: ChannelOrder,
    /// Subtracted from values of 0 to 1, per plane.
    pub mean: [f32; 3],
    /// The difference is divided by this, per plane.
    pub std: [f32; 3],
    /// How a frame of another aspect becomes the input (`stretch` where the card does not say).
    pub fit: ResizeMode,
    /// Mean brightness, 0 to 1, that frames are brought to before `mean` is subtracted; `None`: they stay as they are.
    pub exposure: Option<f32>,
    /// Of a grid whose cells do not divide the input evenly: centre of the first cell, and from one to the next, pixels of
    /// the input along each axis (keys `cell_first` and `cell_step`).
    pub cells: Option<[f64; 2]>,
    /// Only the window around what moves is encoded (`preprocess.motion_crop`; no key of a card): seconds after which what
    /// stands still is background.
    pub motion_crop: Option<f64>,
    /// Where the model is from.
    pub source: String,
    /// Its licence.
    pub licence: String,
    /// SHA-256 of the ONNX file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Of a quantised model: the model in 32-bit floats that it was made from, with the same input and tensors.
    pub reference: Option<ReferenceModel>,
}

/// The model that a quantised one was made from: keys `reference` and `reference_sha256` of its card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceModel {
    /// Name of the ONNX file, in the folder of the card.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
}

impl ModelCard {
    /// The card of `model`: the file of the same name that ends in `.toml`.
    ///
    /// # Errors
    /// The model or the card is not there (the message shows a card filled in for this model), or the card has
    /// mistakes (all of them are named).
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

    /// This card with the size that is really used: `input_size`, or the card's own where that is unset.
    ///
    /// # Errors
    /// A side of `input_size` is not a multiple of `multiple_of`, or out of range.
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

    /// This card with the preparation that is really used: what `config` says over what the card says.
    ///
    /// # Errors
    /// `preprocess.exposure` is none of the values allowed.
    pub fn prepared(mut self, config: &config::Preprocess) -> Result<Self> {
        self.exposure = config.level(self.exposure).map_err(Error::config)?;
        self.motion_crop = config.motion_crop.then_some(config.background_secs);
        Ok(self)
    }

    /// This card with the size and the taps that are really used: those of `config`, or the card's own where it names
    /// none.
    ///
    /// # Errors
    /// [`ModelCard::sized`]; taps over a model whose latent is a grid.
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

    /// What is doubtful in it: `mean` and `std` of another scale than pixels, which are 0 to 1.
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

    /// SHA-256 over all that decides which latent a frame gets from given weights: output, size and preparation. Take
    /// it from the card that [`ModelCard::with`] and [`ModelCard::prepared`] returned.
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
        // Only where there is one: a card without keeps the hash that it had before there was such a key.
        if let Some(level) = self.exposure {
            text += &format!("exposure {:08x}\n", level.to_bits());
        }
        if let Some(secs) = self.motion_crop {
            text += &format!("motion crop {:016x}\n", secs.to_bits());
        }
        // Nothing is said of what is not used, so that earlier hashes stay.
        if self.changes_model() {
            text += &format!("layout {:?}\n", self.layout);
        }
        for tap in &self.taps {
            text += &format!("tap {tap}\n");
        }
        sha256_hex(text.as_bytes())
    }
}

/// Says plainly when `path` is not there, or is a folder, a pipe or a device (which could be read for ever).
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
