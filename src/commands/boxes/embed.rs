//! `embed --boxes`: embeds each detection box.
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::{BoxDataset, bounded};
use crate::cli;
use crate::commands::common::{LoadedEncoder, Progress, camera_names};
use crate::commands::{CommandResult, Output};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::export::Provenance;
use crate::export::sinks::LiveSinks;
use crate::export::trackers::Trackers;
use crate::head::Scratch;
use crate::learner::Snapshot;
use crate::pipeline::box_encoder::{FrameRef, record};
use crate::pipeline::export_thread::{Exporter, FilePositions, Row};
use crate::{files, signals, source};

pub(in crate::commands) fn run(
    args: &cli::EmbedArgs,
    file: &Path,
    mut config: Config,
    mut opened: LoadedEncoder,
    snapshot: &Snapshot,
) -> Result<CommandResult> {
    let mut boxed = BoxDataset::open(file, &config, &opened, args.source.len())?;
    let camera: Arc<str> = camera_names(&args.camera, 1)?.remove(0).into();
    let mut source = source::open_all(&args.source, &config.source)?;
    bounded(source.as_ref())?;
    let stop = signals::stop_on_signals()?;
    config.export.embeddings = true;
    files::create_folder(&args.out)?;
    let readers = LiveSinks::open(&config, None)?;
    let next = FilePositions::default();
    let exporter = Exporter::open(&args.out, &config.export, &config.host, &boxed.origin, next, readers)?;
    let mut exporter = exporter.ok_or_else(|| Error::runtime("there is nothing to write"))?;
    let provenance = Provenance::new(&boxed.origin.encoder_sha256, &boxed.origin.card_hash);
    let frozen_space = boxed.snapshot(&opened.frozen()).space;
    let snapshot = Arc::new(boxed.snapshot(snapshot));
    let mut trackers = Trackers::create(&args.out.join("trackers"), snapshot.head.dim_out())?;
    let (mut row, mut scratch) = (Row::default(), Scratch::new());
    let progress = Progress::new("embed", source.length());
    let walked = boxed.walk(&mut opened, source.as_mut(), &stop, progress, |found| {
        row.embedding.resize(snapshot.head.dim_out(), 0.0);
        snapshot.head.embed(found.latent, &mut row.embedding, &mut scratch);
        trackers.push(found.detection, found.stamp.0, &row.embedding)?;
        row.latent.clear();
        row.latent.extend_from_slice(found.latent);
        let (camera, frame) = (camera.clone(), found.detection.frame);
        let file = found.file.cloned();
        let of = FrameRef { camera, frame, file, stamp: found.stamp, wall_ns: None, segment: found.segment };
        row.record = Some(record(of, found.detection, found.rect, &snapshot, provenance.clone()));
        row.frozen_space = exporter.wants_latents().then(|| frozen_space.clone());
        row.snapshot = Some(snapshot.clone());
        exporter.push(&mut row)
    })?;
    let exports = exporter.finish()?;
    trackers.finish()?;
    let (out, counts) = (args.out.display().to_string(), boxed.boxer.counts());
    let json = json!({
        "out": out, "frames": walked.frames, "segments": walked.segments, "ended": walked.ended,
        "source": source.counts(), "boxes": counts, "head": snapshot.number, "space": snapshot.space.as_ref(),
        "dim": snapshot.head.dim_out(), "exports": exports,
    });
    let text = format!(
        "frames     {} in {} segments; unreadable {}{}\n{}\n\
         embedded   with head {}: {} dimensions, space {}\n\
         written    {} rows under {out}/embeddings and {out}/trackers; lost {}",
        walked.frames,
        walked.segments,
        source.counts().unreadable,
        source.counts().left_out.line(),
        boxed.told(),
        snapshot.number,
        snapshot.head.dim_out(),
        snapshot.space,
        exports.embeddings.rows,
        exports.embeddings.lost_rows
    );
    Ok(CommandResult::but_for(exports.lost_rows(), Output { text, json, as_json: args.common.json }))
}
