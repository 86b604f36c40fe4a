//! One file per verb. Each returns what it found; `main` prints it.
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

/// What a verb found: text for people, JSON for scripts.
#[derive(Debug, Clone)]
pub struct Output {
    /// For people; lines without a last newline.
    pub text: String,
    /// For scripts.
    pub json: Value,
    /// Print the JSON rather than the text.
    pub as_json: bool,
}

/// What a verb came to.
#[derive(Debug, Clone)]
pub struct CommandResult {
    /// For standard output, also where a check said no.
    pub output: Output,
    /// Exit code of the program.
    pub exit_code: u8,
}

impl CommandResult {
    /// A verb that did its work but for `lost` rows: that is told last, and by the exit code.
    fn but_for(lost: u64, output: Output) -> Self {
        if lost > 0 {
            tracing::error!("{lost} rows are lost, as the report says: exit code 1");
        }
        Self { output, exit_code: u8::from(lost > 0) }
    }
}

/// Does what the command line says. `started`: start of the process.
///
/// # Errors
/// As each verb.
pub fn run(cli: &Cli, started: Instant) -> Result<CommandResult> {
    let output = match &cli.command {
        // These may say no with their whole report.
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
