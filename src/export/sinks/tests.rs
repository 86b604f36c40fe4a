use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::shm_ring::{RingRead, RingReader, RingWriter};
use super::*;
use crate::config::loader::load;

fn record(frame: u64) -> Record {
    let text = format!(
        r#"{{"camera": "gate", "frame": {frame}, "stamp_ns": 5, "segment": 2, "space": "s1", "head": 1, "novelty": 0.25}}"#
    );
    serde_json::from_str(&text).expect("a record")
}

fn body(number: u64, length: usize) -> Vec<u8> {
    vec![number as u8; length]
}

fn got(reader: &mut RingReader) -> (u8, u64) {
    match reader.read() {
        RingRead::Message(message, lost) => (message[0], lost),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_ring_keeps_the_newest_and_counts_what_a_reader_lost() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ring");
    let mut writer = RingWriter::create(&path, 1024, 4).expect("made");
    writer.push(&body(0, 10));
    let (mut early, mut late) = (RingReader::open(&path).expect("opens"), RingReader::open(&path).expect("opens"));
    assert_eq!(early.read(), RingRead::Nothing, "what was there before is not news");
    (1..=3).for_each(|number| writer.push(&body(number, 10)));
    assert_eq!([got(&mut early), got(&mut early), got(&mut early)], [(1, 0), (2, 0), (3, 0)]);
    assert_eq!(early.read(), RingRead::Nothing);
    (4..=9).for_each(|number| writer.push(&body(number, 10)));
    assert_eq!(got(&mut late), (6, 5), "1 to 5 are written over");
    assert_eq!([got(&mut late), got(&mut late), got(&mut late)], [(7, 0), (8, 0), (9, 0)]);
    writer.push(&body(10, 2000));
    writer.push(&body(11, 1008));
    assert_eq!((got(&mut late), writer.too_long()), ((11, 1), 1));
    drop(writer);
    assert_eq!(late.read(), RingRead::Closed);
    assert!(!path.exists());
    // A late reader can still read what was written.
    assert_eq!(got(&mut early).0, 8);
}

#[test]
fn a_new_ring_tells_the_readers_of_one_whose_writer_was_killed() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ring");
    let killed = RingWriter::create(&path, 256, 2).expect("made");
    let mut reader = RingReader::open(&path).expect("opens");
    killed.killed();
    let _new = RingWriter::create(&path, 256, 2).expect("made again");
    assert_eq!(reader.read(), RingRead::Closed);
}

#[test]
fn a_ring_has_one_writer_and_takes_nobodys_place() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ring");
    let mut first = RingWriter::create(&path, 256, 2).expect("made");
    let mut reader = RingReader::open(&path).expect("opens");
    let refused = RingWriter::create(&path, 256, 2).expect_err("refused").chain();
    assert!(
        refused.contains("stream.ring") && refused.contains(&format!("process {}", std::process::id())),
        "{refused}"
    );
    first.push(&body(7, 10));
    assert_eq!(got(&mut reader), (7, 0), "the first goes on");
    drop(first);
    drop(RingWriter::create(&path, 256, 2).expect("free again"));
    // A file that is not a ring, and a link to one, stay unchanged.
    std::fs::write(&path, "mine").expect("written");
    let refused = RingWriter::create(&path, 256, 2).expect_err("refused").chain();
    assert!(refused.contains("something else"), "{refused}");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    assert!(RingWriter::create(&link, 256, 2).is_err());
    assert_eq!(std::fs::read(&path).expect("reads"), b"mine");
    let names = crate::files::names_in(folder.path()).expect("reads");
    assert_eq!(names, ["link", "ring"], "nothing half-made is left");
}

#[test]
fn of_rings_that_are_made_at_the_same_moment_one_is_taken() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ring");
    RingWriter::create(&path, 256, 2).expect("made").killed();
    let made: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| RingWriter::create(&path, 256, 2))).collect();
        all.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
}

#[test]
fn what_is_no_ring_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ring");
    RingWriter::create(&path, 256, 2).map(std::mem::forget).expect("made");
    let whole = std::fs::read(&path).expect("reads");
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("text", b"hello".to_vec()),
        ("cut", whole[..whole.len() - 1].to_vec()),
        ("no slots", [&whole[..12], &[0; 4], &whole[16..]].concat()),
        ("a slot of 3 bytes", [&whole[..8], &[3, 0, 0, 0], &whole[12..]].concat()),
    ] {
        std::fs::write(&path, bytes).expect("written");
        assert!(RingReader::open(&path).is_err(), "{what}");
    }
    assert!(RingReader::open(&folder.path().join("none")).is_err());
}

#[test]
fn a_reader_of_the_ring_never_gets_a_torn_message() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ring");
    let mut writer = RingWriter::create(&path, 4096, 2).expect("made");
    let mut reader = RingReader::open(&path).expect("opens");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                writer.push(&body(number, 3000));
                number += 1;
            }
        });
        let (mut whole, began) = (0, Instant::now());
        while whole < 2000 && began.elapsed() < Duration::from_secs(20) {
            if let RingRead::Message(message, _) = reader.read() {
                assert_eq!(message, body(u64::from(message[0]), 3000));
                whole += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(whole > 0);
    });
}

#[test]
fn the_ring_has_what_the_socket_has() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ring");
    let config = load(None, &[format!("stream.ring=\"{}\"", path.display())]).expect("taken");
    let mut outlets = LiveSinks::open(&config, None).expect("opens").expect("configured");
    let mut reader = RingReader::open(&path).expect("opens");
    outlets.publish(&record(7), &[1.0, -2.0]).expect("sent");
    let RingRead::Message(message, 0) = reader.read() else { panic!("nothing came") };
    assert_eq!(message, wire::write(&record(7), 0, &[1.0, -2.0]).expect("written")[wire::LENGTH_BYTES..]);
    assert!(LiveSinks::open(&load(None, &[]).expect("defaults"), None).expect("opens").is_none());
    let refused = load(None, &["stream.ring=ring".into()]).expect_err("refused");
    assert!(refused.chain().contains("stream.ring = \"ring\": must be a whole path"), "{}", refused.chain());
}

#[test]
fn a_broker_that_is_away_holds_up_nobody_and_the_oldest_messages_go() {
    // A port that refuses connections: bound once, but not listened on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let sets = [format!("mqtt.broker=\"mqtt://127.0.0.1:{port}\""), "mqtt.buffer_megabytes=1".into()];
    let mut outlets = LiveSinks::open(&load(None, &sets).expect("taken"), None).expect("opens").expect("configured");
    for number in 0..1000 {
        outlets.publish(&record(number), &[0.5; 512]).expect("sent");
    }
    let counts = outlets.counts().1.expect("configured");
    assert_eq!((counts.delivered, counts.connections), (0, 0));
    assert_eq!(counts.lost + counts.waiting, 1000);
    assert!((300..600).contains(&counts.waiting), "{counts:?}: about a megabyte of 2 kB messages");
}
