//! How rows lie in files.
use crate::files;

pub use crate::config::{Dtype, Format};

impl Format {
    /// End of the names of its files of rows.
    pub fn end(self) -> &'static str {
        self.as_str()
    }
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
