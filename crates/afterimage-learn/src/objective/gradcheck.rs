//! Shared by the tests of all losses: random batches and finite differences.
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::{Objective, PairMask};
use crate::linalg::random::uniform;

/// Two batches `[n, d]`, the second close to the first.
pub(super) fn batch(n: usize, d: usize, seed: u64) -> (Array2<f64>, Array2<f64>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let a = Array2::from_shape_simple_fn((n, d), || 2.0 * uniform(&mut rng) - 1.0);
    let b = &a + &Array2::from_shape_simple_fn((n, d), || uniform(&mut rng) - 0.5);
    (a, b)
}

/// Pairs 0 and 1 mask each other; pair 2 has no negatives at all.
pub(super) fn mask(n: usize) -> Array2<bool> {
    Array2::from_shape_fn((n, n), |(i, j)| !(i == 2 || i + j == 1 || i == j))
}

/// Compares `found`, the gradient of `value` at `x`, with central differences.
pub(super) fn gradient(found: &Array2<f64>, x: &Array2<f64>, value: impl Fn(&Array2<f64>) -> f64) {
    let step = 1e-6;
    let scale = found.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(scale > 1e-3, "no gradient to test");
    assert_eq!(found.dim(), x.dim());
    for (at, found) in found.indexed_iter() {
        let moved = |by: f64| {
            let mut x = x.clone();
            x[at] += by;
            value(&x)
        };
        let error = (found - (moved(step) - moved(-step)) / (2.0 * step)).abs();
        assert!(error < 1e-7 * scale.max(1.0), "entry {at:?}: {error:e} of {scale}");
    }
}

/// Checks both gradients of a loss over pairs, with and without a mask and segments of which three pairs share one.
pub(super) fn pairs(objective: &dyn Objective<f64>) {
    let (a, b) = batch(6, 5, 1);
    let mask = mask(6);
    let segments = [4, 9, 4, 1, 4, 2];
    for negatives in [None, Some(mask.view())] {
        for segments in [None, Some(segments.as_slice())] {
            let relations = PairMask { negatives, segments };
            let loss = |a: &Array2<f64>, b: &Array2<f64>| objective.loss(a.view(), b.view(), &relations);
            let found = loss(&a, &b);
            gradient(&found.grad_a, &a, |a| loss(a, &b).value);
            gradient(&found.grad_b, &b, |b| loss(&a, b).value);
        }
    }
}

/// Checks that a contrastive loss without negatives is 0, as is its gradient.
pub(super) fn no_negatives_give_nothing(objective: &dyn Objective<f64>) {
    let (a, b) = batch(3, 4, 2);
    let none = Array2::from_elem((3, 3), false);
    let relations = PairMask { negatives: Some(none.view()), segments: None };
    let loss = objective.loss(a.view(), b.view(), &relations);
    assert!(loss.value.abs() < 1e-15 && loss.grad_a.iter().all(|x| x.abs() < 1e-15));
    // So is that of a single pair, which has no negatives.
    let (one, other) = (a.slice(ndarray::s![..1, ..]), b.slice(ndarray::s![..1, ..]));
    let loss = objective.loss(one, other, &PairMask::default());
    assert!(loss.value.abs() < 1e-15 && loss.grad_b.iter().all(|x| x.abs() < 1e-15));
    let (one, other) = (a.slice(ndarray::s![..0, ..]), b.slice(ndarray::s![..0, ..]));
    let none = objective.loss(one, other, &PairMask::default());
    assert_eq!((none.value, none.grad_a.dim()), (0.0, (0, 4)));
}

/// With a zero row, a very long row and a mask, everything stays finite, and the zero row has no gradient.
pub(super) fn extremes(objective: &dyn Objective<f32>) {
    let (mut a, b) = batch(4, 6, 3);
    a.row_mut(1).fill(0.0);
    let (mut a, b) = (a.mapv(|x| x as f32), b.mapv(|x| x as f32));
    a.row_mut(2).mapv_inplace(|x| x * 1e25);
    let mask = mask(4);
    let relations = PairMask { negatives: Some(mask.view()), segments: None };
    let loss = objective.loss(a.view(), b.view(), &relations);
    assert!(loss.value.is_finite());
    assert!(loss.grad_a.iter().chain(&loss.grad_b).all(|x| x.is_finite()));
    assert!(loss.grad_a.row(1).iter().all(|&x| x == 0.0));
}
