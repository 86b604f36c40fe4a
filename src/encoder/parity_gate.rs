//! The parity gate before serving: compares the latents of an accelerator or a quantised model with 32-bit floats on
//! the CPU.
use std::path::Path;

use ndarray::Array2;

use super::feature_graph::FeatureModel;
use super::model_card::{MAX_MODEL_BYTES, ModelCard, regular_file};
use super::onnx_signature::ModelSignature;
use super::parity::{self, ParityReport};
use super::provider::Provider;
use super::runtime::Runtime;
use super::session::{Encoder, ModelSlice};
use crate::config;
use crate::error::{Error, Result};
use crate::files::{read_bounded, sha256_hex};

/// How to continue when the gate fails.
const WAY_OUT: &str = "encoder.parity.min_cosine = 0 goes on without asking";

/// Runs the comparison and caches the reference latents for the next provider.
pub(super) struct ParityGate<'a> {
    pub(super) runtime: &'a Runtime,
    /// The card in use.
    pub(super) card: &'a ModelCard,
    pub(super) config: &'a config::Encoder,
    /// The model file.
    pub(super) model: &'a Path,
    /// Evidence that the model is not in 32-bit floats.
    pub(super) reduced: Option<String>,
    images: Vec<Vec<f32>>,
    /// Latents of the reference, and its name.
    expected: Option<(Array2<f32>, String)>,
}

impl<'a> ParityGate<'a> {
    pub(super) fn new(
        runtime: &'a Runtime,
        card: &'a ModelCard,
        config: &'a config::Encoder,
        model: &'a Path,
        outline: &ModelSignature,
    ) -> Self {
        // 16-bit floats are close enough to 32-bit ones, so a missing reference is no reason to refuse.
        let reduced = outline.reduced.clone().filter(|_| outline.quantised || card.reference.is_some());
        Self { runtime, card, config, model, reduced, images: Vec::new(), expected: None }
    }

    /// True if the latents of this model on `provider` must be compared.
    fn asks(&self, provider: Provider) -> bool {
        let special = provider != Provider::Cpu || self.card.reference.is_some() || self.reduced.is_some();
        special && self.config.parity.min_cosine > 0.0
    }

    /// Runs the comparison; `bytes` is the model as `encoder` runs it. Returns `None` if none is needed.
    ///
    /// # Errors
    /// Refused: the latents differ too much, or there is no reference. Errors of opening the reference.
    pub(super) fn ask(
        &mut self,
        encoder: &mut Encoder,
        provider: Provider,
        part: &ModelSlice,
    ) -> Result<Option<ParityReport>> {
        if !self.asks(provider) {
            return Ok(None);
        }
        if self.images.is_empty() {
            self.images = parity::images(self.card, self.config.parity.frames)?;
        }
        let (expected, name) = match self.expected.take() {
            Some(known) => known,
            None => self.reference(part)?,
        };
        let found = latents(encoder, &self.images)?;
        if found.ncols() != expected.ncols() {
            return Err(Error::check_failed(format!(
                "{} gives {} values, its reference {name} {}: they are not the same encoder; name the model that it was made \
                 from in its card",
                self.model.display(),
                found.ncols(),
                expected.ncols()
            )));
        }
        let parity = ParityReport::measure(&expected, &found, &name);
        self.expected = Some((expected, name));
        let least = self.config.parity.min_cosine;
        if parity.passes(least) {
            return Ok(Some(parity));
        }
        Err(Error::check_failed(format!(
            "{} on {}: its latents are not those of {}: {}; encoder.parity.min_cosine = {least} is needed. {}. {WAY_OUT}",
            self.model.display(),
            provider.as_str(),
            parity.reference,
            parity.describe(),
            self.advice(provider)
        )))
    }

    /// Suggests alternatives for the likely cause.
    fn advice(&self, provider: Provider) -> String {
        let trt = &self.config.tensorrt;
        let of_provider = match provider {
            Provider::TensorRt if trt.precision != config::Precision::Fp32 => {
                "Set encoder.tensorrt.precision = \"fp32\" (transformers lose most in their LayerNormalization and Softmax), \
                 or encoder.providers = [\"cuda\"]"
            }
            Provider::TensorRt => "Set encoder.providers = [\"cuda\"] or [\"cpu\"]: TensorRT gets this model wrong",
            Provider::Cuda if self.config.cuda.tf32 => "Set encoder.cuda.tf32 = false",
            Provider::Cpu => "Use the reference itself, or quantise anew with more frames (tools/quantize.py)",
            _ => "Set encoder.providers = [\"cpu\"]",
        };
        if self.reduced.is_some() && provider != Provider::Cpu {
            return format!("{of_provider}; or use the model in 32-bit floats");
        }
        of_provider.into()
    }

    /// Computes the reference latents on the CPU and returns them with its name. The reference is closed again before
    /// anything else runs.
    fn reference(&self, part: &ModelSlice) -> Result<(Array2<f32>, String)> {
        let cpu = config::Encoder { providers: vec![Provider::Cpu], fallback: false, ..self.config.clone() };
        let Some(reference) = &self.card.reference else {
            if let Some(what) = &self.reduced {
                return Err(Error::check_failed(format!(
                    "{} is quantised ({what}) and its card names nothing to compare it with. Write reference = \"MODEL.onnx\" \
                     (the model in 32-bit floats that it was made from, in the same folder) and reference_sha256 into the \
                     card; {WAY_OUT}",
                    self.model.display()
                )));
            }
            let mut same = Encoder::start(self.runtime, part, &cpu, &self.model.display().to_string(), None)?;
            return Ok((latents(&mut same, &self.images)?, "itself on the CPU".into()));
        };
        let path = self.model.with_file_name(&reference.file);
        let what = format!("{} (the reference of {})", path.display(), self.model.display());
        regular_file(&path)?;
        let bytes = read_bounded(&path, MAX_MODEL_BYTES)?;
        let outline = ModelSignature::read(&bytes, &what)?;
        let sha256 = sha256_hex(&bytes);
        if sha256 != reference.sha256 {
            return Err(Error::check_failed(format!(
                "{what} is not the file of the card: its SHA-256 is {sha256}, the card says reference_sha256 = {}. Bring back \
                 the file that the model was made from",
                reference.sha256
            )));
        }
        if let Some(reduced) = outline.reduced {
            return Err(Error::check_failed(format!(
                "{what} has {reduced} itself: a reference must be in 32-bit floats"
            )));
        }
        let model = FeatureModel::new(self.runtime, bytes, self.card, &what)?;
        let part =
            ModelSlice { bytes: &model.bytes, input: &self.card.input, output: &model.output, size: self.card.size };
        let mut encoder = Encoder::start(self.runtime, &part, &cpu, &what, None)?;
        Ok((latents(&mut encoder, &self.images)?, reference.file.clone()))
    }
}

fn latents(encoder: &mut Encoder, images: &[Vec<f32>]) -> Result<Array2<f32>> {
    let mut all = Array2::zeros((images.len(), encoder.dim()));
    for (image, mut row) in images.iter().zip(all.rows_mut()) {
        let row = row.as_slice_mut().ok_or_else(|| Error::runtime("rows of latents"))?;
        encoder.encode(image, row)?;
    }
    Ok(all)
}

#[cfg(test)]
#[path = "parity_gate_tests.rs"]
mod tests;
