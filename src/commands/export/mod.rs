//! `export`: writes the encoder and the head as one ONNX file.
mod verify;
mod metadata;

use std::io::Write;
use std::path::Path;

use serde_json::json;

use self::verify::{ExportCheck, Frames};
use super::Output;
use super::common::LoadedRun;
use crate::cli::{self, Dtype};
use crate::encoder::runtime::{self, Runtime};
use crate::encoder::{FeatureModel, OnnxModel, float_tensors};
use crate::error::{Error, ErrorKind, Result};
use crate::export::onnx::{self, Batch, Fp16Conversion, Input, MergeOptions};
use crate::files;

/// A larger model cannot be a single protobuf message.
const MAX_MODEL_BYTES: u64 = 2 << 30;
/// If f16 is not accurate enough, this many of the first convolutions stay in f32, then twice as many, and so on.
const FIRST: usize = 4;

pub(super) fn run(args: &cli::ExportArgs) -> Result<Output> {
    if args.io == Dtype::F16 && args.dtype == Dtype::F32 {
        return Err(Error::usage("--io f16 goes with --dtype f16: input and outputs of an f32 model stay in f32"));
    }
    // On the CPU, like the merged model: no engine is built, and differences cannot come from another processor.
    let mut common = args.common.clone();
    common.set.insert(0, "encoder.providers=[\"cpu\"]".into());
    let mut run = LoadedRun::open(&args.of, &common)?;
    let grid = run.opened.origin.shape();
    if args.grid && grid.is_none() {
        return Err(Error::usage(format!(
            "--grid: the latents of {} are vectors, there are no cells to export; leave it out",
            run.opened.card.name
        )));
    }
    let runtime = runtime::load(&run.config.encoder.onnxruntime)?;
    let bytes = files::read_bounded(&run.model, MAX_MODEL_BYTES)?;
    let encoder = onnx::names_of(&bytes)?;
    let latent = FeatureModel::new(&runtime, bytes, &run.opened.card, &run.model.display().to_string())?;
    // The batch size of the model as it is used: what the file fixes or lacks may be worked around.
    let own = onnx::batch_of(&latent.bytes, &run.opened.card.input)?;
    let batch = args.batch.unwrap_or(own);
    let (head, size) = (run.adapted.head.clone(), run.opened.encoder.size());
    let name = run.opened.card.input.clone();
    let mut merged = MergeOptions {
        model: &latent.bytes,
        input: Some(Input { name: &name, size, batch }),
        latent: &latent.output,
        grid,
        head: &head,
        cells: args.grid,
        meta: &metadata::entries(&run, args, batch),
    }
    .bytes()?;
    drop(latent);
    if let Batch::Fixed(n) = own
        && batch != own
    {
        merged = onnx::free(&merged, n)?;
    }
    let mut trial =
        ExportTrial { runtime: &runtime, frames: Frames::open(&run, args.source.as_ref())?, args, batch, own };
    let done = match args.dtype {
        Dtype::F32 => trial.write(&mut run, &merged)?,
        Dtype::F16 => {
            let floats = float_tensors(&runtime, &merged).map_err(|error| trial.held(&merged, error))?;
            let io = args.io == Dtype::F16;
            let halves =
                Fp16Conversion { model: &merged, input: &name, encoder: &encoder, floats: &floats, io, first: 0 };
            trial.write_halves(&mut run, halves)?
        }
    };
    Ok(report(&run, args, batch, &done, &trial.frames.uri().to_string()))
}

/// Describes the written file.
struct ExportResult {
    bytes: usize,
    compared: ExportCheck,
    /// Number of first convolutions and matrix products that stayed in f32 while the rest are in f16, and their total
    /// number.
    kept: Option<[usize; 2]>,
}

/// Writes a model and verifies it before it gets its name.
struct ExportTrial<'a> {
    runtime: &'a Runtime,
    frames: Frames,
    args: &'a cli::ExportArgs,
    batch: Batch,
    /// The batch size declared in the encoder's file.
    own: Batch,
}

impl ExportTrial<'_> {
    /// Converts to f16 as far as the verification passes, with more and more of the first convolutions in f32.
    fn write_halves(&mut self, run: &mut LoadedRun, mut halves: Fp16Conversion) -> Result<ExportResult> {
        let heavy = onnx::heavy(&halves)?;
        loop {
            let tried = onnx::halve(&halves).and_then(|model| self.write(run, &model));
            let next = (2 * halves.first).max(FIRST);
            match tried {
                Ok(done) => return Ok(ExportResult { kept: Some([halves.first, heavy]), ..done }),
                Err(error) if error.kind() == ErrorKind::CheckFailed && 2 * next <= heavy => {
                    tracing::info!(
                        "{error}; trying again with the first {next} of {heavy} convolutions and products in f32"
                    );
                    halves.first = next;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self, run: &mut LoadedRun, model: &[u8]) -> Result<ExportResult> {
        let path = &self.args.onnx;
        let mut compared = ExportCheck::default();
        write_checked(path, model, |written| {
            // Check what was actually written.
            let bytes = files::read_bounded(written, MAX_MODEL_BYTES)?;
            let size = run.opened.encoder.size();
            compared = OnnxModel::open(self.runtime, &bytes, size)
                .and_then(|mut whole| verify::compare(run, &mut whole, &mut self.frames, self.batch, self.args))
                .map_err(|error| self.held(&bytes, error))?;
            match compared.fault(self.args.dtype, &self.frames.uri().to_string()) {
                Some(fault) => Err(Error::check_failed(format!("{fault}; {} was not written", path.display()))),
                None => Ok(()),
            }
        })?;
        Ok(ExportResult { bytes: model.len(), compared, kept: None })
    }

    /// Extends the error when a model cannot be run: the most likely cause is a batch size other than the encoder's
    /// own.
    fn held(&self, model: &[u8], error: Error) -> Error {
        let Batch::Fixed(n) = self.own else { return error };
        if self.batch == self.own || error.kind() != ErrorKind::CheckFailed {
            return error;
        }
        let held = onnx::fixed_targets(model, n);
        let held = if held.is_empty() { String::new() } else { format!(" ({})", held.join("; ")) };
        Error::check_failed(format!(
            "the encoder's graph holds its batch of {n}{held}, so that it cannot take another: export the encoder with a \
             free batch (PyTorch: dynamic_axes = {{\"image\": {{0: \"n\"}}}}), or take --batch {n}"
        ))
        .with_source(error)
    }
}

/// The report to the user.
fn report(run: &LoadedRun, args: &cli::ExportArgs, batch: Batch, done: &ExportResult, uri: &str) -> Output {
    let ExportResult { bytes, compared, kept } = done;
    let (dim, number) = (run.adapted.head.dim_out(), run.adapted.number);
    let json = json!({
        "onnx": args.onnx.display().to_string(), "head": number, "space": run.adapted.space.as_ref(), "dim": dim,
        "dtype": args.dtype.name(), "io": args.io.name(), "batch": metadata::batch(batch),
        "least_cosine": compared.least, "least_batch_cosine": compared.least_of_batch, "frames": compared.frames,
        "source": uri, "bytes": bytes, "f32_convolutions": kept.map(|[first, _]| first),
    });
    let cells = run.opened.origin.shape().filter(|_| args.grid);
    let cells = cells.map(|g| format!(", `{}` [n, {}, {}, {dim}]", onnx::CELLS, g.rows, g.columns)).unwrap_or_default();
    let rows = match compared.least_of_batch {
        Some(cosine) => format!("\nrows of batches of 3 and 8 against the frame alone: least cosine {cosine:.7}"),
        None => String::new(),
    };
    let kept = match kept {
        Some([first, heavy]) if *first > 0 => {
            format!(
                "\nthe first {first} of {heavy} convolutions and products stay in f32, which f16 needs to be near enough"
            )
        }
        _ => String::new(),
    };
    let text = format!(
        "{}: encoder and head {number} in one, {}, batch {}, output `{}` [n, {dim}]{cells}, {:.1} MB\n\
         compared through ONNX Runtime with the run's own embeddings on {} frames of {uri}: least cosine {:.7}{rows}{kept}",
        args.onnx.display(),
        args.dtype.name(),
        metadata::batch(batch),
        onnx::OUTPUT,
        *bytes as f64 / 1e6,
        compared.frames,
        compared.least,
    );
    Output { text, json, as_json: args.common.json }
}

/// Writes `path` completely or not at all, and creates its folder.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_checked(path, bytes, |_| Ok(()))
}

/// Like [`write`], but `check` may reject the file before it gets its name.
fn write_checked(path: &Path, bytes: &[u8], check: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        files::create_folder(folder)?;
    }
    files::replace_checked(path, |out| out.write_all(bytes), check)
}
