use ndarray::{Axis, array};

use super::*;

/// The input of the golden values.
fn x(n: usize, d: usize, s: f64) -> Array2<f64> {
    Array2::from_shape_fn((n, d), |(i, j)| {
        (0.37 * (i * d + j) as f64 + s).sin() + 0.5 * (1.3 * (i * j) as f64 + 2.0 * s).cos()
    })
}

fn near(found: f64, right: f64) {
    assert!((found - right).abs() < 1e-9 * right.abs(), "{found} is not {right}");
}

#[test]
fn golden_values() {
    let z = x(64, 8, 0.4);
    near(rank_me(z.view()), 6.25082718971786);
    near(rank_me(z.t()), 6.25082718971786);
    near(uniformity(z.view()), -2.053478860933893);
    near(alignment(x(4, 8, 0.11).view(), x(4, 8, 0.53).view()), 0.19477430181587663);
    near(spread(z.view()), 0.35265847087598323);
    // The `f32` version agrees to the precision of `f32`.
    let narrow = z.mapv(|x| x as f32);
    assert!((rank_me(narrow.view()) - 6.25082718971786).abs() < 1e-5);
    assert!((uniformity(narrow.view()) + 2.053478860933893).abs() < 1e-5);
}

#[test]
fn extremes() {
    let equal = Array2::<f64>::ones((100, 16));
    assert!(spread(equal.view()) < 1e-12 && uniformity(equal.view()).abs() < 1e-12);
    assert!((rank_me(equal.view()) - 1.0).abs() < 1e-4);
    assert!((rank_me(Array2::<f32>::eye(16).view()) - 16.0).abs() < 1e-3);
    assert_eq!(rank_me(Array2::<f64>::zeros((5, 4)).view()), 0.0);
    assert_eq!(alignment(equal.view(), equal.view()), 0.0);
    let opposite = array![[1.0, 0.0], [-3.0, 0.0]];
    assert!((uniformity(opposite.view()) + 8.0).abs() < 1e-12);
    let one = Array2::<f64>::ones((1, 4));
    assert!(spread(one.view()).is_nan() && uniformity(one.view()).is_nan());
    assert!(alignment(one.view(), equal.view()).is_nan());
    let none = Array2::<f32>::zeros((0, 4));
    assert!(uniformity(none.view()).is_nan() && retrieval_at_1(none.view(), &[]).is_nan());
    assert_eq!(rank_me(none.view()), 0.0);
}

#[test]
fn retrieval_by_hand() {
    let angle = |degrees: &[f64]| {
        Array2::from_shape_fn((degrees.len(), 2), |(i, j)| {
            let a = degrees[i].to_radians();
            if j == 0 { a.cos() } else { a.sin() }
        })
    };
    // Block 1 at 0, 10 and 80 degrees, block 2 at 90 and 93, block 3 alone at 180: 80 is nearer to block 2.
    let z = angle(&[0.0, 10.0, 80.0, 90.0, 93.0, 180.0]);
    assert_eq!(retrieval_at_1(z.view(), &[1, 1, 1, 2, 2, 3]), 0.8);
    assert_eq!(retrieval_at_1(Array2::<f32>::ones((4, 3)).view(), &[1, 1, 2, 2]), 0.0, "ties are misses");
    assert!(retrieval_at_1(z.view(), &[1, 2, 3, 4, 5, 6]).is_nan());
    assert!(retrieval_at_1(z.view(), &[1]).is_nan());
    // More rows than a chunk.
    let many = angle(&(0..200).map(|i| f64::from(i / 2) + 0.1 * f64::from(i % 2)).collect::<Vec<_>>());
    assert_eq!(retrieval_at_1(many.view(), &(0..200).map(|i| i / 2).collect::<Vec<_>>()), 1.0);
}

#[test]
fn a_glance_at_everything() {
    let z = x(64, 8, 0.4);
    let block: Vec<u64> = (0..64).map(|i| i / 4).collect();
    let health = EmbeddingHealth::of(z.view(), &block);
    assert_eq!((health.frames, health.dim, health.finite), (64, 8, true));
    near(health.spread, 0.35265847087598323 * 8f64.sqrt());
    near(health.uniformity, -2.053478860933893);
    let pairs: Vec<usize> = (1..64).filter(|i| i % 4 != 0).collect();
    let of = |shift: usize| z.select(Axis(0), &pairs.iter().map(|i| i - shift).collect::<Vec<_>>());
    near(health.alignment, alignment(of(1).view(), of(0).view()));
    assert!(health.rank > 5.0 && health.rank < 8.0 && (0.0..=1.0).contains(&health.retrieval));
    let mut broken = z.mapv(|x| x as f32);
    broken[[3, 3]] = f32::NAN;
    let health = EmbeddingHealth::of(broken.view(), &block);
    assert!(!health.finite && health.rank.is_nan() && health.retrieval.is_nan());
    let text = serde_json::to_string(&health).expect("json");
    assert!(text.contains("\"rank\":null"), "{text}");
}

/// Values of the formulas computed with NumPy (`f64`, LAPACK).
#[test]
fn golden_values_of_separation() {
    let blocks = |n: u64| (0..n).map(|i| i / 5).collect::<Vec<u64>>();
    let z = x(50, 8, 0.4);
    near(auroc(z.view(), &blocks(50)), 0.4075555555555555);
    near(lidar(z.view(), &blocks(50)), 1.199079144270806);
    near(participation(x(64, 8, 0.4).view()), 2.6049490647901896);
    near(participation(x(64, 8, 0.4).t()), participation(x(64, 8, 0.4).t().as_standard_layout().view()));
    near(drift(x(12, 8, 0.11).view(), x(12, 5, 0.53).view()), 1.2103198745365682);
    // More columns than rows.
    let wide = lidar(x(20, 33, 0.4).view(), &blocks(20));
    assert!((wide - 2.5004091114757645).abs() < 1e-5, "{wide}");
    let narrow = z.mapv(|x| x as f32);
    assert!((lidar(narrow.view(), &blocks(50)) - 1.199079144270806).abs() < 1e-5);
    assert!((auroc(narrow.view(), &blocks(50)) - 0.4075555555555555).abs() < 1e-5);
    let health = EmbeddingHealth::of(z.view(), &blocks(50));
    near(health.auroc, 0.4075555555555555);
    near(health.lidar, 1.199079144270806);
    let floors = EmbeddingHealth::floors(z.view(), &blocks(50));
    assert!(floors.auroc.is_nan() && floors.lidar.is_nan() && floors.rank == health.rank);
}

#[test]
fn extremes_of_separation() {
    // Two separate blocks, and one cluster.
    let apart = array![[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]];
    assert_eq!(auroc(apart.view(), &[1, 1, 2, 2]), 1.0);
    assert_eq!(auroc(Array2::<f32>::ones((4, 3)).view(), &[1, 1, 2, 2]), 0.0, "ties count against");
    assert!(auroc(apart.view(), &[1, 2, 3, 4]).is_nan() && auroc(apart.view(), &[1, 1, 1, 1]).is_nan());
    assert!(auroc(apart.view(), &[1]).is_nan() && lidar(apart.view(), &[1]).is_nan());
    assert!((lidar(apart.view(), &[1, 1, 2, 2]) - 1.0).abs() < 1e-6, "two blocks differ along one line");
    assert!(lidar(apart.view(), &[7; 4]).is_nan() && lidar(apart.view(), &[1, 2, 3, 4]).is_nan());
    assert_eq!(participation(Array2::<f64>::ones((5, 3)).view()), 0.0);
    // All four directions equal: the plus and minus unit vectors.
    let cross = Array2::from_shape_fn((8, 4), |(i, j)| if i / 2 == j { 1.0 - 2.0 * (i % 2) as f64 } else { 0.0 });
    near(participation(cross.view()), 4.0);
    // Rotated, mirrored or scaled embeddings have the same neighbourhoods.
    let z = x(20, 3, 0.2);
    let turned = Array2::from_shape_fn((20, 3), |(i, j)| 5.0 * if j == 2 { -z[[i, 0]] } else { z[[i, j + 1]] });
    assert!(drift(z.view(), turned.view()).abs() < 1e-12);
    assert!(drift(z.view(), x(20, 3, 1.9).view()) > 0.01);
    assert!(drift(z.view(), x(19, 3, 0.2).view()).is_nan());
}
