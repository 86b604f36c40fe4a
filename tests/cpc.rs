//! CPC end to end: over grids and over time, saved, resumed, exported, and rejected when it does not fit.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::Path;

use afterimage::checkpoint::{load, save};
use afterimage::config::{self, Config, Size};
use afterimage::encoder::{Encoder, FeatureModel, ModelCard, runtime};
use afterimage::export::onnx;
use afterimage::frame::Timestamp;
use afterimage::head::{Context, EmbeddingKind, Grid, GridHead, Head, HeadParams, Mlp, Scratch};
use afterimage::learner::{LatentSpec, Learner};
use afterimage::linalg::random::{uniform, uniform_below};
use afterimage::sampling::Sample;
use common::{ENCODER, PATTERN, TestDir, assert_same, heads, rows};
use ndarray::{Array1, Array2};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// A copy of a model with a card that makes a grid of one of its tensors.
fn grid_model(place: &TestDir, model: &str, tensor: &str, size: u32) -> String {
    let card = fs::read_to_string(Path::new(model).with_extension("toml")).unwrap();
    let keep = |line: &&str| {
        let key = line.split('=').next().unwrap().trim();
        !["kind", "output", "size", "multiple_of"].contains(&key)
    };
    // Taps belong to a vector.
    let (before, rest) = card.split_once("taps = [").unwrap_or((&card, "]"));
    let rest = rest.split_once("]\n").map_or("", |(_, rest)| rest);
    let kept: Vec<&str> = before.lines().chain(rest.lines()).filter(keep).collect();
    let grid = format!(
        "kind = \"grid\"\nlayout = \"dhw\"\noutput = \"{tensor}\"\nsize = {size}\nmultiple_of = 8\n{}",
        kept.join("\n")
    );
    fs::write(place.at("grid.toml"), grid).unwrap();
    fs::copy(model, place.at("grid.onnx")).unwrap();
    "grid.onnx".into()
}

/// Small networks, for the small encoder.
#[rustfmt::skip]
const SMALL: [&str; 14] = [
    "--set", "learn.objective.name=cpc", "--set", "learn.cpc.width=16", "--set", "learn.cpc.blocks=2", "--set",
    "learn.cpc.dim=16", "--set", "learn.cpc.batch=8", "--set", "export.latents=true", "--set", "learn.optimizer.learning_rate=0.001",
];

fn learn(place: &TestDir, encoder: &str, source: &str, out: &str, more: &[&str]) -> common::Output {
    let args = ["learn", "--config", "learn.toml", "--json", "--encoder", encoder, "--source", source, "--out", out];
    place.run(&[&args[..], &SMALL, more].concat())
}

#[test]
fn a_run_over_grids_learns_exports_cells_and_is_replayed() {
    let place = TestDir::new();
    let encoder = grid_model(&place, ENCODER, "grid8", 32);
    for embedding in ["projected", "context"] {
        let set = format!("learn.cpc.embedding={embedding}");
        let report =
            learn(&place, &encoder, PATTERN, embedding, &["--set", &set, "--set", "export.grid=true"]).ok().json();
        assert!(report["steps"].as_u64().unwrap() >= 20 && report["learned"]["fits"].as_u64().unwrap() > 2, "{report}");
        assert!(report["promotions"].as_u64().unwrap() >= 1, "{report}");
        assert!(!report["gate"].as_str().unwrap().is_empty());
        let run = place.at(embedding);
        let tried = fs::read_to_string(run.join("journal.jsonl")).unwrap();
        assert!(tried.contains("slow+mlp"), "what was trained went before the judge");
        let (whole, cells) = (rows(&run.join("embeddings")), rows(&run.join("grids")));
        assert_eq!((whole.len(), cells.len()), (2400, 2400));
        for ((record, row), (of_cells, cells)) in whole.iter().zip(&cells) {
            assert_eq!((record.frame, &record.space, cells.len()), (of_cells.frame, &of_cells.space, 16 * row.len()));
        }
        place.run(&["check", "--run", embedding]).ok();
        let again = format!("{embedding}-again");
        place.run(&["replay", "--run", embedding, "--out", &again]).ok();
        assert_same(&heads(&place.at(&again)), &heads(&run));
        let merged = place.run(&["export", "--run", embedding, "--onnx", "m.onnx", "--json"]).ok().json();
        assert!(merged["least_cosine"].as_f64().unwrap() >= 0.99999, "{merged}");
        // The cells too; each is compared with `Head::embed_cells`, as `export.grid` writes them.
        for (dtype, needed) in [("f32", 0.99999), ("f16", 0.999)] {
            let args = ["export", "--run", embedding, "--onnx", "m.onnx", "--json", "--grid", "--dtype", dtype];
            let merged = place.run(&args).ok().json();
            assert!(merged["least_cosine"].as_f64().unwrap() >= needed, "{merged}");
        }
    }
}

#[test]
fn over_grids_it_survives_kills_to_the_bit() {
    let place = TestDir::new();
    let encoder = grid_model(&place, ENCODER, "grid8", 32);
    let often = ["--set", "checkpoint.every_frames=60"];
    learn(&place, &encoder, PATTERN, "whole", &often).ok();
    let args = ["learn", "--config", "learn.toml", "--encoder", &encoder, "--source", PATTERN, "--out", "run"];
    let kills = place.killed_until_done(&[&args[..], &SMALL, &often].concat());
    assert!(kills >= 3, "{kills} kills");
    assert_same(&heads(&place.at("run")), &heads(&place.at("whole")));
    assert!(rows(&place.at("run/embeddings")) == rows(&place.at("whole/embeddings")), "the embeddings differ");
    let state = |run: &str| fs::read(place.at(run).join("state.safetensors")).unwrap();
    assert!(state("run") == state("whole"), "the states differ after {kills} kills");
}

#[test]
fn in_time_it_needs_no_grid() {
    let place = TestDir::new();
    let report = learn(&place, ENCODER, PATTERN, "run", &["--set", "learn.cpc.moments=6"]).ok().json();
    assert!(report["steps"].as_u64().unwrap() >= 20, "{report}");
    assert!(report["promotions"].as_u64().unwrap() >= 1, "{report}");
    place.run(&["replay", "--run", "run", "--out", "again"]).ok();
    assert_same(&heads(&place.at("again")), &heads(&place.at("run")));
}

#[test]
fn the_bundled_encoder_gives_a_grid_to_learn_from() {
    let place = TestDir::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = root.join("models/mobilenetv2.onnx");
    let tensor = "/features/features.18/features.18.2/Clip_output_0";
    let encoder = grid_model(&place, model.to_str().unwrap(), tensor, 96);
    for scene in 0..60 {
        let from = root.join(format!("data/objects/stream/{scene:04}"));
        fs::create_dir_all(place.at(&format!("frames/{scene:04}"))).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            let to = place.at(&format!("frames/{scene:04}")).join(file.file_name());
            fs::copy(file.path(), to).unwrap();
        }
    }
    let small = ["--set", "learn.replay.megabytes=30", "--set", "export.latents=false"];
    let report = learn(&place, &encoder, "frames", "run", &small).ok().json();
    assert!(report["steps"].as_u64().unwrap() >= 20 && report["learned"]["fits"].as_u64().unwrap() >= 2, "{report}");
    assert!(report["learned"]["last_loss"].as_f64().unwrap().is_finite(), "{report}");
    assert!(!report["gate"].as_str().unwrap().is_empty(), "promoted or refused, and why: {report}");
}

#[test]
fn the_merged_model_computes_every_kind_of_head_over_a_grid() {
    let place = TestDir::new();
    grid_model(&place, ENCODER, "grid8", 32);
    let path = place.at("grid.onnx");
    let (card, runtime) = (ModelCard::beside(&path).unwrap(), runtime::load("").unwrap());
    let config = config::Encoder::default();
    let mut encoder = Encoder::open(&runtime, &path, &card, &config).unwrap();
    let grid = Grid::new(encoder.grid().unwrap());
    assert_eq!((grid.rows, grid.columns, grid.dim), (4, 4, 32));
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let mut matrix =
        |rows: usize, columns: usize| Array2::from_shape_simple_fn((rows, columns), || (uniform(rng) - 0.5) as f32);
    let (k, hidden) = (6, 9);
    let mlp = Mlp {
        w1: matrix(hidden, k),
        b1: Array1::zeros(hidden),
        gamma: Array1::ones(hidden),
        beta: Array1::zeros(hidden),
        w2: matrix(k, hidden),
        b2: Array1::from_elem(k, 0.1),
    };
    let learned = HeadParams {
        mean: Array1::from_elem(32, 0.02),
        slow: matrix(32, k),
        mlp: Some(mlp),
        alpha: 0.8,
        form: EmbeddingKind::Single,
    };
    let context = Context::start(k, 5, 3, &mut ChaCha8Rng::seed_from_u64(2));
    let over = |context| Head::Grid(Box::new(GridHead { grid, learned: learned.clone(), context }));
    let pooled = Head::Learned(learned.clone());
    let tensor: Vec<f32> = (0..3 * 32 * 32).map(|i| ((i * i) as f32 * 0.37).sin() * 2.0).collect();
    let mut latent = vec![0.0; encoder.dim()];
    encoder.encode(&tensor, &mut latent).unwrap();
    afterimage::linalg::normalise(&mut latent);
    let model = FeatureModel::new(&runtime, fs::read(&path).unwrap(), &card, "grid.onnx").unwrap();
    let mut found = Vec::new();
    for head in [Head::Identity { dim: 32 }, pooled.clone(), pooled.pooling(grid), over(None), over(Some(context))] {
        let merged = onnx::MergeOptions {
            model: &model.bytes,
            input: None,
            latent: &model.output,
            grid: Some(grid),
            head: &head,
            cells: false,
            meta: &[],
        }
        .bytes()
        .unwrap();
        let mut merged =
            Encoder::from_bytes(&runtime, &merged, &card.input, onnx::OUTPUT, Size::square(32), &config, "merged")
                .unwrap();
        let (mut ours, mut theirs) = (vec![0.0; head.dim_out()], vec![0.0; head.dim_out()]);
        merged.encode(&tensor, &mut theirs).unwrap();
        head.clone().pooling(grid).embed(&latent, &mut ours, &mut Scratch::new());
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "off by {worst}: {ours:?} {theirs:?}");
        found.push(ours);
    }
    assert!(found[2] != found[3] && found[3] != found[4], "the heads differ");
}

const GRID: [usize; 3] = [4, 3, 10];

fn origin(grid: Option<[usize; 3]>) -> LatentSpec {
    let dim = grid.map_or(10, |grid| grid.iter().product());
    LatentSpec { encoder_sha256: "e".repeat(64), card_hash: "c".repeat(64), dim, grid, ..LatentSpec::default() }
}

fn small(embedding: &str) -> Config {
    let mut config = Config::default();
    let learn = &mut config.learn;
    learn.objective.name = "cpc".parse().unwrap();
    (learn.cpc.steps, learn.cpc.moments, learn.cpc.batch) = (3, 6, 8);
    (learn.cpc.dim, learn.cpc.width, learn.cpc.blocks, learn.cpc.embedding) = (8, 8, 2, embedding.parse().unwrap());
    (learn.first_fit_frames, learn.refit_growth, learn.optimizer.frames_per_step) = (200, 1.5, 4);
    (config.head.dim, config.head.hidden) = (8, 12);
    (config.promotion.min_blocks, config.promotion.min_interval_secs) = (4, 0.0);
    config
}

/// Segments of 15 frames; which pattern a column shows decides its rows. Vectors: the rows come one after another.
fn samples(grid: Option<[usize; 3]>) -> Vec<Sample> {
    let rng = &mut ChaCha8Rng::seed_from_u64(4);
    let looks = Array2::from_shape_simple_fn((5 * 16, 10), || (uniform(rng) - 0.5) as f32);
    let mut out = Vec::new();
    for segment in 0..80u64 {
        let patterns: Vec<usize> = (0..3).map(|_| uniform_below(rng, 5)).collect();
        for frame in 0..15 {
            let mut cell = |pattern: usize, row: usize| -> Vec<f32> {
                looks.row(pattern * 16 + row).iter().map(|x| x + 0.4 * (uniform(rng) - 0.5) as f32).collect()
            };
            let mut latent = match grid {
                Some(_) => (0..12).flat_map(|at| cell(patterns[at % 3], at / 3)).collect(),
                None => cell(patterns[0], frame),
            };
            afterimage::linalg::normalise(&mut latent);
            let index = out.len() as u64;
            out.push(Sample {
                index,
                stamp: Timestamp(index as i64 * 100_000_000),
                segment,
                latent,
                ..Sample::default()
            });
        }
    }
    out
}

#[test]
fn saved_midway_it_goes_on_with_the_same_bits() {
    for (grid, embedding) in [(Some(GRID), "projected"), (Some(GRID), "context"), (None, "projected")] {
        let (config, stream) = (small(embedding), samples(grid));
        let fresh = || Learner::new(&config.learner(), origin(grid), None).unwrap();
        let checksum = |learner: &mut Learner| {
            let mut sum = String::new();
            learner
                .save(stream.len() as u64, Vec::new(), |contents| {
                    sum = contents.checksum();
                    Ok(())
                })
                .unwrap();
            sum
        };
        let feed = |learner: &mut Learner, samples: &[Sample]| {
            samples.iter().for_each(|sample| drop(learner.learn(sample).unwrap()));
        };
        let mut whole = fresh();
        feed(&mut whole, &stream);
        assert!(whole.counts().steps > 50 && whole.counts().fits > 2, "{:?}", whole.counts());
        let decision = whole.last().unwrap();
        assert!(!decision.reason.is_empty() && decision.candidates.iter().any(|c| c.name == "slow"), "{decision:?}");
        for half in [500, 777] {
            let mut first = fresh();
            feed(&mut first, &stream[..half]);
            let file = tempfile::NamedTempFile::new().unwrap();
            first.save(half as u64, Vec::new(), |c| save(file.path(), &c.meta, &c.tensors, 1 << 30).map(drop)).unwrap();
            let mut second = fresh();
            second.restore(&mut load(file.path(), 1 << 30).unwrap()).unwrap();
            feed(&mut second, &stream[half..]);
            assert_eq!(second.counts(), whole.counts());
            // References of snapshots that are in use no more are let go at a save; the rest must be the same.
            assert_eq!(checksum(&mut second), checksum(&mut whole), "{grid:?} {embedding}, saved at {half}");
        }
    }
}

#[test]
fn what_cannot_be_predicted_is_refused_with_what_would_fit() {
    let refused = |grid, change: &dyn Fn(&mut Config)| {
        let mut config = small("projected");
        change(&mut config);
        Learner::new(&config.learner(), origin(grid), None).unwrap_err().chain()
    };
    let text = refused(Some([1, 6, 10]), &|_| {});
    assert!(text.contains("1 x 6 x 10") && text.contains("encoder.input_size"), "{text}");
    let text = refused(Some(GRID), &|c| (c.learn.cpc.first, c.learn.cpc.steps) = (4, 5));
    assert!(text.contains("learn.cpc.first = 4"), "{text}");
    let text = refused(Some([7, 7, 1280]), &|c| c.learn.replay.megabytes = 3.0);
    assert!(text.contains("learn.replay.megabytes = 3"), "{text}");
    let text = refused(None, &|c| c.promotion.block_secs = 0.4);
    assert!(text.contains("promotion.block_secs * learn.frames_per_sec = 0.4 * 10 = 4"), "{text}");
    let text = refused(None, &|c| c.learn.cpc.moments = 3);
    assert!(text.contains("at least learn.cpc.steps + 1 = 4"), "{text}");
    // Other objectives take any grid, pooled.
    let mut config = small("projected");
    config.learn.objective.name = "nt-xent".parse().unwrap();
    let learner = Learner::new(&config.learner(), origin(Some([1, 6, 10])), None).unwrap();
    assert!(!learner.takes_grids());
    let place = TestDir::new();
    learn(&place, ENCODER, PATTERN, "run", &["--set", "export.grid=true"])
        .fails(78, &["export.grid", "kind = \"grid\""]);
}
