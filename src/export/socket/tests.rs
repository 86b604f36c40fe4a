#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::export::Record;
use crate::export::{Granularity, SCHEMA};
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn config(socket: &str, queue_records: usize) -> config::Stream {
    config::Stream { socket: socket.into(), queue_records, ..config::Stream::default() }
}

fn record(frame: u64) -> Record {
    Record {
        schema: SCHEMA,
        camera: "door \"1\"".into(),
        frame,
        file: None,
        stamp_ns: -5,
        wall_ns: None,
        segment: 3,
        level: Granularity::Frame,
        space: "abc".into(),
        head: 2,
        provenance: None,
        learner: None,
        novelty: Some(0.25),
        novel: false,
        window: Some([-1, 2, 30, 40]),
        track: None,
        class: None,
        score: None,
        migrated_from: None,
    }
}

/// Reads one message, its header and its embedding; `None` at the end.
fn read(stream: &mut impl Read) -> Option<(serde_json::Value, Vec<f32>)> {
    let mut four = [0; 4];
    stream.read_exact(&mut four).ok()?;
    let mut message = vec![0; u32::from_le_bytes(four) as usize];
    stream.read_exact(&mut message).unwrap();
    let (head, rest) = message.split_at(4);
    let (header, values) = rest.split_at(u32::from_le_bytes(head.try_into().unwrap()) as usize);
    let values = values.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    Some((serde_json::from_slice(header).unwrap(), values))
}

/// Waits until `count` readers are connected.
fn readers(live: &SocketPublisher, count: usize) {
    let began = Instant::now();
    while live.shared.subscribers().len() != count {
        assert!(began.elapsed() < PATIENCE, "{count} readers");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn publish(live: &SocketPublisher, frame: u64, embedding: &[f32]) {
    live.publish(&wire::write(&record(frame), frame, embedding).unwrap().into());
}

#[test]
fn readers_get_what_is_published_while_they_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let live = SocketPublisher::open(&config(&format!("unix:{}", path.display()), 8)).unwrap().unwrap();
    publish(&live, 0, &[1.0]);
    let mut reader = UnixStream::connect(&path).unwrap();
    readers(&live, 1);
    publish(&live, 1, &[1.5, f32::MIN_POSITIVE]);
    let (header, values) = read(&mut reader).unwrap();
    assert_eq!(values, [1.5, f32::MIN_POSITIVE]);
    let mut expected = serde_json::to_value(record(1)).unwrap();
    for (key, value) in [("version", 1), ("seq", 1), ("dim", 2)] {
        expected[key] = value.into();
    }
    expected["dtype"] = "f32".into();
    assert_eq!(header, expected);
    // The queue is drained at the end, and then the socket file is removed.
    publish(&live, 2, &[]);
    drop(live);
    assert_eq!(read(&mut reader).unwrap().0["frame"], 2);
    assert!(read(&mut reader).is_none() && !path.exists());
}

#[test]
fn a_reader_that_sleeps_loses_records_and_sees_it() {
    let live = SocketPublisher::open(&config("127.0.0.1:0", 4)).unwrap().unwrap();
    let address = live.address().to_owned();
    let (mut awake, mut asleep) = (TcpStream::connect(&address).unwrap(), TcpStream::connect(&address).unwrap());
    readers(&live, 2);
    // More than the system's buffers hold, so that the queue of the idle reader fills up.
    let large = vec![0.5; 1 << 18];
    let began = Instant::now();
    let counts = live.counts().clone();
    let mut frames = 0;
    while counts.lost.load(Ordering::Relaxed) == 0 {
        publish(&live, frames, &large);
        assert_eq!(read(&mut awake).unwrap().0["seq"], frames);
        frames += 1;
        assert!(began.elapsed() < PATIENCE);
    }
    publish(&live, frames, &[1.0]);
    let reading = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while let Some((header, _)) = read(&mut asleep) {
            seen.push(header["seq"].as_u64().unwrap());
        }
        seen
    });
    drop(live);
    let seen = reading.join().unwrap();
    assert!(seen.windows(2).all(|two| two[0] < two[1]) && (seen.len() as u64) < frames + 1, "{seen:?}");
    assert!(counts.sent.load(Ordering::Relaxed) > frames);
}

#[test]
fn addresses_that_cannot_be_had_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let unix = format!("unix:{}", path.display());
    let refused = |socket: &str| SocketPublisher::open(&config(socket, 4)).unwrap_err().chain();
    std::fs::write(&path, "something else").unwrap();
    assert!(refused(&unix).contains("the path exists and is not a socket"), "{}", refused(&unix));
    std::fs::remove_file(&path).unwrap();
    let first = SocketPublisher::open(&config(&unix, 4)).unwrap().unwrap();
    let holder = format!("process {} listens there", std::process::id());
    assert!(refused(&unix).contains(&holder), "{}", refused(&unix));
    drop(first);
    // A socket left behind by a killed program is taken over.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(SocketPublisher::open(&config(&unix, 4)).unwrap().unwrap());
    let long = format!("unix:{}", "x".repeat(200));
    assert!(refused(&long).contains("cannot listen there"), "{}", refused(&long));
    for (socket, says) in [("0.0.0.0:9300", "only loopback"), ("unix:", "a path"), ("9300", "must be unix:PATH")] {
        let text = refused(socket);
        assert!(text.starts_with("stream.socket = ") && text.contains(says), "{text}");
    }
    assert!(SocketPublisher::open(&config("", 4)).unwrap().is_none());
}

#[test]
fn the_end_waits_for_no_reader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let live = SocketPublisher::open(&config(&format!("unix:{}", path.display()), 64)).unwrap().unwrap();
    let _asleep: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(&path).unwrap()).collect();
    readers(&live, 4);
    let large = vec![0.5; 1 << 16];
    (0..64).for_each(|frame| publish(&live, frame, &large));
    let began = Instant::now();
    drop(live);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(!path.exists());
}

#[test]
fn a_reader_that_does_not_follow_makes_room_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let live = SocketPublisher::open(&config(&format!("unix:{}", path.display()), 2)).unwrap().unwrap();
    let asleep: Vec<UnixStream> = (0..MAX_SUBSCRIBERS).map(|_| UnixStream::connect(&path).unwrap()).collect();
    readers(&live, MAX_SUBSCRIBERS);
    // All of them have read everything so far: none is behind, so one more is turned away.
    let mut late = UnixStream::connect(&path).unwrap();
    assert_eq!(late.read(&mut [0; 1]).unwrap(), 0, "hung up on");
    let (large, began) = (vec![0.5; 1 << 16], Instant::now());
    while live.counts().lost.load(Ordering::Relaxed) < 2 * MAX_SUBSCRIBERS as u64 {
        publish(&live, 0, &large);
        assert!(began.elapsed() < PATIENCE);
    }
    let mut late = UnixStream::connect(&path).unwrap();
    late.set_read_timeout(Some(PATIENCE)).unwrap();
    let seen = loop {
        publish(&live, 7, &[1.0]);
        std::thread::sleep(Duration::from_millis(2));
        late.set_nonblocking(true).unwrap();
        let came = late.read(&mut [0; 1]);
        if let Ok(count) = came {
            break count;
        }
        assert!(began.elapsed() < PATIENCE);
    };
    assert_eq!(seen, 1, "it is served");
    drop(asleep);
}
