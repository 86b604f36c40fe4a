#![allow(clippy::unwrap_used, reason = "tests")]
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::head::{EmbeddingKind, HeadParams};
use crate::linalg::random::uniform;
use crate::linalg::unit_rows;
use crate::sampling::Block;

fn random(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |_| uniform(rng) as f32 - 0.5)
}

fn x(columns: usize) -> Array2<f32> {
    Array2::ones((2, columns))
}

fn slow(d: usize, k: usize, rng: &mut ChaCha8Rng) -> HeadParams {
    HeadParams { mean: Array1::zeros(d), slow: random(d, k, rng), mlp: None, alpha: 1.0, form: EmbeddingKind::Single }
}

/// Blocks of frames that vary around a centre of their own.
fn blocks(count: u64, d: usize, rng: &mut ChaCha8Rng) -> Vec<Block> {
    let block = |number| {
        let centre = random(1, d, rng);
        let latents = unit_rows(&(random(12, d, rng) * 0.6 + &centre)).0;
        Block { number, latents, ..Block::default() }
    };
    (0..count).map(block).collect()
}

#[test]
fn a_known_rotation_is_recovered_and_a_turned_head_needs_no_map() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let old = slow(20, 8, rng);
    let turn = semi_orthogonal(random(8, 8, rng).mapv(f64::from).view()).unwrap();
    let new = Head::Learned(old.clone()).turned(turn.view()).unwrap();
    let old = Head::Learned(old);
    let references = unit_rows(&random(300, 20, rng)).0;
    let (x, y) = (old.embed_rows(references.view()), new.embed_rows(references.view()));
    let back = procrustes_rotation(x.view(), y.view()).unwrap();
    assert!((product(turn.view(), back.view()) - Array2::<f64>::eye(8)).iter().all(|d| d.abs() < 1e-5));
    let found = rotation(wide(x.view()).view(), wide(y.view()).view()).unwrap();
    assert!((found.matrix.mapv(f64::from) - &turn).iter().all(|d| d.abs() < 1e-5));
    let held = RetrievalSplit::of(&blocks(12, 20, rng)).unwrap();
    let fitted = fit(&old, &new, references.view(), Some(&held)).unwrap();
    let hits = fitted.hits.unwrap();
    assert!(hits.within > 0.5 && hits.rate() > 0.99, "{hits:?}");
    assert!(fitted.as_is.unwrap() < 0.8 * hits.within, "as they are they do not fit: {fitted:?}");
    let straight = fit(&old, &new.turned(back.view()).unwrap(), references.view(), Some(&held)).unwrap();
    assert!((straight.as_is.unwrap() - straight.hits.unwrap().within).abs() < 1e-9, "turned back they do");
}

#[test]
fn sizes_may_differ_and_references_be_few() {
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    for (p, q, n) in [(6, 10, 200), (10, 6, 200), (10, 12, 4), (12, 10, 4)] {
        let (old, new) = (Head::Learned(slow(24, p, rng)), Head::Learned(slow(24, q, rng)));
        let references = unit_rows(&random(n, 24, rng)).0;
        let (x, y) = (wide(old.embed_rows(references.view()).view()), wide(new.embed_rows(references.view()).view()));
        let found = rotation(x.view(), y.view()).unwrap().matrix.mapv(f64::from);
        let square = if p <= q { product(found.view(), found.t()) } else { product(found.t(), found.view()) };
        assert!((square - Array2::<f64>::eye(p.min(q))).iter().all(|d| d.abs() < 1e-5), "{p} x {q} of {n}");
        let fitted = fit(&old, &new, references.view(), None).unwrap();
        assert_eq!(
            (fitted.map.matrix.dim(), fitted.map.kind, fitted.hits, fitted.as_is),
            ((p, q), MapKind::Affine, None, None)
        );
        assert_eq!(fitted.references, n);
        fitted.map.check().unwrap();
        assert_eq!(fitted, fit(&old, &new, references.view(), None).unwrap(), "the same each time");
    }
}

#[test]
fn both_forms_of_the_ridge_are_one() {
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    for (n, p) in [(9, 14), (14, 9)] {
        let (x, y) = (random(n, p, rng).mapv(f64::from), random(n, 5, rng).mapv(f64::from));
        let centred = |m: &Array2<f64>| m - &m.mean_axis(Axis(0)).unwrap();
        let (a, b) = (centred(&x), centred(&y));
        let strength = STRENGTH * (&a * &a).sum() / p as f64;
        let gram = product(a.t(), a.view()) + Array2::<f64>::eye(p) * strength;
        let right = solve_symmetric(gram.view(), product(a.t(), b.view()).view()).unwrap();
        let found = affine(x.view(), y.view()).unwrap();
        assert!((found.matrix.mapv(f64::from) - &right).iter().all(|d| d.abs() < 1e-5), "{n} x {p}");
        // The mean maps to the mean.
        let mean = x.mean_axis(Axis(0)).unwrap().dot(&right) + found.offset.mapv(f64::from);
        assert!((mean - y.mean_axis(Axis(0)).unwrap()).iter().all(|d| d.abs() < 1e-5));
    }
}

#[test]
fn from_the_frozen_latents_the_head_itself_is_the_map() {
    let rng = &mut ChaCha8Rng::seed_from_u64(4);
    let (frozen, new) = (Head::Identity { dim: 20 }, Head::Learned(slow(20, 6, rng)));
    let references = unit_rows(&random(50, 20, rng)).0;
    let held = RetrievalSplit::of(&blocks(6, 20, rng)).unwrap();
    let there = fit(&frozen, &new, references.view(), Some(&held)).unwrap();
    assert_eq!((there.map.kind, there.hits.unwrap().rate(), there.as_is), (MapKind::Head, 1.0, None));
    let back = fit(&new, &frozen, references.view(), Some(&held)).unwrap();
    assert_eq!((back.map.matrix.dim(), back.queries), ((6, 20), held.queries.nrows()));
    assert!(back.hits.unwrap().rate() > 0.3 && back.map.kind != MapKind::Head);
    // Embeddings next to the frozen latents lose nothing either.
    let beside = Head::Learned(HeadParams { form: EmbeddingKind::BesideFrozen, ..slow(20, 4, rng) });
    for to in [&new, &frozen, &beside.clone().turned(Array2::eye(4).view()).unwrap()] {
        let there = fit(&beside, to, references.view(), Some(&held)).unwrap();
        assert_eq!((there.map.kind, there.references), (MapKind::Head, 0));
        let carried = apply_map(&beside, to, &there.map, beside.embed_rows(references.view()).view()).unwrap();
        assert!((carried - to.embed_rows(references.view())).iter().all(|d| d.abs() < 1e-5));
    }
    let none = SpaceMap { kind: MapKind::Head, matrix: Array2::zeros((0, 0)), offset: Array1::zeros(0) };
    assert!(
        apply_map(&new, &beside, &none, references.view()).is_err()
            && apply_map(&frozen, &new, &none, x(7).view()).is_err()
    );
}

#[test]
fn what_is_not_finite_is_refused() {
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    let (x, mut y) = (random(30, 6, rng), random(30, 6, rng));
    y[[3, 4]] = f32::NAN;
    assert!(procrustes_rotation(x.view(), y.view()).unwrap_err().to_string().contains("not finite"));
    let (x, y) = (wide(x.view()), wide(y.view()));
    assert!(rotation(x.view(), y.view()).is_err() && affine(x.view(), y.view()).is_err());
    assert!(affine(x.slice(ndarray::s![..0, ..]), x.slice(ndarray::s![..0, ..])).is_err());
}
