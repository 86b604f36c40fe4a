//! The open encoder: checked against its card, tried on a fixed image, then run frame by frame.
use std::path::Path;
use std::time::Instant;

use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::TensorRef;

use super::card::{Card, MAX_MODEL_BYTES, regular_file};
use super::fits::{NEEDS_VECTOR, check};
use super::latent::{LatentModel, LatentPart};
use super::outline::Outline;
use super::provider::{self, Opened};
use super::runtime::Runtime;
use crate::config;
use crate::config::taps::{OUTPUT, Pooling};
use crate::error::{Error, Result};
use crate::files::{read_bounded, sha256_hex};

/// A model that is ready to turn one prepared image at a time into its latent.
pub struct Encoder {
    session: Session,
    /// Only the output that is wanted is computed.
    options: RunOptions<HasSelectedOutputs>,
    what: String,
    side: u32,
    dim: usize,
    provider: &'static str,
    fallback: Option<String>,
    threads: usize,
    sha256: String,
    parts: Vec<LatentPart>,
    grid: Option<[usize; 3]>,
    first_millis: f64,
}

impl Encoder {
    /// Opens `model` for `config.input_size` pixels (0: the card's size), on the providers of `config`.
    ///
    /// The file must have the SHA-256 of its card, the input, output and tapped tensors that card and `config` name, and
    /// give a finite `[1, d]` for a fixed image.
    ///
    /// # Errors
    /// Any of these does not hold, the input size is not allowed, or the provider cannot be used.
    pub fn open(runtime: &Runtime, model: &Path, card: &Card, config: &config::Encoder) -> Result<Self> {
        let card = card.clone().with(config)?;
        regular_file(model)?;
        let bytes = read_bounded(model, MAX_MODEL_BYTES)?;
        let what = model.display().to_string();
        // First what it is: a file that is not ONNX has a wrong sum too, and that would say less.
        let outline = Outline::read(&bytes, &what)?;
        let sha256 = sha256_hex(&bytes);
        if sha256 != card.sha256 {
            return Err(Error::refused(format!(
                "{what} is not the model of its card: its SHA-256 is {sha256}, the card says {}. Bring back the file \
                 that the card is for, or write sha256 = \"{sha256}\" into the card once it is checked for the new \
                 file",
                card.sha256
            )));
        }
        if card.changes_model() {
            check(&outline, &card.input, None, card.size, &what)?;
        }
        let model = LatentModel::new(runtime, bytes, &card, &what)?;
        let mut encoder = Self::start(runtime, &model.bytes, &card.input, &model.output, card.size, config, &what)?;
        encoder.sha256 = sha256;
        encoder.grid = model.grid;
        if !model.parts.is_empty() {
            encoder.parts = model.parts;
        }
        encoder.announce();
        Ok(encoder)
    }

    /// Opens the ONNX file in `bytes`, with input `input` and output `output`, for `side` x `side` pixels; checks all
    /// but the SHA-256. `what` names it in errors.
    ///
    /// # Errors
    /// As [`Encoder::open`].
    pub fn from_bytes(
        runtime: &Runtime,
        bytes: &[u8],
        input: &str,
        output: &str,
        side: u32,
        config: &config::Encoder,
        what: &str,
    ) -> Result<Self> {
        let encoder = Self::start(runtime, bytes, input, output, side, config, what)?;
        encoder.announce();
        Ok(Self { sha256: sha256_hex(bytes), ..encoder })
    }

    /// As [`Encoder::from_bytes`], without a SHA-256.
    fn start(
        runtime: &Runtime,
        bytes: &[u8],
        input: &str,
        output: &str,
        side: u32,
        config: &config::Encoder,
        what: &str,
    ) -> Result<Self> {
        let outline = Outline::read(bytes, what)?;
        check(&outline, input, Some(output), side, what)?;
        let Opened { session, provider, fallback } = provider::open(runtime, bytes, config, what)?;
        let options = RunOptions::new().map(|o| o.with_outputs(OutputSelector::no_default().with(output)));
        let mut encoder = Self {
            session,
            options: options.map_err(|e| Error::work(format!("{what}: ONNX Runtime: {e}")))?,
            what: what.to_string(),
            side,
            dim: 0,
            provider,
            fallback,
            threads: provider::threads(config),
            sha256: String::new(),
            parts: Vec::new(),
            grid: None,
            first_millis: 0.0,
        };
        encoder.try_out(output)?;
        Ok(encoder)
    }

    /// One inference on a fixed image: finds the dimension and refuses what could not be learned from.
    fn try_out(&mut self, output: &str) -> Result<()> {
        let image = fixed_image(self.side);
        let start = Instant::now();
        let latent = self.run(&image, |shape, values| match *shape {
            [1, _] => Ok(values.to_vec()),
            _ => Err(format!("output {output} is {shape:?} for one image: {NEEDS_VECTOR}")),
        });
        let latent = latent.map_err(Error::refused)?;
        self.first_millis = start.elapsed().as_secs_f64() * 1e3;
        let bad = latent.iter().filter(|v| !v.is_finite()).count();
        if bad > 0 || latent.iter().all(|v| *v == 0.0) {
            let found = if bad > 0 {
                format!("{bad} of {} values are not finite", latent.len())
            } else {
                "all values are 0".into()
            };
            return Err(Error::refused(format!(
                "{} on {}: {found} for a test image of ordinary values; the model is broken, or its precision does not \
                 suit this provider. Check it with the CPU (encoder.providers = [\"cpu\"]), or export it again",
                self.what, self.provider
            )));
        }
        self.dim = latent.len();
        self.parts = vec![LatentPart { name: format!("{OUTPUT}:{}", Pooling::AsIs), len: self.dim }];
        Ok(())
    }

    /// What was opened, for the log.
    fn announce(&self) {
        let of = match (self.grid, self.parts.as_slice()) {
            (Some([h, w, d]), _) => format!(" (a grid of {h} x {w} cells of {d})"),
            (None, parts) if parts.len() == 1 && parts[0].name.starts_with(OUTPUT) => String::new(),
            (None, parts) => {
                let parts: Vec<String> = parts.iter().map(|part| format!("{} of {}", part.len, part.name)).collect();
                format!(" ({})", parts.join(", "))
            }
        };
        tracing::info!(
            "encoder {}: {side} x {side} pixels to {} values{of} on {}, {} threads, first inference {:.1} ms",
            self.what,
            self.dim,
            self.provider,
            self.threads,
            self.first_millis,
            side = self.side
        );
    }

    /// Runs the model and hands the output's shape and values to `take`; the error is a complete message.
    fn run<T>(
        &mut self,
        tensor: &[f32],
        take: impl FnOnce(&[i64], &[f32]) -> std::result::Result<T, String>,
    ) -> std::result::Result<T, String> {
        let what = &self.what;
        let failed = |e: ort::Error| format!("{what}: inference on {} failed: {e}", self.provider);
        let side = self.side as usize;
        let input = TensorRef::from_array_view(([1, 3, side, side], tensor)).map_err(failed)?;
        let outputs = self.session.run_with_options([SessionInputValue::from(input)], &self.options).map_err(failed)?;
        let (shape, values) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
        take(shape, values).map_err(|why| format!("{what}: {why}"))
    }

    /// `tensor`: one prepared image, `3 * side * side` values; `out`: its latent as the model gives it, `dim` values.
    /// ONNX Runtime reads the one and fills the other from its own memory; nothing of ours is allocated.
    ///
    /// # Errors
    /// A length is wrong or the inference fails. Values that are not finite are no error here: one odd frame must not
    /// end a run, so the caller looks at the norm and counts.
    pub fn encode(&mut self, tensor: &[f32], out: &mut [f32]) -> Result<()> {
        let (values, dim) = (3 * self.side as usize * self.side as usize, self.dim);
        if tensor.len() != values || out.len() != dim {
            return Err(Error::work(format!(
                "{}: takes {values} values and gives {dim}; the buffers have {} and {}",
                self.what,
                tensor.len(),
                out.len()
            )));
        }
        self.run(tensor, |shape, values| {
            if values.len() != dim {
                return Err(format!("the output is {shape:?}, before it had {dim} values"));
            }
            out.copy_from_slice(values);
            Ok(())
        })
        .map_err(Error::work)
    }

    /// Side of the input in pixels.
    pub fn side(&self) -> u32 {
        self.side
    }
    /// Values of a latent.
    pub fn dim(&self) -> usize {
        self.dim
    }
    /// What the latent is joined from, in order; the lengths add up to [`Encoder::dim`]. One part where there are no taps.
    pub fn parts(&self) -> &[LatentPart] {
        &self.parts
    }
    /// `[h, w, d]` where the latent is a grid: cell `(y, x)` is `latent[(y * w + x) * d..][..d]`.
    pub fn grid(&self) -> Option<[usize; 3]> {
        self.grid
    }
    /// The provider that is used: `tensorrt`, `cuda` or `cpu`.
    pub fn provider(&self) -> &str {
        self.provider
    }
    /// Threads of one inference on the CPU.
    pub fn threads(&self) -> usize {
        self.threads
    }
    /// SHA-256 of the ONNX file.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
    /// Why the first provider of the list is not used, where that was allowed.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, side, dim, provider, .. } = self;
        write!(f, "Encoder({what}, {side} x {side} -> {dim}, {provider})")
    }
}

/// A smooth picture of ordinary values, -1 to 1: the same for every model of this size.
pub(super) fn fixed_image(side: u32) -> Vec<f32> {
    let side = side as usize;
    let value = |i: usize| {
        let (plane, y, x) = (i / (side * side), i / side % side, i % side);
        ((3 * x + 2 * y + 5 * plane) % (2 * side)) as f32 / side as f32 - 1.0
    };
    (0..3 * side * side).map(value).collect()
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
