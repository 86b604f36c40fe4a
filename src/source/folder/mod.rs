//! `dir:`: the images of a folder and its sub-folders, in name order; and an image by itself.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::frame::Frame;
pub use crate::source::picture::read_image;
use crate::source::picture::{EXTENSIONS, is_image_name};
use crate::source::{Pull, Source, SourceCounts, stamp_at};

/// Unreadable images that are named one by one; the rest is only counted.
const NAMED: u64 = 5;

/// One image of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub path: PathBuf,
    /// Number of its segment: each folder with images is one, in the order of the list.
    pub segment: u64,
    /// First image of a sub-folder.
    pub cut: bool,
}

/// The images under `folder`: first its own, then those of each sub-folder and what is below it. Both go by the bytes
/// of their names. Names that begin with a dot are left out; links are followed, but not round in a circle.
/// # Errors
/// Work: no such folder, one that cannot be listed, or no image in any of them.
pub fn list(folder: &Path) -> Result<Vec<Entry>> {
    let found = fs::metadata(folder).map_err(|e| Error::io("cannot open the folder", folder, e))?;
    if !found.is_dir() {
        let folder = folder.display();
        return Err(Error::work(format!("{folder} is not a folder; name the folder that the images lie in")));
    }
    let mut entries = Vec::new();
    let mut segments = 0;
    walk(folder, &mut Vec::new(), &mut segments, &mut entries)?;
    if entries.is_empty() {
        return Err(Error::work(format!(
            "no images in the folder {} or below it; looked for names ending in {}",
            folder.display(),
            EXTENSIONS.join(", ")
        )));
    }
    Ok(entries)
}

fn walk(folder: &Path, above: &mut Vec<PathBuf>, segments: &mut u64, entries: &mut Vec<Entry>) -> Result<()> {
    let failed = |e| Error::io("cannot list the folder", folder, e);
    let real = fs::canonicalize(folder).map_err(failed)?;
    if above.contains(&real) {
        tracing::warn!("{} links back to a folder above it and is left out", folder.display());
        return Ok(());
    }
    let (mut images, mut folders) = (Vec::new(), Vec::new());
    for item in fs::read_dir(folder).map_err(failed)? {
        let item = item.map_err(failed)?;
        if item.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // A broken link with the name of an image is kept: it is counted as unreadable later, not passed over here.
        let path = item.path();
        if fs::metadata(&path).is_ok_and(|found| found.is_dir()) {
            folders.push(path);
        } else if is_image_name(&path) {
            images.push(path);
        }
    }
    images.sort_unstable();
    folders.sort_unstable();
    let sub_folder = !above.is_empty();
    let segment = *segments;
    *segments += u64::from(!images.is_empty());
    let new = images.into_iter().enumerate();
    entries.extend(new.map(|(i, path)| Entry { path, segment, cut: sub_folder && i == 0 }));
    above.push(real);
    for folder in folders {
        walk(&folder, above, segments, entries)?;
    }
    above.pop();
    Ok(())
}

/// A folder of images, or one image, as a source.
#[derive(Debug)]
pub struct Folder {
    folder: PathBuf,
    /// It was asked for by its own name: its error is that of the source.
    one: bool,
    entries: Vec<Entry>,
    rate: f64,
    /// Position of the next image.
    at: usize,
    /// Segment of the last image that could be read; the first readable one of a sub-folder carries the cut.
    last_segment: Option<u64>,
    marks_cuts: bool,
    counts: SourceCounts,
}

impl Folder {
    /// The images under `folder` at `rate` frames per second. Unreadable ones leave a gap in positions and stamps.
    /// # Errors
    /// As [`list`].
    pub fn open(folder: &Path, rate: f64) -> Result<Self> {
        let entries = list(folder)?;
        let marks_cuts = entries.iter().any(|entry| entry.cut);
        Ok(Self { marks_cuts, ..Self::of(folder, entries, rate) })
    }

    /// The image at `path`; whether it can be read is seen when it is pulled.
    pub fn one(path: &Path, rate: f64) -> Self {
        let entries = vec![Entry { path: path.into(), segment: 0, cut: false }];
        Self { one: true, ..Self::of(path, entries, rate) }
    }

    fn of(folder: &Path, entries: Vec<Entry>, rate: f64) -> Self {
        let (folder, counts) = (folder.into(), SourceCounts::default());
        Self { folder, one: false, entries, rate, at: 0, last_segment: None, marks_cuts: false, counts }
    }

    fn unreadable(&mut self, error: &Error) {
        self.counts.unreadable += 1;
        match self.counts.unreadable {
            n if n <= NAMED => tracing::warn!("skipped: {}", error.chain()),
            n if n == NAMED + 1 => tracing::warn!("more unreadable images follow; they are counted, not named"),
            _ => {}
        }
    }
}

impl Source for Folder {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        let began = Instant::now();
        while let Some(entry) = self.entries.get(self.at) {
            let index = self.at as u64;
            let segment = entry.segment;
            let outcome = read_image(&entry.path, frame);
            self.at += 1;
            match outcome {
                Ok(()) => {
                    frame.index = index;
                    frame.stamp = stamp_at(index, self.rate);
                    // The images of the folder itself come first and follow no cut.
                    let own = self.entries.first().is_some_and(|first| !first.cut && first.segment == segment);
                    frame.cut = !own && self.last_segment != Some(segment);
                    frame.arrived = None;
                    self.last_segment = Some(segment);
                    self.counts.frames += 1;
                    return Ok(Pull::Frame);
                }
                Err(error) if self.one => return Err(error),
                Err(error) => {
                    self.unreadable(&error);
                    if self.counts.unreadable == self.entries.len() as u64 {
                        let (count, folder) = (self.entries.len(), self.folder.display());
                        let message = format!("none of the {count} images in the folder {folder} can be read");
                        return Err(Error::work(message).because(error));
                    }
                }
            }
            if began.elapsed() >= wait {
                return Ok(Pull::Idle);
            }
        }
        if self.at == self.entries.len() && self.counts.unreadable > 0 {
            // Once: the position moves past the end.
            self.at += 1;
            let (count, folder) = (self.counts.unreadable, self.folder.display());
            tracing::warn!("{count} images in the folder {folder} could not be read and were skipped");
        }
        Ok(Pull::End)
    }

    fn skip_to(&mut self, index: u64) -> Result<()> {
        let Some(at) = usize::try_from(index).ok().filter(|at| *at <= self.entries.len()) else {
            let (found, folder) = (self.entries.len(), self.folder.display());
            return Err(Error::work(format!(
                "the folder {folder} has {found} images, too few to go on at image {index}; were some removed?"
            )));
        };
        // A run from the start has given this segment's cut to its first readable image: is one before `index`?
        let segment = self.entries.get(at).map(|entry| entry.segment);
        let before = self.entries.get(..at).unwrap_or_default();
        let same = before.iter().rev().take_while(|entry| Some(entry.segment) == segment);
        let mut scratch = Frame::default();
        let given = same.into_iter().any(|entry| read_image(&entry.path, &mut scratch).is_ok());
        self.last_segment = segment.filter(|_| given);
        self.at = at;
        Ok(())
    }

    fn live(&self) -> bool {
        false
    }

    fn length(&self) -> Option<u64> {
        Some(self.entries.len() as u64)
    }

    fn marks_cuts(&self) -> bool {
        self.marks_cuts
    }

    fn counts(&self) -> SourceCounts {
        self.counts.clone()
    }
}

#[cfg(test)]
mod tests;
