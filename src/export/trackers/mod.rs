//! Box embeddings in the formats of trackers: DeepSORT rows, BoT-SORT and FastReID arrays, and tensors as in
//! DeepStream.
mod deferred_header;
#[cfg(test)]
mod tests;

use std::path::Path;

use deferred_header::DeferredHeaderFile;

use crate::detection::Detection;
use crate::error::{Error, Result};
use crate::export::npy::{self, HEADER_BYTES};
use crate::files;

/// Magic bytes of `reid.bin`.
const MAGIC: &[u8; 8] = b"AFREID01";
/// Size of the header of `reid.bin`.
const REID_HEADER: usize = 64;
/// Size of an object in `reid.bin` before its embedding.
const REID_OBJECT: usize = 64;
/// Numbers in a DeepSORT row before the embedding.
const MOT: usize = 10;

/// The files for the boxes of one source, all with the same rows in the same order: by frame, and within a frame in the
/// order of the box file.
#[derive(Debug)]
pub struct Trackers {
    deepsort: DeferredHeaderFile,
    reid: DeferredHeaderFile,
    features: DeferredHeaderFile,
    tracks: DeferredHeaderFile,
    cameras: DeferredHeaderFile,
    frames: DeferredHeaderFile,
    rects: DeferredHeaderFile,
    classes: DeferredHeaderFile,
    dim: usize,
    rows: u64,
}

impl Trackers {
    /// Creates `folder` and the files in it, for embeddings of `dim` numbers.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create(folder: &Path, dim: usize) -> Result<Self> {
        files::create_folder(folder)?;
        let array = |name: &str| DeferredHeaderFile::create(folder.join(name), HEADER_BYTES);
        Ok(Self {
            deepsort: array("deepsort.npy")?,
            reid: DeferredHeaderFile::create(folder.join("reid.bin"), REID_HEADER)?,
            features: array("features.npy")?,
            tracks: array("pids.npy")?,
            cameras: array("camids.npy")?,
            frames: array("frames.npy")?,
            rects: array("boxes.npy")?,
            classes: array("classes.npy")?,
            dim,
            rows: 0,
        })
    }

    /// Appends one embedding `[d]`. Values that the detector did not give become -1. An unknown score becomes 1 in
    /// DeepSORT rows, because DeepSORT drops boxes below its `min_confidence`.
    ///
    /// # Errors
    /// The row has another length, or a file cannot be written.
    pub fn push(&mut self, detection: &Detection, stamp_ns: i64, embedding: &[f32]) -> Result<()> {
        if embedding.len() != self.dim {
            return Err(Error::runtime(format!("an embedding of {}, {} expected", embedding.len(), self.dim)));
        }
        let Detection { frame, rect, track, score, class, .. } = detection;
        let values: Vec<u8> = embedding.iter().flat_map(|value| value.to_le_bytes()).collect();
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (left, top) = (rect.left as f32, rect.top as f32);
        let (width, height) = ((rect.right - rect.left) as f32, (rect.bottom - rect.top) as f32);
        let id = track.unwrap_or(-1);
        let mot = [(frame + 1) as f32, id as f32, left, top, width, height, score.unwrap_or(1.0), -1.0, -1.0, -1.0];
        self.deepsort.push(&floats(&mot))?;
        self.deepsort.push(&values)?;
        self.features.push(&values)?;
        self.tracks.push(&id.to_le_bytes())?;
        self.cameras.push(&0i64.to_le_bytes())?;
        self.frames.push(&(*frame as i64).to_le_bytes())?;
        self.rects.push(&floats(&[left, top, rect.right as f32, rect.bottom as f32]))?;
        // The struct afterimage_reid_object of include/afterimage_reid.h.
        self.classes.push(&class.unwrap_or(-1).to_le_bytes())?;
        let class = i32::try_from(class.unwrap_or(-1)).unwrap_or(-1);
        let mut object = Vec::with_capacity(REID_OBJECT);
        object.extend_from_slice(&frame.to_le_bytes());
        object.extend_from_slice(&stamp_ns.to_le_bytes());
        object.extend_from_slice(&id.to_le_bytes());
        object.extend_from_slice(&class.to_le_bytes());
        object.extend_from_slice(&floats(&[score.unwrap_or(-1.0), left, top, width, height]));
        object.resize(REID_OBJECT, 0);
        self.reid.push(&object)?;
        self.reid.push(&values)?;
        self.rows += 1;
        Ok(())
    }

    /// Fills in the headers and gives the files their names. Returns the number of rows in each.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(self) -> Result<u64> {
        let (rows, dim) = (self.rows, self.dim);
        let table = |descr: &str, width: usize| npy::header_of(descr, &format!("{rows}, {width}"));
        let list = npy::header_of("<i8", &format!("{rows},"));
        self.deepsort.finish(&table("<f4", MOT + dim))?;
        self.features.finish(&table("<f4", dim))?;
        self.rects.finish(&table("<f4", 4))?;
        for column in [self.tracks, self.cameras, self.frames, self.classes] {
            column.finish(&list)?;
        }
        let too_long = || Error::runtime(format!("an embedding of {dim} numbers is too long"));
        let size = u32::try_from(dim).map_err(|_| too_long())?;
        let stride =
            size.checked_mul(4).and_then(|bytes| bytes.checked_add(REID_OBJECT as u32)).ok_or_else(too_long)?;
        let mut header = Vec::with_capacity(REID_HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&size.to_le_bytes());
        header.extend_from_slice(&stride.to_le_bytes());
        header.extend_from_slice(&rows.to_le_bytes());
        header.resize(REID_HEADER, 0);
        self.reid.finish(&header)?;
        Ok(rows)
    }
}
