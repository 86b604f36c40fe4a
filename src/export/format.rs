//! The layout of rows in files.
use crate::files;

pub use crate::config::{Dtype, Format};

impl Format {
    /// File extension of row files in this format.
    pub fn end(self) -> &'static str {
        self.as_str()
    }
}

impl Dtype {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 => 2,
        }
    }
}

/// Format, number type and column name of the row files in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowFormat {
    /// File format.
    pub format: Format,
    /// Type of the numbers.
    pub dtype: Dtype,
    /// Name of the column of rows, where the format has names: [`RowFormat::EMBEDDING`] or [`RowFormat::LATENT`].
    pub column: &'static str,
}

impl RowFormat {
    /// Column name for embeddings of frames or of cells.
    pub const EMBEDDING: &'static str = "embedding";
    /// Column name for frozen latents.
    pub const LATENT: &'static str = "latent";

    /// The layout for embeddings.
    pub fn embeddings(format: Format, dtype: Dtype) -> Self {
        Self { format, dtype, column: Self::EMBEDDING }
    }
}

/// The row files among `names`, in ascending order of number. A run resumed with another format has files of both.
pub(crate) fn row_files(names: &[String]) -> Vec<(u64, Format)> {
    let of = |format: Format| files::numbered(names, format.end()).into_iter().map(move |number| (number, format));
    let mut all: Vec<_> = Format::ALL.into_iter().flat_map(of).collect();
    all.sort_unstable();
    all
}
