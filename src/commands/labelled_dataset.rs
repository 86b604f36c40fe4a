//! Labelled images on disk: a folder for each class.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::gate::probe::LEAST_CLASSES;
use crate::source::folder::{Skipped, list};

/// An image and its class.
pub(super) type Image = (PathBuf, String);

/// The two halves of labelled data, and the classes in the order of their names.
pub(super) struct LabelledSplit {
    pub(super) gallery: Vec<Image>,
    pub(super) queries: Vec<Image>,
    pub(super) classes: Vec<String>,
    /// What lies in the two folders and is no image.
    pub(super) left_out: Skipped,
}

/// `folder/gallery/CLASS/*.jpg` and `folder/query/CLASS/*.jpg`. Classes that only the gallery has are said in the log.
///
/// # Errors
/// Fewer than two classes; a query class that the gallery lacks, since none of its queries could ever be answered; and as
/// [`labelled`].
pub(super) fn halves(folder: &Path) -> Result<LabelledSplit> {
    let (gallery, mut left_out) = labelled(&folder.join("gallery"))?;
    let (queries, beside_queries) = labelled(&folder.join("query"))?;
    left_out.add(&beside_queries);
    let classes = |images: &[Image]| images.iter().map(|(_, class)| class.clone()).collect::<BTreeSet<_>>();
    let (known, asked) = (classes(&gallery), classes(&queries));
    let folder = folder.display();
    let lacking: Vec<&String> = asked.difference(&known).collect();
    if !lacking.is_empty() {
        return Err(Error::check_failed(format!(
            "{folder}/query has {} that {folder}/gallery lacks, and no query of theirs could be answered: {}. Put images \
             of each class into the gallery, or take these classes out of the queries",
            counted(lacking.len()),
            some(&lacking)
        )));
    }
    if known.len() < LEAST_CLASSES {
        return Err(Error::check_failed(format!(
            "{folder}/gallery has {}: at least {LEAST_CLASSES} are needed to tell one from another; labelled images are \
             laid out as {folder}/gallery/CLASS/*.jpg and {folder}/query/CLASS/*.jpg",
            counted(known.len())
        )));
    }
    let unasked: Vec<&String> = known.difference(&asked).collect();
    if !unasked.is_empty() {
        let many = counted(unasked.len());
        tracing::warn!("{folder}/query lacks {many} of the gallery, which only distract: {}", some(&unasked));
    }
    Ok(LabelledSplit { gallery, queries, classes: known.into_iter().collect(), left_out })
}

fn counted(classes: usize) -> String {
    format!("{classes} class{}", if classes == 1 { "" } else { "es" })
}

/// The first names.
fn some(classes: &[&String]) -> String {
    let names: Vec<&str> = classes.iter().take(5).map(|name| name.as_str()).collect();
    names.join(", ") + if classes.len() > names.len() { ", ..." } else { "" }
}

/// Of the images at `places`, the place of each one's class in `classes`, which are sorted and have them all.
pub(super) fn numbers(images: &[Image], places: &[usize], classes: &[String]) -> Vec<usize> {
    places.iter().filter_map(|i| classes.binary_search(&images[*i].1).ok()).collect()
}

/// Images with their class: the path of their folder under `folder`. And what is no image there.
///
/// # Errors
/// The folder cannot be read, holds no images, or has one outside of a class folder.
pub(super) fn labelled(folder: &Path) -> Result<(Vec<Image>, Skipped)> {
    let (images, left_out) = list(folder)?;
    let mut out = Vec::with_capacity(images.len());
    for image in images {
        let class = image.path.parent().and_then(|p| p.strip_prefix(folder).ok()).unwrap_or(Path::new(""));
        if class.as_os_str().is_empty() {
            return Err(Error::usage(format!(
                "{} lies in no class folder; labelled images are laid out as {}/CLASS/*.jpg",
                image.path.display(),
                folder.display()
            )));
        }
        out.push((image.path.clone(), class.display().to_string()));
    }
    Ok((out, left_out))
}
