//! The space of stored embeddings.
use std::path::Path;
use std::sync::Arc;

use super::Reader;
use crate::error::Result;

/// The space of a row file, taken from its first record (a file has only one space); `None` if it has no rows.
///
/// # Errors
/// The file or its records cannot be read.
pub fn space_of_file(path: &Path) -> Result<Option<Arc<str>>> {
    let first = Reader::file(path)?.next().transpose()?;
    Ok(first.map(|(record, _)| record.space))
}
