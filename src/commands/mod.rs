//! One file per verb. Each returns what it found; `main` prints it.
mod common;
mod embed;
mod eval;
mod export;
mod learn;
mod probe;
mod replay;
mod resume;

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

/// Does what the command line says. `started`: start of the process.
///
/// # Errors
/// As each verb.
pub fn run(cli: &Cli, started: Instant) -> Result<Output> {
    match &cli.verb {
        Verb::Learn(args) => learn::run(args, started),
        Verb::Embed(args) => embed::run(args, started),
        Verb::Eval(args) => eval::run(args),
        Verb::Export(args) => export::run(args),
        Verb::Replay(args) => replay::run(args),
        _ => Err(crate::error::Error::usage("later")),
    }
}
