//! The loop between channels of one slot: what waits, what is dropped, what is asked of whom.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::*;
use crate::config::{Size, Training};
use crate::export::{Granularity, Provenance};
use crate::frame::Timestamp;
use crate::pipeline::export_thread::{FilePositions, Row, ToExporter};
use crate::pipeline::fakes::{DIM, FakeEncoder, latents};
use crate::pipeline::progress_barrier::ProgressBarrier;
use crate::pipeline::spare::Spare;
use crate::pipeline::workers::LearnerPace;
use crate::sampling::Sample;

/// The other ends of the loop's channels.
struct Far<'a> {
    filled: Sender<PreparedFrame>,
    empty: Receiver<PreparedFrame>,
    learner: Receiver<ToLearner>,
    samples: Sender<Sample>,
    snapshots: Sender<Arc<Snapshot>>,
    exporter: Receiver<ToExporter>,
    rows: Sender<Box<Row>>,
    barrier: &'a ProgressBarrier,
}

#[derive(Clone, Copy)]
struct Setup {
    live: bool,
    batch: usize,
    /// Frames between two checkpoints.
    every: u64,
    /// Room at each worker.
    slots: usize,
}

const LIVE: Setup = Setup { live: true, batch: 1, every: 0, slots: 1 };
const BOUNDED: Setup = Setup { live: false, ..LIVE };

/// Calls `test` with a loop and the other ends of its channels; the passes of the encoder.
fn with_loop(setup: Setup, test: impl FnOnce(InferenceLoop<'_>, Far<'_>)) -> Vec<usize> {
    let Setup { live, batch, every, slots } = setup;
    let (mut encoder, barrier, metrics) = (FakeEncoder::default(), ProgressBarrier::default(), Metrics::default());
    let (filled_in, filled) = bounded(64);
    let (empty, empty_out) = bounded(64);
    let ((learn, learner), (samples, spare)) = (bounded(slots), bounded(slots));
    let (snapshots_in, snapshots) = bounded(slots);
    let ((export, exporter), (rows, spare_rows)) = (bounded(slots), bounded(slots));
    let pace = match live {
        true => LearnerPace::Live,
        false => LearnerPace::Bounded { barrier: &barrier, lag: 2, sent: VecDeque::new(), count: 0 },
    };
    let inference = InferenceLoop {
        live,
        frames: CaptureEnd { filled, empty },
        latents: EncoderStage::new(&mut encoder, &latents(), batch),
        shots: ShotDetector::new(&Training::default().sampling),
        heads: HeadStage::new(vec![Arc::new(Snapshot::frozen(&latents()))]),
        records: RecordTemplate::new(vec!["door".into()], &latents()),
        learner: Some(LearnerEnd { out: learn, spare: Spare::new(spare), snapshots, grids: false, pace }),
        exporter: Some(ExporterEnd { out: export, spare: Spare::new(spare_rows), latents: true, grids: false, live }),
        box_service: None,
        checkpoints: CheckpointSchedule::new(every, 0),
        next_index: 0,
        background: None,
        started: Instant::now(),
        stats: RunStats::default(),
        metrics: &metrics,
        watchdog: Watchdog::default(),
    };
    let (filled, empty) = (filled_in, empty_out);
    test(
        inference,
        Far { filled, empty, learner, samples, snapshots: snapshots_in, exporter, rows, barrier: &barrier },
    );
    encoder.passes
}

fn frame(index: u64) -> PreparedFrame {
    let mut frame = PreparedFrame::new(Size::square(2));
    frame.tensor[..DIM].copy_from_slice(&[1.0, 0.01 * index as f32, 0.0, 0.0]);
    (frame.index, frame.stamp) = (index, Timestamp(index as i64 * 100_000_000));
    frame
}

/// A frame whose latent is zero.
fn blank(index: u64) -> PreparedFrame {
    let mut frame = frame(index);
    frame.tensor.fill(0.0);
    frame
}

static NEVER: AtomicBool = AtomicBool::new(false);
const GO_ON: StopFlags<'_> = StopFlags { stop: &NEVER, halt: &NEVER };

/// Runs the loop over so many frames, then to the end of the source.
fn run_to_end(inference: &mut InferenceLoop<'_>, filled: Sender<PreparedFrame>, frames: u64) {
    (0..frames).for_each(|index| filled.send(frame(index)).unwrap());
    drop(filled);
    let ended = inference.run(GO_ON, &mut |_| {}).unwrap();
    assert!(ended, "the source ended by itself");
}

/// A learner that takes its time: what came, until the loop hangs up.
fn slow_learner(learner: Receiver<ToLearner>, samples: Sender<Sample>, barrier: &ProgressBarrier) -> Vec<String> {
    let (mut done, mut came) = (0, Vec::new());
    for message in learner {
        std::thread::sleep(Duration::from_millis(1));
        came.push(match message {
            ToLearner::Sample(sample) => {
                let index = sample.index;
                assert_eq!(sample.latent.len(), DIM);
                samples.try_send(sample).ok();
                done += 1;
                format!("{index}")
            }
            ToLearner::Checkpoint(marker) => {
                let CheckpointMarker { next_index, ended, last, rotated, .. } = *marker;
                let files = rotated.unwrap().recv().unwrap().embeddings;
                format!("state at {next_index}, {files} files{}", if last && ended { ", the last" } else { "" })
            }
            ToLearner::Finish => "finish".to_owned(),
        });
        barrier.set(done);
    }
    came
}

/// An exporter that takes its time: what came, until the loop hangs up.
fn slow_exporter(exporter: Receiver<ToExporter>, rows: Sender<Box<Row>>) -> Vec<String> {
    let (mut files, mut came) = (0, Vec::new());
    for message in exporter {
        std::thread::sleep(Duration::from_millis(1));
        came.push(match message {
            ToExporter::Row(row) => {
                let frame = row.record.as_ref().unwrap().frame;
                rows.try_send(row).ok();
                format!("{frame}")
            }
            ToExporter::Rotate(reply) => {
                files += 1;
                reply.send(FilePositions { embeddings: files, ..FilePositions::default() }).unwrap();
                "rotate".to_owned()
            }
        });
    }
    came
}

#[test]
fn a_bounded_source_waits_for_its_workers_and_checkpoints_lie_between_the_same_frames_for_both() {
    with_loop(Setup { every: 3, ..BOUNDED }, |mut inference, far| {
        let Far { filled, learner, samples, exporter, rows, barrier, .. } = far;
        let (learned, exported) = std::thread::scope(|scope| {
            let learned = scope.spawn(|| slow_learner(learner, samples, barrier));
            let exported = scope.spawn(|| slow_exporter(exporter, rows));
            run_to_end(&mut inference, filled, 8);
            inference.end(true).unwrap();
            let RunStats { frames, dropped_latents, dropped_rows, deferred_checkpoints, ended, .. } = inference.stats;
            assert_eq!((frames, ended), (8, true));
            assert_eq!((dropped_latents, dropped_rows, deferred_checkpoints), (0, 0, 0));
            drop(inference);
            (learned.join().unwrap(), exported.join().unwrap())
        });
        assert_eq!(exported, ["0", "1", "2", "rotate", "3", "4", "5", "rotate", "6", "7", "rotate"]);
        let states = ["state at 3, 1 files", "state at 6, 2 files", "state at 8, 3 files, the last"];
        assert_eq!(learned, ["0", "1", "2", states[0], "3", "4", "5", states[1], "6", "7", "finish", states[2]]);
    });
}

#[test]
fn a_live_source_waits_for_nobody_and_counts_what_it_drops() {
    with_loop(LIVE, |mut inference, far| {
        run_to_end(&mut inference, far.filled, 5);
        let RunStats { frames, dropped_latents, dropped_rows, .. } = inference.stats;
        assert_eq!((frames, dropped_latents, dropped_rows), (5, 4, 4));
        let metrics = inference.metrics;
        assert_eq!([&metrics.dropped_latents, &metrics.dropped_rows, &metrics.rows].map(|c| c.get()), [4, 4, 1]);
        assert!(matches!(far.learner.try_recv().unwrap(), ToLearner::Sample(sample) if sample.index == 0));
        assert!(matches!(far.exporter.try_recv().unwrap(), ToExporter::Row(_)));
        assert_eq!(far.empty.len(), 5, "every buffer went back to the capture thread");
    });
}

#[test]
fn no_file_is_closed_while_the_learner_is_behind_and_the_checkpoint_comes_once_it_is_not() {
    with_loop(Setup { every: 2, slots: 4, ..LIVE }, |mut inference, far| {
        let mut step = |index| inference.step(&mut frame(index), GO_ON).unwrap();
        let rotations = || far.exporter.try_iter().filter(|message| matches!(message, ToExporter::Rotate(_))).count();
        (0..2).for_each(&mut step);
        assert_eq!(rotations(), 0);
        step(2);
        assert_eq!((rotations(), far.learner.len()), (1, 4), "two samples, the checkpoint, and one more sample");
        for index in 3..10 {
            step(index);
            assert_eq!(rotations(), 0, "frame {index}: a file of one row");
        }
        far.learner.try_iter().for_each(drop);
        step(10);
        assert_eq!(rotations(), 1);
        let next = far.learner.try_iter().find_map(|message| match message {
            ToLearner::Checkpoint(marker) => Some(marker.next_index),
            _ => None,
        });
        assert_eq!(next, Some(10));
        assert_eq!(inference.stats.deferred_checkpoints, 1, "one checkpoint waited, however long");
    });
}

#[test]
fn a_worker_that_has_died_ends_the_loop_and_is_named() {
    for live in [true, false] {
        with_loop(Setup { live, ..LIVE }, |mut inference, far| {
            drop(far.learner);
            let error = inference.step(&mut frame(0), GO_ON).unwrap_err();
            assert_eq!(error.to_string(), "the learner thread has ended");
            assert!(inference.end(true).unwrap_err().to_string().contains("learner"));
        });
        with_loop(Setup { live, ..LIVE }, |mut inference, far| {
            drop(far.exporter);
            let error = inference.step(&mut frame(0), GO_ON).unwrap_err();
            assert_eq!(error.to_string(), "the export thread has ended");
        });
    }
}

#[test]
fn a_stop_ends_the_loop_before_the_source_does() {
    with_loop(LIVE, |mut inference, far| {
        let stop = AtomicBool::new(false);
        let mut done = Vec::new();
        (0..5).for_each(|index| far.filled.send(frame(index)).unwrap());
        let flags = StopFlags { stop: &stop, halt: &NEVER };
        let mut progress = |frames| {
            done.push(frames);
            stop.store(frames == 3, std::sync::atomic::Ordering::Relaxed);
        };
        assert!(!inference.run(flags, &mut progress).unwrap());
        assert_eq!(done, [1, 2, 3]);
        assert_eq!(inference.next_index, 3);
    });
}

#[test]
fn a_frame_without_a_latent_is_counted_and_a_broken_model_ends_the_run() {
    with_loop(LIVE, |mut inference, far| {
        let mut step = |frame: PreparedFrame| {
            far.learner.try_iter().for_each(drop);
            inference.step(&mut { frame }, GO_ON)
        };
        (0..49).for_each(|index| step(blank(index)).unwrap());
        step(frame(49)).unwrap();
        (50..99).for_each(|index| step(blank(index)).unwrap());
        let error = step(blank(99)).unwrap_err().to_string();
        assert!(error.contains("50 latents in a row") && error.contains("frame 99"), "{error}");
        assert_eq!((inference.stats.frames, inference.stats.bad_latents), (1, 98));
    });
}

#[test]
fn a_record_says_where_its_embedding_comes_from_and_the_row_has_what_the_exporter_needs() {
    with_loop(LIVE, |mut inference, far| {
        far.rows.send(Box::new(Row { embedding: vec![9.0; 100], ..Row::default() })).unwrap();
        inference.step(&mut frame(7), GO_ON).unwrap();
        let ToExporter::Row(row) = far.exporter.recv().unwrap() else { panic!("no row") };
        let record = row.record.unwrap();
        assert_eq!((record.camera.as_ref(), record.frame, record.level), ("door", 7, Granularity::Frame));
        assert_eq!(record.provenance, Some(Provenance::new("encoder", "card")));
        let frozen = Snapshot::frozen(&latents()).space;
        assert_eq!((&record.space, row.frozen_space), (&frozen, Some(frozen.clone())));
        assert_eq!((row.embedding.len(), row.latent.len(), row.embedding.capacity()), (DIM, DIM, 100));
    });
}

#[test]
fn a_new_head_embeds_the_next_frame_of_a_live_source() {
    with_loop(Setup { slots: 4, ..LIVE }, |mut inference, far| {
        let head = |number, activate_at| Snapshot { number, activate_at, ..Snapshot::frozen(&latents()) };
        let mut number = |index| {
            inference.step(&mut frame(index), GO_ON).unwrap();
            let ToExporter::Row(row) = far.exporter.recv().unwrap() else { panic!("no row") };
            row.record.unwrap().head
        };
        assert_eq!(number(0), 0);
        far.snapshots.send(Arc::new(head(1, 500))).unwrap();
        assert_eq!(number(1), 1);
    });
}

#[test]
fn frames_of_a_batch_go_through_the_encoder_together_and_leave_in_order() {
    let passes = with_loop(Setup { batch: 4, slots: 32, ..BOUNDED }, |mut inference, far| {
        inference.learner = None;
        run_to_end(&mut inference, far.filled, 10);
        drop(inference);
        let frames = far.exporter.iter().map(|message| match message {
            ToExporter::Row(row) => row.record.unwrap().frame,
            ToExporter::Rotate(_) => panic!("nothing learns, so nothing is checkpointed"),
        });
        assert!(frames.eq(0..10));
    });
    assert_eq!(passes, [4, 4, 2]);
}
