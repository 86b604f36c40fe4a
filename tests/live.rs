//! Records through the local socket, as a program on the same machine reads them.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::process::{Child, Command, Stdio};

use common::skip::{Needs, installed};
use common::{PATIENCE, Running, TestDir, rows};
use serde_json::Value;

/// Goes on until it is told to stop.
const LONG: &str = "pattern://7?rate=100&live=true&width=64&height=48";
const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/clients/live.py");
const RING_READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/clients/ring.py");

#[test]
fn the_python_reader_reads_what_the_files_hold() {
    if !installed(Needs::Python, &["python3"]) {
        return;
    }
    let place = TestDir::new();
    let socket = format!("unix:{}", place.at("s").display());
    let set = format!("stream.socket={socket}");
    let mut running = place.start_learn(LONG, "run", &["--set", &set]);
    running.wait_to_say("records go live");
    let reader = Command::new("python3").args([READER, &socket]).stdout(Stdio::piped()).spawn().unwrap();
    read_what_was_written(&place, running, reader);
    assert!(!place.at("s").exists(), "the socket is gone with the program");
}

#[test]
fn the_python_reader_of_the_ring_reads_what_the_files_hold() {
    if !installed(Needs::Python, &["python3"]) {
        return;
    }
    let place = TestDir::new();
    let ring = place.at("ring");
    let set = format!("stream.ring={}", ring.display());
    let mut running = place.start_learn(LONG, "run", &["--set", &set]);
    running.wait("to make the ring", |_| ring.exists());
    let reader = Command::new("python3").arg(RING_READER).arg(&ring).stdout(Stdio::piped()).spawn().unwrap();
    read_what_was_written(&place, running, reader);
    assert!(!ring.exists(), "the ring is gone with the program");
}

/// Ends the run a while later, and compares what its reader printed with what the run wrote.
fn read_what_was_written(place: &TestDir, running: Running, reader: Child) {
    // The socket is there before the first record; how soon the reader comes is not ours to say.
    std::thread::sleep(std::time::Duration::from_secs(2).min(PATIENCE));
    running.signal("TERM");
    running.end().ok();
    let said = reader.wait_with_output().unwrap();
    assert!(said.status.success());
    let records: Vec<Value> =
        String::from_utf8(said.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let written = rows(&place.at("run/embeddings"));
    assert!(!records.is_empty() && records.len() <= written.len());
    // From where the reader came in, each record that was written, with the very numbers.
    let last = records.last().unwrap()["frame"].as_u64().unwrap();
    assert_eq!(last, written.last().unwrap().0.frame, "what waits at the end is sent");
    for record in &records {
        let frame = record["frame"].as_u64().unwrap();
        let (expected, bits) = written.iter().find(|(written, _)| written.frame == frame).unwrap();
        let values = record["embedding"].as_array().unwrap();
        assert!(
            values.iter().map(|v| (v.as_f64().unwrap() as f32).to_bits()).eq(bits.iter().copied()),
            "frame {frame}"
        );
        let mut expected = serde_json::to_value(expected).unwrap();
        let own = serde_json::json!({"version": 1, "dtype": "f32", "dim": bits.len(), "seq": record["seq"]});
        for (key, value) in own.as_object().unwrap() {
            expected[key] = value.clone();
        }
        expected["embedding"] = record["embedding"].clone();
        if let Some(lost) = record.get("lost") {
            assert_eq!(*lost, 0);
            expected["lost"] = lost.clone();
        }
        assert_eq!(*record, expected);
    }
    let seqs: Vec<u64> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|two| two[0] < two[1]));
}

#[test]
fn a_socket_that_cannot_be_had_is_told_before_anything_is_opened() {
    let place = TestDir::new();
    std::fs::write(place.at("s"), "a file").unwrap();
    let args =
        ["learn", "--encoder", "none.onnx", "--source", "pattern://7", "--out", "run", "--set", "stream.socket=unix:s"];
    place.run(&args).fails(1, &["stream.socket", "the path exists and is not a socket"]);
    let ran =
        place.learn("pattern://7", "run", &["--set", "stream.socket=0.0.0.0:9300", "--set", "stream.queue_records=0"]);
    ran.fails(78, &["stream.socket", "only loopback addresses are taken", "stream.queue_records = 0"]);
    assert!(!place.at("run").exists());
}

#[test]
fn records_can_go_live_without_any_file() {
    let place = TestDir::new();
    let socket = format!("stream.socket=unix:{}", place.at("s").display());
    let sets = ["--set", "export.embeddings=false", "--set", &socket];
    let mut running = place.start_learn("pattern://7?rate=200&live=true&width=64&height=48", "run", &sets);
    running.wait_to_say("records go live");
    let mut stream = std::os::unix::net::UnixStream::connect(place.at("s")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut four = [0; 4];
    std::io::Read::read_exact(&mut stream, &mut four).unwrap();
    assert!((64..100_000).contains(&u32::from_le_bytes(four)));
    running.signal("TERM");
    drop(stream);
    running.end().ok();
    assert!(!place.at("run/embeddings").exists());
}
