//! The export thread: rows to files, away from the hot path.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::first_fault::{FirstFault, Noted};
use crate::config::{self, Host};
use crate::error::Result;
use crate::export::sinks::LiveSinks;
use crate::export::{
    self, DiskRetention, Dtype, Granularity, Record, Removed, RowFormat, Writer, WriterCounts,
};
use crate::head::Grid;
use crate::learner::{LatentSpec, Snapshot};
use crate::metrics::Metrics;

/// What goes to the export thread.
pub enum ToExporter {
    /// One embedding (and latent); its box is used again with its buffers.
    Row(Box<Row>),
    /// Close the open files and tell where they stand.
    Rotate(Sender<FilePositions>),
}

/// One row on its way; its buffers are used again.
#[derive(Debug, Default)]
pub struct Row {
    /// The record, complete but for its novelty; `None` only in an empty row on its way back.
    pub record: Option<Record>,
    /// The embedding.
    pub embedding: Vec<f32>,
    /// The latent, where latents or grids are exported or it is a vector.
    pub latent: Vec<f32>,
    /// The pooled latent, where latents are grids.
    pub pooled: Vec<f32>,
    /// What it was embedded with; how new the latent is to it is found out here, not on the hot path.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The space of the latent, where latents are exported.
    pub frozen_space: Option<Arc<str>>,
}

/// Where the files stand: numbers of the next ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FilePositions {
    /// Next file of `embeddings/`.
    pub embeddings: u64,
    /// Next file of `latents/`.
    pub latents: u64,
    /// Next file of `grids/`.
    #[serde(default)]
    pub grids: u64,
}

impl FilePositions {
    /// After all whole files of the run `folder`.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn after_all(folder: &Path) -> Result<Self> {
        let next = |name: &str| export::next_number(&folder.join(name));
        Ok(Self { embeddings: next("embeddings")?, latents: next("latents")?, grids: next("grids")? })
    }
}

/// The open files of a run.
pub struct Exporter {
    embeddings: Option<Writer>,
    latents: Option<Writer>,
    /// Embeddings of the cells of grids, `[h w k]` a row, with the shape of the latents.
    grids: Option<(Grid, Writer)>,
    /// Readers on this machine.
    live: Option<LiveSinks>,
    /// Novelty that makes a record novel; 0: none does.
    novel_above: f32,
    /// Room for closed files, and how many were closed when it was last looked at.
    budget: Option<(DiskRetention, u64)>,
}

/// Counts of all kinds of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ExportCounts {
    /// `embeddings/`.
    pub embeddings: WriterCounts,
    /// `latents/`.
    pub latents: WriterCounts,
    /// `grids/`.
    pub grids: WriterCounts,
    /// Old files that went, all kinds together (`host.disk_budget_megabytes`).
    pub removed: Removed,
}

impl ExportCounts {
    /// Rows of all kinds that found the disk full.
    pub fn lost_rows(&self) -> u64 {
        self.embeddings.lost_rows + self.latents.lost_rows + self.grids.lost_rows
    }
}

impl Exporter {
    /// Opens `FOLDER/embeddings`, `FOLDER/latents` and, where latents of `origin` are grids, `FOLDER/grids` as configured,
    /// to go on with the files numbered `next`; files of those numbers and above (of a run that was cut off) are removed,
    /// and while running the oldest, where they take more than the budget of `board`.
    /// Has records go to `live` too, where that is there. `None` where nothing is wanted.
    ///
    /// # Errors
    /// A folder cannot be made or a file in it not be removed.
    pub fn open(
        folder: &Path,
        config: &config::Export,
        board: &Host,
        origin: &LatentSpec,
        next: FilePositions,
        live: Option<LiveSinks>,
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
        if embeddings.is_none() && latents.is_none() && grids.is_none() && live.is_none() {
            return Ok(None);
        }
        let budget = (board.disk_budget_megabytes > 0.0).then(|| {
            let open_files = config.kinds() as u64 * bytes;
            let room = ((board.disk_budget_megabytes * 1e6) as u64).saturating_sub(open_files);
            (DiskRetention::new(["embeddings", "latents", "grids"].map(|name| folder.join(name)).into(), room), 0)
        });
        Ok(Some(Self { embeddings, latents, grids, live, novel_above: config.novel_above as f32, budget }))
    }

    /// Latents are wanted too.
    pub fn wants_latents(&self) -> bool {
        self.latents.is_some()
    }

    /// Rows need the whole latent, not only the pooled one.
    pub fn wants_grids(&self) -> bool {
        self.grids.is_some() || self.wants_latents()
    }

    /// Writes one row; its buffers can be used again.
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
        if let Some(live) = &mut self.live {
            live.publish(&record, &row.embedding)?;
        }
        if let (Some(writer), Some(space)) = (&mut self.latents, row.frozen_space.take()) {
            record.space = space;
            record.head = 0;
            if record.level != Granularity::Box {
                record.level = if row.pooled.is_empty() { Granularity::Frame } else { Granularity::Grid };
            }
            writer.push(&record, &row.latent)?;
        }
        self.keep_budget()
    }

    /// After files were closed: room for the next.
    fn keep_budget(&mut self) -> Result<()> {
        let Some((budget, seen)) = &mut self.budget else { return Ok(()) };
        let grids = self.grids.as_ref().map(|(_, writer)| writer);
        let writers = [self.embeddings.as_ref(), self.latents.as_ref(), grids];
        let closed = writers.into_iter().flatten().map(|writer| writer.counts().files).sum();
        if std::mem::replace(seen, closed) == closed { Ok(()) } else { budget.keep() }
    }

    /// Rows of all kinds that found the disk full.
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
        self.keep_budget()?;
        let next = |writer: Option<&Writer>| writer.map_or(0, Writer::next_number);
        Ok(FilePositions {
            embeddings: next(self.embeddings.as_ref()),
            latents: next(self.latents.as_ref()),
            grids: next(self.grids.as_ref().map(|(_, writer)| writer)),
        })
    }

    /// Closes the files and says what was written.
    ///
    /// # Errors
    /// An I/O error other than a full disk.
    pub fn finish(self) -> Result<ExportCounts> {
        let finish = |writer: Option<Writer>| writer.map_or(Ok(WriterCounts::default()), Writer::finish);
        let grids = finish(self.grids.map(|(_, writer)| writer))?;
        let (embeddings, latents) = (finish(self.embeddings)?, finish(self.latents)?);
        let removed = match self.budget {
            Some((mut budget, _)) => {
                budget.keep()?;
                budget.removed()
            }
            None => Removed::default(),
        };
        Ok(ExportCounts { embeddings, latents, grids, removed })
    }
}

/// Writes what comes until the hot path hangs up. An error is noted while the learner still waits for the answer to a
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
                // Full only when there are more rows than the hot path needs; then this one is let go.
                spare.try_send(row).ok();
            }
            ToExporter::Rotate(reply) => {
                let rotated = fault.note(exporter.rotate())?;
                // Nobody listens when the learner had no room for its part of the checkpoint.
                reply.send(rotated).ok();
            }
        }
    }
    fault.note(exporter.finish())
}

#[cfg(test)]
#[path = "export_thread_tests.rs"]
mod tests;
