//! The command line: text only, nothing is opened here.
mod bench;
mod runs;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::export::onnx::Batch;
use crate::source::address::Address;

pub use bench::{
    BenchArgs, BenchCommand, BenchExportsArgs, BenchLearningArgs, BenchReidArgs, BenchSpacesArgs, BenchStepArgs,
};
pub use runs::{BuildArgs, CardArgs, CheckArgs, DoctorArgs, InspectArgs, MergeArgs, MigrateArgs, SearchArgs};

/// On-device learning for edge cameras: frames in, embeddings out, and a head that learns while it runs and is exported
/// only if it helps.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 a check or a gate failed, 78 configuration.
#[derive(Debug, Parser)]
#[command(name = "afterimage", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more (-v: debug, -vv: trace).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Say less (-q: warnings, -qq: errors).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub quiet: u8,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Embed every frame of a source, learn from it, and export a head that helps: the main job.
    Learn(LearnArgs),
    /// Embed every frame of a source with the head of a run (or the frozen encoder), without learning.
    Embed(EmbedArgs),
    /// Measure kNN accuracy on labelled images, frozen against adapted.
    Eval(EvalArgs),
    /// Write encoder and head as one ONNX file, and verify it.
    Export(ExportArgs),
    /// Learn again from latents that `learn` recorded with `export.latents = true`.
    Replay(ReplayArgs),
    /// Find the exported rows nearest to an image, a row or a frame, exactly; with --source also a contact sheet.
    Search(SearchArgs),
    /// Draw frames of a source with their nearest neighbours, frozen against adapted.
    ContactSheet(ContactSheetArgs),
    /// Merge runs over the same encoder into one; their statistics add up exactly.
    Merge(MergeArgs),
    /// Bring stored embeddings of an older space of a run into a newer one, without the frames.
    Migrate(MigrateArgs),
    /// Show the timeline of a run: fits, candidates, promotions, rollbacks and health.
    Inspect(InspectArgs),
    /// Show what is installed, what works, and what to do where something does not.
    Doctor(DoctorArgs),
    /// Write the card of a model from its graph and try it, or say what is wrong with the model.
    Card(CardArgs),
    /// Open an encoder on its providers ahead of time, so that engines and caches exist when a run starts.
    Build(BuildArgs),
    /// Measure speed: raw encoder loop, pipeline, and pipeline with learning, interleaved.
    Bench(BenchArgs),
    /// Check a configuration, a model with its card, or a run folder, without running anything.
    Check(CheckArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page (troff).
    Man,
}

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// Configuration and output, the same for every verb.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one key, for example --set learn.seed=3 (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    pub json: bool,
}

/// `learn`
#[derive(Debug, Args)]
pub struct LearnArgs {
    /// Where frames come from: a folder, a video file, an image, /dev/video0, - for pictures or a video on standard input,
    /// or a URI (dir:, file:, v4l2:, csi:, rtsp:, gst:, pattern:). Repeated: several cameras that one head is learned from.
    #[arg(long, value_name = "URI", required = true)]
    pub source: Vec<Address>,
    /// The encoder (ONNX); its card NAME.toml lies beside it.
    #[arg(long, value_name = "MODEL.onnx")]
    pub encoder: PathBuf,
    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Continue the run in --out where it was interrupted.
    #[arg(long)]
    pub resume: bool,
    /// Name of the camera in the records, one for each --source; left out: camera, camera-2, ...
    #[arg(long, value_name = "NAME")]
    pub camera: Vec<String>,
    /// Learn from the boxes of a detector with track numbers, as MOTChallenge writes them, instead of whole frames.
    #[arg(long, value_name = "FILE.txt")]
    pub boxes: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `embed`
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Where frames come from, as in `learn`.
    #[arg(long, value_name = "URI", required = true)]
    pub source: Vec<Address>,
    /// The run whose head to use.
    #[arg(long, value_name = "DIR", required_unless_present = "encoder")]
    pub run: Option<PathBuf>,
    /// The encoder: without --run its frozen embeddings, with --run in place of the path noted in the run.
    #[arg(long, value_name = "MODEL.onnx")]
    pub encoder: Option<PathBuf>,
    /// Folder for `embeddings/`.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Name of the camera in the records, one for each --source; left out: camera, camera-2, ...
    #[arg(long, value_name = "NAME")]
    pub camera: Vec<String>,
    /// Embed the boxes of a detector, as MOTChallenge writes them, instead of whole frames.
    #[arg(long, value_name = "FILE.txt")]
    pub boxes: Option<PathBuf>,
    /// Frames of a file or folder that go through the encoder at once: for GPUs; on a CPU it gains little or nothing
    /// (docs/encoders.md).
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch: u32,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// A run and the model it was made with.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// The encoder, if it has moved from the path in the run.
    #[arg(long, value_name = "MODEL.onnx")]
    pub encoder: Option<PathBuf>,
}

/// `eval`
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Folder with gallery/CLASS/* and query/CLASS/* (classes may be nested).
    #[arg(long, value_name = "DATA")]
    pub data: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub of: RunArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub of: RunArgs,
    /// The ONNX file to write.
    #[arg(long, value_name = "OUT.onnx")]
    pub onnx: PathBuf,
    /// Numbers of the model. f16: the encoder computes in 16-bit floats, and the file is half as large.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Numbers of input and outputs. f16 only with --dtype f16.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = Dtype::F32)]
    pub io: Dtype,
    /// Images at once: `dynamic` (any number), or 1 to 256, always so many; what the encoder's file says when left out.
    #[arg(long, value_name = "N", value_parser = batch)]
    pub batch: Option<Batch>,
    /// A second output `cells`, the embeddings of all cells; of encoders that give grids.
    #[arg(long)]
    pub grid: bool,
    /// Frames to compare on, as in `learn`; those of the run when left out (a synthetic pattern where they are gone).
    #[arg(long, value_name = "URI")]
    pub source: Option<Address>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// Floating point numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
}

impl Dtype {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
        }
    }
}

/// `dynamic`, or a number of images.
fn batch(text: &str) -> std::result::Result<Batch, String> {
    match (text, text.parse()) {
        ("dynamic", _) => Ok(Batch::Dynamic),
        (_, Ok(n @ 1..=256)) => Ok(Batch::Fixed(n)),
        _ => Err("must be `dynamic`, or a number from 1 to 256".into()),
    }
}

/// `replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The run that recorded latents.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Folder of the new run.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `sheet`
#[derive(Debug, Args)]
pub struct ContactSheetArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub of: RunArgs,
    /// Where frames come from, as in `learn` (bounded).
    #[arg(long, value_name = "URI")]
    pub source: Address,
    /// The picture to write (PNG).
    #[arg(long, value_name = "OUT.png")]
    pub out: PathBuf,
    /// Rows of queries.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub queries: u32,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}
