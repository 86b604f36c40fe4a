#![allow(clippy::unwrap_used, reason = "tests")]
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::head::{Mlp, Scratch};
use crate::linalg::random::uniform;

const GRID: Grid = Grid { rows: 3, columns: 2, dim: 5 };

fn random(n: usize, d: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
    Array2::from_shape_simple_fn((n, d), || (2.0 * uniform(rng) - 0.7) as f32)
}

fn rows(n: usize) -> Array2<f32> {
    let mut rows = random(n, GRID.numbers(), &mut ChaCha8Rng::seed_from_u64(1));
    slices_mut(&mut rows).for_each(|row| assert!(normalise(row) > 0.0));
    rows
}

fn learned(trained: bool) -> HeadParams {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mean = random(1, 5, &mut rng).remove_axis(Axis(0)) * 0.1;
    let slow = random(5, 4, &mut rng);
    let mut mlp = Mlp::start(4, 7, &mut rng);
    if trained {
        mlp.w2 = random(4, 7, &mut rng);
    }
    HeadParams { mean, slow, mlp: Some(mlp), alpha: 0.5, form: EmbeddingKind::Single }
}

fn heads() -> Vec<Head> {
    let context = Context::start(4, 3, 2, &mut ChaCha8Rng::seed_from_u64(3));
    let grid = |context| Head::Grid(Box::new(GridHead { grid: GRID, learned: learned(true), context }));
    vec![
        Head::Identity { dim: 5 }.pooling(GRID),
        Head::Learned(learned(true)).pooling(GRID),
        grid(None),
        grid(Some(context)),
    ]
}

#[test]
fn a_strong_cell_counts_more_in_the_pooled_latent() {
    let mut row = vec![0.0; GRID.numbers()];
    // One cell of length 3 along the first axis, one of length 1 along the second.
    (row[0], row[6]) = (3.0, 1.0);
    assert!((normalise(&mut row) - 10f32.sqrt()).abs() < 1e-6);
    let mut pooled = vec![0.0; GRID.dim];
    assert!(GRID.pool(&row, &mut pooled));
    assert!((pooled[0] / pooled[1] - 3.0).abs() < 1e-6 && (norm(&pooled) - 1.0).abs() < 1e-6);
    assert!(!GRID.pool(&[0.0; 30], &mut pooled));
}

#[test]
fn the_mean_of_the_cells_is_the_pooled_latent() {
    let rows = rows(4);
    let (pooled, cells) = (GRID.pooled(rows.view()), GRID.cells_of(rows.view()));
    for (i, pooled) in pooled.rows().into_iter().enumerate() {
        let mean = cells.slice(ndarray::s![6 * i..6 * i + 6, ..]).mean_axis(Axis(0)).unwrap();
        assert!((&mean - &pooled).iter().all(|x| x.abs() < 1e-6));
        assert!((pooled.dot(&pooled) - 1.0).abs() < 1e-6);
        // Cells keep their direction.
        let (cell, row) = (cells.row(6 * i + 4), rows.row(i));
        let of = row.slice(ndarray::s![20..25]);
        let cosine = cell.dot(&of) / (cell.dot(&cell) * of.dot(&of)).sqrt();
        assert!((cosine - 1.0).abs() < 1e-5, "{cosine}");
    }
}

#[test]
fn before_training_the_projected_grid_is_the_slow_head_at_the_pooled_latent() {
    let rows = rows(20);
    let projected = Head::Grid(Box::new(GridHead { grid: GRID, learned: learned(false), context: None }));
    let slow = Head::Learned(HeadParams { mlp: None, ..learned(false) }).pooling(GRID);
    let (a, b) = (projected.embed_rows(rows.view()), slow.embed_rows(rows.view()));
    assert!((a - b).iter().all(|x| x.abs() < 1e-5));
    let trained = Head::Grid(Box::new(GridHead { grid: GRID, learned: learned(true), context: None }));
    assert!((trained.embed_rows(rows.view()) - slow.embed_rows(rows.view())).iter().any(|x| x.abs() > 1e-2));
}

#[test]
fn one_at_a_time_equals_many_at_once() {
    let rows = rows(19);
    for head in heads() {
        head.check().unwrap();
        assert_eq!((head.dim_in(), head.latent_dim(), head.finite()), (30, 5, true));
        let all = head.embed_rows(rows.view());
        for (row, right) in rows.rows().into_iter().zip(all.rows()) {
            let mut out = vec![f32::NAN; head.dim_out()];
            head.embed(row.as_slice().unwrap(), &mut out, &mut Scratch::new());
            assert!(out.iter().zip(right).all(|(a, b)| (a - b).abs() < 1e-6));
            assert!((norm(&out) - 1.0).abs() < 1e-5);
        }
        let mut broken = rows.row(0).to_vec();
        broken[7] = f32::NAN;
        let mut out = vec![1.0; head.dim_out()];
        head.embed(&broken, &mut out, &mut Scratch::new());
        assert!(out.iter().all(|x| *x == 0.0));
    }
}

#[test]
fn cells_go_through_the_head_one_by_one() {
    let rows = rows(1);
    let row = rows.as_slice().unwrap();
    for (i, head) in heads().into_iter().enumerate() {
        let cells = head.embed_cells(GRID, row).unwrap();
        assert_eq!(cells.dim(), (6, head.dim_out()));
        assert!(cells.rows().into_iter().all(|cell| (cell.dot(&cell) - 1.0).abs() < 1e-5));
        if i == 0 {
            let mut of = rows.to_shape((6, 5)).unwrap().into_owned();
            slices_mut(&mut of).for_each(|cell| assert!(normalise(cell) > 0.0));
            assert!((&cells - &of).iter().all(|x| x.abs() < 1e-6), "frozen cells are the latent's, of unit length");
        }
        assert!(head.embed_cells(GRID, &row[1..]).is_none());
    }
}

#[test]
fn check_names_what_does_not_fit() {
    let broken = |head: GridHead| Head::Grid(Box::new(head)).check().unwrap_err().to_string();
    let wide = Grid { dim: 6, ..GRID };
    assert!(broken(GridHead { grid: wide, learned: learned(true), context: None }).contains("does not fit a grid"));
    let context = Some(Context::zeros(9, 2, 1));
    assert!(broken(GridHead { grid: GRID, learned: learned(true), context }).contains("context network"));
}
