use ndarray::{Array2, ArrayView1};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::frame::Stamp;
use crate::pairs::ReplayState;

const DIM: usize = 8;

/// Enough for `rows` latents of [`DIM`] numbers.
fn config(rows: usize) -> Learn {
    let bytes = rows * (2 * DIM + ROW_BYTES + BLOCK_BYTES);
    Learn { replay_megabytes: (bytes as f64 + 0.5) * 1e-6, ..Learn::default() }
}

fn replay(rows: usize) -> Replay {
    let replay = Replay::new(&config(rows), DIM).unwrap();
    assert_eq!(replay.capacity(), rows);
    replay
}

/// Frames 0.1 s apart; row `i` of block `number` can be told from all others: see [`origin`].
fn block(number: u64, segment: u64, rows: usize) -> Block {
    let mut latents = Array2::zeros((rows, DIM));
    for (i, mut row) in latents.rows_mut().into_iter().enumerate() {
        // Two angles, each a quarter circle at most, coarse enough for f16.
        let (a, b) = (number as f32 / 1000.0 * 1.5, i as f32 / 100.0 * 1.5);
        row.assign(&ndarray::arr1(&[a.cos(), a.sin(), b.cos(), b.sin(), 0.0, 0.0, 0.0, 0.0]));
    }
    latents /= 2f32.sqrt();
    Block {
        number,
        segment,
        index: (0..rows as u64).collect(),
        stamps: (0..rows as i64).map(|i| Stamp(i * 100_000_000)).collect(),
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

/// Numbers of the blocks in memory: the newest, and the reservoir.
fn numbers(replay: &Replay) -> (Vec<u64>, Vec<u64>) {
    let mut long: Vec<u64> = replay.long.iter().map(|b| b.number).collect();
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
        assert_eq!(r.long.iter().map(|b| b.slots.len()).sum::<usize>(), r.long_rows);
        assert!(r.fresh_rows <= 25 && r.long_rows <= 75, "{} {}", r.fresh_rows, r.long_rows);
        assert!(r.arena.len() <= 100 * DIM && r.arena.capacity() == 100 * DIM);
        assert_eq!(r.arena.len() / DIM, r.len() + r.free.len(), "every row is in a block or free");
        used.push(r.len());
        assert_eq!(r.fresh.back().map(|b| b.number), Some(number), "the newest block is always there");
        for b in r.fresh.iter().chain(&r.long) {
            for (i, row) in r.gather(b.slots.iter().copied()).rows().into_iter().enumerate() {
                assert_eq!(origin(row), (b.number, i as i64));
            }
        }
    }
    assert!(used[20..].iter().all(|&n| n > 70), "{used:?}");
    assert!(r.bytes() <= 100 * (2 * DIM + ROW_BYTES + BLOCK_BYTES));
}

#[test]
fn the_reservoir_is_an_even_sample_of_the_stream() {
    // 400 blocks of one row, 10 fresh, 30 in the reservoir: each of the 390 others with chance 1/13.
    let mut tenths = [0usize; 10];
    for seed in 0..200 {
        let mut r = Replay::new(&Learn { seed, ..config(40) }, DIM).unwrap();
        (0..400).for_each(|n| r.insert(&block(n, n, 1)));
        let (fresh, long) = numbers(&r);
        assert_eq!(fresh, (390..400).collect::<Vec<_>>());
        assert_eq!(long.len(), 30);
        long.iter().for_each(|&n| tenths[(n / 39) as usize] += 1);
    }
    // 600 expected in each; five standard errors are 112.
    assert!(tenths.iter().all(|&n| n.abs_diff(600) < 112), "{tenths:?}");
}

#[test]
fn a_batch_is_half_fresh_half_replayed_and_of_different_segments() {
    let mut r = replay(400);
    (0..200).for_each(|n| r.insert(&block(n, n / 2, 10)));
    let (fresh, _) = numbers(&r);
    let (least, most) = (0.3, 0.5);
    let mut gaps = [0usize; 10];
    let mut g = rng(1);
    for _ in 0..300 {
        let batch = r.batch(8, least, most, &mut g).unwrap();
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
    // Anchors with fewer partners give each of them more weight: expected 2400 times (7 frames: 5 with three partners,
    // one with two, one with one) 5/21 + 1/14 + 1/7, 5/21 + 1/14, 5/21.
    let right = [1085.7, 742.9, 571.4];
    assert!((0..3).all(|k| (gaps[k + 3] as f64 - right[k]).abs() < 130.0), "{gaps:?}");
}

#[test]
fn few_blocks_are_used_again_and_are_no_negatives_of_themselves() {
    let mut r = replay(400);
    r.insert(&block(0, 7, 10));
    assert_eq!(r.batch(4, 0.1, 0.5, &mut rng(2)), None, "one block");
    r.insert(&block(1, 7, 3));
    assert_eq!(r.batch(4, 0.3, 0.5, &mut rng(2)), None, "the second holds no such pair");
    r.insert(&block(2, 7, 10));
    let batch = r.batch(5, 0.3, 0.5, &mut rng(2)).unwrap();
    let numbers: Vec<u64> = batch.a.rows().into_iter().map(|row| origin(row).0).collect();
    assert_eq!(numbers.iter().filter(|&&n| n == 0 || n == 2).count(), 5);
    for ((i, j), &negative) in batch.negatives.indexed_iter() {
        assert_eq!(negative, numbers[i] != numbers[j]);
    }
    assert!(batch.negatives.iter().any(|&n| n));
    assert_eq!(r.batch(5, 2.0, 3.0, &mut rng(2)), None, "no pair is so far apart");
    assert_eq!(r.batch(0, 0.1, 0.5, &mut rng(2)).map(|b| b.a.nrows()), None);
}

#[test]
fn one_part_makes_up_for_the_other() {
    let mut r = replay(400);
    (0..9).for_each(|n| r.insert(&block(n, n, 10)));
    assert!(r.long.is_empty());
    let batch = r.batch(9, 0.1, 0.9, &mut rng(3)).unwrap();
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
        assert_eq!(runs.dim(), (6, 7, DIM));
        for (i, run) in runs.outer_iter().enumerate() {
            let (number, first) = origin(run.row(0));
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
fn gap_zero_pairs_no_frame_with_itself() {
    let mut r = replay(400);
    (0..4).for_each(|n| r.insert(&block(n, n, 2)));
    let batch = r.batch(4, 0.0, 9.0, &mut rng(4)).unwrap();
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
    let mut r = replay(200);
    let size = |n: u64| 1 + (n as usize * 5) % 9;
    (0..150).for_each(|n| r.insert(&block(n, n, size(n))));
    let (state, rows) = r.save();
    let text = serde_json::to_string(&state).unwrap();
    let rows = rows.to_vec();
    let mut other = Replay::restore(&config(200), serde_json::from_str(&text).unwrap(), &rows).unwrap();
    let (mut left, mut right) = (rng(5), rng(5));
    for n in 150..300 {
        r.insert(&block(n, n, size(n)));
        other.insert(&block(n, n, size(n)));
        assert_eq!(r.save(), other.save());
        assert_eq!(r.batch(6, 0.1, 0.4, &mut left), other.batch(6, 0.1, 0.4, &mut right));
    }
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
    assert!(refused(&|s| s.fresh.append(&mut s.long), &rows, 100).contains("larger than the memory"));
}

#[test]
fn too_little_memory_and_odd_blocks() {
    let text = Replay::new(&Learn { replay_megabytes: 1.0, ..Learn::default() }, 100_000).unwrap_err().chain();
    assert!(text.contains("room for 4 latents of 100000 numbers") && text.contains("3.2"), "{text}");
    let mut r = replay(40);
    r.insert(&block(0, 0, 50));
    assert_eq!(r.len(), 10, "a quarter");
    let mut other = block(1, 1, 4);
    other.latents = Array2::ones((4, DIM + 1));
    r.insert(&other);
    assert_eq!(r.len(), 10);
}
