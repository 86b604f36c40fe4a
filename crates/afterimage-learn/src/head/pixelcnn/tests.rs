#![allow(clippy::unwrap_used, reason = "tests")]
use ndarray::{Array2, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::{Context, GridShape};
use crate::linalg::random::uniform;

/// One output channel of one cell: of all cells, the frame, the row, the column and the channel.
type OfCell<'a> = &'a dyn Fn(&Array2<f64>, usize, isize, isize, usize) -> f64;

const SHAPES: [GridShape; 4] = [
    GridShape { frames: 2, rows: 4, columns: 3 },
    GridShape { frames: 3, rows: 5, columns: 1 },
    GridShape { frames: 1, rows: 1, columns: 4 },
    GridShape { frames: 2, rows: 2, columns: 2 },
];

fn random(n: usize, c: usize, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((n, c), || 2.0 * uniform(&mut rng) - 1.0)
}

fn network(seed: u64) -> Context<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut context = Context::start(5, 4, 2, &mut rng);
    context.parts_mut().into_iter().for_each(|(_, part)| part.iter_mut().for_each(|x| *x *= 1.5));
    context
}

/// The convolutions computed cell by cell from the formula.
fn by_hand(net: &Context<f64>, x: &Array2<f64>, cells: GridShape) -> Array2<f64> {
    let (w, m) = (cells.columns as isize, net.width());
    let mut x = x.clone();
    for n in 0..net.blocks() {
        let at = |x: &Array2<f64>, frame: usize, row: isize, column: isize, channel: usize| {
            let inside = row >= 0 && (0..w).contains(&column);
            if inside { x[[frame * cells.per_frame() + (row * w + column) as usize, channel]] } else { 0.0 }
        };
        let map = |x: &Array2<f64>, out: usize, f: OfCell| {
            Array2::from_shape_fn((cells.count(), out), |(i, o)| {
                let (frame, cell) = (i / cells.per_frame(), (i % cells.per_frame()) as isize);
                f(x, frame, cell / w, cell % w, o)
            })
        };
        let first = map(&x, m, &|x, f, r, c, o| {
            let sum: f64 = (0..net.channels()).map(|k| net.w_in[[n, o, k]] * at(x, f, r, c, k)).sum();
            (sum + net.b_in[[n, o]]).max(0.0)
        });
        let flat = map(&first, m, &|x, f, r, c, o| {
            let tap = |t: usize, k| net.w_across[[n, o, t * m + k]] * at(x, f, r, c + t as isize - 1, k);
            (0..3).flat_map(|t| (0..m).map(move |k| (t, k))).map(|(t, k)| tap(t, k)).sum::<f64>() + net.b_across[[n, o]]
        });
        let act = map(&flat, m, &|x, f, r, c, o| {
            let tap = |t: usize, k| net.w_down[[n, o, t * m + k]] * at(x, f, r + t as isize - 1, c, k);
            let sum: f64 = (0..2).flat_map(|t| (0..m).map(move |k| (t, k))).map(|(t, k)| tap(t, k)).sum();
            (sum + net.b_down[[n, o]]).max(0.0)
        });
        x = &x
            + &map(&act, net.channels(), &|x, f, r, c, o| {
                (0..m).map(|k| net.w_out[[n, o, k]] * at(x, f, r, c, k)).sum::<f64>() + net.b_out[[n, o]]
            });
    }
    x
}

#[test]
fn is_the_convolutions_of_its_formula() {
    for cells in SHAPES {
        let (net, x) = (network(1), random(cells.count(), 5, 2));
        let (out, _) = net.forward(x.view(), cells);
        assert!((&out - &by_hand(&net, &x, cells)).iter().all(|x| x.abs() < 1e-12), "{cells:?}");
        assert_eq!(net.rows(x.view(), cells), out);
    }
}

#[test]
fn a_row_below_changes_nothing_above_it() {
    for cells in SHAPES {
        let (net, x) = (network(3), random(cells.count(), 5, 4));
        let (before, _) = net.forward(x.view(), cells);
        for changed in 0..cells.count() {
            let mut other = x.clone();
            other.row_mut(changed).mapv_inplace(|x| x + 1.0);
            let (after, _) = net.forward(other.view(), cells);
            let place = |i: usize| (i / cells.per_frame(), i % cells.per_frame() / cells.columns);
            let (frame, row) = place(changed);
            for i in 0..cells.count() {
                let same = before.row(i) == after.row(i);
                let (f, r) = place(i);
                assert!(same || (f == frame && r >= row), "{cells:?}: cell {changed} changed cell {i}");
            }
            assert_ne!(before.row(changed), after.row(changed));
        }
    }
}

#[test]
fn sees_the_rows_above_and_the_columns_beside() {
    let cells = GridShape { frames: 1, rows: 4, columns: 5 };
    let (net, x) = (network(3), random(20, 5, 5));
    let (before, _) = net.forward(x.view(), cells);
    let mut other = x.clone();
    // Two blocks reach two rows down and two columns to each side.
    other.row_mut(2).mapv_inplace(|x| x + 3.0);
    let (after, _) = net.forward(other.view(), cells);
    let moved: Vec<usize> = (0..20).filter(|&i| before.row(i) != after.row(i)).collect();
    assert!(moved.contains(&2) && moved.iter().any(|i| i / 5 == 2) && moved.iter().all(|i| i / 5 < 3), "{moved:?}");
    assert!(moved.iter().any(|i| i % 5 == 0) || moved.iter().any(|i| i % 5 == 4), "{moved:?}");
}

#[test]
fn every_parameter_agrees_with_finite_differences() {
    for cells in SHAPES {
        let (net, x) = (network(6), random(cells.count(), 5, 7));
        let weight = random(cells.count(), 5, 8);
        let value = |net: &Context<f64>, x: &Array2<f64>| (&net.forward(x.view(), cells).0 * &weight).sum();
        let (_, cache) = net.forward(x.view(), cells);
        let mut grads = Context::zeros(5, 4, 2);
        let grad_x = net.backward(&cache, weight.view(), &mut grads);
        let step = 1e-6;
        let close = |found: f64, up: f64, down: f64, what: &str| {
            let error = (found - (up - down) / (2.0 * step)).abs();
            assert!(error < 1e-7 * found.abs().max(1.0), "{cells:?}, {what}: {found} is off by {error:e}");
        };
        for part in 0..8 {
            let (name, found) = grads.parts()[part];
            assert!(found.iter().any(|x| x.abs() > 1e-3), "{name}: no gradient to test");
            for (i, &found) in found.iter().enumerate() {
                let moved = |by: f64| {
                    let mut net = net.clone();
                    net.parts_mut()[part].1[i] += by;
                    value(&net, &x)
                };
                close(found, moved(step), moved(-step), &format!("{name}[{i}]"));
            }
        }
        for ((i, j), &found) in grad_x.indexed_iter() {
            let moved = |by: f64| {
                let mut x = x.clone();
                x[[i, j]] += by;
                value(&net, &x)
            };
            close(found, moved(step), moved(-step), &format!("input [{i}, {j}]"));
        }
    }
}

#[test]
fn frames_do_not_mix() {
    let cells = GridShape { frames: 3, rows: 3, columns: 2 };
    let (net, x) = (network(9), random(18, 5, 10));
    let (all, _) = net.forward(x.view(), cells);
    for frame in 0..3 {
        let rows = s![6 * frame..6 * frame + 6, ..];
        let (alone, _) = net.forward(x.slice(rows), GridShape { frames: 1, ..cells });
        assert!((&alone - &all.slice(rows)).iter().all(|x| x.abs() < 1e-13));
    }
}

#[test]
fn check_names_the_part_that_does_not_fit() {
    let net = network(11);
    net.check(5).unwrap();
    assert!(net.check(6).unwrap_err().to_string().contains("w_in"));
    let mut broken = net;
    broken.w_down = ndarray::Array3::zeros((2, 4, 7));
    assert!(broken.check(5).unwrap_err().to_string().contains("w_down"));
}
