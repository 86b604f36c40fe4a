//! The export thread behind channels of one slot.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::Path;

use crossbeam_channel::bounded;
use ndarray::array;

use super::*;
use crate::export::SCHEMA;
use crate::export::reader::Reader;

fn latents() -> LatentSpec {
    LatentSpec { encoder_sha256: "encoder".into(), card_hash: "card".into(), dim: 2, ..LatentSpec::default() }
}

fn open(folder: &Path) -> Exporter {
    let config = config::Export { latents: true, novel_above: 0.5, ..config::Export::default() };
    Exporter::open(folder, &config, &Host::default(), &latents(), FilePositions::default(), None).unwrap().unwrap()
}

/// A row that was embedded with a head that has seen `[1, 0]`.
fn row(frame: u64, latent: [f32; 2]) -> ToExporter {
    let snapshot = Snapshot { references: array![[1.0, 0.0]], ..Snapshot::frozen(&latents()) };
    let record = Record {
        schema: SCHEMA,
        camera: "door".into(),
        frame,
        file: None,
        stamp_ns: frame as i64,
        wall_ns: None,
        segment: 0,
        level: Granularity::Frame,
        space: snapshot.space.clone(),
        head: 0,
        provenance: None,
        learner: None,
        novelty: None,
        novel: false,
        window: None,
        track: None,
        class: None,
        score: None,
        migrated_from: None,
    };
    ToExporter::Row(Box::new(Row {
        record: Some(record),
        embedding: latent.to_vec(),
        latent: latent.to_vec(),
        pooled: Vec::new(),
        frozen_space: Some(snapshot.space.clone()),
        snapshot: Some(Arc::new(snapshot)),
    }))
}

/// Runs the thread while `test` is its inference loop; what the thread came to.
fn with_thread(
    exporter: Exporter,
    fault: &FirstFault,
    test: impl FnOnce(Sender<ToExporter>, Receiver<Box<Row>>),
) -> std::result::Result<ExportCounts, Noted> {
    let ((out, rows), (spare, spare_out)) = (bounded(1), bounded(1));
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || run(exporter, &rows, &spare, fault, &Metrics::default()));
        test(out, spare_out);
        thread.join().unwrap()
    })
}

fn rotate(out: &Sender<ToExporter>) -> FilePositions {
    let (reply, rotated) = bounded(1);
    out.send(ToExporter::Rotate(reply)).unwrap();
    rotated.recv().unwrap()
}

#[test]
fn rotation_closes_what_was_sent_before_it_and_rows_come_back_empty() {
    let folder = tempfile::tempdir().unwrap();
    let fault = FirstFault::default();
    let counts = with_thread(open(folder.path()), &fault, |out, spare| {
        assert_eq!(rotate(&out), FilePositions::default(), "without rows there is no file");
        (0..3).for_each(|frame| out.send(row(frame, [1.0, 0.0])).unwrap());
        let positions = FilePositions { embeddings: 1, latents: 1, grids: 0 };
        assert_eq!(rotate(&out), positions);
        assert_eq!(rotate(&out), positions, "nothing came between");
        let back = spare.recv().unwrap();
        assert!(back.record.is_none() && back.snapshot.is_none() && back.embedding.capacity() >= 2);
        // The learner that asked has no room for its part of the checkpoint, or is gone.
        out.send(ToExporter::Rotate(bounded(1).0)).unwrap();
        out.send(row(3, [0.0, 1.0])).unwrap();
    })
    .unwrap();
    assert_eq!((counts.embeddings.rows, counts.embeddings.files, counts.latents.files), (4, 2, 2));
    fault.result().unwrap();
    let rows: Vec<_> = Reader::open(&folder.path().join("embeddings")).unwrap().map(|row| row.unwrap().0).collect();
    assert!(rows.iter().map(|record| record.frame).eq(0..4));
    // How new a latent is to its head is found out here, not in the inference loop.
    assert_eq!((rows[0].novelty, rows[0].novel, rows[3].novelty, rows[3].novel), (Some(0.0), false, Some(1.0), true));
}

#[test]
fn an_exporter_that_cannot_write_notes_why_before_anybody_misses_it() {
    let folder = tempfile::tempdir().unwrap();
    let fault = FirstFault::default();
    let failed = with_thread(open(folder.path()), &fault, |out, _spare| {
        // A file stands where the folder of the embeddings was.
        std::fs::remove_dir_all(folder.path().join("embeddings")).unwrap();
        std::fs::write(folder.path().join("embeddings"), "").unwrap();
        out.send(row(0, [1.0, 0.0])).unwrap();
        let (reply, rotated) = bounded(1);
        let sent = out.send(ToExporter::Rotate(reply));
        assert!(sent.is_err() || rotated.recv().is_err(), "nobody is told that the files are closed");
        assert!(fault.result().unwrap_err().chain().contains("embeddings"));
        fault.note::<()>(Err(crate::error::Error::runtime("what came of it"))).unwrap_err();
    });
    failed.unwrap_err();
}
