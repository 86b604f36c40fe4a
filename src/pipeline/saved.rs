//! The state of a run on disk: learner and place in the stream, in one file, with the one before beside it.
use std::path::Path;

use super::folder::Place;
use crate::checkpoint::{Stored, Tensor, load, save};
use crate::encoder::Background;
use crate::error::{Error, Result};
use crate::files;
use crate::learner::Learner;

/// The newest state; the one that is about to become the newest; the one before.
const NAMES: [&str; 3] = ["state.safetensors", "state.next.safetensors", "state.previous.safetensors"];
/// What the entry `format` says.
const FORMAT: &str = "afterimage state 1";
/// A state larger than this is not one.
const MAX_BYTES: u64 = 1 << 36;

/// Saves the state of `run` at `place`, with the `background` of a fixed camera there, where it has one. At every moment at least one whole state lies on the disk, once there was one.
///
/// # Errors
/// The I/O error; the states before are still there.
pub fn store<'b>(run: &Path, learner: &mut Learner, place: &Place, background: Option<&'b Background>) -> Result<()> {
    let [newest, next, previous] = NAMES.map(|name| run.join(name));
    let text = serde_json::to_string(place).map_err(|e| Error::work("the place in the stream").because(e))?;
    let background = background.map(Background::save);
    let about = background.map(|(about, _, _)| serde_json::to_string(about)).transpose();
    let about = about.map_err(|e| Error::work("the background").because(e))?;
    let tensor = |name: &str, values: &'b [f32]| (name.to_owned(), Tensor::new(&[values.len()], values));
    let more = background.map_or(Vec::new(), |(_, mean, deviation)| {
        vec![tensor("background.mean", mean), tensor("background.deviation", deviation)]
    });
    learner.save(place.next_index, more, |contents| {
        contents.text("format", FORMAT);
        contents.text("place", &text);
        if let Some(about) = &about {
            contents.text("background", about);
        }
        save(&next, &contents.meta, &contents.tensors).map(|_| ())
    })?;
    if newest.exists() {
        rename(&newest, &previous)?;
    }
    rename(&next, &newest)?;
    files::sync_folder(run)
}

/// Gives the next state its final name where a kill fell between the two renames of [`store`]: a run that had come to its
/// end saves no other. One that is damaged stays as it is. For who goes on with the run.
///
/// # Errors
/// The I/O error; the state is still there.
pub fn settle(run: &Path) -> Result<()> {
    let [newest, next, _] = NAMES.map(|name| run.join(name));
    if newest.exists() || open(&next).is_err() {
        return Ok(());
    }
    rename(&next, &newest)?;
    files::sync_folder(run)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| Error::io(format!("cannot rename {} to", from.display()), to, e))
}

/// What a state holds beside the learner.
#[derive(Debug, Default)]
pub struct Restored {
    /// Where the stream goes on.
    pub place: Place,
    /// The background of a fixed camera there.
    pub background: Option<Background>,
}

/// Brings `learner` to the newest whole state of `run`; what else is in it, `None` without any state, and a line for each
/// state that is damaged.
///
/// # Errors
/// A state is whole but does not fit: another configuration.
pub fn restore(run: &Path, learner: &mut Learner) -> Result<(Option<Restored>, Vec<String>)> {
    newest(run, |path| {
        let (mut stored, place) = open(path)?;
        let background = take_background(&mut stored)?;
        learner.restore(&mut stored)?;
        Ok(Restored { place, background })
    })
}

/// The background in the newest whole state of `run`, with a line for each state that is damaged.
///
/// # Errors
/// As [`restore`].
pub fn background(run: &Path) -> Result<(Option<Background>, Vec<String>)> {
    let (found, damaged) = newest(run, |path| take_background(&mut open(path)?.0))?;
    Ok((found.flatten(), damaged))
}

/// What `read` makes of the newest state that it can read.
fn newest<T>(run: &Path, mut read: impl FnMut(&Path) -> Result<T>) -> Result<(Option<T>, Vec<String>)> {
    let mut damaged: Vec<String> = Vec::new();
    for path in NAMES.map(|name| run.join(name)).into_iter().filter(|path| path.exists()) {
        match read(&path) {
            Ok(found) => {
                let before = |damage| format!("{damage}; the state before it is used");
                return Ok((Some(found), damaged.into_iter().map(before).collect()));
            }
            Err(e) => damaged.push(e.chain()),
        }
    }
    if !damaged.is_empty() {
        damaged.push("no state is left; learning begins anew".to_owned());
    }
    Ok((None, damaged))
}

/// Every state file of `run`, newest first, verified by its checksum: where it goes on, or what is wrong with it.
pub fn states(run: &Path) -> Vec<(&'static str, Result<Place>)> {
    let there = NAMES.into_iter().filter(|name| run.join(name).exists());
    there.map(|name| (name, open(&run.join(name)).map(|(_, place)| place))).collect()
}

fn open(path: &Path) -> Result<(Stored, Place)> {
    let stored = load(path, MAX_BYTES)?;
    if stored.text("format")? != FORMAT {
        return Err(stored.wrong(format!("is not of the format {FORMAT:?}")));
    }
    let place = serde_json::from_str(stored.text("place")?)
        .map_err(|e| stored.wrong("has no place in the stream that can be read").because(e))?;
    Ok((stored, place))
}

fn take_background(stored: &mut Stored) -> Result<Option<Background>> {
    if !stored.has("background.mean") {
        return Ok(None);
    }
    let about = serde_json::from_str(stored.text("background")?)
        .map_err(|e| stored.wrong("has a background that cannot be read").because(e))?;
    let mut take = |name: &str| {
        let [len] = stored.shape(name)?;
        stored.take(name, &[len])
    };
    let (mean, deviation) = (take("background.mean")?, take("background.deviation")?);
    Background::restore(about, mean, deviation).map(Some)
}
