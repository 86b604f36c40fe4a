//! How rows lie in files.
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::files;

/// `export.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// `NNNN.npy` with `NNNN.jsonl`.
    Npy,
    /// `NNNN.parquet`, with the records in it.
    Parquet,
    /// `NNNN.safetensors` with `NNNN.jsonl`.
    Safetensors,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 3] = [Format::Npy, Format::Parquet, Format::Safetensors];

    /// End of the names of its files of rows; its name in the config.
    pub fn end(self) -> &'static str {
        match self {
            Format::Npy => "npy",
            Format::Parquet => "parquet",
            Format::Safetensors => "safetensors",
        }
    }
}

impl FromStr for Format {
    type Err = Error;
    /// As in the config.
    fn from_str(word: &str) -> Result<Self> {
        let known = Format::ALL.into_iter().find(|format| format.end() == word);
        known.ok_or_else(|| Error::config(format!("export.format = {word:?}: must be npy, parquet or safetensors")))
    }
}

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

/// How a folder of rows is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowFormat {
    /// Of the files.
    pub format: Format,
    /// Of the numbers.
    pub dtype: Dtype,
    /// What a row of numbers is called where the format has names: [`RowFormat::EMBEDDING`] or [`RowFormat::LATENT`].
    pub column: &'static str,
}

impl RowFormat {
    /// Embeddings, of frames or of cells.
    pub const EMBEDDING: &'static str = "embedding";
    /// Frozen latents.
    pub const LATENT: &'static str = "latent";

    /// Embeddings.
    pub fn embeddings(format: Format, dtype: Dtype) -> Self {
        Self { format, dtype, column: Self::EMBEDDING }
    }
}

/// Files of rows among `names` by their numbers, rising; a run that went on with another format has files of both.
pub(crate) fn row_files(names: &[String]) -> Vec<(u64, Format)> {
    let of = |format: Format| files::numbered(names, format.end()).into_iter().map(move |number| (number, format));
    let mut all: Vec<_> = Format::ALL.into_iter().flat_map(of).collect();
    all.sort_unstable();
    all
}
