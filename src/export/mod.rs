//! What leaves: embeddings as they come, and the ONNX file of encoder and head.
pub mod box_api;
mod retention;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod row_buffer;
pub mod socket;
mod missing_rows;
pub mod npy;
pub mod onnx;
pub mod sinks;
mod sidecar_file;
mod parquet;
pub mod reader;
mod record;
mod recovery;
mod row_writer;
mod safetensors;
mod spaces;
mod row_file_reader;
#[cfg(test)]
mod tests;
pub mod trackers;
pub mod writer;

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

pub(crate) use format::row_files;
pub use format::{Dtype, Format, RowFormat};
pub use missing_rows::missing_below;
pub use reader::Reader;
pub(crate) use reader::format_of;
pub use record::{Granularity, Provenance, Record, SCHEMA};
pub use recovery::{Recovered, recover};
pub use retention::{DiskRetention, Removed};
pub use row_file_reader::RowFileReader;
pub use row_writer::RowFileWriter;
pub use spaces::space_of_file;
pub use writer::{Writer, WriterCounts};

/// End of the names of the files of records.
pub(crate) const RECORDS: &str = "jsonl";

/// The number after the last whole file of rows in `folder`; 0 where there is none.
/// # Errors
/// The folder cannot be read.
pub fn next_number(folder: &Path) -> Result<u64> {
    Ok(row_files(&files::names_in(folder)?).last().map_or(0, |(last, _)| last + 1))
}

/// The rows of the last whole file in `folder`; `None` where there is none.
/// # Errors
/// The folder cannot be read, or the header of the file.
pub fn newest_file(folder: &Path) -> Result<Option<Reader>> {
    let newest = row_files(&files::names_in(folder)?).pop();
    newest.map(|(number, format)| Reader::file(&folder.join(files::numbered_name(number, format.end())))).transpose()
}

/// Removes the files numbered `number` and above, and what a run that was cut off left unfinished: a resumed run
/// writes them again. No folder: nothing to do.
/// # Errors
/// The I/O error with the path.
pub fn discard_from(folder: &Path, number: u64) -> Result<()> {
    let names = files::names_in(folder)?;
    if names.is_empty() {
        return Ok(());
    }
    let mut goes: Vec<String> = names.iter().filter(|name| files::is_partial(name)).cloned().collect();
    // From the top and rows first, the reverse of how they came: cut off in between, no pair is torn in the middle.
    for end in Format::ALL.map(Format::end).into_iter().chain([RECORDS]) {
        let above = files::numbered(&names, end).into_iter().rev().filter(|n| *n >= number);
        goes.extend(above.map(|n| files::numbered_name(n, end)));
    }
    for name in goes {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(|error| Error::io("cannot remove", &path, error))?;
    }
    files::sync_folder(folder)
}
