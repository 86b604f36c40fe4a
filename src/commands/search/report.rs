//! Search results, for people and for scripts.
use jiff::Timestamp;
use serde_json::{Value, json};

use super::embedding_store::{EmbeddingStore, StoredSpace};
use super::query::Query;
use crate::cli;
use crate::export::{Record, RowFileReader};
use crate::search::{DedupWindow, Hit};

/// One line per hit.
pub(super) fn text(
    args: &cli::SearchArgs,
    files: &[RowFileReader],
    hits: &[Hit],
    space: &StoredSpace,
    query: &Query,
    moment: DedupWindow,
) -> String {
    let mut lines = vec![format!(
        "nearest to {} among {} rows of space {}, head {}",
        query.name, space.rows, space.name, space.head
    )];
    let wide = hits.iter().map(|hit| hit.record.camera.chars().count()).max().unwrap_or(0).max(6);
    let when = hits.iter().map(|hit| time(&hit.record).len()).max().unwrap_or(0).max(4);
    lines.push(format!(
        "rank  similarity  {:<wide$}  {:>8}  {:<when$}  {:>7}  row",
        "camera", "frame", "time", "segment"
    ));
    for (rank, hit) in (1..).zip(hits) {
        let record = &hit.record;
        lines.push(format!(
            "{rank:>4}  {:>10.4}  {:<wide$}  {:>8}  {:<when$}  {:>7}  {}",
            hit.place.similarity,
            record.camera,
            record.frame,
            time(record),
            record.segment,
            row(files, hit)
        ));
    }
    if (hits.len() as u32) < args.k {
        let why = if moment.secs > 0.0 {
            format!(
                "all others are within {:.1} s of these or of the query; a smaller --min-gap-secs lets more in",
                moment.secs
            )
        } else {
            "there are no more rows".into()
        };
        lines.push(format!("{} of {}: {why}", hits.len(), args.k));
    }
    lines.extend(args.out.as_ref().map(|path| format!("contact sheet: {}", path.display())));
    lines.join("\n")
}

/// The hits as JSON.
pub(super) fn json(files: &[RowFileReader], hits: &[Hit]) -> Vec<Value> {
    let one = |(rank, hit): (usize, &Hit)| {
        let Hit { place, record } = hit;
        json!({
            "rank": rank, "similarity": place.similarity, "camera": record.camera.as_ref(), "frame": record.frame,
            "stamp_ns": record.stamp_ns, "wall_ns": record.wall_ns, "segment": record.segment, "level": record.level,
            "box": record.window, "track": record.track, "class": record.class,
            "file": file(files, hit), "row": place.row,
        })
    };
    (1..).zip(hits).map(one).collect()
}

/// Text above the images of a contact sheet.
pub(super) fn notes(exports: &EmbeddingStore, space: &StoredSpace, moment: DedupWindow, hits: usize) -> Vec<String> {
    let mut notes = vec![format!("{hits} nearest of {} rows of space {}, head {}", space.rows, space.name, space.head)];
    if moment.secs > 0.0 {
        notes.push(format!("of each camera one hit within {:.1} s, the nearest", moment.secs));
    }
    let left: u64 = exports.others(space).map(|other| other.rows).sum();
    if left > 0 {
        notes.push(format!("{left} rows of other spaces are not compared"));
    }
    notes
}

fn file(files: &[RowFileReader], hit: &Hit) -> String {
    let name = files.get(hit.place.file).and_then(|file| file.path().file_name());
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `0003.npy:17`, as `--row` takes it.
fn row(files: &[RowFileReader], hit: &Hit) -> String {
    format!("{}:{}", file(files, hit), hit.place.row)
}

/// Time of a frame: wall-clock time for a live source (UTC), otherwise time since the start of the source.
pub(super) fn time(record: &Record) -> String {
    match record.wall_ns {
        Some(wall) => wall_clock(wall),
        None => since_start(record.stamp_ns),
    }
}

/// `1:02:03.250`.
fn since_start(nanos: i64) -> String {
    let millis = nanos.unsigned_abs() / 1_000_000;
    let (sign, secs) = (if nanos < 0 { "-" } else { "" }, millis / 1000);
    format!("{sign}{}:{:02}:{:02}.{:03}", secs / 3600, secs / 60 % 60, secs % 60, millis % 1000)
}

/// `2026-02-28 23:59:59Z`.
fn wall_clock(nanos: i64) -> String {
    // The range of `Timestamp` contains every `i64` of nanoseconds.
    let time = Timestamp::from_nanosecond(nanos.into()).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_write_them() {
        assert_eq!(since_start(3_723_250_000_000), "1:02:03.250");
        assert_eq!(since_start(-1_500_000_000), "-0:00:01.500");
        for (secs, shown) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_709_251_200, "2024-03-01 00:00:00Z"),
            (1_798_761_599, "2026-12-31 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
            (-1, "1969-12-31 23:59:59Z"),
        ] {
            assert_eq!(wall_clock(secs * 1_000_000_000 + 7), shown);
        }
    }
}
