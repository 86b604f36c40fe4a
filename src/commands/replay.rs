//! `replay`: runs the learner again on recorded latents, without a camera or an encoder.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::common::{LoadedEncoder, Progress, run_config};
use super::{Output, labelled_probe};
use crate::cli;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::export::reader::Reader;
use crate::export::{row_files, space_of_file};
use crate::files::{self, FolderLock};
use crate::frame::Timestamp;
use crate::journal::Journal;
use crate::learner::Learner;
use crate::pipeline::run_dir::RunManifest;
use crate::pipeline::run_learner::RunLearner;
use crate::sampling::Sample;

pub(super) fn run(args: &cli::ReplayArgs) -> Result<Output> {
    let recorded = RunManifest::load(&args.run)?;
    let config = run_config(&recorded, &args.common)?;
    let run = args.out.as_path();
    let _lock = FolderLock::take(run)?;
    if RunManifest::exists(run) {
        return Err(Error::usage(format!("{} holds a run already; choose another --out", run.display())));
    }
    let folder = args.run.join("latents");
    if !folder.is_dir() {
        return Err(Error::usage(format!(
            "run {} recorded no latents; record them with `afterimage learn --set export.latents=true`",
            args.run.display()
        )));
    }
    same_latents(recorded.recorded(), &config)?;
    if config.learn.augmentation.share > 0.0 {
        return Err(Error::config(format!(
            "learn.augmentation.share = {}: recorded latents have no augmented views of their frames; replay without them \
             (--set learn.augmentation.share=0), or learn from the source itself",
            config.learn.augmentation.share
        )));
    }
    let origin = recorded.origin();
    let probe = if config.promotion.probe.is_empty() {
        None
    } else {
        // Only a labelled probe needs the encoder: its images are not recorded.
        let mut opened = LoadedEncoder::of_run(&args.run, &recorded, &config)?;
        labelled_probe::open(&config.promotion.probe, &mut opened)?
    };
    of_one_space(&folder)?;
    let reader = Reader::open(&folder)?;
    // On a file, the replay learns the same as the run and has the same identity. On a camera, the learner may have
    // skipped latents.
    let lineage = if recorded.live { recorded.identity.as_str() } else { "" };
    let info = recorded.clone().configured(&config).identify(&[lineage]);
    info.save(run)?;
    let mut journal = Journal::open(run, config.host.journal_megabytes)?;
    journal.write("replay", json!({ "sources": recorded.sources, "rows": reader.rows() }))?;
    let learner = Learner::new(&config.learner(), origin.clone(), probe)?;
    let mut worker = RunLearner::open(learner, info.owner(), run, journal)?;
    let number = |name: &str| {
        let at = recorded.cameras.iter().position(|camera| camera == name).and_then(|at| u16::try_from(at).ok());
        at.ok_or_else(|| {
            let folder = folder.display();
            Error::runtime(format!("{folder}: a record of the camera {name:?}, which run.json does not list"))
        })
    };
    let mut progress = Progress::new("replay", Some(reader.rows()));
    let mut frames = 0;
    for row in reader {
        let (record, latent) = row?;
        if latent.len() != origin.dim {
            let (found, wanted) = (latent.len(), origin.dim);
            return Err(Error::runtime(format!("{}: a latent of {found}, {wanted} expected", folder.display())));
        }
        let (index, stamp, segment) = (record.frame, Timestamp(record.stamp_ns), record.segment);
        let camera = number(&record.camera)?;
        worker.sample(&Sample { camera, index, stamp, segment, latent, ..Sample::default() })?;
        frames += 1;
        progress.set(frames);
    }
    drop(progress);
    worker.finish()?;
    worker.close()?;
    worker.end(true, frames)?;
    let learner = worker.learner();
    let (counts, reason) = (learner.counts(), learner.last().map_or("", |d| d.reason.as_str()));
    let json = json!({
        "run": run.display().to_string(), "frames": frames, "learned": counts, "pairs": learner.pairs(),
        "head": { "number": learner.exported().number, "space": learner.exported().space.as_ref() }, "gate": reason,
    });
    let text = format!(
        "run        {}\nlatents    {frames}, learned {} samples ({} held out), {} gradient steps\n\
         fits       {}, promotions {}; exported: head {}\ngate       {reason}",
        run.display(),
        counts.samples,
        counts.held_out,
        counts.steps,
        counts.fits,
        counts.promotions,
        learner.exported().number
    );
    Ok(Output { text, json, as_json: args.common.json })
}

/// Rejects latent files that another encoder or preprocessing produced.
fn of_one_space(folder: &Path) -> Result<()> {
    let mut first: Option<(PathBuf, Arc<str>)> = None;
    for (number, format) in row_files(&files::names_in(folder)?) {
        let path = folder.join(files::numbered_name(number, format.end()));
        let Some(space) = space_of_file(&path)? else { continue };
        let (before, known) = first.get_or_insert_with(|| (path.clone(), space.clone()));
        if *known != space {
            return Err(Error::check_failed(format!(
                "{} is of space {known} and {} of space {space}: latents of two encoders or preparations cannot be learned \
                 from together; take the files of another run out of {}",
                before.display(),
                path.display(),
                folder.display()
            )));
        }
    }
    Ok(())
}

/// Rejects changes to configuration keys that affect latents, since recorded latents cannot change.
fn same_latents(recorded: &Config, now: &Config) -> Result<()> {
    let parts = |config: &Config| {
        [
            ("encoder.taps", json!(config.encoder.taps)),
            ("encoder.input_size", json!(config.encoder.input_size)),
            ("prepare", json!(config.preprocess)),
        ]
    };
    for ((key, before), (_, now)) in parts(recorded).into_iter().zip(parts(now)) {
        if before != now {
            return Err(Error::check_failed(format!(
                "{key}: the latents were recorded with {before}, not {now}; replay learns from them as they are. Leave the \
                 key out, or make other latents with `afterimage learn`"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_makes_latents_cannot_change() {
        let recorded = Config::default();
        let mut now = Config::default();
        now.learn.seed = 7;
        same_latents(&recorded, &now).unwrap();
        now.encoder.taps = vec!["output".into()];
        let error = same_latents(&recorded, &now).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().starts_with("encoder.taps: the latents were recorded with [], not [\"output\"]"));
        now.encoder.taps = Vec::new();
        now.encoder.input_size = crate::config::Size::square(96);
        assert!(same_latents(&recorded, &now).unwrap_err().to_string().starts_with("encoder.input_size: "));
    }
}
