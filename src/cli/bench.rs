//! `bench` and what it has below it.
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CommonArgs;
use crate::source::address::Address;

/// `bench`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BenchArgs {
    /// What to measure instead of the pipeline.
    #[command(subcommand)]
    pub what: Option<BenchCommand>,
    /// The encoder (ONNX).
    #[arg(long, value_name = "MODEL.onnx", required = true)]
    pub encoder: Option<PathBuf>,
    /// Where frames come from, as in `learn`; the first ones are kept in memory and go round.
    #[arg(long, value_name = "URI", required = true)]
    pub source: Option<Address>,
    /// Length of each interval, seconds.
    #[arg(long, default_value_t = 3.0)]
    pub secs: f64,
    /// Also measure the raw encoder with so many frames per run.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch: u32,
    /// Rounds of the three intervals, interleaved.
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
    /// Rounds of each objective; the median counts.
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
    /// Number of seeds, from 0, for what depends on them.
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
