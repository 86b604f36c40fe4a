//! The row files of a folder, grouped by space.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::export::{Granularity, Reader, RowFileReader, row_files};
use crate::files;

/// Rows of one space.
#[derive(Debug, Clone)]
pub(super) struct StoredSpace {
    pub(super) name: Arc<str>,
    /// Number of the head of this space.
    pub(super) head: u64,
    pub(super) level: Granularity,
    pub(super) rows: u64,
    files: Vec<RowFileReader>,
}

/// All row files of a folder.
#[derive(Debug)]
pub(super) struct EmbeddingStore {
    folder: PathBuf,
    /// In the order in which they first appear.
    spaces: Vec<StoredSpace>,
}

impl EmbeddingStore {
    /// Inspects every file in `folder`.
    ///
    /// # Errors
    /// No file has rows, or one is damaged.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let mut spaces: Vec<StoredSpace> = Vec::new();
        for (number, format) in row_files(&files::names_in(folder)?) {
            let path = folder.join(files::numbered_name(number, format.end()));
            let stored = match RowFileReader::open(&path) {
                // A running program with a disk budget removes its oldest files meanwhile.
                Err(_) if !path.exists() => continue,
                stored => stored?,
            };
            // All rows of a file have the same space, so its first record determines it.
            let Some((first, _)) = Reader::file(stored.path())?.next().transpose()? else { continue };
            let at = spaces.iter().position(|space| space.name == first.space).unwrap_or_else(|| {
                let (name, head, level) = (first.space.clone(), first.head, first.level);
                spaces.push(StoredSpace { name, head, level, rows: 0, files: Vec::new() });
                spaces.len() - 1
            });
            if let Some(space) = spaces.get_mut(at) {
                space.rows += stored.rows();
                space.files.push(stored);
            }
        }
        if spaces.is_empty() {
            return Err(Error::runtime(format!(
                "no embeddings in {}: there is nothing to search. `learn` writes them (export.embeddings = true), and \
                 `embed --run RUN --out DIR` does for any source (then: --embeddings DIR)",
                folder.display()
            )));
        }
        Ok(Self { folder: folder.to_path_buf(), spaces })
    }

    /// The space whose name begins with `name`.
    pub(super) fn named(&self, name: &str) -> Result<&StoredSpace> {
        let mut fitting = self.spaces.iter().filter(|space| !name.is_empty() && space.name.starts_with(name));
        match (fitting.next(), fitting.next()) {
            (Some(space), None) => Ok(space),
            (found, _) => {
                let how = if found.is_some() { "the beginning of several spaces" } else { "no space" };
                let known: Vec<String> = self.spaces.iter().map(StoredSpace::told).collect();
                Err(Error::usage(format!(
                    "--space {name:?} is {how} of the rows in {}; there are {}",
                    self.folder.display(),
                    known.join("; ")
                )))
            }
        }
    }

    /// The space of the head `newest` if it has rows, otherwise of the newest head that has.
    pub(super) fn newest(&self, newest: u64) -> Result<&StoredSpace> {
        let space = self.spaces.iter().max_by_key(|space| space.head);
        let space = space.ok_or_else(|| Error::runtime("there is nothing to search"))?;
        if space.head < newest {
            tracing::warn!(
                "the newest head, {newest}, has no rows in {} yet; searched are those of head {}",
                self.folder.display(),
                space.head
            );
        }
        Ok(space)
    }

    /// The space of a file, given by its name in the folder.
    pub(super) fn of_file(&self, name: &Path) -> Result<&StoredSpace> {
        let has = |space: &&StoredSpace| space.files.iter().any(|file| file.path().file_name() == name.file_name());
        self.spaces.iter().find(has).ok_or_else(|| {
            Error::usage(format!("--row: there is no file {} with rows in {}", name.display(), self.folder.display()))
        })
    }

    pub(super) fn others<'a>(&'a self, space: &'a StoredSpace) -> impl Iterator<Item = &'a StoredSpace> {
        self.spaces.iter().filter(move |other| other.name != space.name)
    }

    /// Reports which rows are not searched, and what to do about it.
    pub(super) fn tell_others(&self, space: &StoredSpace, run: &Path) {
        let others: Vec<&StoredSpace> = self.others(space).collect();
        if others.is_empty() {
            return;
        }
        let rows: u64 = others.iter().map(|other| other.rows).sum();
        let told: Vec<String> = others.iter().map(|other| other.told()).collect();
        tracing::warn!(
            "{rows} rows of other spaces are left out, since they cannot be compared with space {}: {}. Bring them over with \
             `afterimage migrate FILES --to {} --run {} --out DIR`, or search them with --space NAME",
            space.name,
            told.join("; "),
            space.name,
            run.display()
        );
    }
}

impl StoredSpace {
    pub(super) fn told(&self) -> String {
        format!("{} (head {}, {} rows)", self.name, self.head, self.rows)
    }

    /// The file called `name`, ignoring the folder in it.
    pub(super) fn file(&self, name: &Path) -> Option<&RowFileReader> {
        self.files.iter().find(|file| file.path().file_name() == name.file_name())
    }

    pub(super) fn all(&self) -> &[RowFileReader] {
        &self.files
    }
}
