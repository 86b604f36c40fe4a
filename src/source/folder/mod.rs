//! `dir:`: the images of a folder and its sub-folders in name order, or a single image.
mod listing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::listing::{Entry, Skipped, list};
use crate::error::{Error, Result};
use crate::frame::Frame;
pub use crate::source::image_decode::read_image;
use crate::source::{Pull, Source, SourceCounts, stamp_at, unreadable};

/// A folder of images, or one image, as a source.
#[derive(Debug)]
pub struct Folder {
    folder: PathBuf,
    /// A single image: if it cannot be read, the source fails.
    one: bool,
    entries: Vec<Entry>,
    rate: f64,
    /// Position of the next image.
    at: usize,
    /// Segment of the last readable image; the first readable image of a sub-folder carries the cut.
    last_segment: Option<u64>,
    marks_cuts: bool,
    counts: SourceCounts,
}

impl Folder {
    /// Opens the images under `folder` at `rate` frames per second. Unreadable images leave a gap in positions and
    /// timestamps.
    /// # Errors
    /// Those of [`list`].
    pub fn open(folder: &Path, rate: f64) -> Result<Self> {
        let (entries, left_out) = list(folder)?;
        let marks_cuts = entries.iter().any(|entry| entry.cut);
        let counts = SourceCounts { left_out, ..SourceCounts::default() };
        Ok(Self { marks_cuts, counts, ..Self::of(folder, entries, rate) })
    }

    /// Opens the image at `path`; the first pull shows whether it can be read.
    pub fn one(path: &Path, rate: f64) -> Self {
        let entries = vec![Entry { path: path.into(), segment: 0, cut: false }];
        Self { one: true, ..Self::of(path, entries, rate) }
    }

    fn of(folder: &Path, entries: Vec<Entry>, rate: f64) -> Self {
        let (folder, counts) = (folder.into(), SourceCounts::default());
        Self { folder, one: false, entries, rate, at: 0, last_segment: None, marks_cuts: false, counts }
    }

    /// The path of image `at` relative to the folder; the file name of a single image.
    fn name(&self, at: usize) -> Arc<str> {
        let path = self.entries.get(at).map(|entry| entry.path.as_path()).unwrap_or(&self.folder);
        let below = path.strip_prefix(&self.folder).ok().filter(|below| !below.as_os_str().is_empty());
        let name = below.map(Path::as_os_str).or(path.file_name()).unwrap_or_default();
        name.to_string_lossy().as_ref().into()
    }

    fn unreadable(&mut self, error: &Error) {
        self.counts.unreadable += 1;
        unreadable::tell(self.counts.unreadable, error);
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
                    frame.file = Some(self.name(self.at - 1));
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
                        return Err(Error::runtime(message).with_source(error));
                    }
                }
            }
            if began.elapsed() >= wait {
                return Ok(Pull::Idle);
            }
        }
        if self.at == self.entries.len() && self.counts.unreadable > 0 {
            // Warn only once: the position moves past the end.
            self.at += 1;
            let (count, folder) = (self.counts.unreadable, self.folder.display());
            tracing::warn!("skipped in the folder {folder}: images that cannot be read ({count})");
        }
        Ok(Pull::End)
    }

    fn skip_to(&mut self, index: u64) -> Result<()> {
        let Some(at) = usize::try_from(index).ok().filter(|at| *at <= self.entries.len()) else {
            let (found, folder) = (self.entries.len(), self.folder.display());
            return Err(Error::runtime(format!(
                "the folder {folder} has {found} images, too few to go on at image {index}; were some removed?"
            )));
        };
        // In a run from the start, the first readable image of this segment has the cut: is there one before `index`?
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
