//! The allowed range of every key, in one table.
use afterimage_learn::config as learn;

use super::{ArenaExtend, BoxPooling, CameraPixels, ConvSearch, Decoder, Dtype, Format, Payload, Precision, Provider};

/// `(key, least, most)`, both included. Numbers only; a NaN is in no range.
const RANGES: &[(&str, f64, f64)] = &[
    ("source.frame_rate", 0.001, 1000.0),
    ("source.stall_secs", 0.1, 3600.0),
    ("source.camera_width", 16.0, 16384.0),
    ("source.camera_height", 16.0, 16384.0),
    ("source.camera_frame_rate", 0.1, 1000.0),
    ("source.reopen_max_secs", 0.25, 3600.0),
    ("preprocess.background_secs", 1.0, 1e7),
    ("encoder.input_size", 0.0, 4096.0),
    ("encoder.threads", 0.0, 256.0),
    ("encoder.tensorrt.device", 0.0, 63.0),
    ("encoder.tensorrt.min_batch", 1.0, 1024.0),
    ("encoder.tensorrt.opt_batch", 1.0, 1024.0),
    ("encoder.tensorrt.max_batch", 1.0, 1024.0),
    ("encoder.tensorrt.dla_core", 0.0, 7.0),
    ("encoder.tensorrt.builder_level", 0.0, 5.0),
    ("encoder.tensorrt.workspace_megabytes", 1.0, 65536.0),
    ("encoder.tensorrt.auxiliary_streams", 0.0, 7.0),
    ("encoder.cuda.device", 0.0, 63.0),
    ("encoder.cuda.arena_megabytes", 0.0, 1048576.0),
    ("encoder.xnnpack.threads", 0.0, 256.0),
    ("encoder.openvino.threads", 0.0, 256.0),
    ("encoder.parity.min_cosine", 0.0, 1.0),
    ("encoder.parity.frames", 8.0, 1024.0),
    ("export.rotate_megabytes", 0.01, 65536.0),
    ("export.novel_above", 0.0, 2.0),
    ("boxes.min_pixels", 1.0, 16384.0),
    ("boxes.score_above", -1e9, 1e9),
    ("boxes.memory_megabytes", 1.0, 1048576.0),
    ("stream.queue_records", 1.0, 65536.0),
    ("stream.ring_slots", 2.0, 65536.0),
    ("stream.ring_slot_kilobytes", 1.0, 16384.0),
    ("box_server.window_megabytes", 1.0, 65536.0),
    ("box_server.wait_secs", 0.0, 60.0),
    ("box_server.idle_secs", 0.0, 86400.0),
    ("mqtt.qos", 0.0, 1.0),
    ("mqtt.keep_alive_secs", 5.0, 3600.0),
    ("mqtt.buffer_megabytes", 1.0, 4096.0),
    ("checkpoint.every_frames", 0.0, 1e12),
    ("host.pause_celsius", 0.0, 150.0),
    ("host.disk_budget_megabytes", 0.0, 1e9),
    ("host.stop_secs", 2.0, 3600.0),
    ("host.journal_megabytes", 1.0, 1e6),
];

/// `(key, allowed words)` for text and lists of text.
const WORDS: &[(&str, &[&str])] = &[
    ("source.decoder", Decoder::WORDS),
    ("source.camera_pixels", CameraPixels::WORDS),
    ("encoder.providers", Provider::WORDS),
    ("encoder.tensorrt.precision", Precision::WORDS),
    ("encoder.cuda.arena_extend", ArenaExtend::WORDS),
    ("encoder.cuda.conv_search", ConvSearch::WORDS),
    ("export.format", Format::WORDS),
    ("export.dtype", Dtype::WORDS),
    ("boxes.method", BoxPooling::WORDS),
    ("mqtt.payload", Payload::WORDS),
];

/// The range of every number, those of the learner among them.
pub(super) fn ranges() -> impl Iterator<Item = &'static (&'static str, f64, f64)> {
    RANGES.iter().chain(learn::RANGES)
}

/// The words of every text that is a choice.
pub(super) fn words() -> impl Iterator<Item = &'static (&'static str, &'static [&'static str])> {
    WORDS.iter().chain(learn::WORDS)
}
