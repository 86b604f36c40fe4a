//! `bench learning`: the gain of every objective and every candidate head on labelled data sets.
//!
//! The stream of a set, its gallery and its queries are encoded once. Real learners run on the latents, and labels that
//! they never saw measure the result ([`runs`], [`continual`]). Figures that depend on the seed are given as mean and
//! standard deviation over the seeds.
pub(super) mod dataset;
pub(super) mod continual;
mod report;
mod runs;

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::Output;
use super::super::common::LoadedEncoder;
use crate::cli;
use crate::config::Config;
use crate::config::loader::{load, over};
use crate::error::{Error, Result};
use crate::files;
use crate::learner::Learner;
use crate::signals;
use dataset::DataSet;
use runs::Skipped;

/// Objectives compared by default: all of these that fit the configuration.
const OBJECTIVES: [&str; 10] =
    ["nt-xent", "moco", "dcl", "vicreg", "barlow-twins", "byol", "simsiam", "supcon", "cpc", "instance"];

pub(super) fn run(args: &cli::BenchLearningArgs, started: Instant) -> Result<Output> {
    let config = load(args.common.config.as_deref(), &args.common.set)?;
    let stop = signals::stop_on_signals()?;
    let mut opened = LoadedEncoder::open(&args.encoder, &config)?;
    let (jobs, left_out) =
        if args.in_sequence { (seeds(&config, args.seeds)?, Vec::new()) } else { jobs(args, &config, &opened)? };
    let mut sets = Vec::new();
    let (mut text, mut found) = (String::new(), Vec::new());
    for folder in &args.data {
        let set = DataSet::read(folder, &mut opened, &config, &stop, started)?;
        if args.in_sequence {
            sets.push(set);
            continue;
        }
        let mut trials = runs::run(&set, &opened.origin, &jobs)?;
        trials.left_out.clone_from(&left_out);
        text.push_str(&report::of_set(&set, &trials)?);
        let figures =
            serde_json::to_value(&trials).map_err(|e| Error::runtime("the figures of the bench").with_source(e))?;
        found.push(json!({ "name": set.name, "size": set.size(), "found": figures }));
    }
    let found = if args.in_sequence {
        let rows = continual::run(&sets, &opened.origin, &jobs)?;
        text = report::of_sequence(&sets, &rows)?;
        json!({ "sets": sets.iter().map(|set| &set.name).collect::<Vec<_>>(), "after": rows })
    } else {
        Value::from(found)
    };
    let json = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "encoder_sha256": opened.origin.encoder_sha256,
        "card_hash": opened.origin.card_hash,
        "config": config,
        "seeds": args.seeds,
        if args.in_sequence { "sequence" } else { "learning" }: found,
    });
    if let Some(out) = &args.out {
        write(out, &text, &json)?;
    }
    Ok(Output { text: text.trim_end().to_owned(), json, as_json: args.common.json })
}

/// A configuration for each objective and seed, and the objectives that do not fit. Objectives requested by name must
/// fit.
fn jobs(args: &cli::BenchLearningArgs, config: &Config, opened: &LoadedEncoder) -> Result<(Vec<Config>, Vec<Skipped>)> {
    let asked = !args.objectives.is_empty();
    let names: Vec<&str> =
        if asked { args.objectives.iter().map(|name| name.trim()).collect() } else { OBJECTIVES.to_vec() };
    let (mut jobs, mut left_out) = (Vec::new(), Vec::new());
    for name in names {
        let with = over(config, &[format!("learn.objective.name={name:?}")]);
        // The learner rejects objectives that do not fit the latents.
        let fits = with.and_then(|with| Learner::new(&with.learner(), opened.origin.clone(), None).map(|_| with));
        match fits {
            Ok(with) => jobs.extend(seeds(&with, args.seeds)?),
            Err(e) if asked => return Err(e),
            Err(e) => left_out.push(Skipped { objective: name.to_owned(), why: e.chain() }),
        }
    }
    Ok((jobs, left_out))
}

fn seeds(config: &Config, count: u64) -> Result<Vec<Config>> {
    (0..count).map(|seed| over(config, &[format!("learn.seed={seed}")])).collect()
}

fn write(out: &Path, text: &str, json: &Value) -> Result<()> {
    files::create_folder(out)?;
    let pretty =
        serde_json::to_string_pretty(json).map_err(|e| Error::runtime("the figures of the bench").with_source(e))?;
    for (name, content) in [("learning.md", text), ("learning.json", &pretty)] {
        files::replace(&out.join(name), |file| std::io::Write::write_all(file, content.as_bytes()))?;
    }
    Ok(())
}
