//! The binary: command line in, text or JSON out, exit code by kind of failure.
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use afterimage::cli::Cli;
use afterimage::encoder::runtime;
use afterimage::source::address::Address;
use afterimage::{commands, host, logging};
use clap::Parser;

#[allow(unsafe_code, reason = "see `forbid_telemetry`")]
fn main() -> ExitCode {
    let started = Instant::now();
    // SAFETY: no thread has been started.
    unsafe { runtime::forbid_telemetry() };
    host::return_large_blocks();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // The help and the version are no mistakes.
        Err(told) if !told.use_stderr() => {
            told.print().ok();
            return ExitCode::SUCCESS;
        }
        Err(wrong) => return refused(&wrong),
    };
    logging::init_logging((cli.verbose.min(9) as i8) - (cli.quiet.min(9) as i8));
    match run(&cli, started) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            // The kind of our own errors sets the exit code; anything else failed at work.
            let (text, code) = match e.downcast_ref::<afterimage::error::Error>() {
                Some(own) => (own.chain(), own.exit_code()),
                None => (format!("{e:#}"), 1),
            };
            // Nothing is left to do when standard error is closed.
            writeln!(std::io::stderr(), "afterimage: {}", logging::printable(&without_secrets(text))).ok();
            ExitCode::from(code)
        }
    }
}

/// A mistake in the command line, which is repeated.
fn refused(wrong: &clap::Error) -> ExitCode {
    let text = if std::io::stderr().is_terminal() { wrong.render().ansi().to_string() } else { wrong.to_string() };
    write!(std::io::stderr(), "{}", without_secrets(text)).ok();
    ExitCode::from(2)
}

/// An error may repeat an argument, and that may be an address with a password in the wrong place.
fn without_secrets(mut text: String) -> String {
    for argument in std::env::args_os().skip(1) {
        let argument = argument.to_string_lossy();
        // Also the value of `--name=value`.
        let value = argument.strip_prefix("--").and_then(|rest| rest.split_once('=')).map(|(_, value)| value);
        for part in [Some(argument.as_ref()), value].into_iter().flatten() {
            text = Address::new(part).scrub(&text);
        }
    }
    text
}

fn run(cli: &Cli, started: Instant) -> anyhow::Result<u8> {
    let commands::CommandResult { output, exit_code } = commands::run(cli, started)?;
    let text = if output.as_json { serde_json::to_string(&output.json)? } else { output.text };
    match writeln!(std::io::stdout(), "{text}") {
        // A reader that has seen enough is no failure.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(exit_code),
    }
}
