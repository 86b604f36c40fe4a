//! `bench`: the cost of the pipeline and the learner relative to the bare encoder, interleaved in one process.
//!
//! Three ways to the same latents run for `--secs` at a time, in rounds whose order rotates, so that other load on the
//! machine affects all three alike:
//! - *raw*: `Encoder::encode` on tensors that are already preprocessed;
//! - *embed*: the whole pipeline without learning, as `embed` runs it, exporting into a temporary folder;
//! - *learn*: the same with the learner, as on a camera: at `learn.cpu_share`, niced, never waited for;
//! - with `--batch N` also *batch*: the raw encoder with N frames per batch.
//!
//! The speed of the source itself (the rate of a camera, the decoder of a video) is excluded on purpose: its first
//! frames are read into memory, and one is always available. [`harness`] explains what the learner does. Every figure
//! is the median over the rounds; ratios are first taken within each round.
//!
//! `bench step`, `bench exports`, `bench learning`, `bench reid` and `bench spaces` measure other things: see the
//! modules with these names (`bench step` is in [`train_step`]).
mod exports;
mod learning;
mod reid;
mod harness;
mod spaces;
mod train_step;

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Output;
use crate::cli;
use crate::config::loader::load;
use crate::error::{Error, Result};
use crate::process_stats;
use harness::{BenchHarness, Interval};

/// Permitted length of an interval in seconds.
const SECS: std::ops::RangeInclusive<f64> = 0.05..=3600.0;
/// Minimum ratio of the pipeline's frames per second to the raw encoder's.
const LEAST_EMBED: f64 = 0.95;
/// The same ratio with learning.
const LEAST_LEARN: f64 = 0.90;
/// Maximum increase of the 99th-percentile latency with learning, as a factor.
const MOST_P99: f64 = 1.25;

/// One round.
struct Round {
    raw: Interval,
    embed: Interval,
    learn: Interval,
    batch: Option<Interval>,
}

pub(super) fn run(args: &cli::BenchArgs, started: Instant) -> Result<Output> {
    match &args.what {
        Some(cli::BenchCommand::Step(args)) => return train_step::run(args),
        Some(cli::BenchCommand::Exports(args)) => return exports::run(args, started),
        Some(cli::BenchCommand::Learning(args)) => return learning::run(args, started),
        Some(cli::BenchCommand::Reid(args)) => return reid::run(args),
        Some(cli::BenchCommand::Spaces(args)) => return spaces::run(args, started),
        None => {}
    }
    if !SECS.contains(&args.secs) {
        let (least, most) = (SECS.start(), SECS.end());
        return Err(Error::usage(format!("--secs is {}; it must lie between {least} and {most}", args.secs)));
    }
    let config = load(args.common.config.as_deref(), &args.common.set)?;
    let (Some(encoder), Some(uri)) = (&args.encoder, &args.source) else {
        return Err(Error::usage("bench needs --encoder and --source"));
    };
    let mut rig = BenchHarness::open(encoder, uri, config, started)?;
    let batch = args.batch as usize;
    rig.allow_batch(batch)?;
    let secs = Duration::from_secs_f64(args.secs);
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        let round = round(&mut rig, secs, number as usize, batch)?;
        tracing::info!(
            "round {} of {}: raw {:.1}, embed {:.1}, learn {:.1} frames/s",
            number + 1,
            args.rounds,
            round.raw.fps,
            round.embed.fps,
            round.learn.fps
        );
        rounds.push(round);
    }
    let json = figures(&rig, &rounds, batch);
    Ok(Output { text: text(&json)?, json, as_json: args.common.json })
}

/// Runs all intervals of a round, starting with a different one each time.
fn round(rig: &mut BenchHarness, secs: Duration, number: usize, batch: usize) -> Result<Round> {
    let [mut raw, mut embed, mut learn] = [Interval::default(); 3];
    let mut batched = None;
    let kinds = if batch > 1 { 4 } else { 3 };
    for turn in number..number + kinds {
        match turn % kinds {
            0 => raw = rig.raw(secs)?,
            1 => embed = rig.embed(secs)?,
            2 => learn = rig.learn(secs)?,
            _ => batched = Some(rig.batched(secs, batch)?),
        }
    }
    Ok(Round { raw, embed, learn, batch: batched })
}

fn figures(rig: &BenchHarness, rounds: &[Round], batch: usize) -> Value {
    let over = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let held = rig.clip_bytes() as f64 / 1e6;
    let learned = rig.learned();
    json!({
        "raw": {
            "fps": over(&|r| r.raw.fps), "p50_ms": over(&|r| r.raw.p50_ms), "p99_ms": over(&|r| r.raw.p99_ms),
        },
        "embed": {
            "fps": over(&|r| r.embed.fps), "p50_ms": over(&|r| r.embed.p50_ms), "p99_ms": over(&|r| r.embed.p99_ms),
        },
        "learn": {
            "fps": over(&|r| r.learn.fps), "p50_ms": over(&|r| r.learn.p50_ms), "p99_ms": over(&|r| r.learn.p99_ms),
            "step_ms": learned.step_ms, "steps": learned.steps, "fit_ms": learned.fit_ms, "fits": learned.fits,
            "dropped_latents": learned.dropped_latents,
        },
        "batch": (batch > 1).then(|| json!({
            "frames": batch, "fps": over(&|r| r.batch.map_or(f64::NAN, |b| b.fps)),
            "p50_ms": over(&|r| r.batch.map_or(f64::NAN, |b| b.p50_ms)),
            "p99_ms": over(&|r| r.batch.map_or(f64::NAN, |b| b.p99_ms)),
            "of_raw": over(&|r| r.batch.map_or(f64::NAN, |b| b.fps / r.raw.fps)),
        })),
        "ratios": {
            "embed_fps": over(&|r| r.embed.fps / r.raw.fps), "learn_fps": over(&|r| r.learn.fps / r.raw.fps),
            "learn_p99": over(&|r| r.learn.p99_ms / r.embed.p99_ms),
            "embed_cpu": over(&|r| r.embed.cpu_ms / r.raw.cpu_ms), "learn_cpu": over(&|r| r.learn.cpu_ms / r.raw.cpu_ms),
        },
        // The frames exist only for the benchmark; a real run holds none.
        "peak_mb": process_stats::peak_memory_megabytes().map(|peak| peak - held),
        "frames_mb": held,
        "frames": rig.clip_frames(),
        "rounds": rounds.iter().map(|r| json!({ "raw": r.raw, "embed": r.embed, "learn": r.learn, "batch": r.batch })).collect::<Vec<_>>(),
        "encoder": rig.encoder(),
    })
}

/// NaN without figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => figures[n / 2],
        n => (figures[n / 2 - 1] + figures[n / 2]) / 2.0,
    }
}

/// Formats the figures as a small table.
fn text(figures: &Value) -> Result<String> {
    let at = |path: &str| figures.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let met = |met: bool| if met { "met" } else { "missed" };
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        out.write_fmt(text).map_err(|e| Error::runtime("the table of the bench cannot be written").with_source(e))
    };
    line(format_args!("           frames/s   of raw   target            p50 ms   p99 ms\n"))?;
    line(format_args!(
        "raw        {:8.1}                               {:8.2} {:8.2}\n",
        at("/raw/fps"),
        at("/raw/p50_ms"),
        at("/raw/p99_ms")
    ))?;
    for (name, least) in [("embed", LEAST_EMBED), ("learn", LEAST_LEARN)] {
        let ratio = at(&format!("/ratios/{name}_fps"));
        line(format_args!(
            "{name:<10} {:8.1}   {ratio:6.3}   >= {least:.2} {:<6}   {:8.2} {:8.2}\n",
            at(&format!("/{name}/fps")),
            met(ratio >= least),
            at(&format!("/{name}/p50_ms")),
            at(&format!("/{name}/p99_ms"))
        ))?;
    }
    if figures["batch"].is_object() {
        line(format_args!(
            "batch {:<4} {:8.1}   {:6.3}                      {:8.2} {:8.2}\n",
            at("/batch/frames"),
            at("/batch/fps"),
            at("/batch/of_raw"),
            at("/batch/p50_ms"),
            at("/batch/p99_ms")
        ))?;
    }
    let ratio = at("/ratios/learn_p99");
    line(format_args!(
        "p99        learn takes {ratio:.2} times as long as embed; target <= {MOST_P99:.2} {}\n",
        met(ratio <= MOST_P99)
    ))?;
    line(format_args!(
        "learned    {} gradient steps of {:.2} ms, {} fits of {:.0} ms (processor time); {} latents dropped\n",
        at("/learn/steps"),
        at("/learn/step_ms"),
        at("/learn/fits"),
        at("/learn/fit_ms"),
        at("/learn/dropped_latents")
    ))?;
    line(format_args!(
        "memory     peak {:.0} MB, without the {} frames held for the bench ({:.0} MB)",
        at("/peak_mb"),
        at("/frames"),
        at("/frames_mb")
    ))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn the_table_says_what_is_met_and_what_is_missed() {
        let figures = json!({
            "raw": { "fps": 100.0, "p50_ms": 9.5, "p99_ms": 10.5 },
            "embed": { "fps": 96.0, "p50_ms": 10.0, "p99_ms": 12.0 },
            "learn": { "fps": 89.0, "p50_ms": 11.0, "p99_ms": 13.0, "step_ms": 5.5, "steps": 7, "fit_ms": null, "fits": 0,
                       "dropped_latents": 0 },
            "ratios": { "embed_fps": 0.96, "learn_fps": 0.89, "learn_p99": 1.08 },
            "peak_mb": 150.0, "frames_mb": 20.0, "frames": 256,
        });
        let text = text(&figures).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].contains("0.960") && lines[2].contains(">= 0.95 met"), "{text}");
        assert!(lines[3].contains("0.890") && lines[3].contains(">= 0.90 missed"), "{text}");
        assert!(lines[4].contains("1.08 times") && lines[4].ends_with("met"), "{text}");
    }
}
