//! A run ends no matter who is connected, and strange clients on the sockets do no harm.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{PATIENCE, Running, TestDir};
use serde_json::Value;

const LIVE: &str = "pattern://7?frames=100000&segments=1000&width=64&height=48&rate=30&live=true";
const ASK: &[u8] = br#"{"boxes": [{"box": [0, 0, 30, 30]}]}"#;
/// Well below the patience with readers, senders and brokers, of 5 seconds and more each, on a machine that is busy.
const SOON: Duration = Duration::from_secs(4);

fn say(stream: &mut UnixStream, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(&(text.len() as u32).to_le_bytes())?;
    stream.write_all(text)
}

/// One answer; `None` once hung up on.
fn answer(stream: &mut UnixStream) -> Option<Value> {
    let mut four = [0; 4];
    stream.read_exact(&mut four).ok()?;
    let mut message = vec![0; u32::from_le_bytes(four) as usize];
    stream.read_exact(&mut message).ok()?;
    let (head, rest) = message.split_at(4);
    serde_json::from_slice(&rest[..u32::from_le_bytes(head.try_into().unwrap()) as usize]).ok()
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Waits until a frame has come that boxes can be cut out of.
fn wait_for_frames(path: &Path) {
    let (mut stream, began) = (connect(path), Instant::now());
    loop {
        say(&mut stream, ASK).unwrap();
        if answer(&mut stream).unwrap().get("error").is_none() {
            return;
        }
        assert!(began.elapsed() < PATIENCE);
    }
}

fn start(place: &TestDir, verb: &str, source: &str, more: &[&str]) -> Running {
    let boxes = format!("box_server.listen=unix:{}", place.at("b").display());
    let base = [verb, "--json", "--encoder", common::ENCODER, "--source", source, "--out", "run", "--set", &boxes];
    let mut running = place.start(&[&base, more].concat());
    running.wait_to_say("serving box embeddings on");
    running
}

/// Detectors that come and go, and ask all the time, while `during` goes on. Several requests wait at any moment.
fn while_detectors_ask(path: &Path, during: impl FnOnce()) {
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for i in 0..8 {
            let end = &end;
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    let Ok(mut stream) = UnixStream::connect(path) else {
                        std::thread::sleep(Duration::from_millis(10));
                        continue;
                    };
                    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
                    let boxes = vec![r#"{"box": [0, 0, 30, 30]}"#; 20].join(",");
                    let request = format!(r#"{{"boxes": [{boxes}]}}"#);
                    for _ in 0..1 + i % 2 * 2 {
                        let _ = say(&mut stream, request.as_bytes());
                    }
                    // Some leave before they have read anything.
                    for _ in 0..i % 3 * 20 {
                        let _ = answer(&mut stream);
                    }
                }
            });
        }
        // Also where `during` fails.
        let during = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        end.store(true, Ordering::Relaxed);
        during.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn a_stop_comes_through_while_detectors_ask() {
    let place = TestDir::new();
    let running = start(&place, "learn", LIVE, &[]);
    wait_for_frames(&place.at("b"));
    while_detectors_ask(&place.at("b"), || {
        std::thread::sleep(Duration::from_millis(200));
        running.signal("TERM");
        let began = Instant::now();
        running.end().ok();
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    });
    assert!(place.at("run/state.safetensors").exists());
}

#[test]
fn a_source_that_ends_ends_the_run_while_detectors_ask() {
    let place = TestDir::new();
    let running = start(&place, "learn", "pattern://7?frames=40&segments=4&width=64&height=48&rate=30&live=true", &[]);
    while_detectors_ask(&place.at("b"), || {
        let ran = running.end().ok();
        assert_eq!(ran.json()["ended"], true);
    });
    assert!(place.at("run/state.safetensors").exists());
}

#[test]
fn the_end_waits_for_nobody_at_any_outlet() {
    let place = TestDir::new();
    // A broker that lets in and says nothing, and one that is there for the whole test.
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = |key: &str, value: String| format!("{key}={value}");
    let sets = [
        at("stream.socket", format!("unix:{}", place.at("s").display())),
        at("stream.ring", place.at("ring").display().to_string()),
        at("mqtt.broker", format!("mqtt://{}", broker.local_addr().unwrap())),
        "mqtt.boxes=true".into(),
        "metrics.listen=127.0.0.1:0".into(),
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let running = start(&place, "learn", LIVE, &sets);
    wait_for_frames(&place.at("b"));
    let said = running.said();
    let (_, rest) = said.split_once("serving metrics on http://").unwrap();
    let figures = rest.split_once("/metrics").unwrap().0;
    // Readers that never read, a detector in the middle of a request, one that never reads its answers, a slow web client.
    let _readers: Vec<_> = (0..4).map(|_| connect(&place.at("s"))).collect();
    let mut middle = connect(&place.at("b"));
    middle.write_all(&[200, 0, 0, 0, b'{']).unwrap();
    let mut deaf = connect(&place.at("b"));
    let many = format!(r#"{{"boxes": [{}]}}"#, vec![r#"{"box": [0, 0, 0, 0]}"#; 900].join(","));
    deaf.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while say(&mut deaf, many.as_bytes()).is_ok() {}
    let mut slow = TcpStream::connect(figures).unwrap();
    slow.write_all(b"GET /metrics HT").unwrap();
    running.signal("TERM");
    let began = Instant::now();
    running.end().ok();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(place.at("run/state.safetensors").exists());
    let left: Vec<&str> = ["s", "b", "ring"].into_iter().filter(|name| place.at(name).exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_hangup_ends_a_run_in_order_and_a_second_signal_at_once_is_the_first() {
    let place = TestDir::new();
    let running = start(&place, "learn", LIVE, &[]);
    wait_for_frames(&place.at("b"));
    running.signal("HUP");
    running.signal("TERM");
    running.end().ok();
    assert!(place.at("run/state.safetensors").exists());
    place.run(&["check", "--run", "run"]).ok();
}

#[test]
fn large_requests_have_small_answers_and_hold_up_nobody() {
    let place = TestDir::new();
    let running = start(&place, "embed", LIVE, &[]);
    wait_for_frames(&place.at("b"));
    let text = "\\u0001".repeat(30_000);
    let boxes = vec![r#"{"box": [0, 0, 1, 1]}"#; 1000].join(",");
    let requests = [
        format!(r#"{{"camera": "{text}", "boxes": [{boxes}]}}"#),
        format!(r#"{{"camera": "nobody", "boxes": [{boxes}]}}"#),
        format!(r#"{{"boxes": [{boxes}], "{text}": 1}}"#),
    ];
    let path = place.at("b");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut stream = connect(&path);
                for _ in 0..10 {
                    for request in &requests {
                        say(&mut stream, request.as_bytes()).unwrap();
                        let answer = answer(&mut stream).unwrap();
                        assert!(answer.get("index").is_none() && answer.to_string().len() < 1000, "{answer}");
                    }
                }
            });
        }
        let mut honest = connect(&place.at("b"));
        for _ in 0..10 {
            say(&mut honest, ASK).unwrap();
            assert!(answer(&mut honest).unwrap().get("index").is_some());
        }
    });
    // One that claims more than a request may have is told so once, and hung up on.
    let mut liar = connect(&place.at("b"));
    liar.write_all(&(1u32 << 20).to_le_bytes()).unwrap();
    assert_eq!(answer(&mut liar).unwrap()["error"], "bad-request");
    assert!(answer(&mut liar).is_none());
    running.signal("TERM");
    let peak = running.end().ok().json()["speed"]["peak_megabytes"].as_f64().unwrap();
    assert!(peak < 150.0, "{peak} MB");
}

#[test]
fn a_detector_that_is_silent_makes_room_for_another() {
    let place = TestDir::new();
    let running = start(&place, "embed", LIVE, &["--set", "box_server.idle_secs=0.5"]);
    wait_for_frames(&place.at("b"));
    let _idle: Vec<_> = (0..16).map(|_| connect(&place.at("b"))).collect();
    std::thread::sleep(Duration::from_millis(700));
    let mut late = connect(&place.at("b"));
    say(&mut late, ASK).unwrap();
    assert!(answer(&mut late).is_some_and(|answer| answer.get("index").is_some()));
    running.signal("TERM");
    running.end().ok();
}

#[test]
fn a_ring_and_a_socket_that_another_process_holds_are_refused() {
    let place = TestDir::new();
    let ring = format!("stream.ring={}", place.at("ring").display());
    let socket = format!("stream.socket=unix:{}", place.at("s").display());
    let running = start(&place, "embed", LIVE, &["--set", &ring, "--set", &socket]);
    wait_for_frames(&place.at("b"));
    let holder = format!("process {}", running.id());
    for (set, key) in [(&ring, "stream.ring"), (&socket, "stream.socket")] {
        let args = ["embed", "--encoder", common::ENCODER, "--source", LIVE, "--out", "other", "--set", set];
        place.run(&args).fails(1, &[key, &holder]);
    }
    assert!(place.at("ring").exists() && place.at("s").exists());
    running.signal("TERM");
    running.end().ok();
}
