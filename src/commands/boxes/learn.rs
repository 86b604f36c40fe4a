//! `learn --boxes`: learns a head for boxes from tracks.
use std::path::Path;

use afterimage_learn::config::FalseNegativeRule;
use serde_json::json;

use super::{BoxDataset, bounded, collect, in_order};
use crate::cli;
use crate::commands::common::{LoadedEncoder, Progress, camera_names};
use crate::commands::{Output, labelled_probe};
use crate::config::loader::load;
use crate::error::{Error, Result};
use crate::files::FolderLock;
use crate::journal::Journal;
use crate::learner::Learner;
use crate::pipeline::run_dir::RunManifest;
use crate::pipeline::run_learner::RunLearner;
use crate::{signals, source};

pub(in crate::commands) fn run(args: &cli::LearnArgs, file: &Path) -> Result<Output> {
    let mut config = load(args.common.config.as_deref(), &args.common.set)?;
    let run = args.out.as_path();
    if args.resume {
        return Err(Error::usage(
            "--resume with --boxes: boxes are learned from at once, start again with another --out",
        ));
    }
    let _lock = FolderLock::take(run)?;
    if RunManifest::exists(run) {
        return Err(Error::usage(format!("{} holds a run already; choose another --out", run.display())));
    }
    if config.learn.augmentation.share > 0.0 {
        return Err(Error::config(
            "learn.augmentation.share with --boxes: boxes have no augmented views; leave one of the two out",
        ));
    }
    same_track(&mut config);
    let cameras = camera_names(&args.camera, args.source.len())?;
    let stop = signals::stop_on_signals()?;
    let mut opened = LoadedEncoder::open(&args.encoder, &config)?;
    let mut boxed = BoxDataset::open(file, &config, &opened, args.source.len())?;
    let mut source = source::open_all(&args.source, &config.source)?;
    bounded(source.as_ref())?;
    // Labelled images are whole frames, whose latents differ in kind from pooled boxes.
    if !config.promotion.probe.is_empty() && opened.origin.grid.is_some() {
        return Err(Error::config("promotion.probe with --boxes over an encoder of grids: leave it out"));
    }
    let probe = labelled_probe::open(&config.promotion.probe, &mut opened)?;
    let learner = Learner::new(&config.learner(), boxed.origin.clone(), probe)?;
    let (seen, ended) = collect(&mut boxed, &mut opened, source.as_mut(), &stop, &config)?;
    if !ended {
        return Err(Error::runtime("stopped before all boxes were seen; nothing is learned"));
    }
    let info = RunManifest::new(&args.encoder, &boxed.origin, &args.source, false, &cameras, &config);
    info.save(run)?;
    let mut journal = Journal::open(run, config.host.journal_megabytes)?;
    journal.write(
        "start",
        json!({
            "encoder_sha256": info.encoder_sha256, "card_hash": info.card_hash, "config_sha256": info.config_hash()?,
            "sources": info.sources, "boxes": file.display().to_string(), "live": false, "cameras": info.cameras,
            "provider": opened.encoder.provider(), "frame": 0, "version": env!("CARGO_PKG_VERSION"),
        }),
    )?;
    let mut worker = RunLearner::open(learner, info.owner(), run, journal)?;
    let samples = in_order(seen);
    let tracks = samples.last().map_or(0, |sample| sample.segment + 1);
    let mut progress = Progress::new("learn", Some(samples.len() as u64));
    for sample in &samples {
        worker.sample(sample)?;
        progress.set(sample.index + 1);
    }
    drop(progress);
    worker.finish()?;
    worker.close()?;
    worker.end(true, samples.len() as u64)?;
    let learner = worker.learner();
    let (learned, exported) = (learner.counts(), learner.exported());
    let reason = learner.last().map_or("too few boxes for a fit (learn.first_fit_frames)", |d| d.reason.as_str());
    let json = json!({
        "run": run.display().to_string(), "source": source.counts(), "boxes": boxed.boxer.counts(), "tracks": tracks, "learned": learned,
        "pairs": learner.pairs(), "gate": reason,
        "head": { "number": exported.number, "dim": exported.head.dim_out(), "space": exported.space.as_ref() },
    });
    let text = format!(
        "run        {}{}\n{}\nlearned    {} samples of {tracks} tracks ({} held out), {} pairs, {} gradient steps\n\
         fits       {}, promotions {}; exported: head {} ({} dimensions, space {})\ngate       {reason}",
        run.display(),
        source.counts().left_out.line(),
        boxed.told(),
        learned.samples,
        learned.held_out,
        learner.pairs(),
        learned.steps,
        learned.fits,
        learned.promotions,
        exported.number,
        exported.head.dim_out(),
        exported.space
    );
    Ok(Output { text, json, as_json: args.common.json })
}

/// Keeps two blocks of one track, which show the same thing, from being negatives of each other.
pub(in crate::commands) fn same_track(config: &mut crate::config::Config) {
    if config.learn.sampling.false_negatives == FalseNegativeRule::Block {
        config.learn.sampling.false_negatives = FalseNegativeRule::Segment;
    }
}
