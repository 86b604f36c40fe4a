//! Apache Parquet: records as typed columns and embedding rows as fixed-size lists, in one file.
//!
//! Written and read without a library (docs/design/026-own-parquet.md explains why): one page per column and row group,
//! no compression, dictionary-encoded text, levels as runs. Files from other programs are rejected, not misread.
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

/// Magic bytes at both ends of a file.
const MAGIC: &[u8; 4] = b"PAR1";

/// Column names of the rows: embeddings and latents.
const NAMES: [&str; 2] = ["embedding", "latent"];

/// Metadata key for the length of a row.
const DIM: &str = "afterimage.dim";
