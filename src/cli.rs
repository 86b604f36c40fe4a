//! The command line: text only, nothing is opened here.
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Size;
use crate::export::onnx::Batch;
use crate::source::address::Address;

/// On-device learning for edge cameras: frames in, embeddings out, and a head that learns on the way and is exported
/// only when it helps.
///
/// Exit codes: 0 done, 1 failed at work, 2 usage, 3 a check or a gate said no, 78 config.
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
    /// The main job: embed every frame of a source, learn from it, export what helps.
    Learn(LearnArgs),
    /// Embed every frame of a source with the head of a run (or the frozen encoder); learn nothing.
    Embed(EmbedArgs),
    /// kNN accuracy on labelled images, frozen against adapted.
    Eval(EvalArgs),
    /// Encoder and head as one ONNX file, checked by loading and comparing it.
    Export(ExportArgs),
    /// Learn again from the latents that `learn` recorded with `export.latents = true`.
    Replay(ReplayArgs),
    /// The exported rows that are nearest to a picture, exactly; with a contact sheet where the source is named.
    Search(SearchArgs),
    /// Contact sheet: frames of a source with their neighbours, frozen against adapted.
    ContactSheet(ContactSheetArgs),
    /// One run out of several over the same encoder; statistics add up exactly.
    Merge(MergeArgs),
    /// Stored embeddings of an older space of a run as embeddings of a newer one, without the frames.
    Migrate(MigrateArgs),
    /// The story of a run: fits, candidates, promotions, rollbacks and health, told and drawn.
    Inspect(InspectArgs),
    /// What is installed, what works, and what to do where something does not.
    Doctor(DoctorArgs),
    /// Write the card of a model, filled in from its graph and tried; or say what is wrong with the model.
    Card(CardArgs),
    /// Open an encoder on its providers ahead of time, so that engines and caches are there when a run starts.
    Build(BuildArgs),
    /// Speed: raw encoder loop, pipeline, pipeline with learning, interleaved in one run.
    Bench(BenchArgs),
    /// Check a configuration, a model with its card, or a run folder, without running anything.
    Check(CheckArgs),
    /// Completions of this command line for a shell, to be read by it.
    Completions(CompletionsArgs),
    /// The manual page, as troff.
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
    /// Go on with the run in --out where it was interrupted.
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
    /// So many frames of a file or folder go through the encoder at once: for GPUs; on a CPU it gains little or nothing
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
    /// The encoder, where it has moved from the path noted in the run.
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

/// `search`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("query").required(true).args(["image", "row", "frame"])))]
pub struct SearchArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub of: RunArgs,
    /// The picture to look for, JPEG or PNG.
    #[arg(long, value_name = "PICTURE")]
    pub image: Option<PathBuf>,
    /// A row to look for the neighbours of, as a search names it: 0003.npy:17.
    #[arg(long, value_name = "FILE:ROW")]
    pub row: Option<String>,
    /// A frame to look for the neighbours of: camera:120.
    #[arg(long, value_name = "CAMERA:N")]
    pub frame: Option<String>,
    /// So many neighbours.
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub k: u32,
    /// The space to search (or the beginning of its name); left out: that of the newest head with rows.
    #[arg(long, value_name = "NAME")]
    pub space: Option<String>,
    /// Rows that `embed` or `migrate` wrote into this folder, instead of the run's own.
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
    /// Refuse where a smaller share of the hits is expected to be kept on the way (docs/spaces.md); 0: take anything.
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
    /// Draw it into this file.
    #[arg(long, value_name = "OUT.svg")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// An encoder to check too.
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
    /// Write over a card that is there.
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

/// `bench`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BenchArgs {
    /// Something else than the pipeline.
    #[command(subcommand)]
    pub what: Option<BenchCommand>,
    /// The encoder (ONNX).
    #[arg(long, value_name = "MODEL.onnx", required = true)]
    pub encoder: Option<PathBuf>,
    /// Where frames come from, as in `learn`; the first ones are kept in memory and go round.
    #[arg(long, value_name = "URI", required = true)]
    pub source: Option<Address>,
    /// Length of each stretch, seconds.
    #[arg(long, default_value_t = 3.0)]
    pub secs: f64,
    /// Measure the raw encoder with so many frames a run too.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch: u32,
    /// Times that the three stretches are run, interleaved.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// What `bench` measures beside the pipeline.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// One gradient step of each objective, on made-up latents and one thread.
    Step(BenchStepArgs),
    /// What exports cost the pipeline, and how long records take through the ring.
    Exports(BenchExportsArgs),
    /// What every objective and candidate head gains on labelled data sets, as a table.
    Learning(BenchLearningArgs),
    /// How often a track of boxes is found again, frozen against adapted.
    Reid(BenchReidArgs),
    /// How often neighbours are found across promotions, by labels: old embeddings as they are and mapped.
    Spaces(BenchSpacesArgs),
}

/// `bench step`
#[derive(Debug, Args)]
pub struct BenchStepArgs {
    /// Length of a latent.
    #[arg(long, default_value_t = 1280, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub latent: u32,
    /// Time this one only (repeatable); all when left out.
    #[arg(long, value_name = "NAME")]
    pub objective: Vec<String>,
    /// Steps at a time.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub steps: u32,
    /// Times that each objective has its turn; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `bench exports`
#[derive(Debug, Args)]
pub struct BenchExportsArgs {
    /// The encoder (ONNX).
    #[arg(long, value_name = "MODEL.onnx")]
    pub encoder: PathBuf,
    /// Where frames come from, as in `learn`; the first ones are kept in memory and go round.
    #[arg(long, value_name = "URI")]
    pub source: Address,
    /// Length of each stretch, seconds.
    #[arg(long, default_value_t = 1.0)]
    pub secs: f64,
    /// Times that all stretches are run, interleaved.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `bench learning`
#[derive(Debug, Args)]
pub struct BenchLearningArgs {
    /// Folders with stream/SEGMENT/FRAME, gallery/CLASS/* and query/CLASS/* (classes may be nested).
    #[arg(required = true, value_name = "DATA")]
    pub data: Vec<PathBuf>,
    /// The encoder (ONNX).
    #[arg(long, value_name = "MODEL.onnx")]
    pub encoder: PathBuf,
    /// Objectives to compare, as in learn.objective.name, with commas between them; all that fit when left out.
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub objectives: Vec<String>,
    /// Seeds 0 to this less one, for what depends on them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub seeds: u64,
    /// One learner goes through all of DATA, one after the other: what is forgotten of each.
    #[arg(long, conflicts_with = "objectives")]
    pub in_sequence: bool,
    /// Folder for learning.md and learning.json.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `bench spaces`
#[derive(Debug, Args)]
pub struct BenchSpacesArgs {
    /// Folders with stream/SEGMENT/FRAME, gallery/CLASS/* and query/CLASS/* (classes may be nested).
    #[arg(required = true, value_name = "DATA")]
    pub data: Vec<PathBuf>,
    /// The encoder (ONNX).
    #[arg(long, value_name = "MODEL.onnx")]
    pub encoder: PathBuf,
    /// One learner goes through all of DATA, one after the other, instead of one through each.
    #[arg(long)]
    pub in_sequence: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "described by its type")]
    pub common: CommonArgs,
}

/// `bench reid`
#[derive(Debug, Args)]
pub struct BenchReidArgs {
    /// A folder of images or a video.
    #[arg(long, value_name = "URI")]
    pub source: Address,
    /// Its boxes with track numbers, as MOTChallenge writes them.
    #[arg(long, value_name = "FILE.txt")]
    pub boxes: PathBuf,
    /// The encoder (ONNX).
    #[arg(long, value_name = "MODEL.onnx")]
    pub encoder: PathBuf,
    /// Share of the clip that is learned from; tracks that begin later are measured on.
    #[arg(long, default_value_t = 0.5)]
    pub split: f64,
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
