#![allow(clippy::unwrap_used, reason = "tests")]

use ndarray::{Array1, Array2, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::Timestamp;
use crate::head::{EmbeddingKind, Head, HeadParams};
use crate::linalg::random::{uniform, uniform_below};
use crate::linalg::{dot, normalise, slices, slices_mut};
use crate::sampling::{Block, Replay, Views};
use crate::state_dict::test_files::{load, save};

/// Dimensions of a latent: the first ones encode the cause, the others are noise that changes with every frame.
const DIM: usize = 32;
const TELLING: usize = 20;
const CAUSES: usize = 40;

/// Segments of ten frames, each with one hidden cause. Most of a latent is noise in separate directions.
fn segments(count: usize, seed: u64) -> Vec<(usize, Block)> {
    let causes = Array2::from_shape_simple_fn((CAUSES, TELLING), {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        move || uniform(&mut rng) - 0.5
    });
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut segment = |number: usize| {
        let cause = uniform_below(&mut rng, CAUSES);
        // The last five rows are views of every second frame: same cause, different noise.
        let mut latents = Array2::zeros((15, DIM));
        for row in slices_mut(&mut latents) {
            let (telling, noise) = row.split_at_mut(TELLING);
            telling
                .iter_mut()
                .zip(causes.row(cause))
                .for_each(|(x, &c)| *x = (c + 0.3 * (uniform(&mut rng) - 0.5)) as f32);
            noise.iter_mut().for_each(|x| *x = (3.0 * (uniform(&mut rng) - 0.5)) as f32);
            normalise(row);
        }
        let views = Views { rows: vec![0, 2, 4, 6, 8], latents: latents.slice(s![10.., ..]).to_owned() };
        let latents = latents.slice(s![..10, ..]).to_owned();
        let (stamps, number) = ((0..10).map(|i| Timestamp(i * 100_000_000)).collect(), number as u64);
        let block =
            Block { number, segment: number, index: (0..10).collect(), stamps, latents, views, ..Block::default() };
        (cause, block)
    };
    (0..count).map(&mut segment).collect()
}

fn config(objective: &str) -> LearnerConfig {
    let mut config = LearnerConfig::default();
    config.learn.objective.name = objective.parse().unwrap();
    config.learn.objective.batch_pairs = 24;
    config.learn.objective.queue_len = 100;
    config.learn.objective.momentum = 0.9;
    config.learn.optimizer.learning_rate = 3e-3;
    config.learn.optimizer.warmup_steps = 5;
    config.head.hidden = 48;
    config.learn.cpc.moments = 8;
    config
}

struct Setup {
    config: LearnerConfig,
    replay: Replay,
    residual: Residual,
    rng: ChaCha8Rng,
}

impl Setup {
    fn new(config: LearnerConfig) -> Self {
        let mut replay = Replay::new(&config.learn, DIM).unwrap();
        segments(160, 2).iter().for_each(|(_, block)| replay.insert(block));
        let slow = Array2::from_diag_elem(DIM, (DIM as f32).sqrt());
        let base = HeadParams { mean: Array1::zeros(DIM), slow, mlp: None, alpha: 1.0, form: EmbeddingKind::Single };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let residual = Residual::start(base, &config, None, &mut rng);
        Self { config, replay, residual, rng }
    }

    /// The losses of this many steps.
    fn run(&mut self, steps: usize) -> Vec<f32> {
        let exported = Head::Identity { dim: DIM };
        let mut step = |_| {
            self.residual
                .step(&mut self.replay, &exported, &self.config, StepLimits::FREE, &mut self.rng)
                .unwrap()
                .unwrap()
                .loss
        };
        (0..steps).map(&mut step).collect()
    }

    /// Share of frames whose nearest neighbour in another segment has the same cause, on separate test segments.
    fn retrieval(&self) -> f64 {
        let held = segments(120, 9);
        let rows: Vec<Array2<f32>> =
            held.iter().map(|(_, block)| self.residual.head().embed_rows(block.latents.view())).collect();
        let mut right = 0;
        for (i, (cause, _)) in held.iter().enumerate() {
            let query = rows[i].row(0).to_vec();
            let others = held.iter().zip(&rows).enumerate().filter(|(j, _)| *j != i);
            let near = others.map(|(_, ((cause, _), rows))| {
                let best = slices(rows).map(|row| dot(row, &query)).fold(f32::NEG_INFINITY, f32::max);
                (best, *cause)
            });
            right += usize::from(near.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1 == *cause);
        }
        right as f64 / held.len() as f64
    }

    /// The residual after a round trip through a file.
    fn saved_and_restored(&self) -> Residual {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut contents = StateDict::default();
        self.residual.save(&mut contents, "residual.");
        save(file.path(), &contents.meta, &contents.tensors, 1 << 30).unwrap();
        Residual::restore(&mut load(file.path(), 1 << 30).unwrap(), &self.config, None, DIM, "residual.").unwrap()
    }
}

/// Trains with `config`. The mean loss must fall from the first ten steps to the last ten, and retrieval must rise.
fn learns(config: LearnerConfig, least_gain: f64) {
    let name = config.learn.objective.name.clone();
    let mut setup = Setup::new(config);
    let before = setup.retrieval();
    let losses = setup.run(200);
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let (first, last) = (mean(&losses[..10]), mean(&losses[190..]));
    let gain = setup.retrieval() - before;
    println!("{name}: loss {first} to {last}, retrieval {before:.3} + {gain:.3}");
    assert!(last < first, "{name}: loss {first} to {last}");
    assert!(gain > least_gain, "{name}: retrieval {before} + {gain}");
}

#[test]
fn every_objective_learns() {
    for objective in ["nt-xent", "dcl", "supcon", "vicreg", "barlow-twins", "byol", "simsiam"] {
        learns(config(objective), 0.1);
    }
    for objective in ["instance", "dcl + 0.1 vicreg", "nt-xent + 0.5 instance"] {
        learns(config(objective), 0.1);
    }
}

#[test]
fn moco_learns_with_both_queues() {
    // The loss rises while the queue fills, so compare with a full queue.
    for queue in ["latents", "keys"] {
        let mut config = config("moco");
        config.learn.objective.queue = queue.parse().unwrap();
        let mut setup = Setup::new(config);
        let before = setup.retrieval();
        setup.run(5);
        let losses = setup.run(200);
        let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
        let (first, last) = (mean(&losses[..10]), mean(&losses[190..]));
        let gain = setup.retrieval() - before;
        println!("moco, {queue}: loss {first} to {last}, retrieval {before:.3} + {gain:.3}");
        assert!(last < first && gain > 0.1, "{queue}: loss {first} to {last}, retrieval {before} + {gain}");
    }
}

#[test]
fn every_optimizer_and_option_learns() {
    let with = |change: &dyn Fn(&mut LearnerConfig)| {
        let mut config = config("nt-xent");
        change(&mut config);
        config
    };
    learns(with(&|c| (c.learn.optimizer.name, c.learn.optimizer.learning_rate) = ("sgd".parse().unwrap(), 0.1)), 0.1);
    learns(with(&|c| (c.learn.optimizer.name, c.learn.optimizer.learning_rate) = ("lars".parse().unwrap(), 3.0)), 0.1);
    learns(
        with(&|c| (c.learn.optimizer.schedule, c.learn.optimizer.schedule_steps) = ("cosine".parse().unwrap(), 200)),
        0.1,
    );
    learns(with(&|c| c.learn.optimizer.ema = 0.99), 0.1);
    learns(with(&|c| c.learn.optimizer.orthogonal_gradient = 0.9), 0.02);
}

#[test]
fn restored_midway_it_gives_the_same_bits() {
    let names =
        "nt-xent,moco,cpc,dcl,vicreg,barlow-twins,byol,simsiam,supcon,moco + 0.5 byol + instance,nt-xent + 0.5 cpc";
    let mut cases: Vec<LearnerConfig> = names.split(',').map(config).collect();
    let mut with = |change: &dyn Fn(&mut LearnerConfig)| {
        let mut config = config("moco + simsiam");
        change(&mut config);
        cases.push(config);
    };
    with(&|c| c.learn.objective.queue = "keys".parse().unwrap());
    with(&|c| c.learn.optimizer.name = "sgd".parse().unwrap());
    with(&|c| c.learn.optimizer.name = "lars".parse().unwrap());
    with(&|c| (c.learn.optimizer.schedule, c.learn.optimizer.schedule_steps) = ("cosine".parse().unwrap(), 20));
    with(&|c| {
        (c.learn.optimizer.ema, c.learn.optimizer.orthogonal_gradient, c.learn.objective.relational_weight) =
            (0.99, 0.9, 5.0)
    });
    for config in cases {
        let mut setup = Setup::new(config);
        setup.run(7);
        let restored = setup.saved_and_restored();
        let (replay, rng) = (setup.replay.clone(), setup.rng.clone());
        let whole = (setup.run(6), setup.residual.head());
        (setup.residual, setup.replay, setup.rng) = (restored, replay, rng);
        assert_eq!((setup.run(6), setup.residual.head()), whole, "{:?}", setup.config.learn);
    }
}

#[test]
fn with_another_configuration_training_starts_anew_on_the_same_slow_head() {
    let mut setup = Setup::new(config("moco"));
    setup.run(5);
    setup.config = config("byol");
    let restored = setup.saved_and_restored();
    assert_eq!((restored.steps(), &restored.base), (0, &setup.residual.base));
    setup.residual = restored;
    setup.run(3);
}

#[test]
fn the_anchor_holds_what_learning_would_change() {
    let moved = |anchor: f64| {
        let mut config = config("nt-xent");
        config.learn.objective.relational_weight = anchor;
        let mut setup = Setup::new(config);
        setup.run(100);
        let held = segments(30, 11);
        let rows = ndarray::concatenate(
            ndarray::Axis(0),
            &held.iter().map(|(_, block)| block.latents.view()).collect::<Vec<_>>(),
        );
        let rows = rows.unwrap();
        let embedded = setup.residual.head().embed_rows(rows.view());
        crate::objective::anchor(embedded.view(), rows.view()).value
    };
    let (free, held) = (moved(0.0), moved(100.0));
    println!("anchor: {free} to {held}");
    assert!(held < 0.3 * free, "{held} {free}");
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    let mut config = config("nt-xent + byol");
    config.learn.optimizer.orthogonal_gradient = 0.5;
    let mut setup = Setup::new(config);
    setup.run(3);
    setup.residual.base.slow.fill(f32::NAN);
    let before = setup.residual.head();
    let exported = Head::Identity { dim: DIM };
    let step = setup.residual.step(&mut setup.replay, &exported, &setup.config, StepLimits::FREE, &mut setup.rng);
    let why = step.unwrap_err().to_string();
    assert!(why.contains("nt-xent + byol gave loss NaN") && why.contains("at step 3"), "{why}");
    let (Head::Learned(before), Head::Learned(after)) = (before, setup.residual.head()) else { unreachable!() };
    assert_eq!((before.mlp, setup.residual.steps()), (after.mlp, 3));
}

#[test]
fn a_gradient_out_of_proportion_is_not_followed() {
    let mut config = config("nt-xent");
    config.learn.optimizer.orthogonal_gradient = 0.5;
    let mut setup = Setup::new(config);
    setup.run(3);
    let mut other = setup.residual.clone();
    let (exported, mut rng) = (Head::Identity { dim: DIM }, setup.rng.clone());
    let tight = StepLimits { rate: 1.0, most_norm: 1e-9 };
    let step = setup.residual.step(&mut setup.replay, &exported, &setup.config, tight, &mut setup.rng);
    let why = step.unwrap_err().to_string();
    assert!(why.contains("at most 1.000e-9 is followed"), "{why}");
    // Neither the weights nor the optimizer's state have changed: the next step is as if nothing had happened.
    let mut replay = setup.replay.clone();
    let next = |residual: &mut Residual, replay: &mut Replay, rng: &mut ChaCha8Rng| {
        residual.step(replay, &exported, &setup.config, StepLimits::FREE, rng).unwrap().unwrap();
        residual.head()
    };
    rng.set_word_pos(setup.rng.get_word_pos());
    let (one, two) =
        (next(&mut setup.residual, &mut setup.replay, &mut setup.rng), next(&mut other, &mut replay, &mut rng));
    assert!(one == two);
}
