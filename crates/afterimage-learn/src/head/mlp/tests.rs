#![allow(clippy::unwrap_used, reason = "tests")]

use rand_chacha::rand_core::SeedableRng;

use super::*;

fn random(shape: (usize, usize), rng: &mut ChaCha8Rng) -> Array2<f64> {
    Array2::from_shape_simple_fn(shape, || 2.0 * uniform(rng) - 1.0)
}

/// A network with every array random.
fn mlp(k_in: usize, hidden: usize, k_out: usize, rng: &mut ChaCha8Rng) -> Mlp<f64> {
    let mut mlp = Mlp::start(k_in, hidden, rng);
    mlp.w2 = Array2::zeros((k_out, hidden));
    mlp.b2 = Array1::zeros(k_out);
    for (_, part) in mlp.parts_mut() {
        part.iter_mut().for_each(|x| *x += uniform(rng) - 0.3);
    }
    mlp
}

/// Compares `grads` with central differences of `value`, array by array.
fn compare(mlp: &Mlp<f64>, grads: &Mlp<f64>, value: impl Fn(&Mlp<f64>) -> f64) {
    let step = 1e-6;
    for part in 0..6 {
        let found = grads.parts()[part].1;
        let scale = found.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        assert!(scale > 1e-4, "{} has no gradient to test", grads.parts()[part].0);
        for (i, &gradient) in found.iter().enumerate() {
            let moved = |by: f64| {
                let mut mlp = mlp.clone();
                mlp.parts_mut()[part].1[i] += by;
                value(&mlp)
            };
            let right = (moved(step) - moved(-step)) / (2.0 * step);
            let error = (gradient - right).abs();
            assert!(error < 1e-7 * scale.max(1.0), "{}[{i}]: {error:e} of {scale}", grads.parts()[part].0);
        }
    }
}

#[test]
fn parameter_gradients_agree_with_finite_differences() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let mlp = mlp(5, 9, 4, rng);
    let (y, weights) = (random((6, 5), rng), random((6, 4), rng));
    let (_, cache) = mlp.forward(y.view());
    let mut grads = mlp.zeros_like();
    // The previous contents of `grads` must not matter.
    grads.w1.fill(f64::NAN);
    grads.b2.fill(7.0);
    mlp.backward(&cache, weights.view(), &mut grads);
    compare(&mlp, &grads, |mlp| (mlp.forward(y.view()).0 * &weights).sum());
}

#[test]
fn the_gradient_of_the_input_agrees_with_finite_differences() {
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    let mlp = Mlp::<f64>::random(5, 9, 4, rng);
    let (y, weights) = (random((3, 5), rng), random((3, 4), rng));
    let (_, cache) = mlp.forward(y.view());
    let (mut grads, mut other) = (mlp.zeros_like(), mlp.zeros_like());
    let found = mlp.backward_to_input(&cache, weights.view(), &mut grads);
    mlp.backward(&cache, weights.view(), &mut other);
    assert_eq!(grads, other);
    for (at, found) in found.indexed_iter() {
        let moved = |by: f64| {
            let mut y = y.clone();
            y[at] += by;
            (mlp.forward(y.view()).0 * &weights).sum()
        };
        let right = (moved(1e-6) - moved(-1e-6)) / 2e-6;
        assert!((found - right).abs() < 1e-7, "{at:?}: {found} {right}");
    }
}

#[test]
fn forms_of_the_forward_pass_agree() {
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let mlp = mlp(7, 20, 3, rng);
    let y = random((4, 7), rng);
    let right = mlp.forward(y.view()).0;
    let (mut hidden, mut out) = (Vec::new(), Vec::new());
    assert!((mlp.rows(y.view()) - &right).iter().all(|x| x.abs() < 1e-13));
    for (y, right) in y.rows().into_iter().zip(right.rows()) {
        mlp.apply(&y.to_vec(), &mut hidden, &mut out);
        assert!(out.iter().zip(right).all(|(a, b)| (a - b).abs() < 1e-13));
    }
}

#[test]
fn starts_at_zero_with_uniform_weights() {
    let mlp = Mlp::<f64>::start(16, 400, &mut ChaCha8Rng::seed_from_u64(4));
    assert_eq!(mlp, Mlp::start(16, 400, &mut ChaCha8Rng::seed_from_u64(4)));
    assert_ne!(mlp, Mlp::start(16, 400, &mut ChaCha8Rng::seed_from_u64(5)));
    mlp.check(16, 16).unwrap();
    assert!(mlp.w1.iter().chain(&mlp.b1).all(|x| x.abs() <= 0.25));
    // The variance of a uniform variable in +-1/4, to five standard errors.
    assert!((mlp.w1.var(0.0) - 1.0 / 48.0).abs() < 1.2e-3, "{}", mlp.w1.var(0.0));
    let y = random((3, 16), &mut ChaCha8Rng::seed_from_u64(6));
    assert!(mlp.forward(y.view()).0.iter().all(|&x| x == 0.0));
}

#[test]
fn a_constant_row_stays_finite() {
    let mut mlp = Mlp::<f32>::start(2, 4, &mut ChaCha8Rng::seed_from_u64(7));
    mlp.w1.fill(0.0);
    mlp.b1.fill(3.0);
    mlp.w2.fill(1.0);
    let (out, cache) = mlp.forward(Array2::ones((2, 2)).view());
    let mut grads = mlp.zeros_like();
    mlp.backward(&cache, Array2::ones((2, 2)).view(), &mut grads);
    assert!(out.iter().all(|&x| x == 0.0));
    assert!(grads.parts().iter().all(|(_, part)| part.iter().all(|x| x.is_finite())));
}
