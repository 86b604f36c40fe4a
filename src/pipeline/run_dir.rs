//! The manifest of a run folder (`run.json`), and the position of its stream.
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::export_thread::FilePositions;
use crate::checkpoint::Owner;
use crate::config::{self, Config};
use crate::encoder::FeatureSlice;
use crate::error::{Error, Result};
use crate::files;
use crate::learner::LatentSpec;
use crate::sampling::shot_detector::ShotDetectorState;
use crate::source::address::Address;

/// Version of the layout of a run folder.
const LAYOUT: u32 = 3;
/// Begins the source of a merged run: no URI does.
pub const MERGED: &str = "merged: ";
/// Largest `run.json`.
const MAX_BYTES: u64 = 1 << 20;

/// What a run was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunManifest {
    /// Version of the layout.
    pub layout: u32,
    /// Identity of the run, which its states, heads and maps name: see [`RunManifest::identify`].
    pub identity: String,
    /// The model file.
    pub encoder: PathBuf,
    /// SHA-256 of the model file.
    pub encoder_sha256: String,
    /// Hash of everything else that changes the latents: card, taps and input size.
    pub card_hash: String,
    /// Dimensions of a latent.
    pub latent_dim: usize,
    /// The parts of a latent ([`LatentSpec::parts`]).
    #[serde(default)]
    pub latent_parts: Vec<FeatureSlice>,
    /// `[h, w, d]` where a latent is a grid.
    #[serde(default)]
    pub latent_grid: Option<[usize; 3]>,
    /// URIs of the sources, one per camera, without passwords.
    pub sources: Vec<String>,
    /// Whether the source is live.
    pub live: bool,
    /// Names of the cameras in the records.
    pub cameras: Vec<String>,
    /// The whole configuration but for what belongs to the machine (`[metrics]`, `[stream]`, `[mqtt]`, `[host]`). For
    /// comparison only; what a command may act on is [`RunManifest::settings`].
    config: Config,
}

/// 128 random bits, in hexadecimal.
fn random_id() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // A kernel without random numbers: the time tells two runs of one board apart.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = now.as_nanos().to_le_bytes();
    }
    files::hex(&bytes)
}

/// Where a stream goes on after a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamPosition {
    /// First frame that is not in the state.
    pub next_index: u64,
    /// The source has ended.
    pub ended: bool,
    /// Where the segments stand.
    pub segmenter: Option<ShotDetectorState>,
    /// Numbers of the next export files.
    pub exports: FilePositions,
}

impl RunManifest {
    /// The manifest of a new run.
    pub fn new(
        encoder: &Path,
        origin: &LatentSpec,
        sources: &[Address],
        live: bool,
        cameras: &[String],
        config: &Config,
    ) -> Self {
        let info = Self {
            layout: LAYOUT,
            identity: String::new(),
            // Absolute, so that later commands find it from anywhere.
            encoder: std::path::absolute(encoder).unwrap_or_else(|_| encoder.to_owned()),
            encoder_sha256: origin.encoder_sha256.clone(),
            card_hash: origin.card_hash.clone(),
            latent_dim: origin.dim,
            latent_parts: origin.parts.clone(),
            latent_grid: origin.grid,
            sources: sources.iter().map(Address::shown).collect(),
            live,
            cameras: cameras.to_vec(),
            config: Config {
                metrics: config::Metrics::default(),
                stream: config::Stream::default(),
                box_server: config::BoxServer::default(),
                mqtt: config::Mqtt::default(),
                host: config::Host::default(),
                ..config.clone()
            },
        };
        // No camera gives its frames again: whatever the configuration says, it is another run each time.
        let id = if live { random_id() } else { String::new() };
        info.identify(&[&id])
    }

    /// The same with an identity of its own: 32 hexadecimal digits of a SHA-256 over everything that decides what is
    /// learned from a bounded source (the encoder, the sources with their cameras, the configuration of learning), and over
    /// `lineage`: what else makes it one of its kind, as random bits for a live source, or the runs that it was made from. So two
    /// runs over the same files with the same seed are one, bit for bit, and anything else is another.
    pub fn identify(self, lineage: &[&str]) -> Self {
        let Config { preprocess: prepare, boxes, learn, head, promotion: judge, .. } = &self.config;
        let decides = (&self.encoder_sha256, &self.card_hash, &self.sources, &self.cameras, self.live);
        let text = serde_json::json!([decides, (prepare, boxes, learn, head, judge), lineage]).to_string();
        let mut identity = files::sha256_hex(text.as_bytes());
        identity.truncate(32);
        Self { identity, ..self }
    }

    /// Whose its states, heads and maps are.
    pub fn owner(&self) -> Owner {
        Owner::new(&self.origin(), &self.identity)
    }

    /// The latents' origin.
    pub fn origin(&self) -> LatentSpec {
        LatentSpec {
            encoder_sha256: self.encoder_sha256.clone(),
            card_hash: self.card_hash.clone(),
            dim: self.latent_dim,
            parts: self.latent_parts.clone(),
            grid: self.latent_grid,
        }
    }

    /// The manifest of a run that is made from this one with another configuration.
    pub fn configured(self, config: &Config) -> Self {
        Self { config: config.clone(), ..self }
    }

    /// The configuration that the run was made with, for comparison.
    pub fn recorded(&self) -> &Config {
        &self.config
    }

    /// The settings that a command takes from the run: those that shape latents, heads and files. A run folder may come
    /// from anybody, so settings that load code (`encoder.onnxruntime`), name a path (`promotion.probe`, provider options),
    /// open a connection or choose a device come from the command line alone.
    pub fn settings(&self) -> Config {
        let Config { preprocess: prepare, encoder, learn, head, promotion: judge, export, checkpoint, boxes, .. } =
            self.config.clone();
        let encoder = config::Encoder {
            input_size: encoder.input_size,
            taps: encoder.taps,
            threads: encoder.threads,
            parity: encoder.parity,
            ..config::Encoder::default()
        };
        let source = config::Source { frame_rate: self.config.source.frame_rate, ..config::Source::default() };
        let judge = config::Promotion { probe: String::new(), ..judge };
        Config {
            source,
            preprocess: prepare,
            encoder,
            learn,
            head,
            promotion: judge,
            export,
            checkpoint,
            boxes,
            ..Config::default()
        }
    }

    /// SHA-256 of the configuration, for the journal.
    ///
    /// # Errors
    /// The configuration cannot be written as JSON.
    pub fn config_hash(&self) -> Result<String> {
        let text = serde_json::to_vec(&self.config).map_err(|e| Error::config("the configuration").with_source(e))?;
        Ok(files::sha256_hex(&text))
    }

    /// Whether the folder `run` holds a run.
    pub fn exists(run: &Path) -> bool {
        run.join("run.json").exists()
    }

    /// Writes `run.json` into the folder `run`, which is made if necessary.
    ///
    /// # Errors
    /// The folder or file cannot be written.
    pub fn save(&self, run: &Path) -> Result<()> {
        files::create_folder(run)?;
        let text =
            serde_json::to_vec_pretty(self).map_err(|e| Error::runtime("run.json cannot be written").with_source(e))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::usage(format!(
                "run.json of {} would have {} bytes, more than the {MAX_BYTES} allowed: name fewer or shorter sources",
                run.display(),
                text.len()
            )));
        }
        files::replace(&run.join("run.json"), |out| out.write_all(&text))
    }

    /// Reads `run.json` from the folder `run`.
    ///
    /// # Errors
    /// There is none, or it is damaged or of another version.
    pub fn load(run: &Path) -> Result<Self> {
        let path = run.join("run.json");
        if !path.exists() {
            return Err(Error::usage(format!(
                "{} is not the folder of a run: it has no run.json; make one with `afterimage learn --out`",
                run.display()
            )));
        }
        let bytes = files::read_bounded(&path, MAX_BYTES)?;
        let info: Self = serde_json::from_slice(&bytes).map_err(|e| {
            Error::runtime(format!("{} is damaged or of another version", path.display())).with_source(e)
        })?;
        if info.layout != LAYOUT {
            let layout = info.layout;
            return Err(Error::runtime(format!("{} has layout {layout}; this version reads {LAYOUT}", path.display())));
        }
        Ok(info)
    }

    /// Whether the run was merged from others; then no source feeds it.
    pub fn merged(&self) -> bool {
        self.sources.first().is_some_and(|source| source.starts_with(MERGED))
    }

    /// Checks that latents come from the run's encoder and preparation.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::CheckFailed`]: another encoder or preparation, so another space.
    pub fn same_origin(&self, run: &Path, origin: &LatentSpec) -> Result<()> {
        self.same_encoder(run, &origin.encoder_sha256)?;
        if self.card_hash != origin.card_hash || self.latent_dim != origin.dim {
            let what = "preparation (model card, encoder.taps, preprocess.exposure or input size)";
            return Err(other(run, what, &self.card_hash, &origin.card_hash));
        }
        Ok(())
    }

    /// Checks the SHA-256 of a model file against the run's.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::CheckFailed`]: another encoder, so another space.
    pub fn same_encoder(&self, run: &Path, sha256: &str) -> Result<()> {
        if self.encoder_sha256 == sha256 {
            return Ok(());
        }
        Err(other(run, "encoder", &self.encoder_sha256, sha256))
    }
}

fn other(run: &Path, what: &str, ours: &str, theirs: &str) -> Error {
    Error::check_failed(format!(
        "run {} was made with another {what} ({}…) than the one given ({}…): their embeddings are of different spaces \
         and cannot go into one run; use the run's encoder, card, taps, exposure and input size, or make a run of its own",
        run.display(),
        ours.get(..12).unwrap_or(ours),
        theirs.get(..12).unwrap_or(theirs),
    ))
}
