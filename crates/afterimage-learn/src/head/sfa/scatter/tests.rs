#![allow(clippy::unwrap_used, reason = "tests")]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::Timestamp;
use crate::config::SamplingSettings;
use crate::linalg::random::uniform;
use crate::linalg::unit_rows;
use crate::sampling::{PairSampler, Views};

/// `n` unit latents that drift around a common direction, one every `every` seconds.
fn block(n: usize, d: usize, every: f64, seed: u64) -> Block {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let start = Array1::from_shape_simple_fn(d, || uniform(&mut rng));
    let drift = Array2::from_shape_simple_fn((n, d), || 0.3 * (uniform(&mut rng) - 0.5));
    Block {
        number: seed,
        segment: 0,
        index: (0..n as u64).collect(),
        stamps: (0..n).map(|i| Timestamp((i as f64 * every * 1e9).round() as i64)).collect(),
        latents: unit_rows(&(drift + &start).mapv(|x| x as f32)).0,
        ..Block::default()
    }
}

/// Adds `block` with all pairs in the range of gaps.
fn add(scatter: &mut ScatterStats, block: &Block, gap_min_secs: f64, gap_max_secs: f64) -> Result<()> {
    let range = PairSampler::new(&SamplingSettings { gap_min_secs, gap_max_secs, ..SamplingSettings::default() });
    scatter.add(block, &range.pairs(block))
}

/// The same sums computed pair by pair in `f64`.
fn naive(blocks: &[Block], gap_min: f64, gap_max: f64) -> (u64, Array2<f64>, Array2<f64>) {
    let d = blocks[0].latents.ncols();
    let (mut pairs, mut total, mut within) = (0, Array2::zeros((d, d)), Array2::zeros((d, d)));
    let outer = |x: &Array1<f64>| Array2::from_shape_fn((d, d), |(i, j)| x[i] * x[j]);
    for block in blocks {
        let f = block.latents.mapv(f64::from);
        for a in 0..f.nrows() {
            total += &outer(&f.row(a).to_owned());
            for b in a + 1..f.nrows() {
                let gap = (block.stamps[b].0 - block.stamps[a].0) as f64 * 1e-9;
                if gap >= gap_min - 1e-6 && gap <= gap_max + 1e-6 {
                    pairs += 1;
                    within += &outer(&(&f.row(a) - &f.row(b)));
                }
            }
        }
    }
    (pairs, total, within)
}

fn worst(packed: &[f64], right: &Array2<f64>) -> f64 {
    let d = right.nrows();
    let largest = right.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let mut left = packed.iter();
    let pairs = (0..d).flat_map(|i| (i..d).map(move |j| (i, j)));
    let errors: Vec<f64> = pairs.map(|at| (left.next().unwrap() - right[at]).abs()).collect();
    assert!(left.next().is_none() && errors.iter().all(|x| x.is_finite()));
    let worst = errors.into_iter().fold(0.0, f64::max);
    worst / largest
}

#[test]
fn equals_the_sum_over_pairs() {
    // More dimensions than a panel, blocks of one sample, uneven lengths, and gaps at both ends of the range.
    for (d, gap_min, gap_max, right) in [(3, 0.1, 1.2, 102 + 1 + 33), (150, 0.3, 0.3, 12), (130, 0.25, 0.61, 42 + 13)] {
        let blocks = [block(15, d, 0.1, 1), block(1, d, 0.1, 2), block(2, d, 0.1, 3), block(9, d, 0.2, 4)];
        let mut scatter = ScatterStats::new(d);
        blocks.iter().for_each(|block| add(&mut scatter, block, gap_min, gap_max).unwrap());
        let (pairs, total, within) = naive(&blocks, gap_min, gap_max);
        assert_eq!((scatter.pairs(), pairs, scatter.frames()), (right, right, 27));
        assert!(worst(&scatter.total, &total) < 1e-6);
        assert!(worst(&scatter.within, &within) < 1e-5, "{d} {:e}", worst(&scatter.within, &within));
        let sum = blocks.iter().flat_map(|block| block.latents.column(0).to_vec()).map(f64::from).sum::<f64>();
        assert!((scatter.sum[0] - sum).abs() < 1e-9);
    }
}

#[test]
fn latents_that_hardly_move_keep_their_differences() {
    let mut still = block(20, 70, 0.1, 5);
    let first = still.latents.row(0).to_owned();
    // Differences of 1e-4: their squares are below the precision of `f32` products of the latents themselves.
    still.latents = &first + &((&still.latents - &first) * 1e-3);
    let mut scatter = ScatterStats::new(70);
    add(&mut scatter, &still, 0.1, 1.2).unwrap();
    let (_, _, within) = naive(&[still], 0.1, 1.2);
    assert!(worst(&scatter.within, &within) < 1e-4, "{:e}", worst(&scatter.within, &within));
}

#[test]
fn merged_equals_all_at_once() {
    let blocks: Vec<Block> = (0..6).map(|i| block(12, 9, 0.1, i)).collect();
    let all = |blocks: &[Block]| {
        let mut scatter = ScatterStats::new(9);
        blocks.iter().for_each(|block| add(&mut scatter, block, 0.1, 0.5).unwrap());
        scatter
    };
    let (whole, mut half) = (all(&blocks), all(&blocks[..3]));
    half.merge(&all(&blocks[3..])).unwrap();
    assert_eq!((whole.frames, whole.pairs), (half.frames, half.pairs));
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12 * a.abs().max(1.0));
    assert!(close(&whole.sum, &half.sum) && close(&whole.total, &half.total) && close(&whole.within, &half.within));
    assert!(half.merge(&ScatterStats::new(8)).is_err());
}

#[test]
fn saved_and_restored_it_is_the_same() {
    let mut scatter = ScatterStats::new(6);
    (0..5).for_each(|i| add(&mut scatter, &block(12, 6, 0.1, i), 0.1, 0.5).unwrap());
    let ScatterBuffers { dim, frames, pairs, sum, total, within, .. } = scatter.parts();
    let again = |sum: &[f64], total: &[f64]| {
        ScatterStats::from_parts(dim, frames, pairs, sum.to_vec(), total.to_vec(), within.to_vec())
    };
    let restored = again(sum, total).unwrap();
    assert_eq!(restored, scatter);
    assert_eq!(restored.fit(3, 0.3).unwrap(), scatter.fit(3, 0.3).unwrap());
    assert!(again(&sum[1..], total).is_err() && again(sum, &total[1..]).is_err());
    assert!(again(&[f64::NAN; 6], total).is_err());
    assert!(ScatterStats::from_parts(usize::MAX, 0, 0, vec![], vec![], vec![]).is_err());
}

#[test]
fn a_block_that_does_not_fit_changes_nothing() {
    let mut scatter = ScatterStats::new(6);
    assert!(add(&mut scatter, &block(4, 7, 0.1, 1), 0.1, 0.5).is_err());
    assert!(scatter.add(&block(4, 6, 0.1, 1), &[[0, 1], [2, 4]]).is_err());
    for (rows, dim) in [(vec![4], 6), (vec![0, 1], 6), (vec![0], 5)] {
        let views = Views { rows, latents: Array2::ones((1, dim)) };
        assert!(add(&mut scatter, &Block { views, ..block(4, 6, 0.1, 1) }, 0.1, 0.5).is_err());
    }
    assert_eq!(scatter, ScatterStats::new(6));
}

#[test]
fn what_cannot_be_fitted_is_said() {
    let message = |scatter: &ScatterStats, keep, shrinkage| scatter.fit(keep, shrinkage).unwrap_err().to_string();
    let mut scatter = ScatterStats::new(6);
    assert!(message(&scatter, 2, 0.3).contains("at least 2 frames"));
    add(&mut scatter, &block(5, 6, 2.0, 1), 0.1, 0.5).unwrap();
    assert!(message(&scatter, 2, 0.3).contains("learn.sampling.gap_max_secs"));
    add(&mut scatter, &block(3, 6, 0.1, 2), 0.1, 0.5).unwrap();
    // Three pairs in six dimensions: singular without shrinkage.
    assert!(message(&scatter, 2, 0.0).contains("head.shrinkage"));
    assert!(message(&scatter, 2, f64::NAN).contains("between 0 and 1"));
    assert!(message(&scatter, 7, 0.3).contains("7 directions"));
    assert!(scatter.fit(6, 0.3).is_ok());
    let mut broken = block(3, 6, 0.1, 3);
    broken.latents[[1, 1]] = f32::NAN;
    add(&mut scatter, &broken, 0.1, 0.5).unwrap();
    assert!(message(&scatter, 2, 0.3).contains("not finite"));
}

#[test]
fn finds_the_direction_that_is_slow() {
    // Dimension 2 changes only from block to block, the others at every frame.
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut scatter = ScatterStats::new(5);
    for number in 0..40 {
        let mut block = block(10, 5, 0.1, number);
        block.latents.mapv_inplace(|_| (uniform(&mut rng) - 0.5) as f32);
        block.latents.column_mut(2).fill((uniform(&mut rng) - 0.5) as f32);
        add(&mut scatter, &block, 0.1, 0.5).unwrap();
    }
    let fit = scatter.fit(2, 0.1).unwrap();
    let slow = fit.directions.column(0);
    assert!(slow[2] > 0.0 && (0..5).all(|i| i == 2 || slow[i].abs() < 0.2 * slow[2]), "{slow}");
    assert!(fit.eigenvalues[0] > 3.0 * fit.eigenvalues[1], "{}", fit.eigenvalues);
}

/// A block with views of every second frame, which differ from it by noise in the last two dimensions.
fn with_views(d: usize, seed: u64) -> Block {
    let mut block = block(10, d, 0.1, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(100 + seed);
    let rows: Vec<u32> = (0..10).step_by(2).collect();
    let mut latents = Array2::from_shape_fn((rows.len(), d), |(i, j)| block.latents[[2 * i, j]]);
    latents.slice_mut(s![.., d - 2..]).mapv_inplace(|x| x + (uniform(&mut rng) - 0.5) as f32);
    block.views = Views { rows, latents };
    block
}

#[test]
fn views_are_a_third_statistic_of_the_same_trace() {
    let d = 70;
    let blocks: Vec<Block> = (0..6).map(|seed| with_views(d, seed)).collect();
    let (mut scatter, mut plain) = (ScatterStats::new(d), ScatterStats::new(d));
    for block in &blocks {
        add(&mut scatter, block, 0.1, 0.5).unwrap();
        add(&mut plain, &Block { views: Views::default(), ..block.clone() }, 0.1, 0.5).unwrap();
    }
    let mut right = Array2::<f64>::zeros((d, d));
    for block in &blocks {
        for (view, row) in block.views.latents.rows().into_iter().zip(&block.views.rows) {
            let x = (&view - &block.latents.row(*row as usize)).mapv(f64::from);
            right += &Array2::from_shape_fn((d, d), |(i, j)| x[i] * x[j]);
        }
    }
    assert_eq!(scatter.views(), 30);
    assert!(worst(&scatter.view.packed, &right) < 1e-6);
    // Everything else is the same as without views, and so is a fit that leaves them out.
    assert_eq!((&scatter.total, &scatter.within), (&plain.total, &plain.within));
    assert!(plain.view.packed.is_empty());
    let fit = |scatter: &ScatterStats, weight| scatter.fit_with_views(8, 0.2, weight).unwrap();
    assert_eq!(fit(&scatter, 0.0), scatter.fit(8, 0.2).unwrap());
    assert_eq!(fit(&plain, 1.0), fit(&scatter, 0.0));
    // The formula with full matrices.
    let (trace, frames) = (|m: &Array2<f64>| m.diag().sum(), scatter.frames as f64);
    let (_, total, within) = naive(&blocks, 0.1, 0.5);
    let within = within / (2.0 * scatter.pairs as f64);
    let view = right / 60.0;
    let both = &within + &(&view * (0.7 * trace(&within) / trace(&view)));
    let mean: Array1<f64> = scatter.sum.iter().map(|x| x / frames).collect();
    let total = |i, j| total[[i, j]] / frames - mean[i] * mean[j];
    let expected = slow_from(mean.clone(), total, |i, j| both[[i, j]], 8, 0.2).unwrap();
    let found = fit(&scatter, 0.7);
    assert!(found.eigenvalues.iter().zip(&expected.eigenvalues).all(|(a, b)| (a - b).abs() < 1e-4 * b));
    // The fit gives less weight to the dimensions in which views differ, and the more so the larger the weight of the
    // views.
    let heard = |weight| fit(&scatter, weight).directions.slice(s![d - 2.., ..]).mapv(|x| x * x).sum();
    assert!(heard(1.0) < 0.5 * heard(0.0) && heard(10.0) < heard(1.0), "{} {}", heard(0.0), heard(1.0));
}

#[test]
fn views_are_merged_and_saved() {
    let d = 9;
    let of = |seeds: std::ops::Range<u64>| {
        let mut scatter = ScatterStats::new(d);
        seeds.for_each(|seed| add(&mut scatter, &with_views(d, seed), 0.1, 0.5).unwrap());
        scatter
    };
    let whole = of(0..4);
    let (mut one, mut none) = (of(0..2), ScatterStats::new(d));
    one.merge(&of(2..4)).unwrap();
    none.merge(&whole).unwrap();
    assert_eq!(none, whole);
    assert_eq!(one.views(), whole.views());
    assert!(one.view.packed.iter().zip(&whole.view.packed).all(|(a, b)| (a - b).abs() < 1e-12));
    let parts = whole.parts();
    let again = || {
        let (sum, total, within) = (parts.sum.to_vec(), parts.total.to_vec(), parts.within.to_vec());
        ScatterStats::from_parts(d, parts.frames, parts.pairs, sum, total, within).unwrap()
    };
    assert_eq!(again().with_views(parts.views, parts.view.to_vec()).unwrap(), whole);
    assert!(again().with_views(0, parts.view.to_vec()).is_err());
    assert!(again().with_views(3, parts.view[1..].to_vec()).is_err());
    assert!(again().with_views(3, vec![f64::NAN; parts.view.len()]).is_err());
}

#[test]
fn a_part_is_the_fit_of_these_entries_alone() {
    let (d, range) = (9, 3..7);
    let (mut all, mut alone) = (ScatterStats::new(d), ScatterStats::new(4));
    for seed in 0..6 {
        let block = with_views(d, seed);
        let latents = block.latents.slice(s![.., range.clone()]).to_owned();
        let views =
            Views { latents: block.views.latents.slice(s![.., range.clone()]).to_owned(), ..block.views.clone() };
        add(&mut all, &block, 0.1, 0.5).unwrap();
        add(&mut alone, &Block { latents, views, ..block }, 0.1, 0.5).unwrap();
    }
    let part = all.part(range.clone()).unwrap();
    assert_eq!((part.dim(), part.frames(), part.pairs()), (4, alone.frames(), alone.pairs()));
    let near = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    let (found, right) = (part.parts(), alone.parts());
    assert!(near(found.sum, right.sum) && near(found.total, right.total) && near(found.within, right.within));
    assert!(found.views == 30 && near(found.view, right.view));
    // The padding is zero: the other entries have no effect.
    let fit = part.fit(2, 0.2).unwrap();
    let padded = fit.clone().padded(d, range.start);
    assert_eq!(padded.directions.slice(s![range.clone(), ..]), fit.directions);
    assert_eq!(padded.mean.slice(s![range.clone()]), fit.mean);
    assert!(padded.directions.slice(s![..3, ..]).iter().chain(padded.directions.slice(s![7.., ..])).all(|x| *x == 0.0));
    assert_eq!(padded.eigenvalues, fit.eigenvalues);
    assert_eq!(all.part(0..d).unwrap(), all);
    assert!(all.part(4..10).is_err() && all.part(3..3).is_err());
}
