use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::Timestamp;
use crate::config::{ReplaySettings, Training};
use crate::linalg::random::{uniform, uniform_below};
use crate::linalg::unit_rows;
use crate::sampling::{Block, Replay};

const HOUR: i64 = 3600 * 1_000_000_000;

/// A long-term part with space for `capacity` rows of `dim`, and its arena; all comparisons are exact.
fn exact(capacity: usize, dim: usize) -> (MinRedundancyBuffer, Arena) {
    let mut long = MinRedundancyBuffer::new(capacity, Some(Sketcher::new(dim, 1, 2)));
    long.table.as_mut().unwrap().finalists = usize::MAX;
    (long, Arena::reserve(dim, 2 * capacity).unwrap())
}

fn stored(number: u64, latents: &Array2<f32>, arena: &mut Arena) -> ReplayBlock {
    ReplayBlock {
        priority: 0,
        number,
        camera: 0,
        segment: number,
        uses: 0,
        use_round: 0,
        stamps: (0..latents.nrows() as i64).collect(),
        slots: latents.rows().into_iter().map(|row| arena.place(row.iter().copied())).collect(),
    }
}

#[test]
fn the_most_redundant_goes_first() {
    // The closed form of the golden values: X(12, 8, .05).
    let x = Array2::from_shape_fn((12, 8), |(i, j)| {
        ((0.37 * (i * 8 + j) as f64 + 0.05).sin() + 0.5 * (1.3 * (i * j) as f64 + 0.1).cos()) as f32
    });
    let (mut long, mut arena) = exact(12, 8);
    for (i, row) in unit_rows(&x).0.rows().into_iter().enumerate() {
        let block = stored(i as u64, &row.to_owned().insert_axis(ndarray::Axis(0)), &mut arena);
        long.admit(block, &mut arena);
    }
    assert_eq!(long.blocks.len(), 12);
    let mut gone = Vec::new();
    for capacity in (6..12).rev() {
        long.capacity = capacity;
        let at = long.worst(&arena).unwrap();
        let block = long.remove(at);
        long.rows -= 1;
        gone.push(block.number);
    }
    assert_eq!(gone, [5, 7, 1, 0, 4, 9]);
}

/// The nearest neighbour by exhaustive search.
fn brute_force(long: &MinRedundancyBuffer, at: usize, arena: &Arena) -> Nearest {
    let mut key = Key::of(&long.blocks[at], arena);
    let mut nearest = Nearest::NONE;
    for (_, other) in long.blocks.iter().enumerate().filter(|(i, _)| *i != at) {
        let cosine = key.cosine(other, arena);
        if cosine > nearest.cosine || (cosine == nearest.cosine && Some(other.number) < nearest.of) {
            nearest = Nearest { cosine, of: Some(other.number) };
        }
    }
    nearest
}

#[test]
fn the_table_is_what_looking_at_all_gives() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (mut long, mut arena) = exact(120, 24);
    let mut gone = 0;
    for number in 0..400 {
        let place = uniform_below(&mut rng, 9) as f64;
        let rows = 1 + uniform_below(&mut rng, 6);
        let latents = Array2::from_shape_fn((rows, 24), |(_, j)| {
            ((place * (j + 1) as f64).sin() + 0.4 * uniform(&mut rng)) as f32
        });
        let before: Vec<u64> = long.blocks.iter().map(|b| b.number).collect();
        let block = stored(number, &unit_rows(&latents).0, &mut arena);
        // The block to drop by exhaustive search, with the new block among the others.
        let mut all = long.clone();
        all.rows += block.slots.len();
        all.push(block.clone(), None, &arena);
        let mut expected = Vec::new();
        while all.rows > 120 {
            let near: Vec<Nearest> = (0..all.blocks.len()).map(|i| brute_force(&all, i, &arena)).collect();
            let worst = (0..near.len())
                .max_by(|&a, &b| {
                    let by_cosine = near[a].cosine.total_cmp(&near[b].cosine);
                    by_cosine.then(all.blocks[b].number.cmp(&all.blocks[a].number))
                })
                .unwrap();
            let out = all.remove(worst);
            all.rows -= out.slots.len();
            expected.push(out.number);
        }
        long.admit(block, &mut arena);
        let now: Vec<u64> = long.blocks.iter().map(|b| b.number).collect();
        let mut left: Vec<u64> = before.into_iter().chain([number]).filter(|n| !now.contains(n)).collect();
        left.sort_unstable();
        expected.sort_unstable();
        assert_eq!(left, expected);
        gone += left.len();
        for (at, nearest) in long.table.as_ref().unwrap().nearest.iter().enumerate() {
            let right = brute_force(&long, at, &arena);
            match nearest.of {
                Some(_) => assert_eq!(*nearest, right),
                None => assert!(nearest.cosine >= right.cosine),
            }
        }
        assert_eq!(long.rows, long.blocks.iter().map(|b| b.slots.len()).sum::<usize>());
    }
    assert!(gone > 200, "{gone}");
}

/// Blocks of one row, 128 values, near one of the `places`; `spread` is the distance from it.
fn near(place: usize, spread: f64, rng: &mut ChaCha8Rng) -> Array2<f32> {
    let row = |j: usize, x: f64| (((place * 131 + j * 7 + 1) as f64).sin() + spread * x) as f32;
    unit_rows(&Array2::from_shape_fn((1, 128), |(_, j)| row(j, uniform(rng) - 0.5))).0
}

fn config(megabytes: f64) -> Training {
    Training { replay: ReplaySettings { megabytes, ..ReplaySettings::default() }, ..Training::default() }
}

#[test]
fn a_still_scene_fills_the_memory_once_and_rare_things_stay() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut replay = Replay::new(&config(0.1), 128).unwrap();
    for number in 0..4000u64 {
        // One in forty is something else; the rest is one scene with its noise.
        let place = if number % 40 == 0 && number < 2000 { 1 + number as usize } else { 0 };
        let (latents, stamps) = (near(place, 0.1, &mut rng), vec![Timestamp(number as i64)]);
        replay.insert(&Block { number, segment: number, index: vec![number], stamps, latents, ..Block::default() });
    }
    let rare = replay.long.blocks.iter().filter(|b| b.number % 40 == 0 && b.number < 2000).count();
    assert_eq!(rare, 50, "of 4000 frames in a memory of {}", replay.capacity());
}

#[test]
fn no_stratum_is_squeezed_out() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut replay = Replay::new(&config(0.2), 128).unwrap();
    let long = replay.capacity() - replay.capacity() / 4;
    for number in 0..6000u64 {
        // An hour of night whose frames are all alike, then days that differ from frame to frame.
        let (place, hour) = if number < 1000 { (0, 2) } else { (number as usize, 10 + (number as i64) % 3) };
        let latents = near(place, 0.05, &mut rng);
        let stamps = vec![Timestamp(HOUR * hour + number as i64)];
        replay.insert(&Block { number, segment: number, index: vec![number], stamps, latents, ..Block::default() });
    }
    let mut rows = [0; 24];
    replay.long.blocks.iter().for_each(|b| rows[b.stratum() as usize] += 1);
    for (hour, rows) in rows.into_iter().enumerate() {
        let right = if [2, 10, 11, 12].contains(&hour) { long / 4 } else { 0 };
        assert!(right.abs_diff(rows) <= 1, "hour {hour}: {rows} rows, {right} are its share");
    }
}

/// `cargo test --release --lib -- --ignored --nocapture replay_of_16384`
#[test]
#[ignore = "measures time: run it alone on an idle machine"]
fn replay_of_16384_latents_of_1280() {
    let (dim, mut rng) = (1280, ChaCha8Rng::seed_from_u64(6));
    let mut replay = Replay::new(&config(48.0), dim).unwrap();
    assert!(replay.capacity() >= 16384 && replay.bytes() <= 48_000_000, "{} rows", replay.capacity());
    let mut latents = |rows: usize| {
        let place = uniform_below(&mut rng, 400);
        let row = |j: usize, x: f64| (1.0 + ((place * 131 + j * 7 + 1) as f64).sin() + 0.3 * x) as f32;
        unit_rows(&Array2::from_shape_fn((rows, dim), |(_, j)| row(j, uniform(&mut rng) - 0.5))).0
    };
    for rows in [1, 12, 40] {
        let mut times = Vec::new();
        let mut number = 1 << 40;
        for _ in 0..(if rows == 1 { 20_000 } else { 40_000 / rows }) {
            number += 1;
            let stamps = (0..rows as i64).map(|i| Timestamp(number as i64 * HOUR / 1000 + i)).collect();
            let index = vec![number; rows];
            let block = Block { number, segment: number, index, stamps, latents: latents(rows), ..Block::default() };
            let began = std::time::Instant::now();
            replay.insert(&block);
            times.push(began.elapsed().as_secs_f64() * 1e3 / rows as f64);
        }
        let mut full = times.split_off(times.len() / 2);
        full.sort_unstable_by(f64::total_cmp);
        let (mean, p99) = (full.iter().sum::<f64>() / full.len() as f64, full[full.len() * 99 / 100]);
        println!("blocks of {rows}: {mean:.3} ms a latent, 99 % below {p99:.3} ms ({} in memory)", replay.len());
    }
}
