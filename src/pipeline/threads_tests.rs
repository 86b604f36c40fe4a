//! Whole runs with a fake encoder and a fake source: how they end.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::Path;

use super::*;
use crate::checkpoint::Owner;
use crate::encoder::{ModelCard, Preprocessor};
use crate::export::reader::Reader;
use crate::journal::{self, Journal};
use crate::learner::{Learner, Snapshot};
use crate::pipeline::export_thread::FilePositions;
use crate::pipeline::fakes::{FakeEncoder, FakeSource, latents};
use crate::pipeline::run_learner::RunLearner;
use crate::pipeline::{PipelineBuilder, Recording};
use crate::source::SourceEvent;

fn preprocessor() -> Preprocessor {
    let card = ModelCard::beside(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny.onnx")).unwrap();
    Preprocessor::new(&card, card.size).unwrap()
}

fn builder<'a>(source: FakeSource, encoder: &'a mut FakeEncoder, config: &'a Config) -> PipelineBuilder<'a> {
    Pipeline::builder(Box::new(source), preprocessor(), encoder, latents(), config)
}

fn exporter(folder: &Path, config: &Config) -> Option<Exporter> {
    let next = FilePositions::default();
    Exporter::open(folder, &config.export, &config.host, &latents(), next, None).unwrap()
}

fn run_learner(run: &Path, config: &Config) -> RunLearner {
    let mut learner = config.learner();
    learner.head.dim = 2;
    let learner = Learner::new(&learner, latents(), None).unwrap();
    RunLearner::open(learner, Owner::new(&latents(), "run"), run, Journal::open(run, 64.0).unwrap()).unwrap()
}

#[test]
fn a_run_embeds_every_frame_and_counts_it() {
    let (folder, config) = (tempfile::tempdir().unwrap(), Config::default());
    let (mut encoder, mut recording, mut done) = (FakeEncoder::default(), Recording::default(), 0);
    let source = FakeSource { frames: 30, ..FakeSource::default() };
    let stats = builder(source, &mut encoder, &config)
        .cameras(vec!["door".into()])
        .record(&mut recording)
        .exporter(exporter(folder.path(), &config))
        .on_progress(|frames| done = frames)
        .run()
        .unwrap();
    assert_eq!((stats.frames, stats.ended, stats.next_index, done), (30, true, 30, 30));
    assert_eq!((recording.samples.len(), stats.exports.embeddings.rows), (30, 30));
    assert_eq!((stats.source.frames, stats.cameras["door"].frames), (30, 30));
    assert_eq!(Reader::open(&folder.path().join("embeddings")).unwrap().count(), 30);
}

#[test]
fn the_error_of_the_part_that_failed_first_is_the_run_s() {
    let config = Config::default();
    let source = || FakeSource { frames: 1000, ..FakeSource::default() };
    let mut encoder = FakeEncoder { fails_at: Some(5), ..FakeEncoder::default() };
    let error = builder(source(), &mut encoder, &config).run().unwrap_err();
    assert_eq!(error.to_string(), "the fake encoder fails");

    let mut encoder = FakeEncoder::default();
    let broken = FakeSource { breaks_at: Some(5), ..source() };
    let error = builder(broken, &mut encoder, &config).run().unwrap_err();
    assert_eq!(error.to_string(), "the fake source broke");
}

#[test]
fn a_source_that_breaks_leaves_a_state_and_a_last_line_up_to_there() {
    let (folder, config) = (tempfile::tempdir().unwrap(), Config::default());
    let (mut encoder, mut run) = (FakeEncoder::default(), run_learner(folder.path(), &config));
    let source = FakeSource { frames: 100, breaks_at: Some(20), ..FakeSource::default() };
    builder(source, &mut encoder, &config).learner(&mut run).run().unwrap_err();
    run.end_after_fault();
    assert!(folder.path().join("state.safetensors").exists());
    let events = journal::read(folder.path()).unwrap();
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["frames"]), (&"stop".into(), &20.into()));
}

#[test]
fn a_worker_that_cannot_start_ends_the_run_before_it_begins() {
    let mut config = Config::default();
    config.host.learner_cores = "many".into();
    let (mut encoder, mut recording) = (FakeEncoder::default(), Recording::default());
    let source = FakeSource { frames: 1000, ..FakeSource::default() };
    let error = builder(source, &mut encoder, &config).record(&mut recording).run().unwrap_err();
    assert!(error.to_string().contains("host.learner_cores"), "{error}");
}

#[test]
fn heads_for_other_latents_are_refused() {
    let (config, mut encoder) = (Config::default(), FakeEncoder::default());
    let other = Snapshot::frozen(&crate::learner::LatentSpec { dim: 9, ..latents() });
    for snapshots in [vec![Arc::new(other)], Vec::new()] {
        let error = builder(FakeSource::default(), &mut encoder, &config).snapshots(snapshots).run().unwrap_err();
        assert!(error.to_string().contains("the encoder gives 4"), "{error}");
    }
}

#[test]
fn what_happens_to_a_source_stands_in_the_journal_while_the_learner_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let (mut encoder, config) = (FakeEncoder::default(), Config::default());
    let mut run = run_learner(folder.path(), &config);
    let event = SourceEvent {
        camera: 0,
        source: "the fake source".into(),
        what: "stalled",
        reason: Some("it is a fake".into()),
        down_secs: None,
        tries: None,
        stamp_ns: 7,
    };
    let source = FakeSource { live: true, frames: 3, events: vec![event; 100], ..FakeSource::default() };
    builder(source, &mut encoder, &config).learner(&mut run).run().unwrap();
    let events = journal::read(folder.path()).unwrap();
    let stalled = events.iter().filter(|event| event["event"] == "source" && event["what"] == "stalled");
    assert_eq!(stalled.count(), 100, "more than any queue holds");
}
