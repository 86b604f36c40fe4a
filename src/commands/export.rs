//! `export`: encoder and head as one ONNX file.
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::Output;
use super::common::{OpenedRun, Single};
use crate::cli;
use crate::encoder::{Encoder, LatentModel, MAX_GAIN, runtime};
use crate::error::{Error, Result};
use crate::export::onnx;
use crate::files;
use crate::frame::Frame;
use crate::head::Scratch;
use crate::linalg::dot;
use crate::source::{self, Pull};

/// Frames that the merged model is compared on.
const FRAMES: usize = 64;
/// Least cosine between the merged model's embedding and the runtime's own.
const LEAST_COSINE: f32 = 0.99999;
/// A model larger than this cannot be one protobuf message.
const MAX_MODEL_BYTES: u64 = 2 << 30;

pub(super) fn run(args: &cli::Export) -> Result<Output> {
    let mut run = OpenedRun::open(&args.of, &args.common)?;
    let runtime = runtime::load(&run.config.encoder.onnxruntime)?;
    let bytes = files::read_bounded(&run.model, MAX_MODEL_BYTES)?;
    let latent = LatentModel::new(&runtime, bytes, &run.opened.card, &run.model.display().to_string())?;
    let head = run.adapted.head.clone();
    let meta = metadata(&run);
    let merged = onnx::merge(&latent.bytes, &latent.output, run.opened.origin.shape(), &head, &meta)?;
    drop(latent);
    let card = &run.opened.card;
    let (side, encoder) = (run.opened.encoder.side(), &run.config.encoder);
    let mut check = Encoder::from_bytes(&runtime, &merged, &card.input, onnx::OUTPUT, side, encoder, "merged model")?;
    let worst = compare(&mut run, &mut check, &args.source)?;
    if worst < LEAST_COSINE {
        return Err(Error::refused(format!(
            "the merged model disagrees with the runtime's own embeddings: least cosine {worst:.7} over {FRAMES} \
             frames, {LEAST_COSINE} needed; {} was not written",
            args.onnx.display()
        )));
    }
    write(&args.onnx, &merged)?;
    let (dim, number) = (head.dim_out(), run.adapted.number);
    let json = json!({
        "onnx": args.onnx.display().to_string(), "head": number, "space": run.adapted.space.as_ref(), "dim": dim,
        "least_cosine": worst, "frames": FRAMES, "bytes": merged.len(),
    });
    let text = format!(
        "{}: encoder and head {number} in one, output `{}` [n, {dim}], {:.1} MB\n\
         compared through ONNX Runtime on {FRAMES} frames: least cosine {worst:.7}",
        args.onnx.display(),
        onnx::OUTPUT,
        merged.len() as f64 / 1e6
    );
    Ok(Output { text, json, as_json: args.common.json })
}

/// What whoever runs the merged model must know: the preparation is theirs to do. Values are JSON where they are more
/// than a word.
fn metadata(run: &OpenedRun) -> Vec<(String, String)> {
    let card = &run.opened.card;
    let prepare = json!({
        "input": card.input, "size": card.size, "fit": card.fit, "channels": card.channels,
        "exposure": card.exposure.map(decimal), "most_gain": card.exposure.map(|_| MAX_GAIN),
        "mean": card.mean.map(decimal), "std": card.std.map(decimal),
        "order": "fit to size x size, gain to the exposure level, cut at 1, minus mean, by std",
        "config": run.config.prepare,
    });
    let entries = [
        ("space", run.adapted.space.to_string()),
        ("head", run.adapted.number.to_string()),
        ("encoder", card.name.clone()),
        ("encoder_sha256", run.info.encoder_sha256.clone()),
        ("card_hash", run.info.card_hash.clone()),
        ("input_size", card.size.to_string()),
        ("prepare", prepare.to_string()),
        ("taps", json!(run.opened.origin.parts).to_string()),
    ];
    entries.map(|(key, value)| (format!("afterimage.{key}"), value)).into()
}

/// The number as it is written in a card: 0.45, not 0.44999998807907104.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// Writes `path` whole or not at all, making its folder.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        files::create_folder(folder)?;
    }
    files::replace(path, |out| out.write_all(bytes))
}

/// Least cosine between merged and own embeddings over the frames of `uri`, which goes round where it is short.
fn compare(run: &mut OpenedRun, check: &mut Encoder, uri: &str) -> Result<f32> {
    let mut source = source::open(uri, &run.config.source)?;
    let mut single = Single::new(&run.opened)?;
    let mut prepare = run.opened.prepare()?;
    let side = check.side() as usize;
    let mut tensor = vec![0.0; 3 * side * side];
    let dim = run.adapted.head.dim_out();
    let (mut own, mut merged, mut scratch) = (vec![0.0; dim], vec![0.0; dim], Scratch::default());
    let (mut frame, mut worst, mut seen) = (Frame::default(), 1.0_f32, 0);
    while seen < FRAMES {
        match source.next(&mut frame, Duration::from_secs(1))? {
            Pull::Idle => continue,
            Pull::End if seen == 0 => return Err(Error::work(format!("{uri} gave no frame to compare on"))),
            Pull::End => {
                source = source::open(uri, &run.config.source)?;
                continue;
            }
            Pull::Frame => {}
        }
        let latent = single.latent(&mut run.opened, &frame)?;
        match run.opened.origin.shape() {
            Some(grid) if run.adapted.head.dim_in() == grid.dim => {
                let mut pooled = vec![0.0; grid.dim];
                grid.pool(latent, &mut pooled);
                run.adapted.head.embed(&pooled, &mut own, &mut scratch);
            }
            _ => run.adapted.head.embed(latent, &mut own, &mut scratch),
        }
        prepare.run(&frame, &mut tensor)?;
        check.encode(&tensor, &mut merged)?;
        let norms = (dot(&own, &own) * dot(&merged, &merged)).sqrt();
        worst = worst.min(dot(&own, &merged) / norms);
        seen += 1;
    }
    // A NaN would pass `<`.
    Ok(if worst.is_finite() { worst } else { -1.0 })
}
