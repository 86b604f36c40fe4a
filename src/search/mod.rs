//! Exact nearest-neighbour search for an embedding among the rows of files, in memory that does not grow with them.
//!
//! The similarity of unit vectors is `Σ a_i b_i` (their cosine), summed in 64 bits. Every row is compared; there is no
//! index.
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use crate::error::{Error, Result};
use crate::export::{Granularity, Record, RowFileReader};

/// Rows kept in one pass over the files: this many per requested hit, and at least `LEAST_PAGE`. If a pass is not
/// enough, the next one covers the rows that rank after it.
const PAGE_PER_HIT: usize = 64;
const LEAST_PAGE: usize = 1024;
/// The page grows up to this many rows (24 bytes each, plus their records), so that few passes are needed.
const MOST_PAGE: usize = 1 << 16;

/// Position and similarity of a row. The most similar row sorts first, ties by file and row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowRef {
    /// `Σ a_i b_i`, at most 1 except for rounding.
    pub similarity: f64,
    /// Index in the list of files.
    pub file: usize,
    /// Number of the row in the file.
    pub row: u64,
}

impl Eq for RowRef {}

impl Ord for RowRef {
    fn cmp(&self, other: &Self) -> Ordering {
        let better = other.similarity.total_cmp(&self.similarity);
        better.then_with(|| (self.file, self.row).cmp(&(other.file, other.row)))
    }
}

impl PartialOrd for RowRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A neighbour.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Position and similarity of the row.
    pub place: RowRef,
    /// What the row embeds.
    pub record: Record,
}

/// Defines which rows show the same moment, so that only the nearest of them becomes a hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DedupWindow {
    /// Rows of one camera within this many seconds are the same moment; 0: no other rows.
    pub secs: f64,
}

impl DedupWindow {
    /// Whether `a` and `b` show the same moment: frames of one camera within [`DedupWindow::secs`]. Boxes of different
    /// tracks never do, nor do two boxes of one frame.
    pub fn same(self, a: &Record, b: &Record) -> bool {
        if a.camera != b.camera {
            return false;
        }
        if a.level == Granularity::Box && b.level == Granularity::Box {
            let tracks = a.track.zip(b.track);
            if tracks.is_some_and(|(a, b)| a != b) || (a.frame == b.frame && a.window != b.window) {
                return false;
            }
        }
        let secs = a.stamp_ns.abs_diff(b.stamp_ns) as f64 * 1e-9;
        a.frame == b.frame || (self.secs > 0.0 && secs <= self.secs)
    }
}

/// The `k` rows of `files` most similar to `query`, such that no two show the same `moment` and none shows the same as
/// `own`: the nearest row first, then the nearest row of another moment, and so on. Fewer if there are not enough.
///
/// # Errors
/// A file cannot be read, or has rows of another length or numbers that are not finite.
pub fn nearest(
    files: &[RowFileReader],
    query: &[f32],
    k: usize,
    moment: DedupWindow,
    own: Option<&Record>,
) -> Result<Vec<Hit>> {
    let mut hits: Vec<Hit> = Vec::with_capacity(k);
    let (mut after, mut page) = (None, (PAGE_PER_HIT * k).clamp(LEAST_PAGE, MOST_PAGE));
    while hits.len() < k {
        let found = best(files, query, page, after)?;
        for (place, record) in with_records(files, &found)? {
            let seen = hits.iter().map(|hit| &hit.record).chain(own).any(|other| moment.same(other, &record));
            if !seen {
                hits.push(Hit { place, record });
                if hits.len() == k {
                    break;
                }
            }
        }
        if found.len() < page {
            break;
        }
        (after, page) = (found.last().copied(), (4 * page).min(MOST_PAGE));
    }
    Ok(hits)
}

/// The `most` most similar rows that rank after `after`, in order.
///
/// # Errors
/// See [`nearest`].
pub fn best(files: &[RowFileReader], query: &[f32], most: usize, after: Option<RowRef>) -> Result<Vec<RowRef>> {
    // The least similar kept row is on top. The heap grows as needed: `most` may exceed the number of rows.
    let mut kept: BinaryHeap<RowRef> = BinaryHeap::new();
    for (file, stored) in files.iter().enumerate() {
        let odd = |what: String| Error::runtime(format!("cannot use {}: {what}", stored.path().display()));
        if stored.dim() != query.len() {
            return Err(odd(format!("its rows have {} numbers, the query {}", stored.dim(), query.len())));
        }
        stored.for_each_row(|row, numbers| {
            let place = RowRef { similarity: dot(query, numbers), file, row };
            if !place.similarity.is_finite() {
                return Err(odd(format!("row {row} has a number that is not finite; see `afterimage check --run`")));
            }
            let better = kept.len() < most || kept.peek().is_some_and(|worst| place < *worst);
            if better && after.is_none_or(|after| place > after) {
                if kept.len() == most {
                    kept.pop();
                }
                kept.push(place);
            }
            Ok(())
        })?;
    }
    Ok(kept.into_sorted_vec())
}

/// Each row with its record, in the order of `places`.
fn with_records(files: &[RowFileReader], places: &[RowRef]) -> Result<Vec<(RowRef, Record)>> {
    let mut by_file: BTreeMap<usize, Vec<(u64, usize)>> = BTreeMap::new();
    for (at, place) in places.iter().enumerate() {
        by_file.entry(place.file).or_default().push((place.row, at));
    }
    let mut records: Vec<Option<Record>> = vec![None; places.len()];
    for (file, mut rows) in by_file {
        rows.sort_unstable();
        let wanted: Vec<u64> = rows.iter().map(|(row, _)| *row).collect();
        let found = files.get(file).map_or(Ok(Vec::new()), |file| file.records(&wanted))?;
        for ((_, at), record) in rows.into_iter().zip(found) {
            records[at] = Some(record);
        }
    }
    Ok(places.iter().zip(records).filter_map(|(place, record)| record.map(|record| (*place, record))).collect())
}

/// Number of parallel partial sums, which allow vectorization; they are added in a fixed order.
const LANES: usize = 8;

/// `Σ a_i b_i`. The products of 32-bit numbers are exact in 64 bits, and the error of the sum is about 1e-15.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_blocks.remainder().iter().zip(b_blocks.remainder());
    let rest: f64 = rest.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for i in 0..LANES {
            sums[i] += f64::from(a[i]) * f64::from(b[i]);
        }
    }
    sums.iter().sum::<f64>() + rest
}
