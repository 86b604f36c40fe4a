//! `migrate`: maps stored embeddings from one space to another, without the frames.
mod repeat;
mod path;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array2;
use serde_json::{Value, json};

use super::Output;
use super::common::Progress;
use crate::cli;
use crate::error::{Error, Result};
use crate::export::{
    Format, Granularity, Provenance, RECORDS, Reader, Record, RowFileWriter, RowFormat, format_of, row_files,
};
use crate::files::{self, FolderLock};
use crate::pipeline::run_dir::RunManifest;
use path::{MigrationPath, SpaceGraph};

/// Rows mapped at a time.
const ROWS: usize = 1024;

/// A file to migrate.
#[derive(Debug, Clone)]
struct Migration {
    path: PathBuf,
    out: PathBuf,
    layout: RowFormat,
    dim: usize,
    rows: u64,
    space: Arc<str>,
}

pub(super) fn run(args: &cli::MigrateArgs) -> Result<Output> {
    let info = RunManifest::load(&args.run)?;
    let _lock = FolderLock::take(&args.out)?;
    let spaces = SpaceGraph::read(&args.run, &info)?;
    let to = spaces.named(&args.to)?;
    let maker = Provenance::new(&info.encoder_sha256, &info.card_hash);
    let mut jobs = Vec::new();
    for path in listed(&args.files)? {
        jobs.extend(job(&path, &args.out, &maker, &spaces)?);
    }
    let mut names = BTreeSet::new();
    for job in &jobs {
        apart(&job.out, &mut names)?;
    }
    // Check before writing anything that every path exists and is good enough.
    let routes = jobs.iter().map(|job| spaces.route(&job.space, to)).collect::<Result<Vec<_>>>()?;
    for (job, route) in jobs.iter().zip(&routes) {
        good_enough(job, route, args.min_hit_rate)?;
    }
    for (job, route) in jobs.iter().zip(&routes) {
        repeat::settle(job, &args.out, |job| rewrite(job, route, &spaces, to, &mut |_| {}))?;
    }
    let mut progress = Progress::new("migrate", Some(jobs.iter().map(|job| job.rows).sum()));
    let (mut done, mut told) = (0, Vec::new());
    for (job, route) in jobs.iter().zip(&routes) {
        if repeat::is_whole(job) {
            done += job.rows;
        } else {
            rewrite(job, route, &spaces, to, &mut |rows| {
                done += rows;
                progress.set(done);
            })?;
        }
        told.push(json!({
            "file": job.path, "out": job.out, "rows": job.rows, "from": job.space.as_ref(), "steps": route.steps(),
            "expected_rate": route.rate,
        }));
    }
    drop(progress);
    let number = spaces.all.get(to).map_or(0, |space| space.number);
    let mut text =
        format!("{done} rows of {} files into space {to}, head {number}, under {}", told.len(), args.out.display());
    for job in &told {
        text += &line(job);
    }
    let json = json!({ "to": to, "head": number, "rows": done, "files": told });
    Ok(Output { text, json, as_json: args.common.json })
}

fn line(job: &Value) -> String {
    let word = |key: &str| job[key].as_str().unwrap_or_default();
    let kept = match (job["steps"].as_u64(), job["expected_rate"].as_f64()) {
        (Some(0), _) => "is of this space already, copied".to_owned(),
        (steps, Some(rate)) => {
            format!("{} steps, {:.1} % of the hits are expected to be kept", steps.unwrap_or(0), 100.0 * rate)
        }
        (steps, None) => format!("{} steps, not all of which were measured", steps.unwrap_or(0)),
    };
    format!("\n{}: {} rows of space {}: {kept}", word("file"), job["rows"], word("from"))
}

/// The given files, and the files in the given folders.
fn listed(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in given {
        if path.is_dir() {
            let found = row_files(&files::names_in(path)?);
            if found.is_empty() {
                return Err(Error::usage(format!(
                    "{} has no NNNN.npy, NNNN.parquet or NNNN.safetensors",
                    path.display()
                )));
            }
            let name = |(number, format): (u64, Format)| path.join(files::numbered_name(number, format.end()));
            all.extend(found.into_iter().map(name));
        } else if format_of(path).is_none() {
            return Err(Error::usage(format!(
                "{}: files of embeddings end in .npy, .parquet or .safetensors",
                path.display()
            )));
        } else {
            all.push(path.clone());
        }
    }
    Ok(all)
}

/// Reads a whole file and checks that it can be migrated. `None` if it has no rows.
fn job(path: &Path, out: &Path, maker: &Provenance, spaces: &SpaceGraph) -> Result<Option<Migration>> {
    let refused = |why: String| Err(Error::check_failed(format!("{}: {why}", path.display())));
    let reader = Reader::file(path)?;
    let (rows, layout) = (reader.rows(), reader.layout());
    let mut of: Option<(Arc<str>, u64)> = None;
    for row in reader {
        let (record, _) = row?;
        if let Some(other) = record.provenance.as_ref().filter(|other| *other != maker) {
            return refused(format!(
                "its embeddings are of encoder {} and preparation {}, those of the run of {} and {}: no map leads from one \
                 encoder or preparation to another; embed the frames again",
                other.encoder, other.preparation, maker.encoder, maker.preparation
            ));
        }
        if record.level == Granularity::Grid {
            return refused("its rows are grids of cells; only rows of one embedding can be migrated".into());
        }
        let Some((space, frame)) = &of else {
            if !spaces.all.contains_key(&*record.space) {
                return refused(format!("is of space {}, which the run has not: {}", record.space, spaces.told()));
            }
            of = Some((record.space, record.frame));
            continue;
        };
        if *space != record.space {
            return refused(format!(
                "has rows of space {space} (frame {frame}) and of space {} (frame {})",
                record.space, record.frame
            ));
        }
    }
    let (Some((space, _)), Some((dtype, dim)), Some(format)) = (of, layout, format_of(path)) else { return Ok(None) };
    let expected = spaces.all.get(&*space).map_or(dim, |space| space.head.dim_out());
    if dim != expected {
        return refused(format!("has rows of {dim} numbers, those of space {space} have {expected}"));
    }
    let name = path.file_name().ok_or_else(|| Error::usage(format!("{} names no file", path.display())))?;
    let layout = RowFormat::embeddings(format, dtype);
    Ok(Some(Migration { path: path.to_path_buf(), out: out.join(name), layout, dim, rows, space }))
}

/// Rejects two files of one call with the same output.
fn apart(out: &Path, names: &mut BTreeSet<PathBuf>) -> Result<()> {
    // Files of two formats with the same number would share their file of records.
    if names.insert(out.with_extension(RECORDS)) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "two of the files would become {}: migrate files of one name in calls of their own, with another --out each",
        out.display()
    )))
}

fn good_enough(job: &Migration, route: &MigrationPath<'_>, least: f64) -> Result<()> {
    let path = job.path.display();
    match route.rate {
        Some(rate) if rate < least => Err(Error::check_failed(format!(
            "{path}: on the way from space {} over {} steps only {:.1} % of the hits are expected to be kept, less than \
             {:.1} % (--min-hit-rate); embed the frames again, or ask for less",
            job.space,
            route.steps(),
            100.0 * rate,
            100.0 * least
        ))),
        None if least > 0.0 => Err(Error::check_failed(format!(
            "{path}: on the way from space {} a step was never measured, since too little was held out then; embed the \
             frames again, or take it as it is with --min-hit-rate 0",
            job.space
        ))),
        _ => Ok(()),
    }
}

/// Migrates one file; the result is complete or absent.
fn rewrite(
    job: &Migration,
    route: &MigrationPath<'_>,
    spaces: &SpaceGraph,
    to: &str,
    done: &mut dyn FnMut(u64),
) -> Result<()> {
    let Some(target) = spaces.all.get(to) else { return Ok(()) };
    let to: Arc<str> = to.into();
    let of = |mut record: Record| {
        if *record.space != *to {
            record.migrated_from.get_or_insert_with(|| record.space.clone());
            (record.space, record.head) = (to.clone(), target.number);
        }
        record
    };
    let mut reader = Reader::file(&job.path)?;
    let mut file: Option<RowFileWriter> = None;
    loop {
        let some: Vec<(Record, Vec<f32>)> = reader.by_ref().take(ROWS).collect::<Result<_>>()?;
        if some.is_empty() {
            break;
        }
        let count = some.len();
        let (records, rows): (Vec<Record>, Vec<Vec<f32>>) = some.into_iter().map(|(r, row)| (of(r), row)).unzip();
        let flat = Array2::from_shape_vec((count, job.dim), rows.concat());
        let flat = flat
            .map_err(|e| Error::runtime(format!("{} changed while it was read", job.path.display())).with_source(e))?;
        let carried = route.carry(spaces, flat)?;
        let open = match &mut file {
            Some(open) => open,
            None => file.insert(RowFileWriter::create(&job.out, job.layout, carried.ncols(), &records[0])?),
        };
        for (record, row) in records.iter().zip(carried.rows()) {
            open.push(record, &row.to_vec())?;
        }
        done(count as u64);
    }
    file.map_or(Ok(()), RowFileWriter::close)
}
