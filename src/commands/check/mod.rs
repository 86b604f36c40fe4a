//! `check`: reports all problems of a configuration, a model with its card, or a run folder, without running anything.
mod exports;
mod heads;
mod journal;
mod maps;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::diagnostics::Diagnostics;
use super::encoder_check;
use super::{CommandResult, Output};
use crate::cli;
use crate::config::{Config, document, loader};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::pipeline::run_dir::RunManifest;

pub(super) fn run(args: &cli::CheckArgs) -> Result<CommandResult> {
    let common = &args.common;
    if args.schema {
        let schema = document::json_schema();
        return Ok(CommandResult::but_for(
            0,
            Output { text: format!("{schema:#}"), json: schema, as_json: common.json },
        ));
    }
    let configured = common.config.is_some() || !common.set.is_empty();
    if !configured && args.encoder.is_none() && args.run.is_none() {
        return Err(Error::usage(
            "nothing to check; name a configuration (--config FILE, --set KEY=VALUE), a model with its card (--encoder \
             MODEL.onnx), a run folder (--run DIR), or several of them",
        ));
    }
    let mut all = Diagnostics::default();
    // Load this first, because the configuration may be the run's. It is reported later.
    let info = args.run.as_deref().map(RunManifest::load);
    let of_run = info.as_ref().and_then(|info| info.as_ref().ok());
    let config = match (&common.config, of_run) {
        (None, Some(info)) => loader::over(&info.settings(), &common.set),
        (file, _) => loader::load(file.as_deref(), &common.set),
    };
    match &config {
        Err(error) => all.error("configuration", error),
        Ok(_) if configured || of_run.is_some() => all.ok("configuration", "every key and value is allowed"),
        Ok(_) => {}
    }
    if let Some(model) = &args.encoder {
        let run = args.run.as_deref().zip(of_run);
        encoder(&mut all, model, config.as_ref().ok(), run);
    }
    if let (Some(run), Some(info)) = (&args.run, &info) {
        folder(&mut all, run, info, args.encoder.is_none());
    }
    Ok(all.done(common.json, None))
}

/// Checks the model with its card, and whether it is the one of the run.
fn encoder(all: &mut Diagnostics, model: &Path, config: Option<&Config>, run: Option<(&Path, &RunManifest)>) {
    let Some(config) = config else {
        return all.warn("encoder", "not checked", "that needs a configuration that can be used");
    };
    let Some(opened) = encoder_check::encoder(all, model, config) else { return };
    if let Some((run, info)) = run {
        match info.same_origin(run, &opened.origin) {
            Ok(()) => all.ok("encoder", "the one that the run was made with"),
            Err(error) => all.error("encoder", &error),
        }
    }
}

/// Checks everything in a run folder. `model`: check the run's own encoder too.
fn folder(all: &mut Diagnostics, run: &Path, info: &Result<RunManifest>, model: bool) {
    let known = match info {
        Ok(info) => {
            let live = if info.live { ", live" } else { "" };
            all.ok("run.json", format!("of {}{live}, encoder {}", info.sources.join(", "), info.encoder.display()));
            if model {
                own_encoder(all, info);
            }
            Some(info)
        }
        // It is not a run at all, so there is nothing more to check.
        Err(error) if error.kind() == ErrorKind::Usage && !looks_like_a_run(run) => return all.error("run", error),
        Err(error) => {
            let todo = "without it the run cannot be used; put it back from a copy";
            all.fail("run.json", error.chain(), todo);
            None
        }
    };
    let heads = heads::check(all, run, known);
    journal::journal(all, run, &heads);
    let place = journal::states(all, run, known);
    let frozen = known.map(heads::frozen_space);
    maps::check(all, run, known, frozen.as_deref(), &heads);
    let spaces = exports::KnownSpaces { frozen, heads };
    let next = place.map(|place| place.exports).unwrap_or_default();
    // A row of a grid holds its cells, each of unit length.
    let cells = known.and_then(|info| info.latent_grid).map_or(1.0, |[h, w, _]| ((h * w) as f64).sqrt());
    for (name, next, length) in
        [("embeddings", next.embeddings, 1.0), ("latents", next.latents, 1.0), ("grids", next.grids, cells)]
    {
        exports::check(all, run, name, next, length, &spaces);
    }
    leftovers(all, run);
}

fn looks_like_a_run(run: &Path) -> bool {
    ["journal.jsonl", "heads", "state.safetensors"].iter().any(|name| run.join(name).exists())
}

/// Checks that the encoder is unchanged and still where the run recorded it.
fn own_encoder(all: &mut Diagnostics, info: &RunManifest) {
    let path = info.encoder.display();
    if !info.encoder.exists() {
        return all.warn("encoder", format!("{path} is not there any more"), "name it with --encoder");
    }
    match files::sha256_file(&info.encoder) {
        Ok(sum) if sum == info.encoder_sha256 => all.ok("encoder", format!("{path} is the one of the run")),
        Ok(_) => all.warn(
            "encoder",
            format!("{path} is another file than when the run was made"),
            "bring the old one back and name it with --encoder",
        ),
        Err(error) => all.error("encoder", &error),
    }
}

/// Reports files that an interrupted run left unfinished, or that are being written now.
fn leftovers(all: &mut Diagnostics, run: &Path) {
    for folder in ["", "heads", "maps", "embeddings", "latents", "grids"] {
        let names = match files::names_in(&run.join(folder)) {
            Ok(names) => names,
            Err(error) => {
                all.error(if folder.is_empty() { "run" } else { folder }, &error);
                continue;
            }
        };
        for name in names.iter().filter(|name| files::is_partial(name)) {
            let name = Path::new(folder).join(name);
            let todo = "of a run that goes on just now, or was cut off; then it may be removed";
            all.warn(name.display().to_string(), "an unfinished file", todo);
        }
    }
}
