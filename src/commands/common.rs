//! Shared by several commands: opening an encoder, the head of a run, latents of single images, and progress.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array2;

use crate::checkpoint::newest_head;
use crate::cli::{CommonArgs, RunArgs};
use crate::config::{self, Config, loader, taps};
use crate::encoder::{BackgroundModel, Encoder, ModelCard, Preprocessor, runtime};
use crate::error::{Error, Result};
use crate::files;
use crate::frame::Frame;
use crate::learner::{LatentSpec, Snapshot};
use crate::linalg::normalise;
use crate::open_heartbeat;
use crate::pipeline::box_encoder::BoxMethod;
use crate::pipeline::run_dir::RunManifest;
use crate::pipeline::run_state;
use crate::source::folder::read_image;
use crate::source::unreadable;

/// Maximum length of a camera name, which every record, message and metric repeats.
const MAX_CAMERA_BYTES: usize = 200;
/// Interval of progress lines without a terminal.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// An encoder, ready to encode.
pub(super) struct LoadedEncoder {
    pub(super) card: ModelCard,
    pub(super) encoder: Encoder,
    pub(super) origin: LatentSpec,
    /// The background model of a run with `preprocess.motion_crop`.
    pub(super) background: Option<BackgroundModel>,
}

impl LoadedEncoder {
    /// Finds the model card, loads ONNX Runtime, and opens and checks the model.
    pub(super) fn open(model: &Path, config: &Config) -> Result<Self> {
        let card = ModelCard::beside(model)?.with(&config.encoder)?.prepared(&config.preprocess)?;
        let runtime = runtime::load(&config.encoder.onnxruntime)?;
        let what = format!(
            "encoder {} on {}",
            model.display(),
            config.encoder.providers.iter().map(|provider| provider.as_str()).collect::<Vec<_>>().join(", ")
        );
        let encoder = open_heartbeat::while_opening(&what, || Encoder::open(&runtime, model, &card, &config.encoder))?;
        let origin = encoder.latent_spec(&card);
        if config.export.grid && origin.grid.is_none() {
            return Err(Error::config(format!(
                "export.grid = true: the latents of {} are vectors, there are no cells to export; use a model card of \
                 kind = \"grid\" that names a tensor [n, d, h, w] or [n, h, w, d], or leave export.grid out",
                card.name
            )));
        }
        Ok(Self { card, encoder, origin, background: None })
    }

    /// Opens the encoder that `info` names for the run in the folder `run`. Rejects any file other than the run's
    /// before parsing it as a model.
    pub(super) fn of_run(run: &Path, info: &RunManifest, config: &Config) -> Result<Self> {
        info.same_encoder(run, &files::sha256_file(&info.encoder)?)?;
        let opened = Self::open(&info.encoder, config)?;
        info.same_origin(run, &opened.origin)?;
        Ok(opened)
    }

    /// The preprocessor from frame to tensor, with the current background.
    pub(super) fn prepare(&self) -> Result<Preprocessor> {
        let mut prepare = Preprocessor::new(&self.card, self.encoder.size())?;
        prepare.start(self.background.clone(), false);
        Ok(prepare)
    }

    /// The same model without taps, that is, with its own output. `None` if that is already open.
    ///
    /// # Errors
    /// The output is not a vector, so there is nothing to compare with; or any error of [`Encoder::open`].
    pub(super) fn own_output(&self, model: &Path, config: &Config) -> Result<Option<Encoder>> {
        if self.card.taps.is_empty() {
            return Ok(None);
        }
        let without = config::Encoder { taps: vec![taps::OUTPUT.into()], ..config.encoder.clone() };
        let runtime = runtime::load(&config.encoder.onnxruntime)?;
        Encoder::open(&runtime, model, &self.card, &without).map(Some)
    }

    /// The frozen encoder as a snapshot.
    pub(super) fn frozen(&self) -> Snapshot {
        Snapshot::frozen(&self.origin)
    }

    /// Unit latents of image files, `[n, d]` (`[n, h w d]` for whole grids), and their indices in `paths`. Images that
    /// cannot be read or give no latent are logged and skipped.
    pub(super) fn latents(&mut self, paths: &[PathBuf], done: impl FnMut(u64)) -> Result<(Array2<f32>, Vec<usize>)> {
        self.latents_and(paths, done, |_| Ok(()))
    }

    /// Like [`LoadedEncoder::latents`], and passes the preprocessed tensor of each row to `also`.
    pub(super) fn latents_and(
        &mut self,
        paths: &[PathBuf],
        mut done: impl FnMut(u64),
        mut also: impl FnMut(&[f32]) -> Result<()>,
    ) -> Result<(Array2<f32>, Vec<usize>)> {
        let mut single = FrameEncoder::new(self)?;
        let (mut values, mut places) = (Vec::with_capacity(paths.len() * self.origin.dim), Vec::new());
        let mut frame = Frame::default();
        for (place, path) in paths.iter().enumerate() {
            match read_image(path, &mut frame) {
                Ok(()) => {
                    values.extend_from_slice(single.latent(self, &frame)?);
                    also(single.tensor())?;
                    places.push(place);
                }
                Err(error) => unreadable::tell((place + 1 - places.len()) as u64, &error),
            }
            done(place as u64 + 1);
        }
        let rows = Array2::from_shape_vec((places.len(), self.origin.dim), values)
            .map_err(|e| Error::runtime("latents of images").with_source(e))?;
        Ok((rows, places))
    }
}

/// Buffers for encoding one frame at a time, outside a pipeline.
pub(super) struct FrameEncoder {
    prepare: Preprocessor,
    tensor: Vec<f32>,
    latent: Vec<f32>,
}

impl FrameEncoder {
    pub(super) fn new(opened: &LoadedEncoder) -> Result<Self> {
        let size = opened.encoder.size();
        let prepare = opened.prepare()?;
        Ok(Self { prepare, tensor: vec![0.0; size.values()], latent: vec![0.0; opened.origin.dim] })
    }

    /// The encoder's last input, `[3, height, width]`.
    pub(super) fn tensor(&self) -> &[f32] {
        &self.tensor
    }

    /// The unit latent of `frame`.
    pub(super) fn latent(&mut self, opened: &mut LoadedEncoder, frame: &Frame) -> Result<&[f32]> {
        self.prepare.run(frame, &mut self.tensor)?;
        opened.encoder.encode(&self.tensor, &mut self.latent)?;
        let norm = normalise(&mut self.latent);
        if !(norm.is_finite() && norm > 0.0) {
            return Err(Error::check_failed("the encoder gave a latent that is zero or not finite"));
        }
        Ok(&self.latent)
    }
}

/// The configuration of a command that works on a run: the run's own settings unless a file is given, with `--set` on
/// top.
pub(super) fn run_config(info: &RunManifest, common: &CommonArgs) -> Result<Config> {
    if let Some(file) = &common.config {
        return loader::load(Some(file), &common.set);
    }
    let settings = info.settings();
    let config = loader::over(&settings, &common.set)?;
    let left = loader::differing(info.recorded(), &settings)?;
    let asked = |key: &String| common.set.iter().any(|text| text.split('=').next().is_some_and(|k| k.trim() == key));
    let left: Vec<String> = left.into_iter().filter(|key| !asked(key)).collect();
    if !left.is_empty() {
        tracing::warn!(
            "not taken from run.json, since a run folder may come from anybody: {}; give what is wanted with --set or --config",
            left.join(", ")
        );
    }
    Ok(config)
}

/// A run, its encoder and its newest head.
pub(super) struct LoadedRun {
    pub(super) info: RunManifest,
    pub(super) config: Config,
    /// Path of the model file.
    pub(super) model: PathBuf,
    pub(super) opened: LoadedEncoder,
    pub(super) adapted: Snapshot,
}

impl LoadedRun {
    /// Opens a run with its encoder. Rejects an encoder other than the run's.
    pub(super) fn open(of: &RunArgs, common: &CommonArgs) -> Result<Self> {
        Self::open_as(of, common, false)
    }

    /// Opens a run to embed boxes with; it may have learned from boxes.
    pub(super) fn open_for_boxes(of: &RunArgs, common: &CommonArgs) -> Result<Self> {
        Self::open_as(of, common, true)
    }

    fn open_as(of: &RunArgs, common: &CommonArgs, boxes: bool) -> Result<Self> {
        let info = RunManifest::load(&of.run)?;
        let config = run_config(&info, common)?;
        let model = of.encoder.as_ref().unwrap_or(&info.encoder).clone();
        if !model.exists() {
            return Err(Error::usage(format!(
                "the encoder {} that run {} was made with is not there; name it with --encoder",
                model.display(),
                of.run.display()
            )));
        }
        // Check this before parsing the file as a model: a path in run.json may lead anywhere.
        info.same_encoder(&of.run, &files::sha256_file(&model)?)?;
        let mut opened = LoadedEncoder::open(&model, &config)?;
        let mut origin = opened.origin.clone();
        if boxes {
            let method = BoxMethod::new(&config.boxes, &opened.card, &origin, opened.encoder.size())?;
            let of_boxes = method.origin(&origin);
            if info.card_hash == of_boxes.card_hash {
                origin = of_boxes;
            }
        }
        info.same_origin(&of.run, &origin)?;
        if config.preprocess.motion_crop {
            opened.background = Some(background(&of.run, &info)?);
        }
        let adapted = newest(&of.run, &info, &opened)?;
        Ok(Self { info, config, model, opened, adapted })
    }
}

/// The background saved by a run with `preprocess.motion_crop`.
fn background(run: &Path, info: &RunManifest) -> Result<BackgroundModel> {
    let (background, damaged) = run_state::background(run, &info.owner())?;
    damaged.iter().for_each(|damage| tracing::warn!("{damage}"));
    background.ok_or_else(|| {
        Error::runtime(format!(
            "run {} has saved no background yet, which preprocess.motion_crop needs: it comes with the first checkpoint \
             (checkpoint.every_frames) and at the end",
            run.display()
        ))
    })
}

/// The newest readable head of a run; the frozen encoder if none was promoted.
pub(super) fn newest(run: &Path, info: &RunManifest, opened: &LoadedEncoder) -> Result<Snapshot> {
    let (file, warnings) = newest_head(run, &info.owner())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let frozen = opened.frozen();
    let Some(file) = file else {
        tracing::info!("run {} has promoted no head: its embeddings are the frozen encoder's", run.display());
        return Ok(frozen);
    };
    let (number, space, head) = (file.number, file.space.into(), Arc::new(file.head));
    Ok(Snapshot { number, head, space, references: frozen.references, activate_at: file.activate_at })
}

/// Camera names for `sources` sources: the given names, then `camera`, `camera-2` and so on.
///
/// # Errors
/// There are more names than sources, or a duplicate name.
pub(super) fn camera_names(given: &[String], sources: usize) -> Result<Vec<String>> {
    if given.len() > sources {
        let count = given.len();
        return Err(Error::usage(format!(
            "{count} times --camera but {sources} times --source; give one name a source"
        )));
    }
    let others = (given.len() + 1..=sources).map(|n| if n == 1 { "camera".to_owned() } else { format!("camera-{n}") });
    let names: Vec<String> = given.iter().cloned().chain(others).collect();
    let twice = names.iter().enumerate().find(|(i, name)| name.is_empty() || names[..*i].contains(name));
    let long = names.iter().find(|name| name.len() > MAX_CAMERA_BYTES || name.chars().any(char::is_control));
    if let Some(name) = long {
        return Err(Error::usage(format!(
            "--camera {:?}: a name has at most {MAX_CAMERA_BYTES} bytes and no control characters; it stands in each record",
            name.chars().take(40).collect::<String>()
        )));
    }
    match twice {
        Some((_, name)) => Err(Error::usage(format!("--camera {name:?}: every source needs a name of its own"))),
        None => Ok(names),
    }
}

/// A progress bar on a terminal, otherwise a periodic log line.
pub(super) struct Progress {
    bar: Option<indicatif::ProgressBar>,
    what: &'static str,
    length: Option<u64>,
    started: Instant,
    said: Instant,
}

impl Progress {
    /// `length` is the total, if known.
    pub(super) fn new(what: &'static str, length: Option<u64>) -> Self {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bar = terminal.then(|| {
            let bar = length.map_or_else(indicatif::ProgressBar::new_spinner, indicatif::ProgressBar::new);
            let shape = if length.is_some() {
                "{msg} {wide_bar} {pos}/{len}, {per_sec}, {eta} left"
            } else {
                "{msg} {spinner} {pos}, {per_sec}, {elapsed}"
            };
            if let Ok(style) = indicatif::ProgressStyle::with_template(shape) {
                bar.set_style(style);
            }
            bar.set_message(what);
            bar
        });
        let now = Instant::now();
        Self { bar, what, length, started: now, said: now }
    }

    /// Sets the number of items done.
    pub(super) fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.said.elapsed() >= HEARTBEAT {
            self.said = Instant::now();
            let secs = self.started.elapsed().as_secs();
            let of = self.length.map(|n| format!(" of {n}")).unwrap_or_default();
            tracing::info!("{}: {done}{of} frames after {secs} s", self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
