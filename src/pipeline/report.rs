//! What a run comes to, for people and for scripts.
use std::time::Instant;

use serde::Serialize;

use super::exporting::ExportCounts;
use crate::source::SourceCounts;
use crate::telemetry::Latency;

/// What the hot path counted.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Frames embedded.
    pub frames: u64,
    /// Frames whose latent was zero or not finite: no embedding.
    pub bad_latents: u64,
    /// Segments seen.
    pub segments: u64,
    /// Views encoded.
    pub views: u64,
    /// Live only: views left out because the next frame waited.
    pub skipped_views: u64,
    /// Live only: latents that the learner had no room for.
    pub dropped_latents: u64,
    /// Live only: rows that the export thread had no room for.
    pub dropped_rows: u64,
    /// From the start of the process to the first embedding, milliseconds.
    pub first_embedding_ms: Option<f64>,
    /// From a frame's arrival to its embedding.
    pub latency: Latency,
    /// From the first embedding to the last, seconds.
    pub span_secs: f64,
    /// The source's own counts.
    pub source: SourceCounts,
    /// What was written.
    pub exports: ExportCounts,
    /// The source came to its end (not stopped from outside).
    pub ended: bool,
    first: Option<Instant>,
    last_segment: Option<u64>,
}

impl Totals {
    pub(super) fn embedded(&mut self, arrived: Instant, started: Instant, segment: u64) {
        let now = Instant::now();
        self.frames += 1;
        self.latency.record(now.duration_since(arrived));
        let first = *self.first.get_or_insert_with(|| {
            self.first_embedding_ms = Some(now.duration_since(started).as_secs_f64() * 1e3);
            now
        });
        self.span_secs = now.duration_since(first).as_secs_f64();
        // Numbers rise; a segment that goes on after a flash, or another camera's, was counted.
        if self.last_segment.is_none_or(|last| segment > last) {
            self.last_segment = Some(segment);
            self.segments += 1;
        }
    }

    /// Frames per second between the first embedding and the last.
    pub fn frames_per_sec(&self) -> f64 {
        if self.frames > 1 && self.span_secs > 0.0 { (self.frames - 1) as f64 / self.span_secs } else { 0.0 }
    }

    /// For the report.
    pub fn speed(&self) -> Speed {
        Speed {
            first_embedding_ms: self.first_embedding_ms,
            frames_per_sec: self.frames_per_sec(),
            latency_p50_ms: self.latency.percentile_ms(0.5),
            latency_p99_ms: self.latency.percentile_ms(0.99),
            peak_megabytes: crate::telemetry::peak_memory_megabytes(),
        }
    }
}

/// How fast and how large.
#[derive(Debug, Clone, Serialize)]
pub struct Speed {
    /// From the start of the process to the first embedding, milliseconds.
    pub first_embedding_ms: Option<f64>,
    /// Frames per second between the first embedding and the last.
    pub frames_per_sec: f64,
    /// Median time from a frame's arrival to its embedding, milliseconds.
    pub latency_p50_ms: f64,
    /// The same, 99th percentile.
    pub latency_p99_ms: f64,
    /// Peak resident memory of the process, megabytes.
    pub peak_megabytes: Option<f64>,
}
