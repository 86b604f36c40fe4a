//! `eval`: kNN accuracy on labelled images, frozen against adapted.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use serde_json::json;

use super::Output;
use super::common::{Opened, OpenedRun, Progress};
use crate::cli;
use crate::error::{Error, Result};
use crate::head::Head;
use crate::knn;
use crate::source::folder::list;

/// Latents with labels.
struct Labelled {
    latents: Array2<f32>,
    labels: Vec<usize>,
}

pub(super) fn run(args: &cli::Eval) -> Result<Output> {
    let mut run = OpenedRun::open(&args.of, &args.common)?;
    let gallery = labelled(&args.data.join("gallery"))?;
    let queries = labelled(&args.data.join("query"))?;
    let names: BTreeSet<&String> = gallery.iter().chain(&queries).map(|(_, label)| label).collect();
    let names: Vec<&String> = names.into_iter().collect();
    let mut progress = Progress::new("eval", Some((gallery.len() + queries.len()) as u64));
    let gallery_len = gallery.len() as u64;
    let gallery = read(&mut run.opened, &gallery, &names, |done| progress.set(done))?;
    let queries = read(&mut run.opened, &queries, &names, |done| progress.set(gallery_len + done))?;
    drop(progress);
    if gallery.labels.is_empty() || queries.labels.is_empty() {
        return Err(Error::work(format!("{}: no image in gallery or query could be read", args.data.display())));
    }
    let measure = |head: &Head| {
        let (g, q) = (head.embed_rows(gallery.latents.view()), head.embed_rows(queries.latents.view()));
        [1, 5].map(|k| knn::accuracy(g.view(), &gallery.labels, q.view(), &queries.labels, names.len(), k))
    };
    let frozen = measure(&Head::Identity { dim: run.opened.origin.dim });
    let adapted = measure(&run.adapted.head);
    let (classes, count) = (names.len(), queries.labels.len());
    let json = json!({
        "frozen": { "knn1": frozen[0], "knn5": frozen[1] },
        "adapted": { "knn1": adapted[0], "knn5": adapted[1] },
        "classes": classes,
        "queries": count,
        "gallery": gallery.labels.len(),
        "head": run.adapted.number,
    });
    let head = match run.adapted.number {
        0 => "no head was promoted".to_owned(),
        n => format!("head {n}, {} dimensions", run.adapted.head.dim_out()),
    };
    let text = format!(
        "{count} queries against {} gallery images, {classes} classes ({head})\n\
         kNN accuracy      1-NN   5-NN\n\
         frozen            {:.3}  {:.3}\n\
         adapted           {:.3}  {:.3}\n\
         difference       {:+.3} {:+.3}",
        gallery.labels.len(),
        frozen[0],
        frozen[1],
        adapted[0],
        adapted[1],
        adapted[0] - frozen[0],
        adapted[1] - frozen[1]
    );
    Ok(Output { text, json, as_json: args.common.json })
}

/// Images with their class: the path of their folder under `folder`.
pub(super) fn labelled(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let images = list(folder)?;
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
    Ok(out)
}

fn read(
    opened: &mut Opened,
    images: &[(PathBuf, String)],
    names: &[&String],
    done: impl FnMut(u64),
) -> Result<Labelled> {
    let paths: Vec<PathBuf> = images.iter().map(|(path, _)| path.clone()).collect();
    let (latents, places) = opened.latents(&paths, done)?;
    let labels = places.iter().filter_map(|i| names.iter().position(|name| **name == images[*i].1)).collect();
    Ok(Labelled { latents, labels })
}
