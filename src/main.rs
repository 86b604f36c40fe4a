//! The binary: command line in, text or JSON out, exit code by kind of failure.
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use afterimage::cli::Cli;
use afterimage::encoder::runtime;
use afterimage::{commands, telemetry};
use clap::Parser;

#[allow(unsafe_code, reason = "see `forbid_telemetry`")]
fn main() -> ExitCode {
    let started = Instant::now();
    // SAFETY: no thread has been started.
    unsafe { runtime::forbid_telemetry() };
    telemetry::return_large_blocks();
    let cli = Cli::parse();
    telemetry::init_logging((cli.verbose.min(9) as i8) - (cli.quiet.min(9) as i8));
    match run(&cli, started) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            // The kind of our own errors sets the exit code; anything else failed at work.
            let (text, code) = match e.downcast_ref::<afterimage::error::Error>() {
                Some(own) => (own.chain(), own.exit_code()),
                None => (format!("{e:#}"), 1),
            };
            // Nothing is left to do when standard error is closed.
            writeln!(std::io::stderr(), "afterimage: {text}").ok();
            ExitCode::from(code)
        }
    }
}

fn run(cli: &Cli, started: Instant) -> anyhow::Result<u8> {
    let commands::Done { output, exit_code } = commands::run(cli, started)?;
    let text = if output.as_json { serde_json::to_string(&output.json)? } else { output.text };
    match writeln!(std::io::stdout(), "{text}") {
        // A reader that has seen enough is no failure.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(exit_code),
    }
}
