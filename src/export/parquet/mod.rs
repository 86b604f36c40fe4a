//! Apache Parquet: records as typed columns, rows of numbers as lists of fixed length, in one file.
//!
//! Written and read here without a library (docs/design/026-own-parquet.md says why): one page a column and row group, no compression, text
//! by dictionary, levels as runs. What others have written is refused, not misread.
mod arrow;
mod chunk;
mod compact;
mod read;
mod records;
mod runs;
mod schema;
mod sheet;

pub(in crate::export) use read::Groups;
pub(in crate::export) use sheet::Sheet;

/// A file begins and ends with it.
const MAGIC: &[u8; 4] = b"PAR1";

/// What the numbers of a row are called: those of embeddings, those of latents.
const NAMES: [&str; 2] = ["embedding", "latent"];

/// Under which key the file says how long a row is.
const DIM: &str = "afterimage.dim";
