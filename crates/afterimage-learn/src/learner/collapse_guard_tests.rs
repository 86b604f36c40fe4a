use ndarray::{Array1, Array2};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::config::LearnerConfig;
use crate::head::{EmbeddingKind, Head, HeadParams};

fn residual(seed: u64) -> Residual {
    let slow = Array2::eye(8);
    let base = HeadParams { mean: Array1::zeros(8), slow, mlp: None, alpha: 1.0, form: EmbeddingKind::Single };
    Residual::start(base, &LearnerConfig::default(), None, &mut ChaCha8Rng::seed_from_u64(seed))
}

fn same(a: &Residual, b: &Residual) -> bool {
    matches!((a.head(), b.head()), (Head::Learned(a), Head::Learned(b)) if a == b)
}

/// Health of a sound head, with one measure changed.
fn health(change: impl Fn(&mut EmbeddingHealth)) -> EmbeddingHealth {
    let z = Array2::from_shape_fn((40, 8), |(i, j)| (0.37 * (i * 8 + j) as f64).sin());
    let mut health = EmbeddingHealth::floors(z.view(), &(0..40).map(|i| i / 4).collect::<Vec<u64>>());
    (health.spread, health.rank, health.uniformity, health.retrieval) = (1.0, 8.0, -3.0, 0.8);
    change(&mut health);
    health
}

#[test]
fn each_measure_warns_and_rolls_back() {
    type Change = fn(&mut EmbeddingHealth);
    let cases: [(Change, LearnerStatus, &str); 10] = [
        (|_| {}, LearnerStatus::Learning, "sound"),
        (|h| h.spread = 0.65, LearnerStatus::Holding, "spread"),
        (|h| h.spread = 0.45, LearnerStatus::RolledBack, "spread"),
        (|h| h.rank = 3.9, LearnerStatus::Holding, "rank"),
        (|h| h.rank = 1.9, LearnerStatus::RolledBack, "rank"),
        (|h| h.uniformity = -1.4, LearnerStatus::Holding, "uniformity"),
        (|h| h.uniformity = -0.9, LearnerStatus::RolledBack, "uniformity"),
        (|h| h.finite = false, LearnerStatus::RolledBack, "not finite"),
        (|h| h.retrieval = 0.76, LearnerStatus::Learning, "sound"),
        // A higher value is just as good.
        (|h| h.retrieval = 1.0, LearnerStatus::Learning, "sound"),
    ];
    for (change, to, why) in cases {
        let (mut watch, sound, mut now) = (CollapseGuard::new(), residual(1), residual(2));
        watch.begin(&sound);
        let (from, reason) = watch.check(&mut now, &health(change), &health(|_| {})).unwrap();
        assert_eq!((from, watch.memory.state), (LearnerStatus::Warming, to), "{reason}");
        assert!(reason.contains(why), "{reason}");
        assert_eq!(same(&now, &sound), to == LearnerStatus::RolledBack, "{reason}");
        assert_eq!(watch.memory.rate, if to == LearnerStatus::RolledBack { 0.3 } else { 1.0 });
    }
    // If the slow head itself is uneven, that is no collapse.
    let (mut watch, mut now) = (CollapseGuard::new(), residual(2));
    let uneven = health(|h| h.uniformity = -0.5);
    assert_eq!(watch.check(&mut now, &uneven, &uneven), Some((LearnerStatus::Warming, "sound".into())));
}

#[test]
fn doubts_that_stay_are_a_collapse_and_those_that_go_are_none() {
    let (mut watch, sound, mut now) = (CollapseGuard::new(), residual(1), residual(2));
    watch.begin(&sound);
    let (low, fine) = (health(|h| h.retrieval = 0.74), health(|_| {}));
    for _ in 0..3 {
        assert_eq!(watch.check(&mut now, &low, &fine), None);
        assert_eq!(watch.check(&mut now, &low, &fine), None);
        watch.check(&mut now, &fine, &fine);
    }
    assert_eq!(watch.memory.state, LearnerStatus::Learning);
    // A rollback never returns to doubtful weights.
    let mut later = residual(3);
    assert_eq!(watch.check(&mut later, &low, &fine), None);
    assert_eq!(watch.check(&mut later, &low, &fine), None);
    let (from, reason) = watch.check(&mut later, &low, &fine).unwrap();
    assert_eq!((from, watch.memory.state), (LearnerStatus::Learning, LearnerStatus::RolledBack));
    assert!(reason == "TR@1 0.740, of the slow head 0.800, in 3 checks" && same(&later, &now), "{reason}");
}

#[test]
fn the_rate_recovers_with_sound_steps() {
    let (mut watch, mut now, fine) = (CollapseGuard::new(), residual(1), health(|_| {}));
    watch.begin(&now.clone());
    watch.roll_back(&mut now);
    watch.roll_back(&mut now);
    assert!((watch.memory.rate - 0.09).abs() < 1e-12);
    let steps = |watch: &mut CollapseGuard, now: &mut Residual, steps: u64| {
        (0..steps).for_each(|_| {
            if watch.stepped(1.0, 50) {
                watch.check(now, &fine, &fine);
            }
        });
    };
    steps(&mut watch, &mut now, 950);
    assert!((watch.memory.rate - 0.09).abs() < 1e-12);
    steps(&mut watch, &mut now, 50);
    assert!((watch.memory.rate - 0.18).abs() < 1e-12);
    steps(&mut watch, &mut now, 4000);
    assert_eq!(watch.memory.rate, 1.0, "never above the configured one");
}

#[test]
fn only_gradients_out_of_proportion_are_refused() {
    let mut watch = CollapseGuard::new();
    for _ in 0..15 {
        watch.stepped(0.5, 1000);
    }
    assert_eq!(watch.most_norm(1.0), f64::INFINITY, "too few to tell");
    watch.stepped(100.0, 1000);
    assert_eq!(watch.most_norm(1.0), 5.0);
    for _ in 0..64 {
        watch.stepped(1e-4, 1000);
    }
    assert_eq!(watch.most_norm(1.0), 1.0, "what clipping lets pass is followed");
    assert_eq!(watch.norm(), Some(1e-4));
}
