//! Channels of one slot: what is dropped, what waits, and what becomes of a worker that has ended.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::time::Duration;

use super::*;
use crate::config;
use crate::head::Head;
use crate::learner::LatentSpec;
use crate::sampling::ShotDetector;

/// Both workers with room for one message each, and what they would receive.
struct OneSlot<'t> {
    learner: LearnerEnd<'t>,
    exporter: ExporterEnd,
    learned: Receiver<ToLearner>,
    exported: Receiver<ToExporter>,
    snapshots: Sender<Arc<Snapshot>>,
}

impl<'t> OneSlot<'t> {
    fn new(pace: LearnerPace<'t>) -> Self {
        let ((learn, learned), (export, exported)) = (bounded(1), bounded(1));
        let (_, spare) = bounded(1);
        let (snapshots_in, snapshots) = bounded(4);
        let learner = LearnerEnd { out: learn, spare: Spare::new(spare), snapshots, grids: false, pace };
        let (_, spare) = bounded(1);
        let exporter = ExporterEnd { out: export, spare: Spare::new(spare), latents: false, grids: false, live: true };
        Self { learner, exporter, learned, exported, snapshots: snapshots_in }
    }

    fn ask(&self) -> Result<bool> {
        let segmenter = ShotDetector::new(&config::Training::default().sampling).save().clone();
        ask_checkpoint(&self.learner, Some(&self.exporter), false, |rotated| CheckpointMarker {
            next_index: 7,
            ended: false,
            last: false,
            segmenter,
            background: None,
            rotated,
        })
    }
}

fn bounded_pace(barrier: &ProgressBarrier, lag: u64) -> LearnerPace<'_> {
    LearnerPace::Bounded { barrier, lag, sent: VecDeque::new(), count: 0 }
}

/// The frozen head of two dimensions, as number `number`.
fn head(number: u64, activate_at: u64) -> Arc<Snapshot> {
    let frozen = Snapshot::frozen(&LatentSpec { dim: 2, ..LatentSpec::default() });
    Arc::new(Snapshot { number, activate_at, head: Arc::new(Head::Identity { dim: 2 }), ..frozen })
}

#[test]
fn no_file_is_closed_while_the_learner_has_no_room() {
    let mut ends = OneSlot::new(LearnerPace::Live);
    assert!(ends.learner.send(|_| {}).unwrap());
    for _ in 0..3 {
        assert!(!ends.ask().unwrap());
        assert!(ends.exported.is_empty(), "the exporter was asked to close its files for nothing");
    }
    ends.learned.recv().unwrap();
    assert!(ends.ask().unwrap());
    assert!(matches!(ends.exported.recv().unwrap(), ToExporter::Rotate(_)));
    assert!(matches!(ends.learned.recv().unwrap(), ToLearner::Checkpoint(marker) if marker.rotated.is_some()));
}

#[test]
fn no_state_is_saved_while_the_exporter_has_no_room_and_a_worker_that_ended_is_named() {
    let mut ends = OneSlot::new(LearnerPace::Live);
    assert!(ends.exporter.send(|_| {}).unwrap());
    assert!(!ends.ask().unwrap());
    assert!(ends.learned.is_empty());
    let OneSlot { mut learner, mut exporter, learned, exported, snapshots } = ends;
    drop(exported);
    assert!(exporter.send(|_| {}).unwrap_err().to_string().contains("export thread"));
    let ends = OneSlot { learner, exporter, learned, exported: bounded(1).1, snapshots };
    assert!(ends.ask().unwrap_err().to_string().contains("export thread"));
    (learner, _) = (ends.learner, ends.learned);
    assert!(learner.send(|_| {}).unwrap_err().to_string().contains("learner thread"));
}

#[test]
fn a_live_source_drops_what_finds_no_room_and_takes_the_newest_head_at_once() {
    let ends = &mut OneSlot::new(LearnerPace::Live);
    assert_eq!([ends.learner.send(|_| {}).unwrap(), ends.learner.send(|_| {}).unwrap()], [true, false]);
    assert_eq!([ends.exporter.send(|_| {}).unwrap(), ends.exporter.send(|_| {}).unwrap()], [true, false]);
    let mut heads = HeadStage::new(vec![head(0, 0)]);
    [1, 2].into_iter().for_each(|number| ends.snapshots.send(head(number, 1000)).unwrap());
    ends.learner.take_snapshots(5, &mut heads);
    assert_eq!(heads.in_use().unwrap().number, 2);
}

#[test]
fn a_bounded_source_waits_for_room_and_for_the_samples_that_a_head_may_have_learned_from() {
    let barrier = ProgressBarrier::default();
    let ends = &mut OneSlot::new(bounded_pace(&barrier, 3));
    let mut heads = HeadStage::new(vec![head(0, 0)]);
    std::thread::scope(|scope| {
        let learner = scope.spawn(|| {
            for done in 1..=4 {
                std::thread::sleep(Duration::from_millis(5));
                assert!(matches!(ends.learned.recv().unwrap(), ToLearner::Sample(sample) if sample.index == done - 1));
                if done == 2 {
                    ends.snapshots.send(head(1, 4)).unwrap();
                }
                barrier.set(done);
            }
        });
        for index in 0..4 {
            assert!(ends.learner.send(|sample| sample.index = index).unwrap(), "nothing is dropped");
        }
        // Frame 3 may be embedded once the learner has done frame 0; frame 4 needs frame 1, which brought a head.
        ends.learner.take_snapshots(3, &mut heads);
        assert_eq!(heads.in_use().unwrap().number, 0, "a head is not used before its frame");
        ends.learner.take_snapshots(4, &mut heads);
        assert_eq!(heads.in_use().unwrap().number, 1);
        learner.join().unwrap();
    });
    let LearnerPace::Bounded { sent, .. } = &ends.learner.pace else { return };
    assert_eq!(sent.iter().collect::<Vec<_>>(), [&(3, 2), &(4, 3)]);
}
