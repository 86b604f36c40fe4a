use crate::config::{GapRule, ReplayPolicy, ReplaySettings, SamplingSettings};
use ndarray::{Array2, ArrayView1};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::Timestamp;

const DIM: usize = 8;

/// Enough memory for `rows` latents of [`DIM`] values.
fn config(rows: usize) -> Training {
    let bytes = rows * (2 * DIM + ROW_BYTES + BLOCK_BYTES) + DIM;
    let replay = ReplaySettings { megabytes: (bytes as f64 + 0.5) * 1e-6, ..ReplaySettings::default() };
    Training { replay, ..Training::default() }
}

/// The same with the reservoir policy.
fn reservoir(rows: usize) -> Training {
    let config = config(rows);
    Training { replay: ReplaySettings { policy: ReplayPolicy::Reservoir, ..config.replay }, ..config }
}

fn with_uses(max_uses: u32, config: Training) -> Training {
    Training { replay: ReplaySettings { max_uses, ..config.replay }, ..config }
}

fn replay(rows: usize) -> Replay {
    between(rows, 0.1, 0.5)
}

/// With pairs `least` to `most` seconds apart.
fn between(rows: usize, least: f64, most: f64) -> Replay {
    let sampling = SamplingSettings { gap_min_secs: least, gap_max_secs: most, ..SamplingSettings::default() };
    let config = Training { sampling, ..config(rows) };
    let replay = Replay::new(&config, DIM).unwrap();
    assert_eq!(replay.capacity(), rows);
    replay
}

/// Frames 0.1 s apart; row `i` of block `number` can be told from all others, see [`origin`].
fn block(number: u64, segment: u64, rows: usize) -> Block {
    let mut latents = Array2::zeros((rows, DIM));
    for (i, mut row) in latents.rows_mut().into_iter().enumerate() {
        // Two angles, each at most a quarter circle, coarse enough for f16.
        let (a, b) = (number as f32 / 1000.0 * 1.5, i as f32 / 100.0 * 1.5);
        row.assign(&ndarray::arr1(&[a.cos(), a.sin(), b.cos(), b.sin(), 0.0, 0.0, 0.0, 0.0]));
    }
    latents /= 2f32.sqrt();
    Block {
        number,
        segment,
        index: (0..rows as u64).collect(),
        stamps: (0..rows as i64).map(|i| Timestamp(i * 100_000_000)).collect(),
        latents,
        ..Block::default()
    }
}

/// The block and the row that a latent came from.
fn origin(latent: ArrayView1<f32>) -> (u64, i64) {
    assert!((latent.dot(&latent) - 1.0).abs() < 1e-6, "unit again");
    let angle = |x: f32, y: f32| y.atan2(x) / 1.5;
    let number = (angle(latent[0], latent[1]) * 1000.0).round() as u64;
    (number, (angle(latent[2], latent[3]) * 100.0).round() as i64)
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Numbers of the blocks in memory: the newest, and those in the reservoir.
fn numbers(replay: &Replay) -> (Vec<u64>, Vec<u64>) {
    let mut long: Vec<u64> = replay.long.blocks.iter().map(|b| b.number).collect();
    long.sort_unstable();
    (replay.fresh.iter().map(|b| b.number).collect(), long)
}

#[test]
fn memory_is_exact_and_its_content_right() {
    let mut r = replay(100);
    let mut used = Vec::new();
    for number in 0..300 {
        r.insert(&block(number, number, 1 + (number as usize * 7) % 13));
        assert_eq!(r.fresh.iter().map(|b| b.slots.len()).sum::<usize>(), r.fresh_rows);
        assert_eq!(r.long.blocks.iter().map(|b| b.slots.len()).sum::<usize>(), r.long.rows);
        assert!(r.fresh_rows <= 25 && r.long.rows <= 75, "{} {}", r.fresh_rows, r.long.rows);
        assert!(r.arena.rows.len() <= 100 * DIM && r.arena.rows.capacity() == 100 * DIM);
        assert_eq!(r.arena.rows.len() / DIM, r.len() + r.arena.free.len(), "every row is in a block or free");
        used.push(r.len());
        assert_eq!(r.fresh.back().map(|b| b.number), Some(number), "the newest block is always there");
        for b in r.fresh.iter().chain(&r.long.blocks) {
            for (i, row) in r.arena.gather(b.slots.iter().copied()).rows().into_iter().enumerate() {
                assert_eq!(origin(row), (b.number, i as i64));
            }
        }
    }
    assert!(used[20..].iter().all(|&n| n > 70), "{used:?}");
    assert!(r.bytes() as f64 <= config(100).replay.megabytes * 1e6);
}

#[test]
fn the_reservoir_is_an_even_sample_of_the_stream() {
    // 400 blocks of one row, 10 fresh, 30 in the reservoir: each of the 390 others is kept with probability 1/13.
    let mut tenths = [0usize; 10];
    for seed in 0..200 {
        let mut r = Replay::new(&Training { seed, ..reservoir(40) }, DIM).unwrap();
        (0..400).for_each(|n| r.insert(&block(n, n, 1)));
        let (fresh, long) = numbers(&r);
        assert_eq!(fresh, (390..400).collect::<Vec<_>>());
        assert_eq!(long.len(), 30);
        long.iter().for_each(|&n| tenths[(n / 39) as usize] += 1);
    }
    // 600 are expected in each; five standard errors are 112.
    assert!(tenths.iter().all(|&n| n.abs_diff(600) < 112), "{tenths:?}");
}

#[test]
fn a_batch_is_half_fresh_half_replayed_and_of_different_segments() {
    let mut r = between(400, 0.3, 0.5);
    (0..200).for_each(|n| r.insert(&block(n, n / 2, 10)));
    let (fresh, _) = numbers(&r);
    r.uses = u32::MAX;
    let mut gaps = [0usize; 10];
    let mut g = rng(1);
    for _ in 0..300 {
        let batch = r.batch(8, &mut g).unwrap();
        assert_eq!((batch.a.dim(), batch.b.dim(), batch.negatives.dim()), ((8, DIM), (8, DIM), (8, 8)));
        let mut segments = Vec::new();
        for (i, (a, b)) in batch.a.rows().into_iter().zip(batch.b.rows()).enumerate() {
            let ((number, from), (other, to)) = (origin(a), origin(b));
            assert_eq!(number, other, "a pair is of one block");
            gaps[(to - from) as usize] += 1;
            assert_eq!(fresh.contains(&number), i < 4, "pair {i} of block {number}");
            segments.push(number / 2);
        }
        assert_eq!(batch.segments, segments);
        segments.sort_unstable();
        segments.dedup();
        assert_eq!(segments.len(), 8);
        assert!(batch.negatives.indexed_iter().all(|((i, j), &n)| n == (i != j)));
    }
    assert_eq!(gaps.iter().sum::<usize>(), gaps[3] + gaps[4] + gaps[5]);
    // Anchors with fewer partners give each of them more weight. Expected counts: 2400 times (7 frames: 5 with three
    // partners, one with two, one with one) 5/21 + 1/14 + 1/7, 5/21 + 1/14, 5/21.
    let right = [1085.7, 742.9, 571.4];
    assert!((0..3).all(|k| (gaps[k + 3] as f64 - right[k]).abs() < 130.0), "{gaps:?}");
}

#[test]
fn few_blocks_are_used_again_and_are_no_negatives_of_themselves() {
    let mut r = between(400, 0.3, 0.5);
    r.insert(&block(0, 7, 10));
    assert_eq!(r.batch(4, &mut rng(2)), None, "one block");
    r.insert(&block(1, 7, 3));
    assert_eq!(r.batch(4, &mut rng(2)), None, "the second holds no such pair");
    r.insert(&block(2, 7, 10));
    let batch = r.batch(5, &mut rng(2)).unwrap();
    let numbers: Vec<u64> = batch.a.rows().into_iter().map(|row| origin(row).0).collect();
    assert_eq!(numbers.iter().filter(|&&n| n == 0 || n == 2).count(), 5);
    for ((i, j), &negative) in batch.negatives.indexed_iter() {
        assert_eq!(negative, numbers[i] != numbers[j]);
    }
    assert!(batch.negatives.iter().any(|&n| n));
    assert_eq!(r.batch(0, &mut rng(2)).map(|b| b.a.nrows()), None);
    let mut r = between(400, 2.0, 3.0);
    (0..3).for_each(|n| r.insert(&block(n, n, 10)));
    assert_eq!(r.batch(5, &mut rng(2)), None, "no pair is so far apart");
}

#[test]
fn one_part_makes_up_for_the_other() {
    let mut r = between(400, 0.1, 0.9);
    (0..9).for_each(|n| r.insert(&block(n, n, 10)));
    assert!(r.long.blocks.is_empty());
    let batch = r.batch(9, &mut rng(3)).unwrap();
    let mut numbers: Vec<u64> = batch.a.rows().into_iter().map(|row| origin(row).0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..9).collect::<Vec<_>>(), "all fresh, each once");
}

#[test]
fn sequences_are_runs_of_one_block() {
    let mut r = replay(400);
    assert!(r.sequences(4, 3, &mut rng(1)).is_none());
    (0..60).for_each(|n| r.insert(&block(n, n, 1 + n as usize % 10)));
    let (fresh, _) = numbers(&r);
    let (mut g, mut starts) = (rng(1), [0; 4]);
    for _ in 0..100 {
        let runs = r.sequences(6, 7, &mut g).unwrap();
        assert_eq!(runs.latents.dim(), (6, 7, DIM));
        for (i, run) in runs.latents.outer_iter().enumerate() {
            let (number, first) = origin(run.row(0));
            assert_eq!(runs.segments[i], number, "each block is its own segment");
            let rows: Vec<_> = run.rows().into_iter().map(origin).collect();
            assert_eq!(rows, (0..7).map(|k| (number, first + k)).collect::<Vec<_>>());
            assert_eq!(fresh.contains(&number), i < 3, "half of the newest");
            starts[first as usize] += 1;
        }
    }
    assert!(starts.iter().all(|&n| n > 0), "{starts:?}");
    assert!(r.sequences(6, 11, &mut g).is_none(), "no block is so long");
    assert!(r.sequences(6, 0, &mut g).is_none());
}

#[test]
fn a_latent_is_drawn_so_often_and_rests_then() {
    let mut r = Replay::new(&with_uses(3, config(400)), DIM).unwrap();
    (0..8).for_each(|n| r.insert(&block(n, n, 10)));
    let mut g = rng(6);
    let batches = (0..1000).take_while(|_| r.batch(8, &mut g).is_some()).count();
    assert_eq!(batches, 30, "3 times 10 rows of each block, one draw of each in a batch");
    r.insert(&block(8, 8, 10));
    assert!(r.batch(8, &mut g).is_none(), "one block alone makes no pairs of two blocks");
    r.insert(&block(9, 9, 10));
    let batch = r.batch(8, &mut g).unwrap();
    assert!(batch.segments.iter().all(|&s| s >= 8), "{:?}", batch.segments);
    (10..40).for_each(|n| r.insert(&block(n, n, 10)));
    r.batch(8, &mut g).unwrap();
    assert_eq!(r.turn(), 1, "the memory has taken in as much as it holds");
    assert!(
        r.fresh.iter().chain(&r.long.blocks).all(|b| b.uses_in(1) <= 1 && !r.rests(b, 1)),
        "all may be drawn again"
    );
}

#[test]
fn anchors_have_as_many_positives_as_asked_for() {
    let sampling = SamplingSettings { positives: 3, gap_max_secs: 0.5, ..SamplingSettings::default() };
    let mut r = Replay::new(&Training { sampling, ..config(400) }, DIM).unwrap();
    (0..20).for_each(|n| r.insert(&block(n, n, 10)));
    let batch = r.batch(10, &mut rng(7)).unwrap();
    let rows = |x: &Array2<f32>| x.rows().into_iter().map(origin).collect::<Vec<_>>();
    let (a, b) = (rows(&batch.a), rows(&batch.b));
    let mut pairs: Vec<_> = a.iter().zip(&b).collect();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), 10, "no pair twice: {pairs:?}");
    let mut blocks: Vec<u64> = a.iter().map(|at| at.0).collect();
    blocks.dedup();
    assert_eq!(blocks.len(), 4, "ten pairs of four blocks: {a:?}");
    assert!(pairs.iter().all(|(a, b)| a.0 == b.0 && b.1 > a.1 && b.1 <= a.1 + 5));
}

#[test]
fn the_long_term_half_is_drawn_evenly_over_strata() {
    let hour = 3600 * 1_000_000_000;
    let mut r = replay(800);
    for n in 0..200 {
        let mut block = block(n, n, 5);
        // One block in twenty is of another camera, one of another hour.
        block.camera = u16::from(n % 20 == 3);
        block.stamps.iter_mut().for_each(|s| s.0 += if n % 20 == 4 { hour } else { 0 });
        r.insert(&block);
    }
    let strata = |r: &Replay| r.long.blocks.iter().map(ReplayBlock::stratum).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(strata(&r).into_iter().collect::<Vec<_>>(), [0, 1, 24]);
    let (fresh, _) = numbers(&r);
    let (mut counts, mut g) = ([0; 3], rng(8));
    for _ in 0..50 {
        for number in r.batch(12, &mut g).unwrap().segments.into_iter().filter(|n| !fresh.contains(n)) {
            counts[match number % 20 {
                3 => 1,
                4 => 2,
                _ => 0,
            }] += 1;
        }
    }
    assert_eq!(counts, [100; 3]);
}

#[test]
fn gap_zero_pairs_no_frame_with_itself() {
    let mut r = between(400, 0.0, 9.0);
    (0..4).for_each(|n| r.insert(&block(n, n, 2)));
    let batch = r.batch(4, &mut rng(4)).unwrap();
    let rows = |x: &Array2<f32>| x.rows().into_iter().map(|row| origin(row).1).collect::<Vec<_>>();
    assert_eq!((rows(&batch.a), rows(&batch.b)), (vec![0; 4], vec![1; 4]));
}

#[test]
fn references_are_spread_over_the_stream() {
    let mut r = replay(4000);
    assert_eq!(r.references(5).dim(), (0, DIM));
    (0..100).for_each(|n| r.insert(&block(n, n, 10)));
    let found: Vec<_> = r.references(10).rows().into_iter().map(origin).collect();
    assert_eq!(found, (0..10).map(|k| (10 * k, 0)).collect::<Vec<_>>());
    assert_eq!(r.references(5000).nrows(), 1000);
}

#[test]
fn goes_on_from_a_saved_state() {
    for (base, gap) in [(config(200), GapRule::Adaptive), (reservoir(200), GapRule::Range)] {
        let sampling = SamplingSettings { gap, positives: 2, ..SamplingSettings::default() };
        let config = Training { sampling, ..with_uses(2, base) };
        let mut r = Replay::new(&config, DIM).unwrap();
        let mut left = rng(5);
        let size = |n: u64| 1 + (n as usize * 5) % 15;
        for n in 0..150 {
            r.insert(&block(n, n, size(n)));
            r.batch(6, &mut left);
        }
        assert_eq!(r.gaps().delta().is_some(), gap == GapRule::Adaptive);
        let (state, rows) = r.save();
        let text = serde_json::to_string(&state).unwrap();
        let rows = rows.to_vec();
        let mut other = Replay::restore(&config, serde_json::from_str(&text).unwrap(), &rows).unwrap();
        let mut right = left.clone();
        for n in 150..300 {
            r.insert(&block(n, n, size(n)));
            other.insert(&block(n, n, size(n)));
            assert_eq!(r.save(), other.save());
            assert_eq!(r.batch(6, &mut left), other.batch(6, &mut right));
            assert_eq!(r.sequences(3, 2, &mut left), other.sequences(3, 2, &mut right));
        }
    }
}

#[test]
fn one_policy_takes_over_what_the_other_kept() {
    let reservoir = reservoir(100);
    let mut r = Replay::new(&reservoir, DIM).unwrap();
    (0..100).for_each(|n| r.insert(&block(n, n, 3)));
    let (state, rows) = r.save();
    let mut other = Replay::restore(&config(100), state, rows).unwrap();
    (100..130).for_each(|n| other.insert(&block(n, n, 3)));
    assert!(other.long.table.as_ref().unwrap().nearest.iter().all(|n| n.cosine <= 1.001));
    let (state, rows) = other.save();
    let back = Replay::restore(&reservoir, state, rows).unwrap();
    assert_eq!(numbers(&back), numbers(&other));
}

#[test]
fn a_broken_state_is_refused() {
    let mut r = replay(100);
    (0..100).for_each(|n| r.insert(&block(n, n, 3)));
    let (state, rows) = r.save();
    let rows = rows.to_vec();
    let refused = |change: &dyn Fn(&mut ReplayState), rows: &[f16], rows_of: usize| {
        let mut state = state.clone();
        change(&mut state);
        Replay::restore(&config(rows_of), state, rows).unwrap_err().chain()
    };
    assert!(refused(&|_| {}, &rows[1..], 100).contains("no whole rows"));
    assert!(refused(&|_| {}, &rows, 50).contains("room for 50 latents"));
    assert!(refused(&|s| s.fresh[0].slots[0] = 4000, &rows, 100).contains("does not exist or is in two places"));
    assert!(refused(&|s| s.fresh[0].slots[0] = s.long[0].slots[0], &rows, 100).contains("in two places"));
    assert!(refused(&|s| s.long[0].stamps.truncate(2), &rows, 100).contains("not as many stamps"));
    assert!(refused(&|s| s.long.truncate(3), &rows, 100).contains("in no block and not free"));
    assert!(refused(&|s| s.nearest.truncate(3), &rows, 100).contains("neighbours for"));
    assert!(refused(&|s| s.nearest[0].1 = Some(4000), &rows, 100).contains("a neighbour is no block"));
    assert!(refused(&|s| s.nearest[0].0 = f32::NAN.to_bits(), &rows, 100).contains("a neighbour is no block"));
    assert!(refused(&|s| s.fresh.append(&mut s.long), &rows, 100).contains("larger than the memory"));
}

#[test]
fn too_little_memory_and_odd_blocks() {
    let replay_of_one = ReplaySettings { megabytes: 1.0, ..ReplaySettings::default() };
    let text = Replay::new(&Training { replay: replay_of_one, ..Training::default() }, 100_000).unwrap_err().chain();
    assert!(text.contains("room for 4 latents of 100000 numbers") && text.contains("3.3"), "{text}");
    let mut r = replay(40);
    r.insert(&block(0, 0, 50));
    assert_eq!(r.len(), 10, "a quarter");
    let mut other = block(1, 1, 4);
    other.latents = Array2::ones((4, DIM + 1));
    r.insert(&other);
    assert_eq!(r.len(), 10);
}
