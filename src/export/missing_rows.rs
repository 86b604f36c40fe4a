//! Finds files of a run that are missing or incomplete.
use std::path::Path;

use super::reader::shape;
use super::{Format, RECORDS, row_files};
use crate::error::Result;
use crate::files;

/// The problems of the files in `folder` numbered below `next`, one line each: missing files, and files whose size does
/// not match their header. The oldest may have been removed on purpose (`host.disk_budget_megabytes`).
///
/// # Errors
/// The folder cannot be read.
pub fn missing_below(folder: &Path, next: u64, oldest_may_go: bool) -> Result<Vec<String>> {
    let names = files::names_in(folder)?;
    let there: Vec<(u64, Format)> = row_files(&names).into_iter().filter(|(number, _)| *number < next).collect();
    let mut expected = if oldest_may_go { there.first().map_or(next, |(first, _)| *first) } else { 0 };
    let mut found = Vec::new();
    let mut missing = |from: u64, to: u64| {
        if from < to {
            let which = if from + 1 == to {
                format!("file {from:04} is")
            } else {
                format!("files {from:04} to {:04} are", to - 1)
            };
            found.push(format!("{}: {which} missing, with the rows in it", folder.display()));
        }
    };
    for (number, _) in &there {
        missing(expected, *number);
        expected = number + 1;
    }
    missing(expected, next);
    for (number, format) in there {
        let path = folder.join(files::numbered_name(number, format.end()));
        if let Err(error) = shape(&path) {
            found.push(error.chain());
        }
        let records = path.with_extension(RECORDS);
        if format != Format::Parquet && !records.exists() {
            found
                .push(format!("{} is missing: nobody knows which frames the rows beside it are of", records.display()));
        }
    }
    Ok(found)
}
