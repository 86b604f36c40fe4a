//! `merge`: combines several runs that learned on the same encoder into one.
use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use super::common::{LoadedEncoder, run_config};
use super::{Output, labelled_probe};
use crate::cli;
use crate::error::{Error, Result};
use crate::files::{self, FolderLock};
use crate::journal::Journal;
use crate::learner::Learner;
use crate::pipeline::export_thread::FilePositions;
use crate::pipeline::run_dir::{MERGED, RunManifest, StreamPosition};
use crate::pipeline::run_learner::RunLearner;
use crate::pipeline::run_state;
use crate::sampling::shot_detector::ShotDetector;

pub(super) fn run(args: &cli::MergeArgs) -> Result<Output> {
    let out = args.out.as_path();
    let _lock = FolderLock::take(out)?;
    if RunManifest::exists(out) {
        return Err(Error::usage(format!("{} holds a run already; choose another --out", out.display())));
    }
    // The whole folder is renamed into place at the end.
    let mut entries = fs::read_dir(out).map_err(|e| Error::io("cannot read the folder", out, e))?;
    if entries.next().is_some() {
        return Err(Error::usage(format!("{} is not empty; choose another --out, or empty it", out.display())));
    }
    let mut folders = BTreeSet::new();
    for run in &args.runs {
        let folder = run.canonicalize().map_err(|e| Error::io("cannot open the run", run, e))?;
        if !folders.insert(folder) {
            return Err(Error::usage(format!(
                "run {} is named twice, and all that it saw would count twice; name each run once",
                run.display()
            )));
        }
    }
    let infos = args.runs.iter().map(|run| RunManifest::load(run)).collect::<Result<Vec<_>>>()?;
    let Some(first) = infos.first() else { return Err(Error::usage("merge needs at least two runs")) };
    let (config, origin) = (run_config(first, &args.common)?, first.origin());
    // From the first run that has one, for its camera.
    let mut background = None;
    for (run, info) in args.runs.iter().zip(&infos) {
        info.same_origin(run, &origin)?;
    }
    let probe = if config.promotion.probe.is_empty() {
        None
    } else {
        let mut opened = LoadedEncoder::of_run(&args.runs[0], first, &config)?;
        labelled_probe::open(&config.promotion.probe, &mut opened)?
    };
    let mut learner = Learner::new(&config.learner(), origin.clone(), probe)?;
    for (run, info) in args.runs.iter().zip(&infos) {
        let mut one = Learner::new(&info.settings().learner(), origin.clone(), None)?;
        let (restored, warnings) = run_state::restore(run, &info.owner(), &mut one)?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let Some(restored) = restored else {
            return Err(Error::check_failed(format!(
                "run {} has no saved state, so nothing that it has seen is left to merge; let it come to a checkpoint or \
                 its end first",
                run.display()
            )));
        };
        background = background.or(restored.background);
        learner.join(&one)?;
    }
    let names: Vec<String> = args.runs.iter().map(|run| run.display().to_string()).collect();
    let mut info = first.clone().configured(&config);
    info.sources = vec![format!("{MERGED}{}", names.join(", "))];
    info.cameras = vec!["merged".into()];
    info.live = false;
    let lineage: Vec<&str> = infos.iter().map(|info| info.identity.as_str()).collect();
    let info = info.identify(&lineage);
    // Build beside the target and rename at the end, so that an interrupted merge leaves nothing that looks like a run.
    let building = files::partial(out)?;
    if building.exists() {
        fs::remove_dir_all(&building).map_err(|e| Error::io("cannot remove the unfinished merge", &building, e))?;
    }
    info.save(&building)?;
    let mut journal = Journal::open(&building, config.host.journal_megabytes)?;
    let samples = learner.counts().samples;
    journal.write("merge", json!({ "frame": 0, "runs": names, "samples": samples, "pairs": learner.pairs() }))?;
    let (frame, stamp) = learner.newest_frame();
    let mut worker = RunLearner::open(learner, info.owner(), &building, journal)?;
    worker.resume_after(frame, stamp);
    worker.finish()?;
    let segmenter = ShotDetector::new(&config.learn.sampling).save().clone();
    let position = StreamPosition {
        next_index: frame + 1,
        ended: true,
        segmenter: Some(segmenter),
        exports: FilePositions::default(),
    };
    worker.checkpoint(position, background.as_ref())?;
    worker.close()?;
    worker.end(true, frame + 1)?;
    fs::rename(&building, out).map_err(|e| Error::io("cannot put the merged run in its place", out, e))?;
    files::sync_folder(files::folder_of(out))?;
    let learner = worker.learner();
    let reason = learner.last().map_or("nothing was learned from", |decision| decision.reason.as_str());
    let (counts, number) = (learner.counts(), learner.exported().number);
    let json = json!({
        "run": out.display().to_string(), "runs": names, "learned": counts, "pairs": learner.pairs(),
        "head": { "number": number, "space": learner.exported().space.as_ref() }, "gate": reason,
    });
    let text = format!(
        "run        {}\nmerged     {} runs: {} samples ({} held out), {} pairs\nexported   head {number}\ngate       {reason}",
        out.display(),
        names.len(),
        counts.samples,
        counts.held_out,
        learner.pairs()
    );
    Ok(Output { text, json, as_json: args.common.json })
}
