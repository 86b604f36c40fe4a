//! Resumes an interrupted run.
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::checkpoint::newest_head;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::export::{self, RowFormat, newest_file};
use crate::frame::Timestamp;
use crate::journal::{Found, Journal};
use crate::learner::Learner;
use crate::pipeline::export_thread::FilePositions;
use crate::pipeline::run_dir::RunManifest;
use crate::pipeline::run_state::{self, RestoredState};
use crate::source::clock::go_on_after;

/// Gives `now` the identity of the run and rejects what cannot continue it: another encoder or, for a bounded source,
/// another source or configuration, because the result would not be a continuation.
pub(super) fn allowed(run: &Path, now: &mut RunManifest) -> Result<()> {
    let before = RunManifest::load(run)?;
    before.same_origin(run, &now.origin())?;
    if before.merged() {
        return Err(Error::usage(format!(
            "run {} was merged from others, and no source belongs to it: it cannot be resumed. Its head is there for \
             embed, export and eval; learn from a source in a run of its own, and merge again",
            run.display()
        )));
    }
    if before.sources != now.sources || before.cameras != now.cameras {
        return Err(Error::usage(format!(
            "run {} was made from {}, not from {}; resume it with the same --source and --camera",
            run.display(),
            told(&before),
            told(now)
        )));
    }
    now.identity.clone_from(&before.identity);
    let changed = changed_keys(before.recorded(), now.recorded())?;
    if changed.is_empty() {
        return Ok(());
    }
    if now.live {
        tracing::info!("resuming with a changed configuration: {}", changed.join(", "));
        return Ok(());
    }
    Err(Error::config(format!(
        "run {} was begun with another configuration; over a file or folder it goes on only with the same one. \
         Changed: {}",
        run.display(),
        changed.join(", ")
    )))
}

/// Makes capture times continue from the newest record of a live run, however far the wall clock has gone back since.
/// Call it before opening the source.
pub(super) fn clock(run: &Path) -> Result<()> {
    let folder = run.join("embeddings");
    if !RunManifest::load(run)?.live || !folder.is_dir() {
        return Ok(());
    }
    let stamps = newest_file(&folder)?.into_iter().flatten().map_while(Result::ok).map(|(record, _)| record.stamp_ns);
    let Some(last) = stamps.max() else { return Ok(()) };
    if !go_on_after(Timestamp(last)) {
        tracing::warn!(
            "the clock of this machine stands before the newest frame of run {}: capture times go on from that frame, \
             wall_ns says what the clock says",
            run.display()
        );
    }
    Ok(())
}

/// The sources with their cameras.
fn told(info: &RunManifest) -> String {
    let each: Vec<String> =
        info.sources.iter().zip(&info.cameras).map(|(uri, name)| format!("{uri} ({name})")).collect();
    each.join(", ")
}

/// `key: before -> now` for each key that differs.
fn changed_keys(before: &Config, now: &Config) -> Result<Vec<String>> {
    let table = |config| toml::Table::try_from(config).map_err(|e| Error::config("the configuration").with_source(e));
    let (before, now) = (table(before)?, table(now)?);
    let mut changed = Vec::new();
    for (part, values) in &now {
        let Some(values) = values.as_table() else { continue };
        for (key, value) in values {
            let old = before.get(part).and_then(|t| t.get(key));
            if old != Some(value) {
                let old = old.map_or("nothing".to_owned(), ToString::to_string);
                changed.push(format!("{part}.{key}: {old} -> {value}"));
            }
        }
    }
    Ok(changed)
}

/// A killed live run resumes with the next multiple of this number above every frame it is known to have seen. It may
/// have sent more frames than it has written, and each (camera, frame) key must be used only once. No run writes that
/// many frames between two checkpoints.
const AFTER_A_KILL: u64 = 1 << 20;

/// The kinds of rows that a run may write, with the column name of each.
const ROWS: [(&str, &str); 3] =
    [("embeddings", RowFormat::EMBEDDING), ("latents", RowFormat::LATENT), ("grids", RowFormat::EMBEDDING)];

/// What a resumed run continues from.
#[derive(Default)]
pub(super) struct Resumed {
    pub(super) restored: RestoredState,
    pub(super) found: Found,
    /// Rows recovered from files that were open when a live run was killed.
    pub(super) recovered_rows: u64,
}

/// Restores `learner` to the saved state and returns the position in the stream. Damaged files are reported in the log
/// and the journal, and the previous state is used. A live run also takes the newest promoted head, even if it is newer
/// than the state, and keeps all its exports, because a camera cannot repeat its frames.
pub(super) fn restore(run: &Path, info: &RunManifest, learner: &mut Learner, journal: &mut Journal) -> Result<Resumed> {
    let (owner, live) = (info.owner(), info.live);
    let (restored, mut warnings) = run_state::restore(run, &owner, learner)?;
    run_state::settle(run, &owner)?;
    let mut restored = restored.unwrap_or_default();
    let place = &mut restored.place;
    let mut recovered_rows = 0;
    let next = [place.exports.embeddings, place.exports.latents, place.exports.grids];
    for ((name, column), next) in ROWS.into_iter().zip(next) {
        let folder = run.join(name);
        if live {
            let found = export::recover(&folder, column)?;
            recovered_rows += found.rows;
            warnings.extend(found.lost);
        }
        warnings.extend(export::missing_below(&folder, next, info.recorded().host.disk_budget_megabytes > 0.0)?);
    }
    if recovered_rows > 0 {
        tracing::info!("{recovered_rows} rows that were in open files when the run was killed are there");
    }
    if live {
        place.exports = FilePositions::after_all(run)?;
        let (newest, broken) = newest_head(run, &owner)?;
        warnings.extend(broken);
        if let Some(file) = newest.filter(|file| file.number > learner.exported().number) {
            learner.adopt(file.number, Arc::new(file.head));
        }
    }
    let found = journal.go_on(place.next_index, !live)?;
    if live {
        // Frame numbers are keys: never reuse one, even if the state is older than what was sent.
        let newest = found.newest_frame.max(newest_row(run)?);
        place.next_index = place.next_index.max(newest.map_or(0, |frame| frame + 1));
        place.next_index = match found.stopped_at {
            Some(frames) => place.next_index.max(frames),
            None => (place.next_index / AFTER_A_KILL + 1) * AFTER_A_KILL,
        };
    }
    for warning in warnings {
        tracing::warn!("{warning}");
        journal.write("fault", json!({ "frame": place.next_index, "reason": warning }))?;
    }
    tracing::info!("run {} goes on at frame {}", run.display(), place.next_index);
    Ok(Resumed { restored, found, recovered_rows })
}

/// The newest frame in the rows of the run.
fn newest_row(run: &Path) -> Result<Option<u64>> {
    let mut newest = None;
    for folder in ["embeddings", "latents", "grids"].map(|name| run.join(name)).iter().filter(|path| path.is_dir()) {
        let rows = newest_file(folder)?.into_iter().flatten().map_while(Result::ok);
        newest = newest.max(rows.map(|(record, _)| record.frame).max());
    }
    Ok(newest)
}

/// Saves the current settings of the run if they have changed. Without disk space the run continues anyway: the file
/// then keeps the original settings, and only a live run may differ from them.
pub(super) fn save_info(run: &Path, info: &RunManifest) -> Result<()> {
    if RunManifest::load(run)? == *info {
        return Ok(());
    }
    match info.save(run) {
        Err(error) if error.kind() == ErrorKind::DiskFull => {
            tracing::warn!("{}: run.json keeps the configuration before; the run goes on", error.chain());
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn changed_keys_are_named_with_both_values() {
        let (before, mut now) = (Config::default(), Config::default());
        assert!(changed_keys(&before, &now).unwrap().is_empty());
        now.learn.seed = 7;
        now.encoder.providers = vec![crate::config::Provider::Cuda, crate::config::Provider::Cpu];
        let changed = changed_keys(&before, &now).unwrap();
        assert_eq!(changed, ["encoder.providers: [\"cpu\"] -> [\"cuda\", \"cpu\"]", "learn.seed: 0 -> 7"]);
    }
}
