//! Labelled images on disk, one folder per class.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::gate::probe::LEAST_CLASSES;
use crate::source::folder::{Skipped, list};

/// An image and its class.
pub(super) type Image = (PathBuf, String);

/// The gallery and query halves of labelled data, and the sorted class names.
pub(super) struct LabelledSplit {
    pub(super) gallery: Vec<Image>,
    pub(super) queries: Vec<Image>,
    pub(super) classes: Vec<String>,
    /// Files in the two folders that are not images.
    pub(super) left_out: Skipped,
}

/// Reads `folder/gallery/CLASS/*.jpg` and `folder/query/CLASS/*.jpg`. Logs classes that only the gallery has.
///
/// # Errors
/// There are fewer than two classes; a query class is missing from the gallery, so that its queries could never
/// succeed; or any error of [`labelled`].
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

/// The first few names.
fn some(classes: &[&String]) -> String {
    let names: Vec<&str> = classes.iter().take(5).map(|name| name.as_str()).collect();
    names.join(", ") + if classes.len() > names.len() { ", ..." } else { "" }
}

/// For each image at `places`, the index of its class in `classes`, which is sorted and complete.
pub(super) fn numbers(images: &[Image], places: &[usize], classes: &[String]) -> Vec<usize> {
    places.iter().filter_map(|i| classes.binary_search(&images[*i].1).ok()).collect()
}

/// Images with their class, which is the path of their folder under `folder`, and the files that are not images.
///
/// # Errors
/// The folder cannot be read, has no images, or has an image outside a class folder.
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
