//! `learn`: trains a head on a stream, the main command of the program.
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::common::{LoadedEncoder, Progress, camera_names};
use super::new_run::Fresh;
use super::{CommandResult, Output, box_server, boxes, labelled_probe, metrics_server, resume};
use crate::cli;
use crate::config::Config;
use crate::config::loader::load;
use crate::encoder::memory_check;
use crate::error::{Error, Result};
use crate::export::box_api::BoxServer;
use crate::export::sinks::LiveSinks;
use crate::files::FolderLock;
use crate::host::{self, Watchdog};
use crate::journal::{Found, Journal};
use crate::learner::Learner;
use crate::pipeline::Pipeline;
use crate::pipeline::export_thread::Exporter;
use crate::pipeline::run_dir::{RunManifest, StreamPosition};
use crate::pipeline::run_learner::RunLearner;
use crate::pipeline::run_state::RestoredState;
use crate::pipeline::run_store::LossCounts;
use crate::pipeline::stats::RunStats;
use crate::sampling::shot_detector::ShotDetector;
use crate::signals;
use crate::source::{self, uri::is_input};

/// Warn about latents longer than this: their statistics take a gigabyte.
const LONG_LATENT: usize = 5000;

pub(super) fn run(args: &cli::LearnArgs, started: Instant) -> Result<CommandResult> {
    if let Some(file) = &args.boxes {
        return Ok(CommandResult::but_for(0, boxes::learn(args, file)?));
    }
    let config = load(args.common.config.as_deref(), &args.common.set)?;
    let run = args.out.as_path();
    // Take the lock before opening anything that only one process may have.
    let _lock = FolderLock::take(run)?;
    let old = RunManifest::exists(run);
    let cameras = check_arguments(args, &config, old)?;
    let stop = signals::stop_on_signals()?;
    let heart = Watchdog::of_process(&stop, config.host.stop_secs)?;
    host::check(&config.host)?;
    let (metrics, _server) = metrics_server::open(&config)?;
    let asked = BoxServer::open(&config)?;
    let readers = LiveSinks::open(&config, asked.as_ref().map(BoxServer::sender))?;
    metrics.live(readers.as_ref().map(LiveSinks::stats));
    let mut opened = LoadedEncoder::open(&args.encoder, &config)?;
    metrics.encoder_open(&opened.encoder);
    if old {
        resume::clock(run)?;
    }
    let mut source = source::open_all(&args.source, &config.source)?;
    let live = source.live();
    let desk = box_server::desk(asked.as_ref(), &config, &opened, &cameras, live)?;
    let mut info = RunManifest::new(&args.encoder, &opened.origin, &args.source, live, &cameras, &config);
    if old {
        resume::allowed(run, &mut info)?;
    }
    let probe = labelled_probe::open(&config.promotion.probe, &mut opened)?;
    if let Some(warning) = long_latents(opened.origin.pooled_dim(), memory_check::available())? {
        tracing::warn!("{warning}");
    }
    let mut learner = Learner::new(&config.learner(), opened.origin.clone(), probe)?;
    let mut fresh = Fresh::new(run, old);
    if old {
        resume::save_info(run, &info)?;
    } else {
        info.save(run)?;
    }
    let mut journal = Journal::open(run, config.host.journal_megabytes)?;
    let resume::Resumed { restored: RestoredState { place, background }, found, recovered_rows } =
        if old { resume::restore(run, &info, &mut learner, &mut journal)? } else { Default::default() };
    let mut prepare = opened.prepare()?;
    prepare.start(background, true);
    journal.write(if old { "resume" } else { "start" }, start_fields(&info, &opened, &place)?)?;
    let mut worker = RunLearner::open(learner, info.owner(), run, journal)?;
    if old {
        worker.mend_heads()?;
    }
    let totals = if place.ended {
        already_ended(&mut worker, place.next_index, &found)?
    } else {
        if !live && place.next_index > 0 {
            source.skip_to(place.next_index)?;
        }
        let mut progress = Progress::new("learn", source.length());
        let mut segmenter = ShotDetector::new(&config.learn.sampling);
        if let Some(saved) = place.segmenter {
            segmenter.restore(saved);
        }
        let exporter = Exporter::open(run, &config.export, &config.host, &opened.origin, place.exports, readers)?;
        let ran = Pipeline::builder(source, prepare, &mut opened.encoder, opened.origin.clone(), &config)
            .cameras(cameras.iter().map(|name| name.as_str().into()).collect())
            .snapshots(worker.learner().snapshots_from(place.next_index, live))
            .resume(place.next_index, segmenter)
            .learner(&mut worker)
            .exporter(exporter)
            .box_service(desk)
            .metrics(metrics)
            .watchdog(heart)
            .stop(stop)
            .started(started)
            .on_progress(move |done| progress.set(done))
            .run();
        if ran.is_ok() || worker.learner().counts().samples > 0 {
            fresh.keep();
        }
        let totals = ran.inspect_err(|_| worker.end_after_fault())?;
        worker.end(totals.ended, totals.next_index)?;
        totals
    };
    let lost = totals.exports.lost_rows() + totals.dropped_rows;
    Ok(CommandResult::but_for(lost, report(run, &opened, &totals, &worker, &found, recovered_rows, args.common.json)))
}

/// Rejects arguments that cannot be learned from. Returns the camera names. `old`: the folder already holds a run.
fn check_arguments(args: &cli::LearnArgs, config: &Config, old: bool) -> Result<Vec<String>> {
    if old && !args.resume {
        return Err(Error::usage(format!(
            "{} holds a run already; --resume goes on with it, or choose another --out",
            args.out.display()
        )));
    }
    if args.resume && args.source.iter().any(|source| is_input(source.reveal())) {
        return Err(Error::usage(
            "--resume with --source -: standard input comes once, and what was learned from is gone; record it to a file, \
             or begin a run of its own",
        ));
    }
    let cameras = camera_names(&args.camera, args.source.len())?;
    if config.preprocess.motion_crop && cameras.len() > 1 {
        return Err(Error::config(format!(
            "preprocess.motion_crop with {} cameras: a run has the background of one; learn from each in a run of its own",
            cameras.len()
        )));
    }
    Ok(cameras)
}

/// Finishes a run whose source has ended: nothing is left to learn.
fn already_ended(worker: &mut RunLearner, next_index: u64, found: &Found) -> Result<RunStats> {
    if !found.ended {
        // The run was killed between its last state and its last journal line.
        let (frame, stamp) = worker.learner().newest_frame();
        worker.resume_after(frame, stamp);
        worker.end(true, next_index)?;
    }
    tracing::info!("the source of this run has ended; nothing is left to learn");
    let mut stats = RunStats::default();
    stats.ended = true;
    Ok(stats)
}

/// A warning if the statistics of the slow head take much memory.
///
/// # Errors
/// They need more than `free` bytes.
fn long_latents(dim: usize, free: Option<u64>) -> Result<Option<String>> {
    // Total and within-pair scatter, for training and holdout, as triangles; their sum and two matrices during a fit.
    let bytes = 40.0 * (dim as f64).powi(2);
    let takes = format!("latents of {dim} values: the statistics of the slow head take {:.1} GB at a fit", bytes / 1e9);
    if let Some(free) = free.map(|free| free as f64).filter(|free| bytes > *free) {
        return Err(Error::config(format!(
            "{takes}, and {:.1} GB of memory are free; name fewer or shorter encoder.taps",
            free / 1e9
        )));
    }
    Ok((dim > LONG_LATENT)
        .then(|| format!("{takes}, and time grows with the third power; fewer or shorter encoder.taps cost less")))
}

fn start_fields(info: &RunManifest, opened: &LoadedEncoder, place: &StreamPosition) -> Result<Value> {
    Ok(json!({
        "encoder_sha256": info.encoder_sha256,
        "card_hash": info.card_hash,
        "config_sha256": info.config_hash()?,
        "sources": info.sources,
        "live": info.live,
        "cameras": info.cameras,
        "provider": opened.encoder.provider(),
        "fallback": opened.encoder.fallback(),
        "parity": opened.encoder.parity(),
        "placement": opened.encoder.placement(),
        "space": opened.frozen().space.as_ref(),
        "frame": place.next_index,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

/// The final report, as text and as JSON.
fn report(
    run: &Path,
    opened: &LoadedEncoder,
    totals: &RunStats,
    worker: &RunLearner,
    found: &Found,
    recovered_rows: u64,
    as_json: bool,
) -> Output {
    let learner = worker.learner();
    let (counts, last) = (learner.counts(), learner.last());
    let (still, rate_limited) = learner.left_out();
    let speed = totals.speed();
    let gain = last.and_then(|d| d.gain.as_ref());
    let json = json!({
        "run": run.display().to_string(),
        "ended": totals.ended,
        "frames": totals.frames,
        "segments": totals.segments,
        "source": totals.source,
        "cameras": totals.cameras,
        "drops": {
            "frames": totals.source.dropped, "unreadable": totals.source.unreadable, "bad_latents": totals.bad_latents,
            "latents": totals.dropped_latents, "rows": totals.dropped_rows,
        },
        "checkpoints": { "deferred": totals.deferred_checkpoints },
        "full_disk": worker.lost(),
        "journal": { "bad_lines": found.tally.bad, "repeated_lines": found.repeated },
        "recovered_rows": recovered_rows,
        "learned": counts,
        "pairs": learner.pairs(),
        "views": { "encoded": totals.views, "skipped": totals.skipped_views, "learned": learner.views() },
        "left_out": { "still": still, "above_frames_per_sec": rate_limited },
        "steps": counts.steps,
        "promotions": counts.promotions,
        "head": { "number": learner.exported().number, "dim": learner.exported().head.dim_out(),
                  "space": learner.exported().space.as_ref() },
        "health": { "frozen": last.map(|d| &d.frozen_health), "adapted": last.map(|d| &d.exported_health) },
        "gain": gain,
        "gate": last.map(|d| d.reason.as_str()),
        "exports": totals.exports,
        "boxes": totals.boxes,
        "encoder": { "provider": opened.encoder.provider(), "threads": opened.encoder.threads(),
                     "fallback": opened.encoder.fallback(), "parity": opened.encoder.parity(),
                     "placement": opened.encoder.placement() },
        "speed": speed,
    });
    Output { text: text(run, opened, totals, worker), json, as_json }
}

fn text(run: &Path, opened: &LoadedEncoder, totals: &RunStats, worker: &RunLearner) -> String {
    let learner = worker.learner();
    let counts = learner.counts();
    let (still, rate_limited) = learner.left_out();
    let (source, exports, speed) = (&totals.source, &totals.exports, totals.speed());
    let mut lines = vec![
        format!("run        {}", run.display()),
        format!(
            "frames     {} in {} segments; dropped {}, unreadable {}, without latent {}{}",
            totals.frames,
            totals.segments,
            source.dropped,
            source.unreadable,
            totals.bad_latents,
            source.left_out.line()
        ),
        format!(
            "learned    {} samples ({} held out), {} pairs, {} gradient steps; left out: {still} still, \
             {rate_limited} above learn.frames_per_sec",
            counts.samples,
            counts.held_out,
            learner.pairs(),
            counts.steps
        ),
        format!(
            "fits       {}, promotions {}; exported: head {} ({} dimensions, space {})",
            counts.fits,
            counts.promotions,
            learner.exported().number,
            learner.exported().head.dim_out(),
            learner.exported().space
        ),
    ];
    if let Some(last) = learner.last() {
        lines.push(format!("gate       {}", last.reason));
        if let Some(gain) = &last.gain {
            lines.push(format!("gain       over frozen: {}", gain.reason()));
        }
        for (name, health) in [("frozen", &last.frozen_health), ("exported", &last.exported_health)] {
            if let Some(health) = health {
                lines.push(format!("health     {name}: {}", health.figures()));
            }
        }
    }
    let encoder = &opened.encoder;
    lines.push(format!("encoder    on {}, {} threads", encoder.provider(), encoder.threads()));
    lines.extend(encoder.fallback().map(|why| format!("fallback   {why}")));
    lines.extend(encoder.parity().map(|parity| format!("parity     {}", parity.describe())));
    lines.push(format!(
        "written    {} rows in {} files; lost {}",
        exports.embeddings.rows,
        exports.embeddings.files,
        exports.embeddings.lost_rows + totals.dropped_rows
    ));
    let lost = worker.lost();
    if totals.deferred_checkpoints > 0 || lost != LossCounts::default() {
        lines.push(format!(
            "saving     {} checkpoints had to wait for the learner; a full disk cost {} states, {} journal lines ({} wait)",
            totals.deferred_checkpoints, lost.unsaved_states, lost.journal_lines, lost.waiting_journal_lines
        ));
    }
    lines.extend(totals.boxes.as_ref().map(ToString::to_string));
    lines.push(format!(
        "speed      first embedding after {:.0} ms; {:.1} frames/s; latency p50 {:.1} ms, p99 {:.1} ms; peak {:.0} MB",
        speed.first_embedding_ms.unwrap_or(0.0),
        speed.frames_per_sec,
        speed.latency_p50_ms,
        speed.latency_p99_ms,
        speed.peak_megabytes.unwrap_or(0.0)
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_latents_that_take_gigabytes_are_worth_a_word() {
        let memory = Some(8_000_000_000);
        assert_eq!(long_latents(2240, memory).ok().flatten(), None);
        let warning = long_latents(10_000, memory).ok().flatten().unwrap_or_default();
        assert!(warning.contains("latents of 10000 values") && warning.contains("4.0 GB"), "{warning}");
        let refused = long_latents(20_000, memory).map_err(|error| error.chain()).err().unwrap_or_default();
        assert!(refused.contains("16.0 GB") && refused.contains("8.0 GB of memory are free"), "{refused}");
    }
}
