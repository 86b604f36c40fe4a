//! Of which space stored embeddings are.
use std::path::Path;
use std::sync::Arc;

use super::Reader;
use crate::error::Result;

/// The space of a file of rows: that of its first record (a file has one space only); `None` where it has no rows.
///
/// # Errors
/// The file or its records cannot be read.
pub fn space_of_file(path: &Path) -> Result<Option<Arc<str>>> {
    let first = Reader::file(path)?.next().transpose()?;
    Ok(first.map(|(record, _)| record.space))
}
