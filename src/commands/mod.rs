//! One file per command. Each returns its result; `main` prints it.
mod box_server;
mod bench;
mod boxes;
mod build;
mod card;
mod check;
mod common;
mod doctor;
mod embed;
mod eval;
mod export;
mod metrics_server;
mod diagnostics;
mod new_run;
mod inspect;
mod labelled_dataset;
mod learn;
mod merge;
mod migrate;
mod labelled_probe;
mod replay;
mod resume;
mod search;
mod contact_sheet;
mod completions;
mod encoder_check;

use std::time::Instant;

use serde_json::Value;

use crate::cli::{Cli, Command};
use crate::error::Result;

/// The output of a command: text for people, JSON for scripts.
#[derive(Debug, Clone)]
pub struct Output {
    /// Text for people, without a final newline.
    pub text: String,
    /// JSON for scripts.
    pub json: Value,
    /// Whether to print the JSON instead of the text.
    pub as_json: bool,
}

/// The output and exit code of a command.
#[derive(Debug, Clone)]
pub struct CommandResult {
    /// Written to standard output, even if a check failed.
    pub output: Output,
    /// Exit code of the program.
    pub exit_code: u8,
}

impl CommandResult {
    /// The result of a command that succeeded except for `lost` rows, reported as the last line and in the exit code.
    fn but_for(lost: u64, output: Output) -> Self {
        if lost > 0 {
            tracing::error!("{lost} rows are lost, as the report says: exit code 1");
        }
        Self { output, exit_code: u8::from(lost > 0) }
    }
}

/// Runs the command of `cli`. `started`: start of the process.
///
/// # Errors
/// See each command.
pub fn run(cli: &Cli, started: Instant) -> Result<CommandResult> {
    let output = match &cli.command {
        // These may fail with their full report.
        Command::Doctor(args) => return doctor::run(args),
        Command::Check(args) => return check::run(args),
        Command::Learn(args) => return learn::run(args, started),
        Command::Embed(args) => return embed::run(args, started),
        Command::Eval(args) => eval::run(args),
        Command::Export(args) => export::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Search(args) => search::run(args),
        Command::ContactSheet(args) => contact_sheet::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Card(args) => card::run(args),
        Command::Build(args) => build::run(args),
        Command::Bench(args) => bench::run(args, started),
        Command::Completions(args) => Ok(completions::completions(args)),
        Command::Man => completions::manual(),
    };
    output.map(|output| CommandResult { output, exit_code: 0 })
}
