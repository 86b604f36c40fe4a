//! Metadata for users of the merged model, who must preprocess the pixels themselves (docs/merged-onnx.md).
use serde_json::json;

use crate::cli;
use crate::commands::common::LoadedRun;
use crate::encoder::{ChannelOrder, MAX_GAIN, ResizeMode};
use crate::export::onnx::{self, Batch};

/// Version of the entries, raised when one is removed or changes its meaning.
const SCHEMA: u32 = 2;

/// Entries for `metadata_props`: words and numbers, separated by spaces, so that C code needs no parser.
pub(super) fn entries(run: &LoadedRun, args: &cli::ExportArgs, of_batch: Batch) -> Vec<(String, String)> {
    let (card, size) = (&run.opened.card, run.opened.encoder.size());
    let grid = run.opened.origin.shape().filter(|_| args.grid);
    let mut entries = vec![
        ("schema", SCHEMA.to_string()),
        ("input", card.input.clone()),
        ("output", onnx::OUTPUT.into()),
        ("input_size", format!("{} {}", size.height, size.width)),
        ("input_layout", "nchw".into()),
        ("dtype", args.dtype.name().into()),
        ("io", args.io.name().into()),
        ("batch", batch(of_batch)),
        ("channels", if card.channels == ChannelOrder::Rgb { "rgb".into() } else { "bgr".into() }),
        ("mean", numbers(&card.mean)),
        ("std", numbers(&card.std)),
        ("fit", if card.fit == ResizeMode::Crop { "crop".into() } else { "stretch".into() }),
        ("interpolation", "bilinear".into()),
        ("orientation", "exif".into()),
        ("motion_crop", card.motion_crop.is_some().to_string()),
        ("dim", run.adapted.head.dim_out().to_string()),
        ("unit_length", "true".into()),
        ("space", run.adapted.space.to_string()),
        ("head", run.adapted.number.to_string()),
        ("encoder", card.name.clone()),
        ("encoder_sha256", run.info.encoder_sha256.clone()),
        ("preparation", run.info.card_hash.clone()),
        ("taps", json!(run.opened.origin.parts).to_string()),
    ];
    if let Some(level) = card.exposure {
        entries.extend([("exposure", level.to_string()), ("most_gain", MAX_GAIN.to_string())]);
    }
    if let Some(grid) = grid {
        entries.extend([("cells", onnx::CELLS.to_owned()), ("grid", format!("{} {}", grid.rows, grid.columns))]);
    }
    entries.into_iter().map(|(key, value)| (format!("afterimage.{key}"), value)).collect()
}

/// `dynamic`, or the number.
pub(super) fn batch(batch: Batch) -> String {
    match batch {
        Batch::Dynamic => "dynamic".into(),
        Batch::Fixed(n) => n.to_string(),
    }
}

/// The shortest digits that yield the same f32: 0.485, not 0.48500001430511475.
fn numbers(all: &[f32]) -> String {
    all.iter().map(f32::to_string).collect::<Vec<_>>().join(" ")
}
