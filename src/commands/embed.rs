//! `embed`: embeds frames with the head of a run, or with the frozen encoder.
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::common::{LoadedEncoder, LoadedRun, Progress, camera_names};
use super::{CommandResult, Output, box_server, boxes, metrics_server};
use crate::cli;
use crate::config::loader::load;
use crate::error::{Error, Result};
use crate::export::box_api::BoxServer;
use crate::export::sinks::LiveSinks;
use crate::files::{self, FolderLock};
use crate::host::Watchdog;
use crate::pipeline::Pipeline;
use crate::pipeline::export_thread::{Exporter, FilePositions};
use crate::{signals, source};

pub(super) fn run(args: &cli::EmbedArgs, started: Instant) -> Result<CommandResult> {
    let _lock = FolderLock::take(&args.out)?;
    let (mut config, mut opened, snapshot) = match (&args.run, &args.encoder) {
        (Some(run), encoder) => {
            let of = cli::RunArgs { run: run.clone(), encoder: encoder.clone() };
            let run = if args.boxes.is_some() {
                LoadedRun::open_for_boxes(&of, &args.common)?
            } else {
                LoadedRun::open(&of, &args.common)?
            };
            (run.config, run.opened, run.adapted)
        }
        (None, Some(encoder)) => {
            let config = load(args.common.config.as_deref(), &args.common.set)?;
            let opened = LoadedEncoder::open(encoder, &config)?;
            let frozen = opened.frozen();
            (config, opened, frozen)
        }
        (None, None) => return Err(Error::usage("name a --run or an --encoder")),
    };
    let written = files::names_in(&args.out.join("embeddings"))?;
    if written.iter().any(|name| !files::is_partial(name)) {
        return Err(Error::usage(format!("{} has embeddings already; choose another --out", args.out.display())));
    }
    let batch = args.batch as usize;
    if let Some(file) = &args.boxes {
        if batch > 1 {
            return Err(Error::usage(format!(
                "--batch {batch} with --boxes: boxes are encoded one by one; leave one out"
            )));
        }
        return boxes::embed(args, file, config, opened, &snapshot);
    }
    let cameras = camera_names(&args.camera, args.source.len())?;
    let stop = signals::stop_on_signals()?;
    let heart = Watchdog::of_process(&stop, config.host.stop_secs)?;
    let (metrics, _server) = metrics_server::open(&config)?;
    let asked = BoxServer::open(&config)?;
    let readers = LiveSinks::open(&config, asked.as_ref().map(BoxServer::sender))?;
    metrics.live(readers.as_ref().map(LiveSinks::stats));
    metrics.encoder_open(&opened.encoder);
    opened.encoder.allow_batch(batch)?;
    let source = source::open_all(&args.source, &config.source)?;
    if batch > 1 && source.live() {
        return Err(Error::usage(format!(
            "--batch {batch} with a live source: a frame would wait for those behind it; leave --batch out"
        )));
    }
    let desk = box_server::desk(asked.as_ref(), &config, &opened, &cameras, source.live())?;
    config.export.embeddings = true;
    files::create_folder(&args.out)?;
    let (number, space, dim) = (snapshot.number, snapshot.space.clone(), snapshot.head.dim_out());
    let mut progress = Progress::new("embed", source.length());
    let (next, origin) = (FilePositions::default(), &opened.origin);
    let exporter = Exporter::open(&args.out, &config.export, &config.host, origin, next, readers)?;
    let totals = Pipeline::builder(source, opened.prepare()?, &mut opened.encoder, opened.origin.clone(), &config)
        .batch(batch)
        .cameras(cameras.iter().map(|name| name.as_str().into()).collect())
        .snapshots(vec![Arc::new(snapshot)])
        .exporter(exporter)
        .box_service(desk)
        .metrics(metrics)
        .watchdog(heart)
        .stop(stop)
        .started(started)
        .on_progress(move |done| progress.set(done))
        .run()?;
    let (exports, speed) = (&totals.exports.embeddings, totals.speed());
    let json = json!({
        "out": args.out.display().to_string(),
        "frames": totals.frames,
        "segments": totals.segments,
        "source": totals.source,
        "cameras": totals.cameras,
        "head": number,
        "space": space.as_ref(),
        "dim": dim,
        "exports": totals.exports,
        "boxes": totals.boxes,
        "bad_latents": totals.bad_latents,
        "dropped_rows": totals.dropped_rows,
        "speed": speed,
    });
    let text = format!(
        "frames     {} in {} segments; dropped {}, unreadable {}, without latent {}{}\n\
         embedded   with head {number}: {dim} dimensions, space {space}\n\
         written    {} rows in {} files under {}/embeddings; lost {}\n\
         speed      {:.1} frames/s; latency p50 {:.1} ms, p99 {:.1} ms",
        totals.frames,
        totals.segments,
        totals.source.dropped,
        totals.source.unreadable,
        totals.bad_latents,
        totals.source.left_out.line(),
        exports.rows,
        exports.files,
        args.out.display(),
        exports.lost_rows + totals.dropped_rows,
        speed.frames_per_sec,
        speed.latency_p50_ms,
        speed.latency_p99_ms
    );
    let lost = totals.exports.lost_rows() + totals.dropped_rows;
    Ok(CommandResult::but_for(lost, Output { text, json, as_json: args.common.json }))
}
