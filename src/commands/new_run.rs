//! Cleans up after a run that fails to start.
use std::fs;
use std::path::Path;

use crate::files;

/// What a run has in its folder before its first frame.
const MADE: [&str; 6] = [
    "run.json",
    "journal.jsonl",
    "state.safetensors",
    "state.next.safetensors",
    "state.previous.safetensors",
    "heads/.reserve",
];
const FOLDERS: [&str; 5] = ["heads", "maps", "embeddings", "latents", "grids"];

/// A run that is starting. Dropping it before [`Fresh::keep`] removes what the start has put into the folder, so that
/// the same command can be given again. If the folder holds more than that, everything stays.
pub(super) struct Fresh<'a> {
    run: &'a Path,
    keep: bool,
}

impl<'a> Fresh<'a> {
    /// Starts in the folder `run`. Pass `keep` if the run existed before.
    pub(super) fn new(run: &'a Path, keep: bool) -> Self {
        Self { run, keep }
    }

    /// Keeps the folder, because the run now has data.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    fn holds_more(&self) -> bool {
        let names = |folder: &Path| {
            let all = files::names_in(folder).unwrap_or_default();
            all.into_iter().filter(|name| !files::is_partial(name)).collect::<Vec<_>>()
        };
        names(self.run).iter().any(|name| !MADE.contains(&name.as_str()) && !FOLDERS.contains(&name.as_str()))
            || FOLDERS.iter().any(|folder| {
                names(&self.run.join(folder)).iter().any(|name| !MADE.contains(&format!("{folder}/{name}").as_str()))
            })
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if self.keep || self.holds_more() {
            return;
        }
        for name in MADE {
            files::remove_leftover(&self.run.join(name));
        }
        for folder in FOLDERS.map(|name| self.run.join(name)) {
            files::sweep(&folder);
            // Remove the folder only if it is empty.
            fs::remove_dir(folder).ok();
        }
    }
}
