//! One file per verb. Each returns what it found; `main` prints it.
mod asked;
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
mod figures;
mod findings;
mod fresh;
mod inspect;
mod labelled;
mod learn;
mod merge;
mod migrate;
mod probe;
mod replay;
mod resume;
mod search;
mod sheet;
mod shell;
mod trial;

use std::time::Instant;

use serde_json::Value;

use crate::cli::{Cli, Verb};
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
pub struct Done {
    /// For standard output, also where a check said no.
    pub output: Output,
    /// Exit code of the program.
    pub exit_code: u8,
}

impl Done {
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
pub fn run(cli: &Cli, started: Instant) -> Result<Done> {
    let output = match &cli.verb {
        // These may say no with their whole report.
        Verb::Doctor(args) => return doctor::run(args),
        Verb::Check(args) => return check::run(args),
        Verb::Learn(args) => return learn::run(args, started),
        Verb::Embed(args) => return embed::run(args, started),
        Verb::Eval(args) => eval::run(args),
        Verb::Export(args) => export::run(args),
        Verb::Replay(args) => replay::run(args),
        Verb::Search(args) => search::run(args),
        Verb::Sheet(args) => sheet::run(args),
        Verb::Merge(args) => merge::run(args),
        Verb::Migrate(args) => migrate::run(args),
        Verb::Inspect(args) => inspect::run(args),
        Verb::Card(args) => card::run(args),
        Verb::Build(args) => build::run(args),
        Verb::Bench(args) => bench::run(args, started),
        Verb::Completions(args) => Ok(shell::completions(args)),
        Verb::Manual => shell::manual(),
    };
    output.map(|output| Done { output, exit_code: 0 })
}
