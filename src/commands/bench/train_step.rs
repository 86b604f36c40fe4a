//! `bench step`: the cost of one gradient step for each objective, on one thread.
//!
//! It uses synthetic latents and needs no encoder. It times the complete step: sampling the batch from the replay
//! buffer, the slow head, the residual forward and backward, the objective with its own networks and queue, and the
//! optimizer. `tools/baselines/step.py` times the same step in PyTorch and shows both side by side.
use std::fmt::Write;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::Output;
use super::median;
use crate::cli;
use crate::config::Config;
use crate::config::loader::load;
use crate::error::{Error, Result};
use crate::learner::StepBench;

/// The objectives timed without `--objective`: the name, and the kind of MoCo queue.
const OBJECTIVES: [(&str, &str); 9] = [
    ("nt-xent", ""),
    ("moco", "keys"),
    ("moco", "latents"),
    ("dcl", ""),
    ("supcon", ""),
    ("vicreg", ""),
    ("barlow-twins", ""),
    ("byol", ""),
    ("simsiam", ""),
];

pub(super) fn run(args: &cli::BenchStepArgs) -> Result<Output> {
    let config = load(args.common.config.as_deref(), &args.common.set)?;
    let mut benches = Vec::new();
    for (objective, queue) in OBJECTIVES {
        let mut config = config.clone();
        config.learn.objective.name = objective.parse().map_err(|wrong: Vec<String>| Error::usage(wrong.join(", ")))?;
        if !queue.is_empty() {
            config.learn.objective.queue = queue.parse().map_err(Error::usage)?;
        }
        let name = if queue.is_empty() { objective.to_owned() } else { format!("{objective}, queue of {queue}") };
        if args.objective.is_empty() || args.objective.iter().any(|wanted| wanted == objective) {
            benches.push((name, warm(&config, args.latent as usize)?, Vec::new()));
        }
    }
    if benches.is_empty() {
        let known: Vec<&str> = OBJECTIVES.iter().map(|(name, _)| *name).collect();
        return Err(Error::usage(format!("--objective {}: known are {}", args.objective.join(", "), known.join(", "))));
    }
    for _ in 0..args.rounds {
        for (_, bench, times) in &mut benches {
            let begun = Instant::now();
            for _ in 0..args.steps {
                bench.step()?;
            }
            times.push(begun.elapsed().as_secs_f64() * 1e3 / f64::from(args.steps));
        }
    }
    let figures = benches.into_iter().map(|(name, _, times)| json!({ "objective": name, "ms": median(times) }));
    let json = json!({
        "pairs": config.learn.objective.batch_pairs, "latent": args.latent, "hidden": config.head.hidden, "out": config.head.dim,
        "queue": config.learn.objective.queue_len, "optimizer": config.learn.optimizer.name, "threads": 1,
        "steps": figures.collect::<Vec<_>>(),
    });
    Ok(Output { text: text(&json)?, json, as_json: args.common.json })
}

/// A step benchmark that has taken enough steps to fill its queue and touch its memory.
fn warm(config: &Config, latent: usize) -> Result<StepBench> {
    let mut bench = StepBench::new(&config.learner(), latent)?;
    for _ in 0..config.learn.objective.queue_len.div_ceil(config.learn.objective.batch_pairs).min(200) {
        bench.step()?;
    }
    Ok(bench)
}

fn text(figures: &Value) -> Result<String> {
    let mut out = format!(
        "{} pairs, latent {}, hidden {}, out {}, queue {}, {}, 1 thread\n",
        figures["pairs"],
        figures["latent"],
        figures["hidden"],
        figures["out"],
        figures["queue"],
        figures["optimizer"].as_str().unwrap_or_default()
    );
    for step in figures["steps"].as_array().into_iter().flatten() {
        let (name, ms) = (step["objective"].as_str().unwrap_or_default(), step["ms"].as_f64().unwrap_or(f64::NAN));
        write!(out, "\n{name:<24} {ms:8.2} ms a step")
            .map_err(|e| Error::runtime("the table of the bench cannot be written").with_source(e))?;
    }
    Ok(out)
}
