//! Verifies that the merged model reproduces the run's own embeddings, for single frames and in batches.
use std::time::Duration;

use crate::cli::{self, Dtype};
use crate::commands::common::{FrameEncoder, LoadedRun};
use crate::config;
use crate::encoder::OnnxModel;
use crate::error::{Error, Result};
use crate::export::onnx::Batch;
use crate::frame::Frame;
use crate::linalg::dot;
use crate::source::address::Address;
use crate::source::{self, Pull, Source};

/// Minimum number of frames to compare.
const FRAMES: usize = 64;
/// Batch sizes to alternate between for a model with a dynamic batch.
const BATCHES: [usize; 3] = [1, 3, 8];
/// The default source.
const PATTERN: &str = "pattern://7?frames=64";

/// The result of a verification.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ExportCheck {
    /// Smallest cosine between merged and own embeddings, including cells.
    pub(super) least: f32,
    /// Smallest cosine between a row of a batch and the same frame alone; `None` if the batch size is fixed.
    pub(super) least_of_batch: Option<f32>,
    pub(super) frames: usize,
}

/// Minimum cosine to the run's own embeddings, and between a row of a batch and the frame alone. Multiplying in another
/// order changes the last bits; 16-bit floats have 11 bits and are rounded once per layer.
fn needed(dtype: Dtype) -> (f32, f32) {
    if dtype == Dtype::F16 { (0.999, 0.9999) } else { (0.99999, 0.99999) }
}

impl ExportCheck {
    /// Why the model fails the verification; `None` if it passes.
    pub(super) fn fault(&self, dtype: Dtype, uri: &str) -> Option<String> {
        let (needed, alike) = needed(dtype);
        // Check this first, because it makes the other check fail too.
        if let Some(least) = self.least_of_batch.filter(|least| *least < alike) {
            return Some(format!(
                "the merged model gives a frame another embedding in a batch than alone: least cosine {least:.7} over {} \
                 frames, {alike} needed; its graph mixes the images of a batch: take --batch 1",
                self.frames
            ));
        }
        (self.least < needed).then(|| {
            format!(
                "the merged model ({}) disagrees with the run's own embeddings: least cosine {:.7} over {} frames of {uri}, \
                 {needed} needed",
                dtype.name(),
                self.least,
                self.frames
            )
        })
    }
}

/// The frames to compare on. A short source is repeated.
pub(super) struct Frames {
    uri: Address,
    config: config::Source,
    source: Box<dyn Source>,
    frame: Frame,
    any: bool,
}

impl Frames {
    /// Frames of `asked`, otherwise of a test pattern. Never of the source named by the run: the folder may come from
    /// anyone, and opening a source can run a pipeline or access a network.
    pub(super) fn open(run: &LoadedRun, asked: Option<&Address>) -> Result<Self> {
        let config = &run.config.source;
        let uri = asked.map_or_else(|| Address::new(PATTERN), Address::clone);
        let source = source::open(&uri, config)?;
        Ok(Self { uri, config: config.clone(), source, frame: Frame::default(), any: false })
    }

    pub(super) fn uri(&self) -> &Address {
        &self.uri
    }

    fn next(&mut self) -> Result<&Frame> {
        loop {
            match self.source.next(&mut self.frame, Duration::from_secs(1))? {
                Pull::Idle => {}
                Pull::End if !self.any => {
                    return Err(Error::runtime(format!("{} gave no frame to compare on", self.uri)));
                }
                Pull::End => self.source = source::open(&self.uri, &self.config)?,
                Pull::Frame => {
                    self.any = true;
                    return Ok(&self.frame);
                }
            }
        }
    }
}

/// Runs `whole` on frames, `batch` at a time, and compares it with the run's encoder and head. Stops early on a
/// failure.
pub(super) fn compare(
    run: &mut LoadedRun,
    whole: &mut OnnxModel,
    frames: &mut Frames,
    batch: Batch,
    args: &cli::ExportArgs,
) -> Result<ExportCheck> {
    let mut single = FrameEncoder::new(&run.opened)?;
    let dim = run.adapted.head.dim_out();
    let dynamic = batch == Batch::Dynamic;
    let mut compared = ExportCheck { least: 1.0, least_of_batch: dynamic.then_some(1.0), frames: 0 };
    let mut turns = BATCHES.into_iter().cycle();
    while compared.frames < FRAMES && compared.fault(args.dtype, "").is_none() {
        let count = match batch {
            Batch::Fixed(n) => n,
            Batch::Dynamic => turns.next().unwrap_or(1),
        };
        let (mut images, mut own) = (Vec::new(), [Vec::new(), Vec::new()]);
        for _ in 0..count {
            let rows = embeddings(run, &mut single, frames.next()?, args.grid)?;
            own.iter_mut().zip(rows).for_each(|(all, row)| all.extend(row));
            images.extend_from_slice(single.tensor());
        }
        let found = whole.run(&images)?;
        for (found, own) in found.iter().zip(&own) {
            compared.least = compared.least.min(least_cosine(found, own, dim));
        }
        if let Some(least) = &mut compared.least_of_batch
            && count > 1
        {
            for (i, image) in images.chunks_exact(images.len() / count).enumerate() {
                for (of_batch, alone) in found.iter().zip(whole.run(image)?) {
                    let row = of_batch.chunks_exact(of_batch.len() / count).nth(i).unwrap_or(&[]);
                    *least = least.min(least_cosine(row, &alone, dim));
                }
            }
        }
        compared.frames += count;
    }
    Ok(compared)
}

/// The run's own embedding of a frame, and the embeddings of its cells (empty unless requested).
fn embeddings(run: &mut LoadedRun, single: &mut FrameEncoder, frame: &Frame, cells: bool) -> Result<[Vec<f32>; 2]> {
    let latent = single.latent(&mut run.opened, frame)?;
    let (head, grid) = (&run.adapted.head, run.opened.origin.shape());
    let row = ndarray::ArrayView2::from_shape((1, latent.len()), latent)
        .map_err(|error| Error::runtime("a latent as a row").with_source(error))?;
    let whole = head.embed_latents(grid, row).into_iter().collect();
    let cells = grid.filter(|_| cells).and_then(|grid| head.embed_cells(grid, latent));
    Ok([whole, cells.map(|cells| cells.into_iter().collect()).unwrap_or_default()])
}

/// Smallest cosine over rows of `dim` numbers. Returns -1 if the lengths differ or a number is not finite, so that such
/// rows fail.
fn least_cosine(a: &[f32], b: &[f32], dim: usize) -> f32 {
    if a.len() != b.len() || a.is_empty() {
        return -1.0;
    }
    let cosine = |(a, b): (&[f32], &[f32])| {
        let squares = dot(a, a) * dot(b, b);
        // A cell without direction is zero in both.
        let cosine = if squares == 0.0 { f32::from(u8::from(a == b)) } else { dot(a, b) / squares.sqrt() };
        if cosine.is_finite() { cosine } else { -1.0 }
    };
    a.chunks_exact(dim).zip(b.chunks_exact(dim)).map(cosine).fold(1.0, f32::min)
}
