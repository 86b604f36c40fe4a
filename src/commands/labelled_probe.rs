//! Opens the labelled probe folder, if one is configured.
use std::collections::BTreeSet;
use std::path::Path;

use super::common::LoadedEncoder;
use super::labelled_dataset::{labelled, numbers};
use crate::error::{Error, Result};
use crate::gate::probe::Probe;

/// Opens `promotion.probe`: `CLASS/*.jpg`, where classes may be nested. No probe if empty.
pub(super) fn open(folder: &str, opened: &mut LoadedEncoder) -> Result<Option<Probe>> {
    if folder.is_empty() {
        return Ok(None);
    }
    let (images, _) = labelled(Path::new(folder))?;
    let half = |(_, class): &(_, String)| class.starts_with("gallery/") || class.starts_with("query/");
    if images.iter().all(half) {
        return Err(Error::config(format!(
            "promotion.probe = \"{folder}\" holds gallery and query, as `eval` takes them, and would make two classes of \
             each; name one of them, \"{folder}/gallery\""
        )));
    }
    let paths: Vec<_> = images.iter().map(|(path, _)| path.clone()).collect();
    let (latents, places) = opened.latents(&paths, |_| {})?;
    let names: BTreeSet<&String> = images.iter().map(|(_, class)| class).collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let labels = numbers(&images, &places, &names);
    Probe::new(latents, labels, &names).map(Some)
}
