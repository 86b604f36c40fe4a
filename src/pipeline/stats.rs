//! The statistics of a run.
use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::box_service::BoxServiceCounts;
use super::export_thread::ExportCounts;
use crate::latency_histogram::LatencyHistogram;
use crate::source::SourceCounts;

/// What a run counted and measured.
#[derive(Debug, Clone, Default)]
pub struct RunStats {
    /// Embedded frames.
    pub frames: u64,
    /// Frames without an embedding: their latent was zero or not finite.
    pub bad_latents: u64,
    /// Segments.
    pub segments: u64,
    /// Encoded augmented views.
    pub views: u64,
    /// Live only: views skipped because the next frame waited.
    pub skipped_views: u64,
    /// Live only: samples dropped because the learner's queue was full.
    pub dropped_latents: u64,
    /// Live only: rows dropped because the exporter's queue was full.
    pub dropped_rows: u64,
    /// Live only: checkpoints that waited because one of these queues was full.
    pub deferred_checkpoints: u64,
    /// From the start of the process to the first embedding, milliseconds.
    pub first_embedding_ms: Option<f64>,
    /// From a frame's arrival to its embedding.
    pub latency: LatencyHistogram,
    /// From a frame's arrival to the start of its encoding.
    pub age: LatencyHistogram,
    /// One pass of the encoder.
    pub encode: LatencyHistogram,
    /// From the first embedding to the last, seconds.
    pub span_secs: f64,
    /// Counts of the source.
    pub source: SourceCounts,
    /// Counts of each camera, by name.
    pub cameras: BTreeMap<String, SourceCounts>,
    /// Boxes that detectors asked for; `None` without a box service.
    pub boxes: Option<BoxServiceCounts>,
    /// What was exported.
    pub exports: ExportCounts,
    /// First frame that is not done, counted from the start of the run, over all its processes.
    pub next_index: u64,
    /// The source ended by itself.
    pub ended: bool,
    first: Option<Instant>,
    last_segment: Option<u64>,
}

impl RunStats {
    /// Counts a frame that arrived at `arrived` and was encoded from `began` until now.
    pub(super) fn encoded(&mut self, arrived: Instant, began: Instant) {
        self.age.record(began.saturating_duration_since(arrived));
        self.encode.record(began.elapsed());
    }

    /// Counts a frame that arrived at `arrived` and is embedded now.
    pub(super) fn embedded(&mut self, arrived: Instant, started: Instant, segment: u64) {
        let now = Instant::now();
        self.frames += 1;
        self.latency.record(now.duration_since(arrived));
        let first = *self.first.get_or_insert_with(|| {
            self.first_embedding_ms = Some(now.duration_since(started).as_secs_f64() * 1e3);
            now
        });
        self.span_secs = now.duration_since(first).as_secs_f64();
        // Numbers rise: a lower one is a segment that goes on, after a flash or on another camera.
        if self.last_segment.is_none_or(|last| segment > last) {
            self.last_segment = Some(segment);
            self.segments += 1;
        }
    }

    /// Frames per second between the first embedding and the last.
    pub fn frames_per_sec(&self) -> f64 {
        if self.frames > 1 && self.span_secs > 0.0 { (self.frames - 1) as f64 / self.span_secs } else { 0.0 }
    }

    /// Speed and memory, for the report.
    pub fn speed(&self) -> Speed {
        Speed {
            first_embedding_ms: self.first_embedding_ms,
            frames_per_sec: self.frames_per_sec(),
            latency_p50_ms: self.latency.percentile_ms(0.5),
            latency_p99_ms: self.latency.percentile_ms(0.99),
            age_p50_ms: self.age.percentile_ms(0.5),
            age_p99_ms: self.age.percentile_ms(0.99),
            age_max_ms: self.age.max().as_secs_f64() * 1e3,
            encode_p50_ms: self.encode.percentile_ms(0.5),
            encode_p99_ms: self.encode.percentile_ms(0.99),
            encode_max_ms: self.encode.max().as_secs_f64() * 1e3,
            peak_megabytes: crate::process_stats::peak_memory_megabytes(),
        }
    }
}

/// Speed and memory of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Speed {
    /// From the start of the process to the first embedding, milliseconds.
    pub first_embedding_ms: Option<f64>,
    /// Frames per second between the first embedding and the last.
    pub frames_per_sec: f64,
    /// Median time from a frame's arrival to its embedding, milliseconds.
    pub latency_p50_ms: f64,
    /// 99th percentile.
    pub latency_p99_ms: f64,
    /// Median time from a frame's arrival to the start of its encoding, milliseconds.
    pub age_p50_ms: f64,
    /// 99th percentile.
    pub age_p99_ms: f64,
    /// Longest.
    pub age_max_ms: f64,
    /// Median time of one pass of the encoder, milliseconds.
    pub encode_p50_ms: f64,
    /// 99th percentile.
    pub encode_p99_ms: f64,
    /// Longest.
    pub encode_max_ms: f64,
    /// Peak resident memory of the process, megabytes.
    pub peak_megabytes: Option<f64>,
}
