//! Lists the images of a folder: which files, in which order, and what is skipped.
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::source::image_decode::{READ, Sniffed, WAY_OUT, beginning, is_image_name};
use crate::source::subprocess::kind;

/// Folders that systems create beside images: thumbnails, deleted files, recovered files.
const OF_SYSTEMS: &[&str] = &["@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information"];
/// Files that systems create beside images.
const FILES_OF_SYSTEMS: &[&str] = &["thumbs.db", "desktop.ini"];

/// One image of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path of the image file.
    pub path: PathBuf,
    /// Number of its segment: each folder with images is one, in list order.
    pub segment: u64,
    /// First image of a sub-folder.
    pub cut: bool,
}

/// Counts of skipped files under a folder, by reason. They are read for every frame, so a clone is cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped(Option<Arc<BTreeMap<String, u64>>>);

impl Skipped {
    fn count(&mut self, reason: impl Into<String>) {
        *Arc::make_mut(self.0.get_or_insert_default()).entry(reason.into()).or_default() += 1;
    }

    /// Adds the counts of another folder.
    pub fn add(&mut self, other: &Skipped) {
        match (&mut self.0, &other.0) {
            (Some(all), Some(others)) => {
                let all = Arc::make_mut(all);
                others.iter().for_each(|(reason, count)| *all.entry(reason.clone()).or_default() += count);
            }
            (all @ None, others) => all.clone_from(others),
            (_, None) => {}
        }
    }

    /// A line for a report, preceded by a line break; empty if nothing was skipped.
    pub fn line(&self) -> String {
        if self.is_empty() { String::new() } else { format!("\nleft out   {self}") }
    }

    /// True if nothing was skipped.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Serialize for Skipped {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().flat_map(|all| all.iter()))
    }
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.0.iter().flat_map(|all| all.iter());
        let each: Vec<String> = all.map(|(reason, count)| format!("{reason} ({count})")).collect();
        f.write_str(&each.join(", "))
    }
}

/// The images under `folder`: first its own, then those of each sub-folder recursively; and what was skipped.
///
/// Names are in natural order. The content decides whether a file is an image; only regular files are read (also
/// through links), and each real folder only once. Hidden names and system folders are skipped.
/// # Errors
/// A runtime error: no such folder, a folder that cannot be listed, or no image at all.
pub fn list(folder: &Path) -> Result<(Vec<Entry>, Skipped)> {
    let found = fs::metadata(folder).map_err(|e| Error::io("cannot open the folder", folder, e))?;
    if !found.is_dir() {
        let folder = folder.display();
        return Err(Error::runtime(format!("{folder} is not a folder; name the folder that the images lie in")));
    }
    let mut walk = Walk::default();
    walk.folder(folder, true)?;
    let Walk { entries, left_out, boxes, .. } = walk;
    if entries.is_empty() {
        let found = if left_out.is_empty() { "nothing".to_owned() } else { left_out.to_string() };
        return Err(Error::runtime(format!(
            "no images in the folder {} or below it; {READ} files are read, and it has {found}",
            folder.display()
        )));
    }
    if !left_out.is_empty() {
        tracing::warn!(
            "left out of the folder {}: {left_out}. {READ} are read, whatever their names; {WAY_OUT}",
            folder.display()
        );
    }
    if let Some(file) = boxes {
        tracing::warn!(
            "{} looks like a file of boxes; boxes are taken from the file that --boxes names",
            file.display()
        );
    }
    Ok((entries, left_out))
}

#[derive(Default)]
struct Walk {
    seen: BTreeSet<PathBuf>,
    segments: u64,
    entries: Vec<Entry>,
    left_out: Skipped,
    /// The first file that looks like a list of boxes.
    boxes: Option<PathBuf>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, first: bool) -> Result<()> {
        let failed = |e| Error::io("cannot list the folder", folder, e);
        if !self.seen.insert(fs::canonicalize(folder).map_err(failed)?) {
            self.left_out.count("links to folders that were read already");
            return Ok(());
        }
        let (mut images, mut folders) = (Vec::new(), Vec::new());
        for item in fs::read_dir(folder).map_err(failed)? {
            self.item(item.map_err(failed)?.path(), &mut images, &mut folders);
        }
        images.sort_unstable_by(|a, b| natural(a, b));
        folders.sort_unstable_by(|a, b| natural(a, b));
        let segment = self.segments;
        self.segments += u64::from(!images.is_empty());
        let new = images.into_iter().enumerate();
        self.entries.extend(new.map(|(i, path)| Entry { path, segment, cut: !first && i == 0 }));
        for folder in folders {
            if let Err(error) = self.folder(&folder, false) {
                // The other folders can be read; this one is logged.
                tracing::warn!("left out: {}", error.chain());
                self.left_out.count("folders that cannot be read");
            }
        }
        Ok(())
    }

    /// Sorts a file by its content: an image or something else.
    fn file(&mut self, path: PathBuf, images: &mut Vec<PathBuf>) {
        match Sniffed::at(&path) {
            Some(Sniffed::Picture) => images.push(path),
            Some(Sniffed::Animated(kind)) => self.left_out.count(format!("animated {kind:?} files, which are films")),
            // A file with only the name of an image is counted as unreadable later, not skipped here.
            None if is_image_name(&path) => images.push(path),
            None => {
                self.left_out.count(other(&path));
                if self.boxes.is_none() && beginning(&path).is_ok_and(|head| kind::boxes(&head)) {
                    self.boxes = Some(path);
                }
            }
        }
    }

    /// Adds the entry at `path` to the images or folders, or counts it as skipped.
    fn item(&mut self, path: PathBuf, images: &mut Vec<PathBuf>, folders: &mut Vec<PathBuf>) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.starts_with('.') {
            self.left_out.count("hidden files or folders");
            return;
        }
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() && OF_SYSTEMS.contains(&name.as_str()) => {
                self.left_out.count("folders of the system");
            }
            Ok(found) if found.is_dir() => folders.push(path),
            Ok(found) if found.is_file() && FILES_OF_SYSTEMS.contains(&name.as_str()) => {
                self.left_out.count("files of the system");
            }
            Ok(found) if found.is_file() => self.file(path, images),
            Ok(_) => self.left_out.count("pipes, sockets or devices"),
            Err(error) if error.kind() == ErrorKind::NotFound && is_image_name(&path) => images.push(path),
            Err(error) if error.kind() == ErrorKind::NotFound => self.left_out.count("broken links"),
            Err(_) => self.left_out.count("names that cannot be looked at"),
        }
    }
}

fn other(path: &Path) -> String {
    match path.extension() {
        Some(ending) => format!("files .{}", ending.to_string_lossy().to_lowercase().escape_debug()),
        None => "files without an ending".into(),
    }
}

/// Name order: runs of digits compare as numbers, the rest as bytes; equal names compare by all their bytes.
pub(super) fn natural(a: &Path, b: &Path) -> Ordering {
    let (a, b) = (a.as_os_str().as_encoded_bytes(), b.as_os_str().as_encoded_bytes());
    by_number(a, b).then_with(|| a.cmp(b))
}

fn by_number(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        let (Some(x), Some(y)) = (a.first(), b.first()) else { return a.len().cmp(&b.len()) };
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (first, second) = (digits(&mut a), digits(&mut b));
            first.len().cmp(&second.len()).then_with(|| first.cmp(second))
        } else {
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
            x.cmp(y)
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Takes the digits from the front of `text`, without leading zeros.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    let noughts = number.iter().take_while(|digit| **digit == b'0').count();
    number.get(noughts..).unwrap_or_default()
}
