//! Of which space stored embeddings are, and that only those of one space are compared.
use std::path::Path;
use std::sync::Arc;

use super::Reader;
use crate::error::{Error, Result};

/// The space of a file of rows: that of its first record (a file has one space only); `None` where it has no rows.
///
/// # Errors
/// The file or its records cannot be read.
pub fn space_of_file(path: &Path) -> Result<Option<Arc<str>>> {
    let first = Reader::file(path)?.next().transpose()?;
    Ok(first.map(|(record, _)| record.space))
}

/// The one space of `files` (each with its space) whose rows are to be compared; `None` of no files.
///
/// # Errors
/// [`crate::error::Kind::Refused`]: two files are of different spaces. It names both, and the command that brings one into
/// the space of the other.
pub fn one_space<'a>(files: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Result<Option<&'a str>> {
    let mut files = files.into_iter();
    let Some((first, space)) = files.next() else { return Ok(None) };
    match files.find(|(_, other)| *other != space) {
        None => Ok(Some(space)),
        Some((path, other)) => Err(Error::refused(format!(
            "{} is of space {space} and {} of space {other}: embeddings of different spaces cannot be compared. Bring them \
             into one with `afterimage migrate {} --to {other} --run RUN --out DIR` (docs/spaces.md)",
            first.display(),
            path.display(),
            first.display()
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn files_of_two_spaces_are_refused_by_name() {
        let file = |name: &'static str, space: &'static str| (Path::new(name), space);
        assert_eq!(one_space([]).unwrap(), None);
        assert_eq!(one_space([file("a/0000.npy", "aa"), file("a/0001.npy", "aa")]).unwrap(), Some("aa"));
        let error = one_space([file("a/0000.npy", "aa"), file("a/0001.npy", "aa"), file("b.npy", "bb")]).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.chain();
        for part in
            ["a/0000.npy is of space aa", "b.npy of space bb", "afterimage migrate a/0000.npy --to bb --run RUN"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
