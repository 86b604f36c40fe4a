//! The export thread: writes rows to files and live sinks, away from the inference loop.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::first_fault::{FirstFault, Noted};
use crate::config::{self, Host};
use crate::error::Result;
use crate::export::sinks::LiveSinks;
use crate::export::{self, DiskRetention, Dtype, Granularity, Record, Removed, RowFormat, Writer, WriterCounts};
use crate::head::Grid;
use crate::learner::{LatentSpec, Snapshot};
use crate::metrics::Metrics;

/// What goes to the export thread.
pub enum ToExporter {
    /// One embedding, with its latent.
    Row(Box<Row>),
    /// Close the open files and answer with the numbers of the next ones.
    Rotate(Sender<FilePositions>),
}

/// One row under way. The exporter sends it back, so that its buffers are used again.
#[derive(Debug, Default)]
pub struct Row {
    /// Complete but for its novelty; `None` only on the way back.
    pub record: Option<Record>,
    /// The unit embedding.
    pub embedding: Vec<f32>,
    /// The latent; of a grid only where latents or grids are exported.
    pub latent: Vec<f32>,
    /// The pooled latent; empty unless latents are grids.
    pub pooled: Vec<f32>,
    /// The head that embedded it. The novelty is computed here and not in the inference loop: it takes a product with all
    /// references of the head.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The space of the latent, where latents are exported.
    pub frozen_space: Option<Arc<str>>,
}

/// Numbers of the next export files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FilePositions {
    /// Of `embeddings/`.
    pub embeddings: u64,
    /// Of `latents/`.
    pub latents: u64,
    /// Of `grids/`.
    #[serde(default)]
    pub grids: u64,
}

impl FilePositions {
    /// The numbers after all complete files of the run `folder`.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn after_all(folder: &Path) -> Result<Self> {
        let next = |name: &str| export::next_number(&folder.join(name));
        Ok(Self { embeddings: next("embeddings")?, latents: next("latents")?, grids: next("grids")? })
    }
}

/// The open export files and live sinks of a run.
pub struct Exporter {
    embeddings: Option<Writer>,
    latents: Option<Writer>,
    /// Embeddings of the cells of grids, `[h w k]` a row, with the shape of the latents.
    grids: Option<(Grid, Writer)>,
    sinks: Option<LiveSinks>,
    /// Novelty above which a record is novel; 0: none is.
    novel_above: f32,
    /// Keeps closed files within the disk budget; how many were closed when it last looked.
    retention: Option<(DiskRetention, u64)>,
}

/// What was exported, by kind of file.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ExportCounts {
    /// Embeddings of frames and boxes.
    pub embeddings: WriterCounts,
    /// Frozen latents.
    pub latents: WriterCounts,
    /// Embeddings of grid cells.
    pub grids: WriterCounts,
    /// Old files that were removed for the disk budget (`host.disk_budget_megabytes`).
    pub removed: Removed,
}

impl ExportCounts {
    /// Rows of all kinds that were lost to a full disk.
    pub fn lost_rows(&self) -> u64 {
        self.embeddings.lost_rows + self.latents.lost_rows + self.grids.lost_rows
    }
}

impl Exporter {
    /// Opens `FOLDER/embeddings`, `FOLDER/latents` and, where latents of `origin` are grids, `FOLDER/grids` as configured,
    /// and goes on with the files numbered `next`. Removes files of those numbers and above, which a run that was cut off
    /// left behind, and while running the oldest ones beyond the disk budget of `host`. Records go to `sinks` too. `None`
    /// where nothing is to be exported.
    ///
    /// # Errors
    /// A folder cannot be made, or a file in it cannot be removed.
    pub fn open(
        folder: &Path,
        config: &config::Export,
        host: &Host,
        origin: &LatentSpec,
        next: FilePositions,
        sinks: Option<LiveSinks>,
    ) -> Result<Option<Self>> {
        let grid = origin.shape();
        let bytes = (config.rotate_megabytes * 1e6) as u64;
        let (format, dtype) = (config.format, config.dtype);
        let open = |name: &str, on: bool, layout: RowFormat, number: u64| -> Result<Option<Writer>> {
            let folder: PathBuf = folder.join(name);
            if folder.is_dir() {
                export::discard_from(&folder, number)?;
            }
            if on { Writer::open(&folder, number, layout, bytes).map(Some) } else { Ok(None) }
        };
        let embeddings = open("embeddings", config.embeddings, RowFormat::embeddings(format, dtype), next.embeddings)?;
        let latents = RowFormat { format, dtype: Dtype::F32, column: RowFormat::LATENT };
        let latents = open("latents", config.latents, latents, next.latents)?;
        let grids = open("grids", config.grid && grid.is_some(), RowFormat::embeddings(format, dtype), next.grids)?;
        let grids = grid.zip(grids);
        if embeddings.is_none() && latents.is_none() && grids.is_none() && sinks.is_none() {
            return Ok(None);
        }
        let retention = (host.disk_budget_megabytes > 0.0).then(|| {
            let open_files = config.kinds() as u64 * bytes;
            let room = ((host.disk_budget_megabytes * 1e6) as u64).saturating_sub(open_files);
            (DiskRetention::new(["embeddings", "latents", "grids"].map(|name| folder.join(name)).into(), room), 0)
        });
        Ok(Some(Self { embeddings, latents, grids, sinks, novel_above: config.novel_above as f32, retention }))
    }

    /// Latents are exported too.
    pub fn wants_latents(&self) -> bool {
        self.latents.is_some()
    }

    /// Rows need the whole latent, not only the pooled one.
    pub fn wants_grids(&self) -> bool {
        self.grids.is_some() || self.wants_latents()
    }

    /// Writes one row, and empties it for its next use.
    ///
    /// # Errors
    /// An I/O error other than a full disk.
    pub fn push(&mut self, row: &mut Row) -> Result<()> {
        let Some(mut record) = row.record.take() else { return Ok(()) };
        let snapshot = row.snapshot.take();
        let frame = if row.pooled.is_empty() { &row.latent } else { &row.pooled };
        record.set_novelty(snapshot.as_ref().and_then(|snapshot| snapshot.novelty(frame)), self.novel_above);
        if let (Some((grid, writer)), Some(snapshot)) = (&mut self.grids, snapshot) {
            let cells = snapshot.head.embed_cells(*grid, &row.latent);
            record.level = Granularity::Grid;
            writer.push(&record, cells.as_ref().and_then(|cells| cells.as_slice()).unwrap_or_default())?;
            record.level = Granularity::Frame;
        }
        if let Some(writer) = &mut self.embeddings {
            writer.push(&record, &row.embedding)?;
        }
        if let Some(sinks) = &mut self.sinks {
            sinks.publish(&record, &row.embedding)?;
        }
        if let (Some(writer), Some(space)) = (&mut self.latents, row.frozen_space.take()) {
            record.space = space;
            record.head = 0;
            if record.level != Granularity::Box {
                record.level = if row.pooled.is_empty() { Granularity::Frame } else { Granularity::Grid };
            }
            writer.push(&record, &row.latent)?;
        }
        self.keep_disk_budget()
    }

    /// Makes room for the next files after some were closed.
    fn keep_disk_budget(&mut self) -> Result<()> {
        let Some((retention, seen)) = &mut self.retention else { return Ok(()) };
        let grids = self.grids.as_ref().map(|(_, writer)| writer);
        let writers = [self.embeddings.as_ref(), self.latents.as_ref(), grids];
        let closed = writers.into_iter().flatten().map(|writer| writer.counts().files).sum();
        if std::mem::replace(seen, closed) == closed { Ok(()) } else { retention.keep() }
    }

    /// Rows of all kinds that were lost to a full disk.
    fn lost_rows(&self) -> u64 {
        let grids = self.grids.as_ref().map(|(_, writer)| writer);
        let writers = [self.embeddings.as_ref(), self.latents.as_ref(), grids];
        writers.into_iter().flatten().map(|writer| writer.counts().lost_rows).sum()
    }

    fn rotate(&mut self) -> Result<FilePositions> {
        let grids = self.grids.as_mut().map(|(_, writer)| writer);
        for writer in [self.embeddings.as_mut(), self.latents.as_mut(), grids].into_iter().flatten() {
            writer.rotate()?;
        }
        self.keep_disk_budget()?;
        let next = |writer: Option<&Writer>| writer.map_or(0, Writer::next_number);
        Ok(FilePositions {
            embeddings: next(self.embeddings.as_ref()),
            latents: next(self.latents.as_ref()),
            grids: next(self.grids.as_ref().map(|(_, writer)| writer)),
        })
    }

    /// Closes the files; what was exported.
    ///
    /// # Errors
    /// An I/O error other than a full disk.
    pub fn finish(self) -> Result<ExportCounts> {
        let finish = |writer: Option<Writer>| writer.map_or(Ok(WriterCounts::default()), Writer::finish);
        let grids = finish(self.grids.map(|(_, writer)| writer))?;
        let (embeddings, latents) = (finish(self.embeddings)?, finish(self.latents)?);
        let removed = match self.retention {
            Some((mut retention, _)) => {
                retention.keep()?;
                retention.removed()
            }
            None => Removed::default(),
        };
        Ok(ExportCounts { embeddings, latents, grids, removed })
    }
}

/// Writes what comes until the inference loop hangs up. Notes an error while the learner still waits for the answer to a
/// checkpoint, so that it is the first.
pub(super) fn run(
    mut exporter: Exporter,
    rows: &Receiver<ToExporter>,
    spare: &Sender<Box<Row>>,
    fault: &FirstFault,
    metrics: &Metrics,
) -> std::result::Result<ExportCounts, Noted> {
    for message in rows {
        match message {
            ToExporter::Row(mut row) => {
                fault.note(exporter.push(&mut row))?;
                metrics.lost_rows.set(exporter.lost_rows());
                // Full only when there are more rows than the inference loop needs; then this one is dropped.
                spare.try_send(row).ok();
            }
            ToExporter::Rotate(reply) => {
                let rotated = fault.note(exporter.rotate())?;
                // Nobody waits for the answer once the learner has ended.
                reply.send(rotated).ok();
            }
        }
    }
    fault.note(exporter.finish())
}

#[cfg(test)]
#[path = "export_thread_tests.rs"]
mod tests;
