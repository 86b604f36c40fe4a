//! The open encoder: checked against its card, tried on a fixed image, then run frame by frame.
use std::path::Path;

use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::TensorRef;

use super::FeatureSlice;
use super::feature_graph::FeatureModel;
use super::io_binding::{BoundIo, IoDevice};
use super::memory_check;
use super::model_card::{MAX_MODEL_BYTES, ModelCard, regular_file};
use super::node_placement::{Placement, Profile};
use super::onnx_signature::ModelSignature;
use super::ort_hints;
use super::output_check::GraphFacts;
use super::parity::ParityReport;
use super::parity_gate::ParityGate;
use super::provider::{self, Provider};
use super::runtime::Runtime;
use super::validate::{check, usual, whole};
use crate::config::taps::OUTPUT;
use crate::config::{self, Size};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{read_bounded, sha256_hex};

/// An open model that turns one preprocessed image at a time into its latent.
pub struct Encoder {
    pub(super) session: Session,
    /// Restricts the run to the required output.
    pub(super) options: RunOptions<HasSelectedOutputs>,
    /// Fixed buffers for input and output; without them, ONNX Runtime allocates anew for each run.
    pub(super) buffers: Option<BoundIo>,
    pub(super) what: String,
    pub(super) size: Size,
    pub(super) dim: usize,
    pub(super) provider: &'static str,
    fallback: Option<String>,
    threads: usize,
    /// The maximum number of images at a time, and the reason; `None` means any number.
    pub(super) most_images: Option<(usize, String)>,
    sha256: String,
    pub(super) parts: Vec<FeatureSlice>,
    grid: Option<[usize; 3]>,
    pub(super) first_millis: f64,
    parity: Option<ParityReport>,
    placement: Option<Placement>,
    doubts: Vec<String>,
}

/// The bytes of a model, and which input and output are used.
pub(super) struct ModelSlice<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) input: &'a str,
    pub(super) output: &'a str,
    /// Size of the input in pixels.
    pub(super) size: Size,
}

impl Encoder {
    /// Opens `model` for `config.input_size` pixels (0: the card's size), on the providers of `config`.
    ///
    /// The file must have the SHA-256 that its card states and the input, output and tapped tensors that the card and
    /// `config` name, and it must give a finite `[1, d]` for a fixed image.
    ///
    /// # Errors
    /// Any of these does not hold, the input size is not allowed, or the provider cannot be used.
    pub fn open(runtime: &Runtime, model: &Path, card: &ModelCard, config: &config::Encoder) -> Result<Self> {
        let card = card.clone().with(config)?;
        regular_file(model)?;
        memory_check::check(model, memory_check::available())?;
        let bytes = read_bounded(model, MAX_MODEL_BYTES)?;
        let what = model.display().to_string();
        // The file type comes first: a file that is not ONNX has a wrong checksum too, but that would be less
        // helpful.
        let outline = ModelSignature::read(&bytes, &what)?;
        let sha256 = sha256_hex(&bytes);
        if sha256 != card.sha256 {
            return Err(Error::check_failed(format!(
                "{what} is not the model of its card: its SHA-256 is {sha256}, the card says {}. Bring back the file \
                 that the card is for, or write sha256 = \"{sha256}\" into the card once it is checked for the new \
                 file",
                card.sha256
            )));
        }
        whole(&outline, model)?;
        check(&outline, &card.input, (!card.changes_model()).then_some(card.output.as_str()), card.size, &what)?;
        let known = GraphFacts::of(&bytes, &card);
        let latent = FeatureModel::new(runtime, bytes, &card, &what)?;
        let part = ModelSlice { bytes: &latent.bytes, input: &card.input, output: &latent.output, size: card.size };
        let mut gate = ParityGate::new(runtime, &card, config, model, &outline);
        let mut encoder = Self::start(runtime, &part, config, &what, Some(&mut gate))?;
        encoder.sha256 = sha256;
        encoder.grid = latent.grid;
        if !latent.parts.is_empty() {
            encoder.parts = latent.parts;
        }
        encoder.doubts = encoder.try_pictures(&card, &known)?;
        encoder.announce();
        Ok(encoder)
    }

    /// Opens the ONNX file in `bytes`, with input `input` and output `output`, for images of `size`. Checks
    /// everything but the SHA-256, and skips the parity gate. `what` names it in errors.
    ///
    /// # Errors
    /// As [`Encoder::open`].
    pub fn from_bytes(
        runtime: &Runtime,
        bytes: &[u8],
        input: &str,
        output: &str,
        size: Size,
        config: &config::Encoder,
        what: &str,
    ) -> Result<Self> {
        let encoder = Self::start(runtime, &ModelSlice { bytes, input, output, size }, config, what, None)?;
        encoder.announce();
        Ok(Self { sha256: sha256_hex(bytes), ..encoder })
    }

    /// Opens `part` on the first provider of `config`, or on a later one if fallback is allowed and the earlier ones
    /// cannot be opened, give no latent, or do not pass the `gate`.
    pub(super) fn start(
        runtime: &Runtime,
        part: &ModelSlice,
        config: &config::Encoder,
        what: &str,
        mut gate: Option<&mut ParityGate>,
    ) -> Result<Self> {
        let outline = ModelSignature::read(part.bytes, what)?;
        usual(&outline, part.input, part.output, part.size, what)?;
        let fixed = outline.fixed_images(part.input);
        let mut failed: Vec<Error> = Vec::new();
        for provider in provider::asked(config)? {
            let opened = Self::on(provider, runtime, part, config, what).and_then(|mut encoder| {
                encoder.parity = match &mut gate {
                    Some(gate) => gate.ask(&mut encoder, provider, part)?,
                    None => None,
                };
                Ok(encoder)
            });
            match opened {
                Ok(mut encoder) => {
                    let one = || (1, "its graph takes one image at a time (its first dimension is not free)".into());
                    encoder.most_images = fixed.then(one).or(provider.most_images(config));
                    if !failed.is_empty() {
                        let why = told(&failed);
                        tracing::warn!("{what} runs on {}: {why}", provider.as_str());
                        encoder.fallback = Some(why);
                    }
                    return Ok(encoder);
                }
                Err(error) if config.fallback => failed.push(error),
                Err(error) => return Err(error),
            }
        }
        let kind = failed.last().map_or(ErrorKind::Runtime, Error::kind);
        Err(Error::new(kind, format!("none of encoder.providers can be used: {}", told(&failed))))
    }

    /// Opens `part` on `provider`, and runs it once.
    fn on(
        provider: Provider,
        runtime: &Runtime,
        part: &ModelSlice,
        config: &config::Encoder,
        what: &str,
    ) -> Result<Self> {
        let profile = Profile::new();
        let model = provider::ModelIdentity { bytes: part.bytes, input: part.input, size: part.size, what };
        let file = profile.as_ref().map(Profile::file);
        let session = provider.open(runtime, model, config, file.as_deref()).map_err(Error::runtime)?;
        let options = RunOptions::new().map(|o| o.with_outputs(OutputSelector::no_default().with(part.output)));
        let mut encoder = Self {
            session,
            buffers: None,
            options: options.map_err(|e| Error::runtime(format!("{what}: ONNX Runtime: {e}")))?,
            what: what.to_string(),
            size: part.size,
            dim: 0,
            provider: provider.as_str(),
            fallback: None,
            threads: provider::threads(config),
            most_images: None,
            sha256: String::new(),
            parts: Vec::new(),
            grid: None,
            first_millis: 0.0,
            parity: None,
            placement: None,
            doubts: Vec::new(),
        };
        let place = provider.place(config);
        let graph = matches!(place, IoDevice::Gpu { graph: true, .. });
        let library = provider.library(runtime);
        let bind = |encoder: &Self| {
            BoundIo::new(&encoder.session, [part.input, part.output], part.size, encoder.dim, place, library.as_deref())
        };
        // With a CUDA graph no run may precede binding the buffers, because that first run captures the graph.
        let tried = if graph {
            encoder.capture(runtime, part, &bind).map(|()| None)
        } else {
            encoder.try_out(part.output).map(Some)
        };
        // Ends profiling in any case, so that later runs are not measured.
        if let Some(profile) = profile {
            encoder.placement = encoder.session.end_profiling().ok().and_then(|file| profile.read(&file));
        }
        if let Some(latent) = tried? {
            encoder.settle(&bind, &latent);
        }
        Ok(encoder)
    }

    /// Describes the opened model for the log.
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
            "encoder {}: {} pixels to {} values{of} on {}, {} threads, first inference {:.1} ms",
            self.what,
            self.size,
            self.dim,
            self.provider,
            self.threads,
            self.first_millis
        );
        if let Some(placement) = &self.placement {
            // On the CPU alone there is nothing to report.
            let told = format!("nodes of {} ran on: {}", self.what, placement.describe());
            if self.provider == "cpu" { tracing::debug!("{told}") } else { tracing::info!("{told}") }
        }
        self.doubts.iter().for_each(|doubt| tracing::warn!("{}: {doubt}", self.what));
        if let Some(parity) = &self.parity {
            tracing::info!("latents of {}: {}", self.what, parity.describe());
        }
    }

    /// Runs the model on one image or several, without fixed buffers, and passes the output's shape and values to
    /// `take`. The error is a complete message.
    pub(super) fn run<T>(
        &mut self,
        tensor: &[f32],
        take: impl FnOnce(&[i64], &[f32]) -> std::result::Result<T, String>,
    ) -> std::result::Result<T, String> {
        let what = &self.what;
        let failed = |e: ort::Error| {
            let why = e.to_string();
            format!("{what}: inference on {} failed: {why}{}", self.provider, ort_hints::hint(&why))
        };
        let [height, width] = self.size.dims();
        let images = tensor.len() / self.size.values().max(1);
        let input = TensorRef::from_array_view(([images, 3, height, width], tensor)).map_err(failed)?;
        let outputs = self.session.run_with_options([SessionInputValue::from(input)], &self.options).map_err(failed)?;
        let (shape, values) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
        take(shape, values).map_err(|why| format!("{what}: {why}"))
    }

    /// Encodes `tensor`, one preprocessed image with [`Size::values`] values, into `out`, its latent of `dim` values
    /// as the model gives it. Copies both from and to the model's buffers; nothing is allocated.
    ///
    /// # Errors
    /// A length is wrong or the inference fails. Values that are not finite are not an error here: one bad frame must
    /// not end a run, so the caller checks the norm and counts such frames.
    pub fn encode(&mut self, tensor: &[f32], out: &mut [f32]) -> Result<()> {
        let (values, dim) = (self.size.values(), self.dim);
        if tensor.len() != values || out.len() != dim {
            return Err(Error::runtime(format!(
                "{}: takes {values} values and gives {dim}; the buffers have {} and {}",
                self.what,
                tensor.len(),
                out.len()
            )));
        }
        if let Some(buffers) = &mut self.buffers {
            return buffers.run(&mut self.session, tensor, out).map_err(|why| {
                let hint = ort_hints::hint(&why);
                Error::runtime(format!("{}: inference on {} failed: {why}{hint}", self.what, self.provider))
            });
        }
        self.run(tensor, |shape, values| {
            if values.len() != dim {
                return Err(format!("the output is {shape:?}, before it had {dim} values"));
            }
            out.copy_from_slice(values);
            Ok(())
        })
        .map_err(Error::runtime)
    }

    /// Size of the input in pixels.
    pub fn size(&self) -> Size {
        self.size
    }
    /// Number of values in a latent.
    pub fn dim(&self) -> usize {
        self.dim
    }
    /// The parts that the latent consists of, in order; their lengths add up to [`Encoder::dim`]. One part if there
    /// are no taps.
    pub fn parts(&self) -> &[FeatureSlice] {
        &self.parts
    }
    /// `[h, w, d]` if the latent is a grid: cell `(y, x)` is `latent[(y * w + x) * d..][..d]`.
    pub fn grid(&self) -> Option<[usize; 3]> {
        self.grid
    }
    /// The provider in use, as in `encoder.providers`.
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
    /// How close the latents are to those of 32-bit floats on the CPU; `None` if no comparison is needed.
    pub fn parity(&self) -> Option<&ParityReport> {
        self.parity.as_ref()
    }
    /// Where the nodes of the graph ran in the first inference; `None` if it could not be measured.
    pub fn placement(&self) -> Option<&Placement> {
        self.placement.as_ref()
    }
    /// Time of the first inference, milliseconds; it includes preparing memory and kernels for later ones.
    pub fn first_millis(&self) -> f64 {
        self.first_millis
    }
    /// Warnings about the quality of the latents.
    pub fn doubts(&self) -> &[String] {
        &self.doubts
    }
    /// Why the first provider of the list is not used, if a fallback took its place.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }
}

/// Explains why the earlier providers were not used.
fn told(failed: &[Error]) -> String {
    failed.iter().map(Error::chain).collect::<Vec<_>>().join("; ")
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, size, dim, provider, .. } = self;
        write!(f, "Encoder({what}, {size} -> {dim}, {provider})")
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
