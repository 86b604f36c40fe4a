#![allow(clippy::unwrap_used, reason = "tests")]
use ndarray::{Array1, Array2, s};
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::Timestamp;
use crate::config::LearnerConfig;
use crate::head::{EmbeddingKind, Mlp, equalised};
use crate::learner::trainer::{Residual, StepLimits, TrainingBatch};
use crate::linalg::random::{uniform, uniform_below};
use crate::linalg::{normalise, product};
use crate::optimizer::{AdamW, AdamWState};
use crate::sampling::{Block, Replay};

const GRID: Grid = Grid { rows: 5, columns: 3, dim: 12 };

fn config() -> LearnerConfig {
    let mut config = LearnerConfig::default();
    config.learn.objective.name = "cpc".parse().unwrap();
    config.learn.replay.megabytes = 4.0;
    (config.learn.cpc.steps, config.learn.cpc.moments, config.learn.cpc.batch) = (3, 8, 8);
    (config.learn.cpc.dim, config.learn.cpc.width, config.learn.cpc.blocks) = (16, 16, 2);
    (config.learn.optimizer.learning_rate, config.learn.optimizer.warmup_steps) = (3e-3, 10);
    config.head.hidden = 24;
    config
}

/// Six patterns hidden in the rows: the pattern of a column determines each of its rows. Noise is added.
struct World {
    looks: Array2<f32>,
    rng: ChaCha8Rng,
}

impl World {
    const PATTERNS: usize = 6;

    fn new() -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let looks = Array2::from_shape_simple_fn((Self::PATTERNS * 16, 12), || (uniform(&mut rng) - 0.5) as f32);
        Self { looks, rng }
    }

    fn cell(&mut self, pattern: usize, row: usize) -> Array1<f32> {
        let look = self.looks.row(pattern * 16 + row).to_owned();
        look.mapv(|x| x + 0.3 * (uniform(&mut self.rng) - 0.5) as f32)
    }

    /// Frames of one scene, with one pattern per column.
    fn grids(&mut self, number: u64, frames: usize) -> Block {
        let patterns: Vec<usize> = (0..GRID.columns).map(|_| uniform_below(&mut self.rng, Self::PATTERNS)).collect();
        let mut latents = Array2::zeros((frames, GRID.numbers()));
        for mut row in latents.rows_mut() {
            for at in 0..GRID.cells() {
                let cell = self.cell(patterns[at % GRID.columns], at / GRID.columns);
                row.slice_mut(s![at * 12..(at + 1) * 12]).assign(&cell);
            }
            normalise(row.as_slice_mut().unwrap());
        }
        block(number, latents)
    }

    /// Moments of one scene: the rows of one pattern, one after another.
    fn sequence(&mut self, number: u64, frames: usize) -> Block {
        let pattern = uniform_below(&mut self.rng, Self::PATTERNS);
        let mut latents = Array2::zeros((frames, 12));
        for (moment, mut row) in latents.rows_mut().into_iter().enumerate() {
            row.assign(&self.cell(pattern, moment % 16));
            crate::linalg::normalise(row.as_slice_mut().unwrap());
        }
        block(number, latents)
    }
}

fn block(number: u64, latents: Array2<f32>) -> Block {
    let n = latents.nrows();
    Block {
        number,
        segment: number,
        index: (0..n as u64).collect(),
        stamps: (0..n as i64).map(|i| Timestamp(i * 100_000_000)).collect(),
        latents,
        ..Block::default()
    }
}

fn memory(config: &LearnerConfig, grid: Option<Grid>, world: &mut World, blocks: u64) -> Replay {
    let mut replay = Replay::new(&config.learn, grid.map_or(12, Grid::numbers)).unwrap();
    for number in 0..blocks {
        let block = if grid.is_some() { world.grids(number, 4) } else { world.sequence(number, 16) };
        replay.insert(&block);
    }
    replay
}

/// Share of the cells with a row `k` below whose prediction finds the right cell among all of the batch.
fn found(cpc: &Cpc, drawn: &TrainingBatch, k: usize) -> f64 {
    let (rows, columns) = cpc.grid.map_or((cpc.moments, 1), |grid| (grid.rows, grid.columns));
    let cells = GridShape { frames: drawn.segments.len(), rows, columns };
    let p = cpc.network.target.nrows();
    let z = equalised(drawn.latents.view()).0;
    let targets = product(z.view(), cpc.network.target.t());
    let context = cpc.network.context.rows(z.view(), cells);
    let of = cpc.network.predict.slice(s![(k - cpc.first) * p..(k - cpc.first + 1) * p, ..]);
    let scores = product(product(context.view(), of.t()).view(), targets.t());
    let (mut right, mut all) = (0, 0);
    for i in (0..cells.count()).filter(|i| i % cells.per_frame() / columns + k < rows) {
        let row = scores.row(i);
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        right += usize::from(best == i + k * columns);
        all += 1;
    }
    right as f64 / f64::from(all)
}

/// The loss of a batch whose latents are used as they are.
fn turn(cpc: &mut Cpc, drawn: &TrainingBatch) -> f32 {
    let head = Mlp::start(12, 1, &mut ChaCha8Rng::seed_from_u64(0));
    let rows = drawn.latents.view();
    cpc.turn(&ForwardBatch { drawn, slow: rows, out: rows, head: &head, alpha: 0.0, step: 0 }).value
}

#[test]
fn learns_what_stands_below_and_what_comes_later() {
    for grid in [Some(GRID), None] {
        let config = config();
        let mut world = World::new();
        let (mut train, mut held) = (memory(&config, grid, &mut world, 60), memory(&config, grid, &mut world, 60));
        let rng = &mut ChaCha8Rng::seed_from_u64(2);
        let mut cpc = Cpc::new(&config.learn.cpc, grid, 12, rng);
        let draw = |replay: &mut Replay, rng: &mut ChaCha8Rng| {
            cpc_need(&config, grid).draw(replay, &config.learn, grid, rng).unwrap().unwrap()
        };
        let never_seen = draw(&mut held, rng);
        let uniform_loss = (never_seen.latents.nrows() as f32).ln();
        let loss = |cpc: &Cpc| turn(&mut cpc.clone(), &never_seen);
        let before = (loss(&cpc), found(&cpc, &never_seen, 1), found(&cpc, &never_seen, 3));
        assert!((before.0 - uniform_loss).abs() < 0.5, "{grid:?}: begins at {before:?}, uniform is {uniform_loss}");
        let adamw = AdamW::new(3e-3, 0.0);
        let mut state = AdamWState::new(&cpc.network);
        for _ in 0..300 {
            let drawn = draw(&mut train, rng);
            turn(&mut cpc, &drawn);
            adamw.step(&mut cpc.network, &cpc.grads, &mut state);
        }
        let after = (loss(&cpc), found(&cpc, &never_seen, 1), found(&cpc, &never_seen, 3));
        println!("{grid:?}: uniform {uniform_loss}, before {before:?}, after {after:?}");
        assert!(after.0 < 0.8 * uniform_loss, "{grid:?}: {before:?} to {after:?}, uniform is {uniform_loss}");
        // Scenes with the same pattern are indistinguishable: a quarter is a lot, chance is one in 64 or 120.
        assert!(after.1 > 0.1 && after.1 > 2.0 * before.1, "{grid:?}: {before:?} to {after:?}");
        assert!(after.2 > 0.1 && after.2 > 2.0 * before.2, "{grid:?}: {before:?} to {after:?}");
    }
}

fn cpc_need(config: &LearnerConfig, grid: Option<Grid>) -> BatchKind {
    Cpc::new(&config.learn.cpc, grid, 12, &mut ChaCha8Rng::seed_from_u64(0)).need()
}

#[test]
fn trains_the_residual_with_its_networks() {
    for grid in [Some(GRID), None] {
        let mut config = config();
        config.learn.cpc.embedding = "context".parse().unwrap();
        let mut replay = memory(&config, grid, &mut World::new(), 60);
        let exported = Head::Identity { dim: 12 }.pooling(GRID);
        config.learn.objective.relational_weight = 0.1;
        let rng = &mut ChaCha8Rng::seed_from_u64(3);
        let slow = Array2::eye(12) * 12f32.sqrt();
        let base = HeadParams { mean: Array1::zeros(12), slow, mlp: None, alpha: 1.0, form: EmbeddingKind::Single };
        let mut residual = Residual::start(base, &config, grid, rng);
        let losses: Vec<f32> = (0..200)
            .map(|_| residual.step(&mut replay, &exported, &config, StepLimits::FREE, rng).unwrap().unwrap().loss)
            .collect();
        let mean = |x: &[f32]| x.iter().sum::<f32>() / x.len() as f32;
        assert!(mean(&losses[180..]) < 0.7 * mean(&losses[..5]), "{losses:?}");
        let head = residual.head();
        head.check().unwrap();
        let learned = match (&head, grid) {
            (Head::Grid(head), Some(grid)) => {
                assert!(head.grid == grid && head.context.is_some());
                &head.learned
            }
            (Head::Learned(learned), None) => learned,
            _ => panic!("{head:?}"),
        };
        assert!(learned.mlp.as_ref().unwrap().w2.iter().any(|w| w.abs() > 1e-3), "the residual has moved");
    }
}

#[test]
fn offsets_end_with_the_rows() {
    let mut config = config();
    let offsets = |config: &LearnerConfig, grid| {
        let cpc = Cpc::new(&config.learn.cpc, grid, 12, &mut ChaCha8Rng::seed_from_u64(0));
        cpc.network.offsets()
    };
    assert_eq!((offsets(&config, Some(GRID)), offsets(&config, None)), (3, 3));
    assert_eq!(offsets(&config, Some(Grid { rows: 3, ..GRID })), 2);
    config.learn.cpc.first = 2;
    assert_eq!((offsets(&config, Some(Grid { rows: 3, ..GRID })), offsets(&config, None)), (1, 2));
}
