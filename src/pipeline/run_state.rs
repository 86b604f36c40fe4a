//! The state of a run on disk: learner and position of the stream, in one file, next to the state before it.
use std::path::Path;

use super::run_dir::StreamPosition;
use crate::checkpoint::{Owner, load, save};
use crate::encoder::BackgroundModel;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::learner::Learner;
use crate::sampling::ShotDetectorState;
use crate::state_dict::{LoadedTensors, StateDict, TensorView};

/// The newest state; the one that is about to become the newest; the one before.
const NAMES: [&str; 3] = ["state.safetensors", "state.next.safetensors", "state.previous.safetensors"];
/// The entry `format`.
const FORMAT: &str = "afterimage state 3";
/// Largest state. Most of it is the replay memory.
const MAX_BYTES: u64 = 1 << 36;

/// Saves the state of `run` at `place`, with the `background` of a fixed camera there. Once there was a state, at least one
/// complete state lies on the disk at any time.
///
/// # Errors
/// The I/O error; earlier states are still there.
pub fn store<'b>(
    run: &Path,
    owner: &Owner,
    learner: &mut Learner,
    mut place: StreamPosition,
    background: Option<&'b BackgroundModel>,
) -> Result<()> {
    let [newest, next, previous] = NAMES.map(|name| run.join(name));
    let mut stream = StateDict::default();
    if let Some(segmenter) = &mut place.segmenter {
        put_looks(&mut stream, segmenter);
    }
    stream.json("place", &place)?;
    let background = background.map(BackgroundModel::save);
    let about = background.map(|(about, _, _)| serde_json::to_string(about)).transpose();
    let about = about.map_err(|e| Error::runtime("the background").with_source(e))?;
    let tensor = |name: &str, values: &'b [f32]| (name.to_owned(), TensorView::new(&[values.len()], values));
    let mut more = stream.tensors;
    if let Some((_, mean, deviation)) = background {
        more.extend([tensor("background.mean", mean), tensor("background.deviation", deviation)]);
    }
    learner.save(place.next_index, more, |contents| {
        contents.text("format", FORMAT);
        contents.text("run", &owner.run);
        if let Some(about) = &about {
            contents.text("background", about);
        }
        save(&next, &contents.meta, &contents.tensors, MAX_BYTES).map(|_| ())
    })?;
    if there(&newest)? {
        rename(&newest, &previous)?;
    }
    rename(&next, &newest)?;
    files::sync_folder(run)
}

/// Whether there is a file of this name. A file that cannot be looked at is an error, not an absence.
fn there(path: &Path) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::unreadable(path, e)),
    }
}

/// Gives the next state its final name where a kill fell between the two renames of [`store`]: a run that had ended saves no
/// other state. A damaged one stays as it is. Called before the run goes on.
///
/// # Errors
/// The I/O error; the state is still there.
pub fn settle(run: &Path, owner: &Owner) -> Result<()> {
    let [newest, next, _] = NAMES.map(|name| run.join(name));
    if there(&newest)? || open(&next, Some(owner)).is_err() {
        return Ok(());
    }
    rename(&next, &newest)?;
    files::sync_folder(run)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| Error::io(format!("cannot rename {} to", from.display()), to, e))
}

/// What a state holds besides the learner.
#[derive(Debug, Default)]
pub struct RestoredState {
    /// Where the stream goes on.
    pub place: StreamPosition,
    /// The background of a fixed camera at that position.
    pub background: Option<BackgroundModel>,
}

/// Restores `learner` from the newest complete state of `run`; what else is in the state (`None` without any), and a line
/// for each damaged state.
///
/// # Errors
/// A state cannot be read, belongs to another run, or is complete but does not fit (another configuration or version).
/// Nothing starts afresh in its place, since nobody knows what would be lost.
pub fn restore(run: &Path, owner: &Owner, learner: &mut Learner) -> Result<(Option<RestoredState>, Vec<String>)> {
    newest(run, |path| {
        let (mut stored, place) = open(path, Some(owner))?;
        if let Some(segmenter) = &place.segmenter {
            segmenter.check(owner.latent_dim).map_err(|e| unfit(path, e))?;
        }
        let background = take_background(&mut stored).map_err(|e| unfit(path, e))?;
        learner.restore(&mut stored).map_err(|e| unfit(path, e))?;
        Ok(RestoredState { place, background })
    })
}

/// The error of a state that is complete and of this run, but cannot be used.
fn unfit(path: &Path, error: Error) -> Error {
    if error.kind() != ErrorKind::Runtime {
        return error;
    }
    Error::check_failed(format!("cannot use {}: its parts do not fit", path.display())).with_source(error)
}

/// The background in the newest complete state of `run`, and a line for each damaged state.
///
/// # Errors
/// As [`restore`].
pub fn background(run: &Path, owner: &Owner) -> Result<(Option<BackgroundModel>, Vec<String>)> {
    let (found, damaged) = newest(run, |path| take_background(&mut open(path, Some(owner))?.0))?;
    Ok((found.flatten(), damaged))
}

/// Reads the newest complete state. Only damaged ones are skipped.
fn newest<T>(run: &Path, mut read: impl FnMut(&Path) -> Result<T>) -> Result<(Option<T>, Vec<String>)> {
    let mut damaged: Vec<String> = Vec::new();
    for path in NAMES.map(|name| run.join(name)) {
        if !there(&path)? {
            continue;
        }
        match read(&path) {
            Ok(found) => {
                let before = |damage| format!("{damage}; using the state before it");
                return Ok((Some(found), damaged.into_iter().map(before).collect()));
            }
            Err(e) if e.kind() == ErrorKind::Damaged => damaged.push(e.chain()),
            Err(e) => return Err(kept(run, e)),
        }
    }
    if !damaged.is_empty() {
        damaged.push("no state is left; learning starts afresh".to_owned());
    }
    Ok((None, damaged))
}

/// The error of a state that stays as it is, with advice.
fn kept(run: &Path, error: Error) -> Error {
    let what = match error.kind() {
        ErrorKind::Unreadable => "make its files readable for this user (owner, permissions) and try again",
        _ => "it stays as it is; use the configuration and version that saved it, or move it away to go on without it",
    };
    Error::new(error.kind(), format!("the saved state of run {} cannot be used: {what}", run.display()))
        .with_source(error)
}

/// Every state file of `run`, newest first, verified by its checksum: its position, or what is wrong with it.
pub fn states(run: &Path, owner: Option<&Owner>) -> Vec<(&'static str, Result<StreamPosition>)> {
    let there = NAMES.into_iter().filter(|name| !matches!(there(&run.join(name)), Ok(false)));
    there.map(|name| (name, open(&run.join(name), owner).map(|(_, place)| place))).collect()
}

fn open(path: &Path, owner: Option<&Owner>) -> Result<(LoadedTensors, StreamPosition)> {
    let mut stored = load(path, MAX_BYTES)?;
    if stored.text("format")? != FORMAT {
        return Err(stored.wrong(format!("is not of the format {FORMAT:?}")));
    }
    if let Some(owner) = owner {
        owner.check_run(path, stored.run()?)?;
    }
    let mut place: StreamPosition = stored.take_json("place")?;
    if let Some(segmenter) = &mut place.segmenter {
        take_looks(&mut stored, segmenter)?;
    }
    Ok((stored, place))
}

/// Moves the latents and thumbnails that the shot detector remembers out of it: at most two frames per camera.
fn put_looks(contents: &mut StateDict<'_>, segmenter: &mut ShotDetectorState) {
    let (mut lengths, mut numbers) = (Vec::new(), Vec::new());
    for part in segmenter.looks() {
        lengths.push(part.len() as u64);
        numbers.append(part);
    }
    contents.list("segmenter.lengths", lengths);
    contents.list("segmenter.numbers", numbers);
}

/// The reverse of [`put_looks`].
fn take_looks(stored: &mut LoadedTensors, segmenter: &mut ShotDetectorState) -> Result<()> {
    let lengths: Vec<u64> = stored.take_list("segmenter.lengths")?;
    let numbers: Vec<f32> = stored.take_list("segmenter.numbers")?;
    let mut rest = numbers.as_slice();
    let mut lengths = lengths.into_iter();
    for part in segmenter.looks() {
        let taken = lengths.next().and_then(|length| rest.split_at_checked(usize::try_from(length).ok()?));
        let Some((these, others)) = taken else {
            return Err(stored.wrong("has fewer remembered frames than cameras"));
        };
        part.extend_from_slice(these);
        rest = others;
    }
    if rest.is_empty() && lengths.next().is_none() {
        return Ok(());
    }
    Err(stored.wrong("has more remembered frames than cameras"))
}

fn take_background(stored: &mut LoadedTensors) -> Result<Option<BackgroundModel>> {
    if !stored.has("background.mean") {
        return Ok(None);
    }
    let about = serde_json::from_str(stored.text("background")?)
        .map_err(|e| stored.wrong("has a background that cannot be read").with_source(e))?;
    let mut take = |name: &str| {
        let [len] = stored.shape(name)?;
        stored.take(name, &[len])
    };
    let (mean, deviation) = (take("background.mean")?, take("background.deviation")?);
    BackgroundModel::restore(about, mean, deviation).map(Some)
}
