#![allow(clippy::unwrap_used, reason = "tests")]
use std::sync::Arc;

use super::*;

#[test]
fn times_fall_into_their_buckets() {
    let metrics = Arc::new(Metrics::default());
    for millis in [0, 1, 2, 30, 40, 20_000] {
        metrics.encoded(Duration::from_millis(millis));
    }
    let page = metrics.page();
    let line = |start: &str| page.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    for (start, count) in [
        ("afterimage_encode_seconds_bucket{le=\"0.001\"}", "2"),
        ("afterimage_encode_seconds_bucket{le=\"0.002\"}", "3"),
        ("afterimage_encode_seconds_bucket{le=\"0.02\"}", "3"),
        ("afterimage_encode_seconds_bucket{le=\"0.05\"}", "5"),
        ("afterimage_encode_seconds_bucket{le=\"10\"}", "5"),
        ("afterimage_encode_seconds_bucket{le=\"+Inf\"}", "6"),
        ("afterimage_encode_seconds_count", "6"),
        ("afterimage_encode_seconds_sum", "20.073"),
    ] {
        assert_eq!(line(start).rsplit(' ').next().unwrap(), count, "{start}");
    }
}

#[test]
fn health_follows_the_frames() {
    let metrics = Metrics::default();
    assert!(metrics.health().unwrap_err().contains("the encoder is not open yet"));
    metrics.running(Some(Duration::from_secs(3600)));
    metrics.embedded(Duration::from_millis(5), 1);
    assert_eq!(metrics.health().unwrap(), "ok: 1 frames");
    metrics.running(Some(Duration::from_millis(1)));
    std::thread::sleep(Duration::from_millis(20));
    assert!(metrics.health().unwrap_err().starts_with("no frame for "));
    // A file may take any time.
    metrics.running(None);
    std::thread::sleep(Duration::from_millis(20));
    assert!(metrics.health().is_ok());
}

#[test]
fn absent_parts_have_no_metrics() {
    let page = Arc::new(Metrics::default()).page();
    for absent in ["encoder_", "learner_", "space", "parity", "promotions", "last_frame"] {
        assert!(!page.contains(absent), "{absent} in\n{page}");
    }
    assert!(page.contains("\nafterimage_frames_total 0\n"), "{page}");
    assert!(page.contains("\nprocess_resident_memory_bytes "), "{page}");
}

#[test]
fn open_sinks_have_metrics() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there: records wait, and beyond a megabyte the oldest is dropped.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sets = [
        format!("stream.ring={:?}", folder.path().join("ring")),
        "stream.ring_slot_kilobytes=1".into(),
        format!("stream.socket=\"unix:{}\"", folder.path().join("socket").display()),
        format!("mqtt.broker=\"mqtt://{nobody}\""),
        "mqtt.buffer_megabytes=1".into(),
    ];
    let config = crate::config::loader::load(None, &sets).unwrap();
    let mut outlets = crate::export::sinks::LiveSinks::open(&config, None).unwrap().unwrap();
    let metrics = Arc::new(Metrics::default());
    metrics.live(Some(outlets.stats()));
    let text = r#"{"camera":"a","frame":3,"stamp_ns":4,"segment":0,"space":"s","head":1,"novelty":null}"#;
    let record = serde_json::from_str(text).unwrap();
    (0..3).for_each(|_| outlets.publish(&record, &[1.0; 64]).unwrap());
    outlets.publish(&record, &vec![1.0; 250_000]).unwrap();
    let page = metrics.page();
    for line in [
        "ring_records_total 3",
        "ring_records_lost_total 1",
        "mqtt_records_total 0",
        "mqtt_records_lost_total 3",
        "mqtt_records_waiting 1",
        "mqtt_connections_total 0",
        "mqtt_reconnects_total 0",
        "socket_readers 0",
        "socket_records_total 0",
        "socket_records_lost_total 0",
    ] {
        assert!(page.contains(&format!("\nafterimage_{line}\n")), "{line} is not in\n{page}");
    }
}

#[test]
fn labels_are_escaped() {
    let metrics = Arc::new(Metrics::default());
    metrics.encoder.get_or_init(|| OpenEncoder { provider: "a\"b\\c\nd".into(), ..OpenEncoder::default() });
    let page = metrics.page();
    let sample = r#"afterimage_encoder_info{provider="a\"b\\c\nd",fallback="false"} 1"#;
    assert!(page.lines().any(|line| line == sample), "{page}");
}
