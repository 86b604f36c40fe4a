//! `eval`: kNN accuracy on labelled images, for the encoder's own output, its latents without a head (frozen), and with
//! the head (adapted).
use std::path::PathBuf;

use ndarray::{Array2, ArrayView2};
use serde::Serialize;
use serde_json::json;

use super::Output;
use super::common::{LoadedEncoder, LoadedRun, Progress};
use super::labelled_dataset::{Image, LabelledSplit, halves, numbers};
use crate::cli;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::head::Head;
use crate::knn;
use crate::linalg::normalise;

/// Latents with labels.
struct Labelled {
    latents: Array2<f32>,
    /// The encoder's own output for the same images, if the latents come from taps.
    own: Option<Array2<f32>>,
    labels: Vec<usize>,
}

/// kNN accuracy with one neighbour and with five.
#[derive(Clone, Copy, Serialize)]
struct Accuracy {
    knn1: f64,
    knn5: f64,
    mean: f64,
}

pub(super) fn run(args: &cli::EvalArgs) -> Result<Output> {
    let mut run = LoadedRun::open(&args.of, &args.common)?;
    let LabelledSplit { gallery, queries, classes: names, left_out } = halves(&args.data)?;
    let found = gallery.len() + queries.len();
    let mut progress = Progress::new("eval", Some((gallery.len() + queries.len()) as u64));
    let gallery_len = gallery.len() as u64;
    let mut own = run.opened.own_output(&run.model, &run.config).unwrap_or_else(|error| {
        tracing::warn!("no comparison with the encoder's own output: {}", error.chain());
        None
    });
    let gallery = read(&mut run.opened, own.as_mut(), &gallery, &names, |done| progress.set(done))?;
    let queries = read(&mut run.opened, own.as_mut(), &queries, &names, |done| progress.set(gallery_len + done))?;
    drop(progress);
    if gallery.labels.is_empty() || queries.labels.is_empty() {
        return Err(Error::runtime(format!("{}: no image in gallery or query could be read", args.data.display())));
    }
    let measure = |gallery_rows: ArrayView2<f32>, query_rows: ArrayView2<f32>| {
        let accuracy = |k| knn::accuracy(gallery_rows, &gallery.labels, query_rows, &queries.labels, names.len(), k);
        let (knn1, knn5) = (accuracy(1), accuracy(5));
        Accuracy { knn1, knn5, mean: (knn1 + knn5) / 2.0 }
    };
    let head = &run.adapted.head;
    let own = gallery.own.as_ref().zip(queries.own.as_ref()).map(|(g, q)| measure(g.view(), q.view()));
    let through = |head: &Head| {
        let embed = |latents: &Array2<f32>| head.embed_latents(run.opened.origin.shape(), latents.view());
        let (g, q) = (embed(&gallery.latents), embed(&queries.latents));
        measure(g.view(), q.view())
    };
    let frozen = through(&Head::Identity { dim: run.opened.origin.pooled_dim() });
    let adapted = through(head);
    let (classes, count) = (names.len(), queries.labels.len());
    let json = json!({
        "own_output": own,
        "frozen": frozen,
        "adapted": adapted,
        "classes": classes,
        "queries": count,
        "gallery": gallery.labels.len(),
        "unreadable": found - gallery.labels.len() - queries.labels.len(),
        "left_out": left_out,
        "head": run.adapted.number,
    });
    let number = match run.adapted.number {
        0 => "no head was promoted".to_owned(),
        n => format!("head {n}, {} dimensions", head.dim_out()),
    };
    let text = format!(
        "{count} queries against {} gallery images, {classes} classes ({number}){}\n{}",
        gallery.labels.len(),
        left_out.line(),
        table(own, frozen, adapted)
    );
    Ok(Output { text, json, as_json: args.common.json })
}

/// Both baselines next to the adapted embeddings.
fn table(own: Option<Accuracy>, frozen: Accuracy, adapted: Accuracy) -> String {
    let line = |name: &str, a: Accuracy| format!("\n{name:<34} {:.3}  {:.3}  {:.3}", a.knn1, a.knn5, a.mean);
    let over = |name: &str, b: Accuracy| {
        let [one, five, mean] = [adapted.knn1 - b.knn1, adapted.knn5 - b.knn5, adapted.mean - b.mean];
        format!("\n{name:<34}{one:+.3} {five:+.3} {mean:+.3}")
    };
    let mut text = format!("{:<34}  1-NN   5-NN   mean", "kNN accuracy");
    match own {
        Some(own) => {
            text += &line("the encoder's own output", own);
            text += &line("its taps without a head (frozen)", frozen);
        }
        None => text += &line("the encoder's own output (frozen)", frozen),
    }
    text += &line("with the head (adapted)", adapted);
    text += &over("adapted over frozen", frozen);
    if let Some(own) = own {
        text += &over("adapted over the own output", own);
    }
    text
}

fn read(
    opened: &mut LoadedEncoder,
    own: Option<&mut Encoder>,
    images: &[Image],
    names: &[String],
    done: impl FnMut(u64),
) -> Result<Labelled> {
    let paths: Vec<PathBuf> = images.iter().map(|(path, _)| path.clone()).collect();
    let (latents, own, places) = match own {
        None => {
            let (latents, places) = opened.latents(&paths, done)?;
            (latents, None, places)
        }
        Some(own) => {
            let (mut rows, mut row) = (Vec::new(), vec![0.0; own.dim()]);
            let (latents, places) = opened.latents_and(&paths, done, |tensor| {
                own.encode(tensor, &mut row)?;
                normalise(&mut row);
                rows.extend_from_slice(&row);
                Ok(())
            })?;
            let rows = Array2::from_shape_vec((places.len(), own.dim()), rows);
            (latents, Some(rows.map_err(|e| Error::runtime("outputs for images").with_source(e))?), places)
        }
    };
    let labels = numbers(images, &places, names);
    Ok(Labelled { latents, own, labels })
}
