//! The metrics as a page in the text format of Prometheus (0.0.4): names, help texts and labels.
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::counter::{BOUNDS, LatencyTimes};
use super::{Counter, Metrics, STATES};
use crate::export::sinks::{SinkStats, mqtt};
use crate::process_stats;

/// `Content-Type` of [`Metrics::page`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

impl Metrics {
    /// All metrics, as a page for a scraper.
    pub fn page(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut page = String::new();
        // Only a writer can fail, and a string does not.
        let encoded = prometheus_text::encode(&mut page, &registry);
        debug_assert!(encoded.is_ok());
        page
    }
}

/// Metrics are read when a page is asked for, so that the threads that count share nothing but atomics.
impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        page.labelled("afterimage_info", "The program; always 1.", [([("version", env!("CARGO_PKG_VERSION"))], 1)])?;
        self.frames(&mut page)?;
        self.encoder(&mut page)?;
        self.heads(&mut page)?;
        if self.learns.load(Ordering::Relaxed) {
            self.training(&mut page)?;
        }
        if let Some(sinks) = self.live.get() {
            encode_sinks(&mut page, sinks)?;
        }
        process(&mut page)
    }
}

/// Writes one family of samples after another.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// A counter; `_total` is appended to its name.
    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    /// A gauge with one sample per set of labels.
    fn labelled<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'s str, &'s str); N], usize)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, times: &LatencyTimes) -> fmt::Result {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        // Each bucket is read once: the count is their sum, whatever is recorded meanwhile.
        let buckets: Vec<(f64, u64)> = bounds.zip(times.buckets.iter().map(Counter::get)).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = times.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

impl Metrics {
    fn frames(&self, page: &mut Page<'_>) -> fmt::Result {
        let [read, dropped, unreadable, lost, stalls, failures, reopens] = &self.source;
        for (name, help, counter) in [
            ("afterimage_source_frames", "Frames that the source returned.", read),
            ("afterimage_frames", "Frames embedded.", &self.frames),
            ("afterimage_frames_dropped", "Frames of a live source replaced by a newer one.", dropped),
            ("afterimage_frames_unreadable", "Frames or files that could not be read.", unreadable),
            ("afterimage_frames_lost", "Frames that a camera's driver had no buffer for.", lost),
            ("afterimage_source_stalls", "Times that a live source gave no frame for too long.", stalls),
            ("afterimage_source_failures", "Times that a live source failed in another way.", failures),
            ("afterimage_source_reopens", "Times that a live source was reopened.", reopens),
            (
                "afterimage_latents_unusable",
                "Latents that were zero or not finite; they give no embedding.",
                &self.unusable_latents,
            ),
            (
                "afterimage_latents_dropped",
                "Latents of a live source that the learner's queue had no room for.",
                &self.dropped_latents,
            ),
            ("afterimage_rows", "Rows handed to the export thread.", &self.rows),
            (
                "afterimage_rows_dropped",
                "Rows of a live source that the export thread's queue had no room for.",
                &self.dropped_rows,
            ),
            ("afterimage_rows_lost", "Rows lost because the disk was full.", &self.lost_rows),
            (
                "afterimage_checkpoints_deferred",
                "Checkpoints of a live source delayed by a full queue.",
                &self.deferred_checkpoints,
            ),
            (
                "afterimage_states_unsaved",
                "Checkpoints whose state was not saved because the disk was full.",
                &self.unsaved_states,
            ),
            (
                "afterimage_journal_lines_lost",
                "Journal lines lost because the disk stayed full.",
                &self.lost_journal_lines,
            ),
            ("afterimage_boxes", "Boxes embedded for detectors.", &self.boxes),
            ("afterimage_boxes_refused", "Boxes of detectors answered with an error.", &self.refused_boxes),
            ("afterimage_views", "Augmented views encoded.", &self.views),
            ("afterimage_views_skipped", "Augmented views skipped because a frame was waiting.", &self.skipped_views),
            ("afterimage_segments", "Segments seen.", &self.segments),
        ] {
            page.counter(name, help, counter.get())?;
        }
        page.histogram("afterimage_frame_age_seconds", "From the arrival of a frame to its embedding.", &self.age)?;
        page.histogram("afterimage_encode_seconds", "Time of the encoder for one frame.", &self.encode)?;
        if let Some(time) = self.last_frame_unix() {
            let help = "When the last embedding left (or the pipeline started), seconds since 1970.";
            page.gauge("afterimage_last_frame_timestamp_seconds", help, time)?;
        }
        Ok(())
    }

    fn encoder(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(open) = self.encoder.get() else { return Ok(()) };
        let fallback = if open.fallback { "true" } else { "false" };
        let help = "The provider that runs the encoder, and whether it is a fallback; always 1.";
        page.labelled("afterimage_encoder_info", help, [([("provider", &*open.provider), ("fallback", fallback)], 1)])?;
        if !open.nodes.is_empty() {
            let help = "Nodes of the encoder by the provider of ONNX Runtime that ran them in the first inference.";
            let nodes = open.nodes.iter().map(|(provider, nodes)| ([("provider", &**provider)], *nodes));
            page.labelled("afterimage_encoder_nodes", help, nodes)?;
        }
        let help = "Duration of the first inference, with its warm-up.";
        page.gauge("afterimage_encoder_first_inference_seconds", help, open.first_secs)?;
        if let Some(cosine) = open.cosine {
            let help = "Mean cosine between centred latents and those of 32-bit floats on the CPU, at the start.";
            page.gauge("afterimage_encoder_parity_cosine", help, cosine)?;
        }
        Ok(())
    }

    fn heads(&self, page: &mut Page<'_>) -> fmt::Result {
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if head.space.is_empty() {
            return Ok(());
        }
        page.gauge("afterimage_head_number", "Version of the head in use; 0 is the frozen encoder.", head.number)?;
        page.gauge("afterimage_head_dimensions", "Dimensions of an embedding.", head.dim)?;
        let help = "The space of the embeddings; always 1.";
        page.labelled("afterimage_space_info", help, [([("space", &*head.space)], 1)])
    }

    fn training(&self, page: &mut Page<'_>) -> fmt::Result {
        let [samples, held_out, steps, fits, promotions, rollbacks] = &self.learner;
        for (name, help, counter) in [
            ("afterimage_learner_samples", "Samples in closed blocks, learned from or held out.", samples),
            ("afterimage_learner_held_out", "Samples held out for the promotion gate.", held_out),
            ("afterimage_gradient_steps", "Gradient steps of the residual.", steps),
            ("afterimage_fits", "Fits of the slow head.", fits),
            ("afterimage_promotions", "Heads promoted.", promotions),
            ("afterimage_demotions", "Returns to the frozen latents.", &self.demotions),
            ("afterimage_rollbacks", "Times the residual was rolled back to its last sound weights.", rollbacks),
        ] {
            page.counter(name, help, counter.get())?;
        }
        let now = self.state.load(Ordering::Relaxed);
        let states = STATES.iter().enumerate().map(|(i, (_, name))| ([("state", *name)], usize::from(i == now)));
        page.labelled("afterimage_learner_state", "State of the residual: 1 for the one it is in.", states)?;
        let help = "1 while learning pauses because the machine is hot or short of power ([host]).";
        page.gauge("afterimage_learner_paused", help, u32::from(self.paused.load(Ordering::Relaxed)))?;
        let help = "Latents not learned from because learning paused.";
        page.counter("afterimage_latents_paused", help, self.paused_latents.get())?;
        let [waiting, room] = &self.queue;
        page.gauge("afterimage_learner_queue_latents", "Latents waiting for the learner.", waiting.get())?;
        page.gauge("afterimage_learner_queue_limit_latents", "Latents that may wait for the learner.", room.get())
    }
}

fn encode_sinks(page: &mut Page<'_>, sinks: &SinkStats) -> fmt::Result {
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    if let Some(socket) = &sinks.socket {
        let help = "Subscribers of the local socket when the last record was published.";
        page.gauge("afterimage_socket_readers", help, get(&socket.readers))?;
        page.counter("afterimage_socket_records", "Records put into the queues of subscribers.", get(&socket.sent))?;
        let help = "Records that a subscriber's queue had no room for.";
        page.counter("afterimage_socket_records_lost", help, get(&socket.lost))?;
    }
    if let Some(ring) = &sinks.ring {
        page.counter("afterimage_ring_records", "Records written into the ring.", get(&ring.written))?;
        let help = "Records too long for a slot of the ring.";
        page.counter("afterimage_ring_records_lost", help, get(&ring.too_long))?;
    }
    let Some(mqtt) = sinks.mqtt.as_ref().map(mqtt::MqttStats::counts) else { return Ok(()) };
    let help = "Records that the broker has acknowledged, or that were sent without.";
    page.counter("afterimage_mqtt_records", help, mqtt.delivered)?;
    page.counter("afterimage_mqtt_records_lost", "Records dropped to make room for newer ones.", mqtt.lost)?;
    let help = "Records waiting for the broker or its acknowledgement.";
    page.gauge("afterimage_mqtt_records_waiting", help, mqtt.waiting)?;
    page.counter("afterimage_mqtt_connections", "Connections made to the broker.", mqtt.connections)?;
    let reconnects = mqtt.connections.saturating_sub(1);
    page.counter("afterimage_mqtt_reconnects", "Connections after the first.", reconnects)?;
    page.counter("afterimage_mqtt_ignored", "Messages on the request topics that were ignored.", mqtt.ignored)
}

/// Metrics of the process, under the names that every client library gives them.
fn process(page: &mut Page<'_>) -> fmt::Result {
    if let Some(megabytes) = process_stats::resident_megabytes() {
        let bytes = (megabytes * 1e6).round() as u64;
        page.gauge("process_resident_memory_bytes", "Resident memory of the process.", bytes)?;
    }
    let cpu = process_stats::process_cpu_time().as_secs_f64();
    page.counter("process_cpu_seconds", "Processor time of all threads.", cpu)
}
