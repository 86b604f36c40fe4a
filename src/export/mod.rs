//! What leaves: embeddings as they come, and the ONNX file of encoder and head.
mod budget;
pub mod live;
pub mod npy;
pub mod onnx;
pub mod outlets;
mod pair;
pub mod reader;
mod record;
#[cfg(test)]
mod tests;
pub mod trackers;
pub mod writer;

use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::files;

pub use budget::{Budget, Removed};
pub use reader::Reader;
pub use record::{Level, Maker, Record, SCHEMA};
pub use writer::{Counts, Writer};

/// End of the names of the files of rows.
pub(crate) const ROWS: &str = "npy";

/// End of the names of the files of records.
pub(crate) const RECORDS: &str = "jsonl";

/// Type of the numbers in a file of embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 4 bytes a number.
    F32,
    /// 2 bytes a number: relative error up to 2^-11, enough to compare unit vectors.
    F16,
}

impl Dtype {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 => 2,
        }
    }
}

impl FromStr for Dtype {
    type Err = Error;
    /// `f32` or `f16`, as in the config.
    fn from_str(word: &str) -> Result<Self> {
        match word {
            "f32" => Ok(Dtype::F32),
            "f16" => Ok(Dtype::F16),
            _ => Err(Error::config(format!("export.dtype = {word:?}: must be f32 or f16"))),
        }
    }
}

/// The number after the last whole pair of files in `folder`; 0 where there is none.
/// # Errors
/// The folder cannot be read.
pub fn next_number(folder: &Path) -> Result<u64> {
    Ok(files::numbered(&files::names_in(folder)?, ROWS).last().map_or(0, |last| last + 1))
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
    for end in [ROWS, RECORDS] {
        let above = files::numbered(&names, end).into_iter().rev().filter(|n| *n >= number);
        goes.extend(above.map(|n| files::numbered_name(n, end)));
    }
    for name in goes {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(|error| Error::io("cannot remove", &path, error))?;
    }
    files::sync_folder(folder)
}
