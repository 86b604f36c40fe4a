//! `search`: finds the exported rows of a run that are nearest to a picture, a row or a frame.
mod contact_sheet;
mod embedding_store;
mod thumbnails;
mod query;
mod report;

use std::path::PathBuf;

use serde_json::json;

use super::Output;
use super::common::run_config;
use super::contact_sheet::{check_name, twice};
use crate::checkpoint::newest_head;
use crate::cli;
use crate::error::{Error, Result};
use crate::pipeline::run_dir::RunManifest;
use crate::search::{DedupWindow, nearest};

use embedding_store::EmbeddingStore;
use query::{Query, QuerySpec};

/// Frames of one camera closer in time than this, in seconds, show the same moment, as on a contact sheet.
const LEAST_MOMENT_SECS: f64 = 2.0;
/// This multiple of `learn.sampling.gap_max_secs` counts as the same moment too: neighbours learned as pairs are not
/// finds.
const MOMENT_GAPS: f64 = 2.0;
/// A year, the maximum for times in arguments.
const MOST_SECS: f64 = 31_557_600.0;

pub(super) fn run(args: &cli::SearchArgs) -> Result<Output> {
    if let Some(out) = &args.out {
        check_name(out)?;
        args.source.iter().try_for_each(twice)?;
    }
    let wanted = QuerySpec::new(args)?;
    let info = RunManifest::load(&args.of.run)?;
    let config = run_config(&info, &args.common)?;
    let moment = moment(args.min_gap_secs, config.learn.sampling.gap_max_secs)?;
    let exports = EmbeddingStore::open(&folder(args))?;
    let (newest, warnings) = newest_head(&args.of.run, &info.owner())?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let newest = newest.map_or(0, |head| head.number);
    let space = match (&args.space, &wanted) {
        (Some(name), _) => exports.named(name)?,
        // A row determines its own space.
        (None, QuerySpec::Row { file, .. }) => exports.of_file(file)?,
        (None, _) => exports.newest(newest)?,
    };
    let query = Query::new(&wanted, args, &exports, space)?;
    exports.tell_others(space, &args.of.run);
    let files = space.all();
    let hits = nearest(files, &query.embedding, args.k as usize, moment, query.record.as_ref())?;
    let sheet = match &args.out {
        Some(out) => {
            let notes = report::notes(&exports, space, moment, hits.len());
            Some(contact_sheet::write(out, args, &config, &query, &hits, notes)?)
        }
        None => None,
    };
    let json = json!({
        "query": query.json(), "space": space.name.as_ref(), "head": space.head, "rows": space.rows,
        "other_spaces": exports.others(space).map(|other| {
            json!({ "space": other.name.as_ref(), "head": other.head, "rows": other.rows })
        }).collect::<Vec<_>>(),
        "min_gap_secs": moment.secs, "hits": report::json(files, &hits), "sheet": sheet,
    });
    let text = report::text(args, files, &hits, space, &query, moment);
    Ok(Output { text, json, as_json: args.common.json })
}

/// The folder with the rows: the run's own, or one written by `embed` or `migrate`.
fn folder(args: &cli::SearchArgs) -> PathBuf {
    let asked = args.embeddings.as_ref().unwrap_or(&args.of.run);
    let inside = asked.join("embeddings");
    if args.embeddings.is_some() && !inside.is_dir() { asked.clone() } else { inside }
}

fn moment(asked: Option<f64>, gap_max_secs: f64) -> Result<DedupWindow> {
    let secs = asked.unwrap_or_else(|| LEAST_MOMENT_SECS.max(MOMENT_GAPS * gap_max_secs));
    if (0.0..=MOST_SECS).contains(&secs) {
        return Ok(DedupWindow { secs });
    }
    Err(Error::usage(format!("--min-gap-secs {secs}: must be from 0 (all frames) to {MOST_SECS}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_longer_than_any_pair() {
        let secs = |asked, gap| moment(asked, gap).map(|moment| moment.secs).ok();
        assert_eq!((secs(None, 0.5), secs(None, 1.5), secs(Some(0.0), 1.5)), (Some(2.0), Some(3.0), Some(0.0)));
        for odd in [-1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert_eq!(secs(Some(odd), 1.0), None);
        }
    }
}
