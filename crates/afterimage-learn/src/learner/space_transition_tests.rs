use super::tests::{Stream, config, learner, origin};
use super::*;
use crate::spaces::MapKind;
use crate::state_dict::test_files::{load, save};

/// Fits often, so that heads of one size follow each other.
const OFTEN: [&str; 5] = [
    "learn.refit_growth=1.2",
    "learn.optimizer.frames_per_step=0",
    "head.dim=8",
    "head.candidates=['slow']",
    "promotion.min_interval_secs=0",
];

fn outcomes(learner: &mut Learner, stream: &mut Stream, frames: u64) -> Vec<FitOutcome> {
    (0..frames).filter_map(|_| learner.learn(&stream.next()).unwrap()).collect()
}

fn passages(overrides: &[&str]) -> Vec<SpaceTransition> {
    let mut learner = learner(&[&OFTEN[..], overrides].concat());
    let found = outcomes(&mut learner, &mut Stream::new(3), 4000);
    let promoted = found.iter().filter(|outcome| outcome.report.promoted.is_some()).count();
    let passages: Vec<SpaceTransition> = found.into_iter().filter_map(|outcome| outcome.transition).collect();
    assert_eq!(promoted, passages.len());
    assert!(promoted > 2, "too few promotions to show anything");
    passages
}

#[test]
fn every_promotion_has_a_map_and_turned_heads_stay_near_the_ones_before() {
    let (turned, free) = (passages(&[]), passages(&["head.align=false"]));
    assert_eq!((turned[0].from_head, turned[0].fitted.map.kind), (0, MapKind::Head));
    let mean = |all: &[SpaceTransition], of: fn(&SpaceTransition) -> f64| {
        all[1..].iter().map(of).sum::<f64>() / (all.len() - 1) as f64
    };
    let as_is = |p: &SpaceTransition| p.fitted.as_is.unwrap() / p.fitted.hits.unwrap().within;
    let mapped = |p: &SpaceTransition| p.fitted.hits.unwrap().rate();
    println!("as they are: turned {}, not {}", mean(&turned, as_is), mean(&free, as_is));
    println!("mapped: {}, {}", mean(&turned, mapped), mean(&free, mapped));
    assert!(mean(&turned, as_is) > 0.95 && mean(&free, as_is) < 0.8);
    assert!(mean(&turned, mapped) > 0.97 && mean(&free, mapped) > 0.97);
    for pair in turned.windows(2) {
        assert!(pair[1].from_head == pair[0].from_head + 1 && pair[1].fitted.references > 100);
        assert_eq!(pair[1].fitted.map.matrix.dim(), (8, 8));
    }
    assert_eq!(turned, passages(&[]), "the same each time");
}

#[test]
fn a_turn_changes_nothing_that_is_judged() {
    let of = |align: &str| {
        let mut learner = learner(&[&OFTEN[..], &[align]].concat());
        let found = outcomes(&mut learner, &mut Stream::new(3), 4000);
        found.into_iter().map(|outcome| outcome.report.reason).collect::<Vec<_>>()
    };
    assert_eq!(of("head.align=true"), of("head.align=false"));
}

#[test]
fn a_demotion_has_a_map_too() {
    let (mut learner, mut stream) =
        (learner(&["head.candidates=['slow+mlp']", "learn.optimizer.frames_per_step=0"]), Stream::new(2));
    learner.adopt(1, Arc::new(super::tests::keeps(8..super::tests::DIM)));
    let found = outcomes(&mut learner, &mut stream, 600);
    let passage = found[0].transition.as_ref().unwrap();
    assert_eq!((found[0].report.promoted, passage.from_head), (Some(2), 1));
    let dims = (super::tests::DIM - 8, super::tests::DIM);
    assert_eq!((passage.fitted.map.matrix.dim(), passage.fitted.as_is), (dims, None));
}

#[test]
fn one_that_goes_on_from_its_state_makes_the_same_heads_and_maps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let (mut whole, mut stream) = (learner(&OFTEN), Stream::new(3));
    let before = outcomes(&mut whole, &mut stream, 1500);
    assert!(before.iter().any(|outcome| outcome.report.promoted.is_some()));
    whole
        .save(stream.index, Vec::new(), |contents| save(&path, &contents.meta, &contents.tensors, 1 << 30).map(drop))
        .unwrap();
    let mut other = Learner::new(&config(&OFTEN), origin(), None).unwrap();
    other.restore(&mut load(&path, 1 << 26).unwrap()).unwrap();
    let samples: Vec<Sample> = (0..2500).map(|_| stream.next()).collect();
    let rest = |learner: &mut Learner| -> Vec<FitOutcome> {
        samples.iter().filter_map(|sample| learner.learn(sample).unwrap()).collect()
    };
    let (a, b) = (rest(&mut whole), rest(&mut other));
    assert!(a.iter().filter(|outcome| outcome.transition.is_some()).count() > 1);
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!((&a.snapshot, &a.transition), (&b.snapshot, &b.transition));
    }
}
