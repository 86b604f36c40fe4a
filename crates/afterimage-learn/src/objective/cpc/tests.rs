#![allow(clippy::unwrap_used, reason = "tests")]
use ndarray::{Array2, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::network::CpcSizes;
use super::{CpcNetwork, InfoNce};
use crate::head::GridShape;
use crate::linalg::random::uniform;

const CELLS: GridShape = GridShape { frames: 3, rows: 4, columns: 2 };
const SIZES: CpcSizes = CpcSizes { channels: 5, targets: 3, width: 4, blocks: 1, offsets: 2 };

fn random(n: usize, d: usize, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((n, d), || 2.0 * uniform(&mut rng) - 1.0)
}

fn offset(q: &Array2<f64>, t: &Array2<f64>, cells: GridShape, k: usize, segments: Option<&[u64]>) -> f64 {
    let (mut grad_q, mut grad_t) = (Array2::zeros(q.dim()), Array2::zeros(t.dim()));
    InfoNce { scale: 0.7 }.offset(q.view(), t.view(), cells, k, segments, 1.0, grad_q.view_mut(), &mut grad_t)
}

/// The formula computed cell by cell.
fn by_hand(q: &Array2<f64>, t: &Array2<f64>, cells: GridShape, k: usize, segments: Option<&[u64]>) -> f64 {
    let at = |frame: usize, row: usize, column: usize| (frame * cells.rows + row) * cells.columns + column;
    let (mut total, mut count) = (0.0, 0);
    for frame in 0..cells.frames {
        for row in 0..cells.rows - k {
            for column in 0..cells.columns {
                let logit = |i: usize| (0.7 * q.row(at(frame, row, column)).dot(&t.row(i))).exp();
                let allowed = |i: &usize| {
                    let other = *i / cells.per_frame();
                    other == frame || segments.is_none_or(|s| s[other] != s[frame])
                };
                let sum: f64 = (0..cells.count()).filter(allowed).map(logit).sum();
                total -= (logit(at(frame, row + k, column)) / sum).ln();
                count += 1;
            }
        }
    }
    total / f64::from(count)
}

#[test]
fn is_the_cross_entropy_of_its_formula() {
    let (q, t) = (random(24, 3, 1), random(24, 3, 2));
    let mut with_and_without = Vec::new();
    for segments in [None, Some(&[5, 9, 5][..])] {
        for k in 1..4 {
            let found = offset(&q, &t, CELLS, k, segments);
            assert!((found - by_hand(&q, &t, CELLS, k, segments)).abs() < 1e-12, "{k} {segments:?}");
            with_and_without.push(found);
        }
    }
    assert!((0..3).all(|i| with_and_without[i + 3] < with_and_without[i]), "fewer negatives, less loss");
}

#[test]
fn knows_nothing_of_rows_that_have_none_below() {
    let (mut q, t) = (random(24, 3, 1), random(24, 3, 2));
    let before = offset(&q, &t, CELLS, 2, None);
    for frame in 0..3 {
        q.slice_mut(s![frame * 8 + 4..frame * 8 + 8, ..]).fill(f64::NAN);
    }
    assert_eq!(offset(&q, &t, CELLS, 2, None), before);
}

#[test]
fn equal_cells_give_the_logarithm_of_their_number() {
    let same = Array2::from_elem((24, 3), 0.3);
    assert!((offset(&same, &same, CELLS, 1, None) - 24f64.ln()).abs() < 1e-12);
    assert!((offset(&same, &same, CELLS, 1, Some(&[1, 1, 1])) - 8f64.ln()).abs() < 1e-12);
}

/// Compares `found` with central differences of `value` as the entries of `x` change one by one.
fn compare(what: &str, found: &[f64], x: &[f64], value: impl Fn(&[f64]) -> f64) {
    let step = 1e-6;
    assert!(found.iter().any(|x| x.abs() > 1e-4), "{what}: no gradient to test");
    assert_eq!(found.len(), x.len());
    for (i, found) in found.iter().enumerate() {
        let moved = |by: f64| {
            let mut x = x.to_vec();
            x[i] += by;
            value(&x)
        };
        let error = (found - (moved(step) - moved(-step)) / (2.0 * step)).abs();
        assert!(error < 1e-8, "{what}[{i}]: {found} is off by {error:e}");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    // In the second shape only the first offset has rows.
    for (cells, first) in [(CELLS, 1), (GridShape { frames: 4, rows: 3, columns: 1 }, 2)] {
        let net: CpcNetwork<f64> = CpcNetwork::start(SIZES, rng);
        let z = random(cells.count(), 5, 4);
        let segments: Vec<u64> = (0..cells.frames as u64).map(|i| i / 2).collect();
        for segments in [None, Some(segments.as_slice())] {
            let loss = InfoNce { scale: 0.7 };
            let pass = |net: &CpcNetwork<f64>, z: &Array2<f64>, grads: &mut CpcNetwork<f64>| {
                net.pass(z.view(), cells, first, loss, segments, grads)
            };
            let mut grads = net.zeros_like();
            let found = pass(&net, &z, &mut grads);
            let value = |net: &CpcNetwork<f64>| pass(net, &z, &mut net.zeros_like()).value;
            let used = 2.min(cells.rows - first) * 3 * 5;
            let (grad, held) = (grads.predict.as_slice().unwrap(), net.predict.as_slice().unwrap());
            assert!(grad[used..].iter().all(|x| *x == 0.0));
            compare("predict", &grad[..used], &held[..used], |moved| {
                let mut net = net.clone();
                net.predict.as_slice_mut().unwrap()[..used].copy_from_slice(moved);
                value(&net)
            });
            compare("target", grads.target.as_slice().unwrap(), net.target.as_slice().unwrap(), |moved| {
                let mut net = net.clone();
                net.target.as_slice_mut().unwrap().copy_from_slice(moved);
                value(&net)
            });
            for part in 0..8 {
                let (name, grad) = grads.context.parts()[part];
                compare(name, grad, net.context.parts()[part].1, |moved| {
                    let mut net = net.clone();
                    net.context.parts_mut()[part].1.copy_from_slice(moved);
                    value(&net)
                });
            }
            compare("cells", found.grad.as_slice().unwrap(), z.as_slice().unwrap(), |moved| {
                let z = Array2::from_shape_vec(z.dim(), moved.to_vec()).unwrap();
                pass(&net, &z, &mut net.zeros_like()).value
            });
        }
    }
}

#[test]
fn starts_near_the_logarithm_of_the_number_of_cells() {
    let cells = GridShape { frames: 4, rows: 7, columns: 7 };
    let sizes = CpcSizes { channels: 64, targets: 64, width: 32, blocks: 3, offsets: 5 };
    let net: CpcNetwork<f32> = CpcNetwork::start(sizes, &mut ChaCha8Rng::seed_from_u64(5));
    let z = (random(196, 64, 6) * 3f64.sqrt()).mapv(|x| x as f32);
    let pass = net.pass(z.view(), cells, 1, InfoNce { scale: 0.1 }, None, &mut net.zeros_like());
    assert!((pass.value - 196f64.ln()).abs() < 0.2, "{}", pass.value);
}
