//! A labelled data set with its stream, encoded once.
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use ndarray::Array2;
use serde_json::{Value, json};

use super::super::super::common::{LoadedEncoder, Progress};
use super::super::super::labelled_dataset::{self, Image, halves, numbers};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::head::{Grid, Head};
use crate::pipeline::{Pipeline, Recording};
use crate::sampling::Sample;
use crate::source::Source;
use crate::source::folder::Folder;
use crate::spaces::RetrievalSplit;
use crate::{knn, linear_probe};

/// A labelled data set with its stream, encoded once.
pub(in crate::commands::bench) struct DataSet {
    /// Name of its folder.
    pub(in crate::commands::bench) name: String,
    /// The stream as the learner receives it, including augmented views.
    pub(in crate::commands::bench) samples: Vec<Sample>,
    /// Shape of the latents if they are grids.
    grid: Option<Grid>,
    gallery: Array2<f32>,
    gallery_labels: Vec<usize>,
    queries: Array2<f32>,
    query_labels: Vec<usize>,
    classes: usize,
    /// Total encoding time in seconds.
    pub(in crate::commands::bench) encode_secs: f64,
}

/// Labelled accuracy of a head.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(in crate::commands::bench) struct Accuracy {
    pub(in crate::commands::bench) knn1: f64,
    pub(in crate::commands::bench) knn5: f64,
    /// Accuracy of [`linear_probe::accuracy`].
    pub(in crate::commands::bench) linear: f64,
}

impl Accuracy {
    /// Mean of 1-NN and 5-NN.
    pub(in crate::commands::bench) fn mean(&self) -> f64 {
        (self.knn1 + self.knn5) / 2.0
    }
}

impl DataSet {
    /// Encodes the stream, the gallery and the queries.
    ///
    /// # Errors
    /// A folder is missing or empty, or a labelled image is outside a class folder.
    pub(in crate::commands::bench) fn read(
        folder: &Path,
        opened: &mut LoadedEncoder,
        config: &Config,
        stop: &Arc<AtomicBool>,
        started: Instant,
    ) -> Result<Self> {
        let began = Instant::now();
        let name =
            folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into_owned());
        let samples = stream(&folder.join("stream"), opened, config, stop, started)?;
        let labelled_dataset::LabelledSplit { gallery, queries, classes: names, .. } = halves(folder)?;
        let mut encode = |images: &[Image]| -> Result<(Array2<f32>, Vec<usize>)> {
            let paths: Vec<_> = images.iter().map(|(path, _)| path.clone()).collect();
            let mut progress = Progress::new("labelled images", Some(paths.len() as u64));
            let (latents, places) = opened.latents(&paths, |done| progress.set(done))?;
            let labels = numbers(images, &places, &names);
            Ok((latents, labels))
        };
        let ((gallery, gallery_labels), (queries, query_labels)) = (encode(&gallery)?, encode(&queries)?);
        let folder = folder.display();
        if samples.is_empty() || gallery_labels.is_empty() || query_labels.is_empty() {
            return Err(Error::runtime(format!("{folder}: no image in stream, gallery or query could be read")));
        }
        let classes = names.len();
        let encode_secs = began.elapsed().as_secs_f64();
        tracing::info!("{folder}: {} latents of the stream in {encode_secs:.0} s", samples.len());
        let grid = opened.origin.shape();
        Ok(Self { name, samples, grid, gallery, gallery_labels, queries, query_labels, classes, encode_secs })
    }

    /// Accuracy of kNN with 1 and 5 neighbours, and of the linear probe.
    ///
    /// # Errors
    /// An embedding is not finite.
    pub(in crate::commands::bench) fn accuracy(&self, head: &Head) -> Result<Accuracy> {
        let embed = |rows: &Array2<f32>| head.embed_latents(self.grid, rows.view());
        let (g, q) = (embed(&self.gallery), embed(&self.queries));
        let (gl, ql) = (&self.gallery_labels, &self.query_labels);
        let knn = |k| knn::accuracy(g.view(), gl, q.view(), ql, self.classes, k);
        let linear = linear_probe::accuracy(g.view(), gl, q.view(), ql, self.classes)?;
        Ok(Accuracy { knn1: knn(1), knn5: knn(5), linear })
    }

    /// Embeds the gallery with `old` and the queries with `new`, each with its class.
    pub(in crate::commands::bench) fn embedded(&self, old: &Head, new: &Head) -> RetrievalSplit {
        let number = |labels: &[usize]| labels.iter().map(|label| *label as u64).collect();
        RetrievalSplit {
            gallery: old.embed_latents(self.grid, self.gallery.view()),
            gallery_labels: number(&self.gallery_labels),
            queries: new.embed_latents(self.grid, self.queries.view()),
            query_labels: number(&self.query_labels),
        }
    }

    /// Number of segments in the stream.
    fn segments(&self) -> usize {
        self.samples.iter().map(|sample| sample.segment).collect::<BTreeSet<_>>().len()
    }

    pub(in crate::commands::bench) fn size(&self) -> Value {
        json!({
            "frames": self.samples.len(), "segments": self.segments(), "classes": self.classes,
            "views": self.samples.iter().filter(|sample| !sample.view.is_empty()).count(),
            "gallery": self.gallery_labels.len(), "queries": self.query_labels.len(),
            "latent": self.gallery.ncols(), "encode_secs": self.encode_secs,
        })
    }
}

/// The latents of a folder of segments, as the pipeline passes them to the learner.
fn stream(
    folder: &Path,
    opened: &mut LoadedEncoder,
    config: &Config,
    stop: &Arc<AtomicBool>,
    started: Instant,
) -> Result<Vec<Sample>> {
    let source = Folder::open(folder, config.source.frame_rate)?;
    let mut progress = Progress::new("stream", source.length());
    let mut recording = Recording::default();
    let mut prepare = opened.prepare()?;
    prepare.start(None, true);
    let totals = Pipeline::builder(Box::new(source), prepare, &mut opened.encoder, opened.origin.clone(), config)
        .cameras(vec!["bench".into()])
        .record(&mut recording)
        .stop(stop.clone())
        .started(started)
        .on_progress(move |done| progress.set(done))
        .run()?;
    // If windows are cropped, labelled images are cropped against the same background.
    opened.background = recording.background.map(|background| (*background).clone());
    if totals.ended { Ok(recording.samples) } else { Err(Error::runtime("stopped")) }
}
