//! Checks exported rows: headers, records, numbers, and spaces.
use std::collections::BTreeMap;
use std::path::Path;

use super::heads::Heads;
use crate::commands::common::Progress;
use crate::commands::diagnostics::Diagnostics;
use crate::error::{Error, Result};
use crate::export::{Format, RECORDS, Reader, row_files};
use crate::files;
use crate::linalg::norm;

/// Tolerance for unit length; f16 numbers are off by up to 2^-11.
const LENGTH_TOLERANCE: f64 = 1e-2;

/// The spaces that rows of a run may have.
pub(super) struct KnownSpaces {
    /// Space of the frozen latents; `None` if run.json cannot be read.
    pub(super) frozen: Option<String>,
    pub(super) heads: Heads,
}

/// Number of rows for each head and space.
type Tally = BTreeMap<(u64, String), u64>;

/// Checks every file in `RUN/NAME`. `next` is the number after the last file in the saved state, `length` the expected
/// length of a row.
pub(super) fn check(all: &mut Diagnostics, run: &Path, name: &str, next: u64, length: f64, spaces: &KnownSpaces) {
    let folder = run.join(name);
    let names = match files::names_in(&folder) {
        Ok(names) => names,
        Err(error) => return all.fail(name, error.chain(), "make the folder readable"),
    };
    let (rows, records) = (row_files(&names), files::numbered(&names, RECORDS));
    if rows.is_empty() && records.is_empty() && next == 0 {
        return;
    }
    let (first, end) = (rows.first().map_or(0, |first| first.0), rows.last().map_or(0, |last| last.0 + 1));
    for number in (first..end).filter(|number| rows.binary_search_by_key(number, |file| file.0).is_err()) {
        // The files before it show its format.
        let format = rows.iter().rfind(|file| file.0 < number).map_or(Format::Npy, |file| file.1);
        let file = files::numbered_name(number, format.end());
        all.fail(format!("{name}/{file}"), "is missing between others", "put it back from a copy; its rows are lost");
    }
    for number in records.into_iter().filter(|number| *number >= end) {
        let todo = "a crash left them; --resume removes them";
        all.warn(format!("{name}/{}", files::numbered_name(number, RECORDS)), "records without rows", todo);
    }
    for gone in [0..first, end..next].into_iter().filter(|gone| !gone.is_empty()) {
        let found = format!("files {:04} to {:04} are not there", gone.start, gone.end - 1);
        all.warn(name, found, "fine where they were moved away on purpose");
    }
    let mut progress = Progress::new("check", None);
    let (mut tally, mut count, mut whole) = (Tally::new(), 0, 0);
    for (number, format) in &rows {
        let file = files::numbered_name(*number, format.end());
        match read(&folder.join(&file), length, &mut tally, &mut || {
            count += 1;
            progress.set(count);
        }) {
            Ok(()) => whole += 1,
            Err(error) => all.fail(format!("{name}/{file}"), error.chain(), "put it back from a copy, or leave it out"),
        }
    }
    drop(progress);
    if whole > 0 {
        all.ok(name, format!("{whole} of {} files whole, {count} rows", rows.len()));
    }
    for ((head, space), rows) in tally {
        owner(all, name, head, &space, rows, spaces);
    }
}

/// Reads one file to its end: as many records as rows, only finite numbers, and every row of length `right`.
fn read(path: &Path, right: f64, tally: &mut Tally, each: &mut dyn FnMut()) -> Result<()> {
    let mut wrong = None;
    for (number, row) in Reader::file(path)?.enumerate() {
        let (record, row) = row?;
        let length = norm(&row);
        if (length / right - 1.0).abs() > LENGTH_TOLERANCE && wrong.is_none() {
            wrong = Some(format!("row {number} of {} has length {length:.3}, not {right}", path.display()));
        }
        *tally.entry((record.head, record.space.to_string())).or_default() += 1;
        each();
    }
    wrong.map_or(Ok(()), |wrong| Err(Error::runtime(wrong)))
}

/// Checks that the space of rows belongs to the head that they name.
fn owner(all: &mut Diagnostics, name: &str, head: u64, space: &str, rows: u64, spaces: &KnownSpaces) {
    let whose = if head == 0 { "the frozen encoder".to_owned() } else { format!("head {head}") };
    let found = format!("{rows} rows of {whose}, space {space}");
    let known = if head == 0 { Some(&spaces.frozen) } else { spaces.heads.get(&head) };
    match known {
        Some(Some(own)) if own == space => all.ok(name, found),
        Some(Some(own)) => all.fail(
            name,
            format!("{found}; but {whose} is of space {own}"),
            "do not compare them with rows of that space; embed the frames again",
        ),
        Some(None) => all.warn(name, format!("{found}; whether that is its space cannot be told"), "see above"),
        None => all.fail(name, format!("{found}, which is not in heads/"), "put the head back from a copy"),
    }
}
