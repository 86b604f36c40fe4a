//! Exports: embeddings as they are computed, and the encoder with its head as one ONNX file.
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

/// Extension of the files of records.
pub(crate) const RECORDS: &str = "jsonl";

/// The number after the last complete row file in `folder`; 0 if there is none.
/// # Errors
/// The folder cannot be read.
pub fn next_number(folder: &Path) -> Result<u64> {
    Ok(row_files(&files::names_in(folder)?).last().map_or(0, |(last, _)| last + 1))
}

/// A reader of the last complete row file in `folder`; `None` if there is none.
/// # Errors
/// The folder or the header of the file cannot be read.
pub fn newest_file(folder: &Path) -> Result<Option<Reader>> {
    let newest = row_files(&files::names_in(folder)?).pop();
    newest.map(|(number, format)| Reader::file(&folder.join(files::numbered_name(number, format.end())))).transpose()
}

/// Removes the files numbered `number` and above, and files left unfinished by an interrupted run; a resumed run writes
/// them again. Does nothing if the folder does not exist.
/// # Errors
/// The I/O error, with the path.
pub fn discard_from(folder: &Path, number: u64) -> Result<()> {
    let names = files::names_in(folder)?;
    if names.is_empty() {
        return Ok(());
    }
    let mut goes: Vec<String> = names.iter().filter(|name| files::is_partial(name)).cloned().collect();
    // Start with the highest number and remove rows first, in reverse order of creation, so that an interruption never
    // splits a pair in the middle of the sequence.
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
