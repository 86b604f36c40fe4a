//! `kill -9` at any moment, with every objective, optimizer and replay policy: the final result is identical bit for
//! bit.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use common::{PATTERN, TestDir, assert_same, heads, learn_args, rows, tree, write_folder};

/// Saves often, so that kills fall between, into and after saves.
const OFTEN: &str = "checkpoint.every_frames=60";

/// The whole run and one that was killed must agree in heads, embeddings and the last state.
fn survives(sets: &[&str]) {
    let place = TestDir::new();
    write_folder(&place.at("frames"), PATTERN, "jpg");
    let sets: Vec<&str> = [OFTEN].iter().chain(sets).flat_map(|set| ["--set", set]).collect();
    let report = place.learn("frames", "whole", &sets).ok().json();
    assert!(report["steps"].as_u64().unwrap() >= 20, "{sets:?}: {report}");
    let kills = place.killed_until_done(&[&learn_args("frames", "run"), &sets[..]].concat());
    assert!(kills >= 3, "{sets:?}: {kills} kills");
    assert_same(&heads(&place.at("run")), &heads(&place.at("whole")));
    assert!(rows(&place.at("run/embeddings")) == rows(&place.at("whole/embeddings")), "{sets:?}: embeddings differ");
    let state = |run: &str| {
        tree(&place.at(run))
            .remove("state.safetensors")
            .unwrap_or_else(|| panic!("{sets:?}: {run} has no state: {:?}", tree(&place.at(run)).keys()))
    };
    assert!(state("run") == state("whole"), "{sets:?}: the states differ after {kills} kills");
}

#[test]
fn contrastive() {
    survives(&[
        "learn.objective.name=nt-xent",
        "learn.optimizer.name=sgd",
        "learn.sampling.positives=2",
        "learn.optimizer.ema=0.99",
        "export.format=parquet",
    ]);
    survives(&[
        "learn.objective.name=dcl + 0.1 vicreg",
        "learn.sampling.false_negatives=window",
        "learn.objective.relational_weight=0.5",
    ]);
    survives(&[
        "learn.objective.name=supcon",
        "learn.optimizer.name=lars",
        "learn.optimizer.learning_rate=0.01",
        "export.format=safetensors",
    ]);
    survives(&["learn.objective.name=instance", "learn.augmentation.share=0.5", "learn.replay.policy=reservoir"]);
}

#[test]
fn with_a_queue() {
    survives(&["learn.objective.name=moco", "learn.objective.queue=latents", "learn.objective.queue_len=300"]);
    survives(&[
        "learn.objective.name=moco",
        "learn.objective.queue=keys",
        "learn.objective.queue_len=300",
        "learn.optimizer.orthogonal_gradient=0.9",
    ]);
}

#[test]
fn without_negatives() {
    survives(&["learn.objective.name=vicreg", "learn.optimizer.schedule=cosine", "learn.optimizer.schedule_steps=100"]);
    survives(&["learn.objective.name=barlow-twins", "learn.sampling.gap=adaptive"]);
    survives(&["learn.objective.name=byol"]);
    survives(&["learn.objective.name=simsiam"]);
}

#[test]
fn predictive() {
    survives(&["learn.objective.name=cpc", "learn.cpc.moments=6", "learn.cpc.width=16", "learn.cpc.dim=16"]);
}
