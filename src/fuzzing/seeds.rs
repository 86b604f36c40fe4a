//! Valid inputs as fuzzing seeds. Formats that this program writes are generated here by the code that writes them, so
//! that no seed is outdated; the rest is in `fuzz/corpus`.
use std::fs;
use std::path::Path;
use std::sync::Arc;

use image::ImageEncoder;
use ndarray::{Array1, Array2};

use super::folder;
use crate::checkpoint::{HeadCheckpoint, Owner, SpaceMapCheckpoint, head_path, map_path, save_head, save_map};
use crate::config::{Config, loader};
use crate::export::sinks::shm_ring;
use crate::export::{Dtype, Format, Granularity, Record, RowFormat, SCHEMA, Writer};
use crate::frame::Timestamp;
use crate::head::{EmbeddingKind, Head, HeadParams, ScatterStats};
use crate::journal::{self, Journal};
use crate::learner::{LatentSpec, Learner};
use crate::pipeline::run_dir::{RunManifest, StreamPosition};
use crate::pipeline::run_state;
use crate::sampling::Sample;
use crate::spaces::{MapKind, SpaceMap, space_of};

/// Samples in the seed of a saved state: enough for the first fits.
const SAMPLES: u64 = 400;

/// Valid inputs for the target `name`; empty if all of them are in the corpus.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    let run = folder().join("seeds").join(name);
    fs::create_dir_all(&run).unwrap();
    let read = |path: &Path| vec![fs::read(path).unwrap()];
    match name {
        "state" => state(&run),
        "head" => read(&saved_head(&run)),
        "map" => read(&saved_map(&run)),
        "npy" => rows(&run, Format::Npy, "npy"),
        "jsonl" => rows(&run, Format::Npy, "jsonl"),
        "parquet" => rows(&run, Format::Parquet, "parquet"),
        "safetensors" => rows(&run, Format::Safetensors, "safetensors"),
        "ring" => ring(&run),
        "journal" => {
            let mut journal = Journal::open(&run, 1.0).unwrap();
            journal.write("start", serde_json::json!({ "index": 0, "encoder": "e" })).unwrap();
            journal.write("fit", serde_json::json!({ "index": 64, "ridge": 0.25 })).unwrap();
            read(&journal::path(&run))
        }
        "run_json" => {
            let origin =
                LatentSpec { encoder_sha256: "e".into(), card_hash: "c".into(), dim: 8, ..LatentSpec::default() };
            let (names, sources) = (["door".to_owned()], ["pattern://7".into()]);
            RunManifest::new(Path::new("e.onnx"), &origin, &sources, true, &names, &config()).save(&run).unwrap();
            read(&run.join("run.json"))
        }
        "onnx" | "merge_onnx" | "proposed_card" => ["tiny", "taps", "token", "fixed", "mixed"].map(model).into(),
        "picture" => vec![png(), jpeg()],
        "piped_pictures" => vec![[jpeg(), jpeg()].concat(), [png(), png()].concat()],
        "stdin_cutter" => vec![[vec![7], jpeg(), png(), jpeg()].concat()],
        "latents" => vec![
            (0..200)
                .flat_map(|i| {
                    [sample(i).latent[..4].iter().flat_map(|x| x.to_le_bytes()).collect(), vec![0, 9, 0, 0]].concat()
                })
                .collect(),
        ],
        _ => Vec::new(),
    }
}

/// A model from the tests.
fn model(name: &str) -> Vec<u8> {
    fs::read(format!("{}/tests/data/{name}.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A configuration under which a few hundred samples lead to fits, candidates and training steps.
fn config() -> Config {
    let overrides = [
        "encoder.threads=1",
        "head.dim=3",
        "head.hidden=4",
        "head.candidates=['slow','slow+mlp','mean','frozen+slow']",
        "learn.first_fit_frames=32",
        "learn.optimizer.frames_per_step=4",
        "learn.objective.batch_pairs=16",
        "learn.sampling.still_distance=0",
        "promotion.min_blocks=2",
        "promotion.holdout_every=2",
        "promotion.block_secs=1.5",
    ];
    loader::load(None, &overrides.map(str::to_owned)).unwrap()
}

pub(super) fn learner_of(dim: usize) -> Learner {
    Learner::new(&config().learner(), LatentSpec { dim, ..LatentSpec::default() }, None).unwrap()
}

/// The learner of the state seed.
pub(super) fn learner() -> Learner {
    learner_of(8)
}

/// The run that the seeds belong to.
const RUN: &str = "run";

/// Owner of the state seed.
pub(super) fn owner_of_state() -> Owner {
    Owner::new(&LatentSpec { dim: 8, ..LatentSpec::default() }, RUN)
}

/// Owner of the head seed.
pub(super) fn owner_of_head() -> Owner {
    let spec =
        LatentSpec { encoder_sha256: "encoder".into(), card_hash: "card".into(), dim: 4, ..LatentSpec::default() };
    Owner::new(&spec, RUN)
}

/// Sample `i` of a stream of short scenes.
pub(super) fn sample(i: u64) -> Sample {
    let latent = (0..8).map(|k| ((i / 10 * 7 + k) as f32).sin() + 0.1 * ((i * 3 + k) as f32).cos());
    Sample {
        index: i,
        stamp: Timestamp(i as i64 * 100_000_000),
        segment: i / 10,
        latent: latent.collect(),
        ..Sample::default()
    }
}

fn state(run: &Path) -> Vec<Vec<u8>> {
    let mut learner = learner();
    (0..SAMPLES).for_each(|i| drop(learner.learn(&sample(i)).unwrap()));
    let place = StreamPosition { next_index: SAMPLES, ..StreamPosition::default() };
    run_state::store(run, &owner_of_state(), &mut learner, place, None).unwrap();
    vec![fs::read(run.join("state.safetensors")).unwrap()]
}

/// A head on latents of `dim` numbers.
pub(super) fn head(dim: usize) -> Head {
    let slow = Array2::from_shape_fn((dim, 3), |(row, column)| ((row * 3 + column) as f32).sin());
    Head::Learned(HeadParams { mean: Array1::zeros(dim), slow, mlp: None, alpha: 0.0, form: EmbeddingKind::Mean })
}

fn saved_head(run: &Path) -> std::path::PathBuf {
    let head = head(4);
    let sums = |count: u32| (0..count).map(|i| 1.0 + 0.1 * f64::from(i)).collect();
    let file = HeadCheckpoint {
        space: space_of("encoder", "card", &head),
        head,
        number: 1,
        run: RUN.into(),
        encoder_sha256: "encoder".into(),
        card_hash: "card".into(),
        activate_at: 40,
        made_at: 32,
        scatter: Some(ScatterStats::from_parts(4, 9, 7, sums(4), sums(10), sums(10)).unwrap()),
    };
    save_head(run, &file).unwrap();
    head_path(run, 1)
}

fn saved_map(run: &Path) -> std::path::PathBuf {
    let matrix = Array2::from_shape_fn((4, 3), |(row, column)| if row == column { 1.0 } else { 0.0 });
    let file = SpaceMapCheckpoint {
        from: "a".repeat(16),
        from_head: 1,
        to: "b".repeat(16),
        to_head: 2,
        run: RUN.into(),
        encoder_sha256: "encoder".into(),
        card_hash: "card".into(),
        map: SpaceMap { kind: MapKind::Affine, matrix, offset: Array1::zeros(3) },
        references: 20,
        queries: 10,
        hits: None,
        as_is: None,
    };
    save_map(run, &file).unwrap();
    map_path(run, 2)
}

fn rows(folder: &Path, format: Format, end: &str) -> Vec<Vec<u8>> {
    let all = [Dtype::F32, Dtype::F16].map(|dtype| {
        fs::remove_dir_all(folder).unwrap();
        let mut writer = Writer::open(folder, 0, RowFormat::embeddings(format, dtype), 100_000).unwrap();
        (0..5).for_each(|frame| writer.push(&record(frame), &[0.5, -0.5, 0.5, -0.5]).unwrap());
        writer.finish().unwrap();
        fs::read(folder.join(format!("0000.{end}"))).unwrap()
    });
    all.into()
}

fn record(frame: u64) -> Record {
    Record {
        schema: SCHEMA,
        camera: "door".into(),
        frame,
        file: None,
        stamp_ns: frame as i64 * 100_000_000,
        wall_ns: Some(1_700_000_000_000_000_000),
        segment: frame / 3,
        level: Granularity::Frame,
        space: "0123456789abcdef".into(),
        head: 1,
        provenance: None,
        learner: None,
        novelty: Some(0.25),
        novel: false,
        window: None,
        track: None,
        class: None,
        score: None,
        migrated_from: None,
    }
}

fn ring(run: &Path) -> Vec<Vec<u8>> {
    let path = run.join("ring");
    let mut ring = shm_ring::RingWriter::create(&path, 64, 4).unwrap();
    [0u8, 1, 2].iter().for_each(|i| ring.push(&[*i; 20]));
    let bytes = fs::read(&path).unwrap();
    drop(ring);
    vec![bytes]
}

/// 8 x 6 pixels of a gradient.
fn pixels() -> Arc<[u8]> {
    (0..8 * 6 * 3u8).collect()
}

fn png() -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut out);
    encoder.write_image(&pixels(), 8, 6, image::ExtendedColorType::Rgb8).unwrap();
    out
}

fn jpeg() -> Vec<u8> {
    let mut compress = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    compress.set_size(8, 6);
    let mut started = compress.start_compress(Vec::new()).unwrap();
    started.write_scanlines(&pixels()).unwrap();
    started.finish().unwrap()
}
