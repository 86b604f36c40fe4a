//! The learner thread behind channels of one slot.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use serde_json::Value;

use super::*;
use crate::checkpoint::Owner;
use crate::config::{Config, Training};
use crate::frame::Timestamp;
use crate::journal::{self, Journal};
use crate::learner::{LatentSpec, Learner};
use crate::linalg::normalise;
use crate::pipeline::run_state;
use crate::sampling::ShotDetector;

const DIM: usize = 8;

fn latents() -> LatentSpec {
    LatentSpec { encoder_sha256: "encoder".into(), card_hash: "card".into(), dim: DIM, ..LatentSpec::default() }
}

fn owner() -> Owner {
    Owner::new(&latents(), "run")
}

fn open(run: &Path) -> RunLearner {
    let mut config = Config::default();
    config.head.dim = 4;
    config.learn.first_fit_frames = 128;
    let learner = Learner::new(&config.learner(), latents(), None).unwrap();
    RunLearner::open(learner, owner(), run, Journal::open(run, 64.0).unwrap()).unwrap()
}

/// Scenes of ten frames that differ in the first values; the others differ in each frame.
fn sample(index: u64) -> Sample {
    let noise = |seed: u64| ((seed * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
    let mut latent: Vec<f32> = (0..4).map(|i| noise(index / 10 * 31 + i)).collect();
    latent.extend((4..DIM as u64).map(|i| noise(index * 37 + i)));
    normalise(&mut latent);
    let stamp = Timestamp(index as i64 * 100_000_000);
    Sample { index, stamp, segment: index / 10, latent, ..Sample::default() }
}

fn marker(next_index: u64, rotated: Option<Receiver<FilePositions>>) -> ToLearner {
    let segmenter = ShotDetector::new(&Training::default().sampling).save().clone();
    let last = true;
    ToLearner::Checkpoint(Box::new(CheckpointMarker {
        next_index,
        ended: false,
        last,
        segmenter,
        background: None,
        rotated,
    }))
}

/// The inference loop's ends.
struct Near {
    out: Sender<ToLearner>,
    spare: Receiver<Sample>,
    snapshots: Receiver<Arc<Snapshot>>,
}

/// Runs the thread on `run` while `test` is its inference loop; what the thread came to.
fn with_thread(
    run: &mut RunLearner,
    live: bool,
    stop: &Arc<AtomicBool>,
    barrier: &ProgressBarrier,
    test: impl FnOnce(Near),
) -> Result<()> {
    let ((out, inbox), (spare, spare_out), (snapshots, snapshots_out)) = (bounded(1), bounded(1), bounded(1));
    let metrics = Metrics::default();
    let channels = LearnerChannels { inbox, spare, snapshots, barrier, metrics: &metrics };
    let limits = LearnerLimits { live, share: 1.0, stop, cores: Vec::new(), thermal: None };
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || super::run(run, &{ channels }, limits));
        test(Near { out, spare: spare_out, snapshots: snapshots_out });
        thread.join().unwrap()
    })
}

fn events(run: &Path, name: &str) -> Vec<Value> {
    journal::read(run).unwrap().into_iter().filter(|event| event["event"] == name).collect()
}

#[test]
fn samples_come_back_and_the_last_fit_gives_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let (mut run, stop, barrier) = (open(folder.path()), Arc::default(), ProgressBarrier::default());
    with_thread(&mut run, false, &stop, &barrier, |near| {
        let mut came_back = 0;
        for index in 0..300 {
            near.out.send(ToLearner::Sample(sample(index))).unwrap();
            came_back += near.spare.try_iter().filter(|sample| sample.latent.len() == DIM).count();
            // The queue has one slot: the fit of a frame must not wait for whoever takes its snapshot later.
            near.snapshots.try_iter().for_each(drop);
        }
        barrier.wait(300);
        assert!(came_back > 250, "{came_back} of 300 came back");
        near.snapshots.try_iter().for_each(drop);
        near.out.send(ToLearner::Finish).unwrap();
        near.snapshots.recv_timeout(Duration::from_secs(60)).unwrap();
    })
    .unwrap();
    let fits: usize = ["fit", "promotion"].map(|name| events(folder.path(), name).len()).iter().sum();
    assert_eq!(fits as u64, run.learner().counts().fits);
    assert!(fits >= 2, "{fits}");
}

#[test]
fn the_state_is_saved_once_the_exports_before_it_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.safetensors");
    let (mut run, stop, barrier) = (open(folder.path()), Arc::default(), ProgressBarrier::default());
    with_thread(&mut run, false, &stop, &barrier, |near| {
        let (reply, rotated) = bounded(1);
        near.out.send(ToLearner::Sample(sample(0))).unwrap();
        near.out.send(marker(1, Some(rotated))).unwrap();
        let early = near.snapshots.recv_timeout(Duration::from_millis(100));
        assert_eq!((early.unwrap_err(), state.exists()), (RecvTimeoutError::Timeout, false));
        reply.send(FilePositions { embeddings: 3, ..FilePositions::default() }).unwrap();
    })
    .unwrap();
    let [(_, position), ..] = &run_state::states(folder.path(), Some(&owner()))[..] else {
        return assert!(state.exists());
    };
    let position = position.as_ref().unwrap();
    assert_eq!((position.next_index, position.exports.embeddings), (1, 3));
}

#[test]
fn an_exporter_that_died_ends_the_learner_and_lets_the_inference_loop_go() {
    let folder = tempfile::tempdir().unwrap();
    let (mut run, stop, barrier) = (open(folder.path()), Arc::default(), ProgressBarrier::default());
    let ended = with_thread(&mut run, false, &stop, &barrier, |near| {
        let (reply, rotated) = bounded::<FilePositions>(1);
        near.out.send(marker(5, Some(rotated))).unwrap();
        drop(reply);
        barrier.wait(1_000_000);
        assert!(near.out.send(ToLearner::Finish).is_err() || near.out.send(ToLearner::Finish).is_err());
    });
    assert_eq!(ended.unwrap_err().to_string(), "the export thread has ended");
    run.end_after_fault();
    assert_eq!(events(folder.path(), "stop")[0]["frames"], 5);
}

#[test]
fn a_live_stream_that_is_stopped_saves_its_state_without_learning_its_backlog() {
    let folder = tempfile::tempdir().unwrap();
    let (mut run, barrier) = (open(folder.path()), ProgressBarrier::default());
    let stop = Arc::new(AtomicBool::new(false));
    with_thread(&mut run, true, &stop, &barrier, |near| {
        near.out.send(ToLearner::Sample(sample(0))).unwrap();
        barrier.wait(1);
        stop.store(true, Ordering::Relaxed);
        (1..200).for_each(|index| near.out.send(ToLearner::Sample(sample(index))).unwrap());
        near.out.send(marker(200, None)).unwrap();
    })
    .unwrap();
    assert_eq!(run.learner().newest_frame().0, 0, "the backlog was learned");
    assert!(folder.path().join("state.safetensors").exists());
}

#[test]
fn a_recording_has_every_sample_in_order() {
    let ((out, inbox), (spare, _spare), (snapshots, _snapshots)) = (bounded(1), bounded(1), bounded(1));
    let (metrics, barrier, mut recording) = (Metrics::default(), ProgressBarrier::default(), Recording::default());
    let channels = LearnerChannels { inbox, spare, snapshots, barrier: &barrier, metrics: &metrics };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| record(&mut recording, &channels));
        (0..20).for_each(|index| out.send(ToLearner::Sample(sample(index))).unwrap());
        out.send(ToLearner::Finish).unwrap();
        drop(out);
        thread.join().unwrap();
    });
    barrier.wait(20);
    assert!(recording.samples.iter().map(|sample| sample.index).eq(0..20));
}
