//! The folder of a run: what it was made with (`run.json`) and where its stream stands.
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
/// How the source of a run reads that was merged from others: no URI does.
pub const MERGED: &str = "merged: ";
/// A `run.json` larger than this is not one.
const MAX_BYTES: u64 = 1 << 20;

/// What a run was made with: `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunManifest {
    /// Version of the layout.
    pub layout: u32,
    /// What its states, heads and maps belong to: see [`RunManifest::identify`].
    pub identity: String,
    /// The model file.
    pub encoder: PathBuf,
    /// Its SHA-256.
    pub encoder_sha256: String,
    /// Hash of what else changes the latents: card, taps and input size.
    pub card_hash: String,
    /// Dimensions of a latent.
    pub latent_dim: usize,
    /// What a latent is joined from ([`LatentSpec::parts`]).
    #[serde(default)]
    pub latent_parts: Vec<FeatureSlice>,
    /// `[h, w, d]` where a latent is a grid.
    #[serde(default)]
    pub latent_grid: Option<[usize; 3]>,
    /// URIs of the sources, one for each camera, without passwords.
    pub sources: Vec<String>,
    /// The source is live.
    pub live: bool,
    /// Names of the cameras in the records.
    pub cameras: Vec<String>,
    /// The whole configuration, but for what belongs to the machine (`[metrics]`, `[stream]`, `[mqtt]`, `[host]`). A record of
    /// how the run was made, to be compared; what a verb may act on is [`RunManifest::settings`].
    config: Config,
}

/// 128 random bits.
fn chance() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // A kernel without random numbers: the moment tells two runs of one board apart.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = now.as_nanos().to_le_bytes();
    }
    files::hex(&bytes)
}

/// Where a saved stream goes on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamPosition {
    /// First frame that is not in the state.
    pub next_index: u64,
    /// The source has ended; nothing follows.
    pub ended: bool,
    /// Where the segments stand.
    pub segmenter: Option<ShotDetectorState>,
    /// Numbers of the next export files.
    pub exports: FilePositions,
}

impl RunManifest {
    /// Of a new run.
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
            // Absolute, so that later verbs find it from anywhere.
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
        let chance = if live { chance() } else { String::new() };
        info.identify(&[&chance])
    }

    /// The same with an identity of its own: 32 hexadecimal digits of a SHA-256 over everything that decides what is
    /// learned from a bounded source (the encoder, the sources with their cameras, the configuration of learning), and over
    /// `lineage`: what else makes it one of its kind, as chance for a live source, or the runs that it was made from. So two
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

    /// The same with another configuration: a run made out of this one.
    pub fn configured(self, config: &Config) -> Self {
        Self { config: config.clone(), ..self }
    }

    /// The configuration that the run was made with, to be compared with another one.
    pub fn recorded(&self) -> &Config {
        &self.config
    }

    /// The settings that a verb takes from the run: those that shape latents, heads and files. The folder of a run may come
    /// from anybody, so nothing is taken from it that loads code (`encoder.onnxruntime`), names a path (`promotion.probe`,
    /// the options of providers), opens a network or chooses a device: these come from the command line alone.
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
    /// It cannot be written as JSON.
    pub fn config_hash(&self) -> Result<String> {
        let text = serde_json::to_vec(&self.config).map_err(|e| Error::config("the configuration").with_source(e))?;
        Ok(files::sha256_hex(&text))
    }

    /// True when `run` holds a run.
    pub fn exists(run: &Path) -> bool {
        run.join("run.json").exists()
    }

    /// Writes `RUN/run.json`, making the folder.
    ///
    /// # Errors
    /// The folder or file cannot be written.
    pub fn save(&self, run: &Path) -> Result<()> {
        files::create_folder(run)?;
        let text =
            serde_json::to_vec_pretty(self).map_err(|e| Error::runtime("run.json cannot be written").with_source(e))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::usage(format!(
                "run.json of {} would have {} bytes, {MAX_BYTES} are allowed: name fewer sources, or shorter ones",
                run.display(),
                text.len()
            )));
        }
        files::replace(&run.join("run.json"), |out| out.write_all(&text))
    }

    /// Reads `RUN/run.json`.
    ///
    /// # Errors
    /// There is none, or it is not one of ours.
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

    /// Whether it was merged from other runs: no source feeds it.
    pub fn merged(&self) -> bool {
        self.sources.first().is_some_and(|source| source.starts_with(MERGED))
    }

    /// Refuses latents of another origin than the run's.
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

    /// Refuses another model file than the run's, by its SHA-256.
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
        "run {} was made with another {what} ({}…) than the one asked for ({}…): their embeddings are of \
         different spaces and cannot go into one run; use that encoder, card, taps, \
         exposure and input size, or keep the runs apart",
        run.display(),
        ours.get(..12).unwrap_or(ours),
        theirs.get(..12).unwrap_or(theirs),
    ))
}
