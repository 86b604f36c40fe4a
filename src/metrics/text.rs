//! What is told, under which name.
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::page::Page;
use super::{BOUNDS, LatencyTimes, Metrics, STATES};
use crate::export::sinks::mqtt;
use crate::process_stats;

impl Metrics {
    /// All figures, as a page for a scraper.
    pub fn page(&self) -> String {
        let mut page = Page::default();
        page.family("afterimage_info", "gauge", "The program; always 1.");
        page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1u64);
        self.frames(&mut page);
        self.encoder(&mut page);
        self.heads(&mut page);
        self.readers(&mut page);
        process(&mut page);
        page.finish()
    }

    fn frames(&self, page: &mut Page) {
        let [read, dropped, unreadable, lost, stalls, failures, reopens] = &self.source;
        for (name, help, counter) in [
            ("afterimage_source_frames_total", "Frames that the source handed out.", read),
            ("afterimage_frames_total", "Frames embedded.", &self.frames),
            ("afterimage_frames_dropped_total", "Frames of a live source replaced by a newer one.", dropped),
            ("afterimage_frames_unreadable_total", "Frames or files that could not be read.", unreadable),
            ("afterimage_frames_lost_total", "Frames that a camera's driver had no buffer for.", lost),
            ("afterimage_source_stalls_total", "Times that a live source gave no frame for too long.", stalls),
            ("afterimage_source_failures_total", "Times that a live source broke in another way.", failures),
            ("afterimage_source_reopens_total", "Times that a live source was opened again.", reopens),
            (
                "afterimage_latents_unusable_total",
                "Latents that were zero or not finite; no embedding.",
                &self.unusable_latents,
            ),
            (
                "afterimage_latents_dropped_total",
                "Latents that the learner of a live source had no room for.",
                &self.dropped_latents,
            ),
            ("afterimage_rows_total", "Rows handed to the export thread.", &self.rows),
            (
                "afterimage_rows_dropped_total",
                "Rows that the export thread of a live source had no room for.",
                &self.dropped_rows,
            ),
            ("afterimage_rows_lost_total", "Rows lost because the disk was full.", &self.lost_rows),
            (
                "afterimage_checkpoints_deferred_total",
                "Checkpoints of a live source that waited for room at a worker.",
                &self.deferred_checkpoints,
            ),
            (
                "afterimage_states_unsaved_total",
                "Checkpoints whose state was not saved because the disk was full.",
                &self.unsaved_states,
            ),
            (
                "afterimage_journal_lines_lost_total",
                "Journal lines lost because the disk stayed full.",
                &self.lost_journal_lines,
            ),
            ("afterimage_boxes_total", "Boxes embedded for detectors that asked.", &self.boxes),
            ("afterimage_boxes_refused_total", "Boxes that detectors were told no embedding of.", &self.refused_boxes),
            ("afterimage_views_total", "Augmented views encoded.", &self.views),
            ("afterimage_views_skipped_total", "Views left out because a frame waited.", &self.skipped_views),
            ("afterimage_segments_total", "Segments seen.", &self.segments),
        ] {
            page.family(name, "counter", help).sample(&[], counter.get());
        }
        let help = "From the arrival of a frame to its embedding.";
        times(page, "afterimage_frame_age_seconds", help, &self.age);
        times(page, "afterimage_encode_seconds", "The encoder, for one frame.", &self.encode);
        if let Some(time) = self.last_frame_unix() {
            let name = "afterimage_last_frame_timestamp_seconds";
            let help = "When the last embedding left (or the pipeline began), seconds since 1970.";
            page.family(name, "gauge", help).sample(&[], time);
        }
    }

    fn encoder(&self, page: &mut Page) {
        let Some(open) = self.encoder.get() else { return };
        let fallback = if open.fallback { "true" } else { "false" };
        page.family(
            "afterimage_encoder_info",
            "gauge",
            "Where the encoder runs, and whether that is a fallback; always 1.",
        );
        page.sample(&[("provider", &open.provider), ("fallback", fallback)], 1u64);
        if !open.nodes.is_empty() {
            let help = "Nodes of the encoder by the provider of ONNX Runtime that ran them in the first inference.";
            page.family("afterimage_encoder_nodes", "gauge", help);
            for (provider, nodes) in &open.nodes {
                page.sample(&[("provider", provider)], *nodes);
            }
        }
        page.family("afterimage_encoder_first_inference_seconds", "gauge", "The first inference, with its warm-up.");
        page.sample(&[], open.first_secs);
        if let Some(cosine) = open.cosine {
            let help = "Mean cosine of centred latents to those of 32-bit floats on the CPU, at the start.";
            page.family("afterimage_encoder_parity_cosine", "gauge", help).sample(&[], cosine);
        }
    }

    fn heads(&self, page: &mut Page) {
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !head.space.is_empty() {
            page.family("afterimage_head_number", "gauge", "Version of the head in use; 0: the frozen encoder.");
            page.sample(&[], head.number);
            page.family("afterimage_head_dimensions", "gauge", "Numbers of an embedding.").sample(&[], head.dim);
            page.family("afterimage_space_info", "gauge", "The space of the embeddings; always 1.");
            page.sample(&[("space", &head.space)], 1u64);
        }
        if !self.learns.load(Ordering::Relaxed) {
            return;
        }
        let [samples, held, steps, fits, promotions, rollbacks] = &self.learner;
        for (name, help, counter) in [
            ("afterimage_learner_samples_total", "Samples in closed blocks, learned from or held out.", samples),
            ("afterimage_learner_held_out_total", "Samples held out for the promotion gate.", held),
            ("afterimage_gradient_steps_total", "Gradient steps of the residual.", steps),
            ("afterimage_fits_total", "Fits of the slow head.", fits),
            ("afterimage_promotions_total", "Heads promoted.", promotions),
            ("afterimage_demotions_total", "Returns to the frozen latents.", &self.demotions),
            ("afterimage_rollbacks_total", "Times the residual was put back to its last sound weights.", rollbacks),
        ] {
            page.family(name, "counter", help).sample(&[], counter.get());
        }
        page.family("afterimage_learner_state", "gauge", "State of the residual: 1 for the one it is in.");
        for (i, (_, name)) in STATES.iter().enumerate() {
            page.sample(&[("state", name)], i == self.state.load(Ordering::Relaxed));
        }
        page.family(
            "afterimage_learner_paused",
            "gauge",
            "1 while learning pauses for the sake of the machine ([host]).",
        );
        page.sample(&[], self.paused.load(Ordering::Relaxed));
        let help = "Latents not learned from because the machine was strained.";
        page.family("afterimage_latents_paused_total", "counter", help).sample(&[], self.paused_latents.get());
        let [waiting, room] = &self.queue;
        page.family("afterimage_learner_queue_latents", "gauge", "Latents that wait for the learner.");
        page.sample(&[], waiting.get());
        page.family("afterimage_learner_queue_limit_latents", "gauge", "Latents that may wait for the learner.");
        page.sample(&[], room.get());
    }
}

impl Metrics {
    fn readers(&self, page: &mut Page) {
        let Some(live) = self.live.get() else { return };
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        if let Some(socket) = &live.socket {
            page.family("afterimage_live_readers", "gauge", "Readers of the local socket, when a record last left.");
            page.sample(&[], get(&socket.readers));
            page.family("afterimage_live_records_total", "counter", "Records put into the queues of readers.");
            page.sample(&[], get(&socket.sent));
            let help = "Records that a reader's queue had no room for.";
            page.family("afterimage_live_records_lost_total", "counter", help).sample(&[], get(&socket.lost));
        }
        if let Some(ring) = &live.ring {
            page.family("afterimage_ring_records_total", "counter", "Records written into the ring.");
            page.sample(&[], get(&ring.written));
            let help = "Records that were too long for a slot of the ring.";
            page.family("afterimage_ring_records_lost_total", "counter", help).sample(&[], get(&ring.too_long));
        }
        if let Some(mqtt) = live.mqtt.as_ref().map(mqtt::MqttStats::counts) {
            for (name, kind, help, count) in [
                ("records_total", "counter", "Records that the broker has acknowledged, or was sent.", mqtt.delivered),
                ("records_lost_total", "counter", "Records that had to make room for newer ones.", mqtt.lost),
                ("records_waiting", "gauge", "Records that wait for the broker or its word.", mqtt.waiting),
                ("connections_total", "counter", "Connections made to the broker.", mqtt.connections),
                ("reconnects_total", "counter", "Those after the first.", mqtt.connections.saturating_sub(1)),
                ("ignored_total", "counter", "Messages at the topics of requests that are none.", mqtt.ignored),
            ] {
                page.family(&format!("afterimage_mqtt_{name}"), kind, help).sample(&[], count);
            }
        }
    }
}

fn times(page: &mut Page, name: &str, help: &str, times: &LatencyTimes) {
    page.family(name, "histogram", help);
    // Read once: the count of a histogram is that of its last class, whatever is recorded meanwhile.
    let mut below = 0;
    for (class, bound) in times.classes.iter().zip(&BOUNDS) {
        below += class.get();
        page.part("_bucket", &[("le", &bound.to_string())], below);
    }
    below += times.classes[BOUNDS.len()].get();
    page.part("_bucket", &[("le", "+Inf")], below);
    page.part("_sum", &[], times.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9).part("_count", &[], below);
}

/// Figures of the process, under the names that every client library gives them.
fn process(page: &mut Page) {
    if let Some(megabytes) = process_stats::resident_megabytes() {
        page.family("process_resident_memory_bytes", "gauge", "Memory that the process holds.");
        page.sample(&[], (megabytes * 1e6).round() as u64);
    }
    let time = process_stats::process_cpu_time();
    page.family("process_cpu_seconds_total", "counter", "Processor time of all threads.");
    page.sample(&[], time.as_secs_f64());
}
