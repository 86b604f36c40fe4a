//! Commands about runs, models and the machine.
use std::path::PathBuf;

use clap::Args;

use super::{CommonArgs, RunArgs};
use crate::config::Size;
use crate::source::address::Address;

/// `search`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("query").required(true).args(["image", "row", "frame"])))]
pub struct SearchArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub of: RunArgs,
    /// The image to look for.
    #[arg(long, value_name = "PICTURE")]
    pub image: Option<PathBuf>,
    /// A row to look for the neighbours of, as a search names it: 0003.npy:17.
    #[arg(long, value_name = "FILE:ROW")]
    pub row: Option<String>,
    /// A frame to look for the neighbours of: camera:120.
    #[arg(long, value_name = "CAMERA:N")]
    pub frame: Option<String>,
    /// Number of neighbours.
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub k: u32,
    /// The space to search (or the beginning of its name); left out: that of the newest head with rows.
    #[arg(long, value_name = "NAME")]
    pub space: Option<String>,
    /// Search the rows that `embed` or `migrate` wrote into this folder instead of the run's own.
    #[arg(long, value_name = "DIR")]
    pub embeddings: Option<PathBuf>,
    /// Of one camera, only the nearest frame within so many seconds (0: every frame); left out: 2, or twice
    /// learn.sampling.gap_max_secs where that is longer.
    #[arg(long, value_name = "SECS")]
    pub min_gap_secs: Option<f64>,
    /// What the rows were made from, as in `learn`: the pictures of the contact sheet are taken out of it.
    #[arg(long, value_name = "URI", requires = "out")]
    pub source: Vec<Address>,
    /// The contact sheet to write (PNG).
    #[arg(long, value_name = "OUT.png", requires = "source")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `merge`
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Folders of the runs.
    #[arg(value_name = "RUN", num_args = 2.., required = true)]
    pub runs: Vec<PathBuf>,
    /// Folder of the new run.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `migrate`
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Files of embeddings (.npy with .jsonl, .parquet, .safetensors with .jsonl), or folders of them.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The space to bring them into: its name as in the records, or "latest".
    #[arg(long, value_name = "SPACE")]
    pub to: String,
    /// The run whose heads made them.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Folder for the new files, under the names of the old ones.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Refuse a path that is expected to keep a smaller share of the hits (docs/spaces.md); 0: take any.
    #[arg(long, value_name = "SHARE", default_value_t = 0.8, value_parser = share)]
    pub min_hit_rate: f64,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// A share of 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is no share of 0 to 1"))
}

/// `inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Folder of the run.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Draw it as SVG.
    #[arg(long, value_name = "OUT.svg")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also check this encoder.
    #[arg(long, value_name = "MODEL.onnx")]
    pub encoder: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `card`
#[derive(Debug, Args)]
pub struct CardArgs {
    /// The model; its card is written beside it, `MODEL.toml`.
    #[arg(value_name = "MODEL.onnx")]
    pub encoder: PathBuf,
    /// How pixels are scaled: imagenet, clip, half (-1 to 1), unit (0 to 1), raw255 (0 to 255), caffe; left out: a guess.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Size of the input in pixels, where the graph takes several: N, or H,W.
    #[arg(long, value_name = "N|H,W", value_parser = size)]
    pub size: Option<Size>,
    /// The tensor that is the latent; left out: chosen among the outputs.
    #[arg(long, value_name = "NAME")]
    pub output: Option<String>,
    /// Overwrite an existing card.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `160`, or `256,128`.
fn size(text: &str) -> Result<Size, String> {
    let side = |text: &str| text.trim().parse::<u32>().ok();
    let size = match text.split_once([',', 'x']) {
        Some((height, width)) => side(height).zip(side(width)).map(|(height, width)| Size { height, width }),
        None => side(text).map(Size::square),
    };
    size.filter(|size| size.is_allowed())
        .ok_or_else(|| "a number of pixels, or HEIGHT,WIDTH, each from 8 to 4096".into())
}

/// `build`
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The encoder (ONNX).
    #[arg(long, value_name = "MODEL.onnx")]
    pub encoder: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print the JSON Schema of the configuration, for editors.
    #[arg(long, conflicts_with_all = ["encoder", "run"])]
    pub schema: bool,
    /// An encoder with its card.
    #[arg(long, value_name = "MODEL.onnx")]
    pub encoder: Option<PathBuf>,
    /// A run folder: every head and state is read and verified.
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}
