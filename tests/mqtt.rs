//! Records to a real MQTT broker (mosquitto): no losses over a restart of the broker, TLS, and a wrong password.
//! Skipped with a message if mosquitto, mosquitto_sub, mosquitto_passwd or openssl is not installed.
//!
//! `AFTERIMAGE_MQTT_SECS=60 cargo test --release --test mqtt` publishes for a minute instead of a few seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use afterimage::config::loader::load;
use afterimage::export::Record;
use afterimage::export::box_api::BoxServer;
use afterimage::export::sinks::LiveSinks;
use common::skip::{Needs, installed};

const PASSWORD: &str = "open sesame";

fn has_broker() -> bool {
    installed(Needs::Broker, &["mosquitto", "mosquitto_sub", "mosquitto_passwd", "openssl"])
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn terminate(&mut self) {
        Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Broker {
    folder: PathBuf,
    port: u16,
    running: Running,
}

impl Broker {
    fn start(folder: &Path, more: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "listener {port} 127.0.0.1\npersistence true\npersistence_location {}/\nmax_queued_messages 0\n\
             log_type error\n{more}\n",
            folder.display()
        );
        // Started as root it would give up its rights and could not read the folder of the test.
        fs::write(folder.join("mosquitto.conf"), format!("user root\n{config}")).unwrap();
        Self { running: Self::launch(folder, port), folder: folder.into(), port }
    }

    fn launch(folder: &Path, port: u16) -> Running {
        let tool = if Path::new("/usr/sbin/mosquitto").is_file() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        let log = File::options().create(true).append(true).open(folder.join("mosquitto.log")).unwrap();
        let mut command = Command::new(tool);
        command.arg("-c").arg(folder.join("mosquitto.conf")).stdout(log.try_clone().unwrap()).stderr(log);
        let running = Running(command.spawn().unwrap());
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    fn restart(&mut self, away: Duration) {
        self.running.terminate();
        std::thread::sleep(away);
        self.running = Self::launch(&self.folder, self.port);
    }

    fn subscribe(&self, topic: &str, more: &[&str]) -> (Running, PathBuf) {
        let out = self.folder.join("received.txt");
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "localhost", "-p", &self.port.to_string(), "-q", "1", "-c", "-i", "reader", "-t", topic]);
        let child = command.args(["-F", "%t %x"]).args(more).stdout(File::create(&out).unwrap()).stderr(Stdio::null());
        (Running(child.spawn().unwrap()), out)
    }
}

fn record(frame: u64) -> Record {
    let text =
        format!(r#"{{"camera": "gate", "frame": {frame}, "stamp_ns": 5, "segment": 2, "space": "s", "head": 1}}"#);
    serde_json::from_str(&text).unwrap()
}

/// 512 floats: 2 KiB.
fn embedding(frame: u64) -> Vec<f32> {
    (0..512).map(|i| (frame as f32) + (i as f32) / 512.0).collect()
}

fn outlets(sets: &[String]) -> LiveSinks {
    LiveSinks::open(&load(None, sets).unwrap(), None).unwrap().unwrap()
}

fn until(what: &str, secs: u64, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(secs), "not within {secs} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the retained status has come to the reader, so that it is subscribed.
fn subscribed(out: &Path) {
    until("the reader has the status", 20, || fs::read_to_string(out).unwrap().contains("/status "));
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// `seq` and the whole payload of every embedding that came.
fn received(out: &Path) -> HashMap<u64, Vec<u8>> {
    let text = fs::read_to_string(out).unwrap();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let payloads = whole.lines().filter_map(|line| line.strip_prefix("afterimage/gate/embedding "));
    payloads
        .map(|hex| {
            let payload = bytes(hex);
            let header = u32::from_le_bytes(payload[..4].try_into().unwrap()) as usize;
            let json: serde_json::Value = serde_json::from_slice(&payload[4..4 + header]).unwrap();
            (json["seq"].as_u64().unwrap(), payload)
        })
        .collect()
}

#[test]
fn nothing_is_lost_over_a_restart_of_the_broker_and_publishing_never_waits() {
    if !has_broker() {
        return;
    }
    let secs: u64 = std::env::var("AFTERIMAGE_MQTT_SECS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path(), "allow_anonymous true");
    let mut outlets = outlets(&[format!("mqtt.broker=\"mqtt://localhost:{}\"", broker.port)]);
    let (_reader, out) = broker.subscribe("afterimage/#", &[]);
    subscribed(&out);
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    let all = 1000 * secs;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500 * secs));
            broker.restart(Duration::from_secs(3));
        });
        for frame in 0..all {
            std::thread::sleep(Duration::from_millis(frame).saturating_sub(began.elapsed()));
            let asked = Instant::now();
            outlets.publish(&record(frame), &embedding(frame)).unwrap();
            slowest = slowest.max(asked.elapsed());
        }
    });
    until("the broker has all", 60, || outlets.counts().1.unwrap().waiting == 0);
    let counts = outlets.counts().1.unwrap();
    assert_eq!((counts.lost, counts.delivered), (0, all), "{counts:?}");
    assert!(counts.connections >= 2, "{counts:?}");
    until("the reader has all", 60, || received(&out).len() as u64 == all);
    for (seq, payload) in received(&out) {
        let header = u32::from_le_bytes(payload[..4].try_into().unwrap()) as usize;
        let expected: Vec<u8> = embedding(seq).iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(payload[4 + header..], expected, "message {seq}");
    }
    eprintln!("{all} messages at 1000 a second, none lost; the slowest call took {slowest:?}; {counts:?}");
    // A broker that is away for three seconds would show here, were it waited for.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    drop(outlets);
    until("the reader hears of the end", 20, || {
        fs::read_to_string(&out).unwrap().contains("afterimage/status 6f66666c696e65")
    });
}

#[test]
fn json_at_most_once_under_a_topic_of_ones_own() {
    if !has_broker() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path(), "allow_anonymous true");
    let sets = [format!("mqtt.broker=\"mqtt://localhost:{}\"", broker.port), "mqtt.payload=json".into()];
    let sets = [&sets[..], &["mqtt.qos=0".into(), "mqtt.topic=\"site/7\"".into()]].concat();
    let mut outlets = outlets(&sets);
    let (_reader, out) = broker.subscribe("site/#", &[]);
    subscribed(&out);
    outlets.publish(&record(3), &[0.5, -1.0]).unwrap();
    let line = || {
        fs::read_to_string(&out)
            .unwrap()
            .lines()
            .find_map(|l| Some(l.strip_prefix("site/7/gate/embedding ")?.to_owned()))
    };
    until("the message has come", 20, || line().is_some());
    let json: serde_json::Value = serde_json::from_slice(&bytes(&line().unwrap())).unwrap();
    assert_eq!((json["seq"].as_u64(), json["frame"].as_u64()), (Some(0), Some(3)));
    assert_eq!(json["embedding"], serde_json::json!([0.5, -1.0]));
    until("sent is known", 20, || outlets.counts().1.unwrap().delivered == 1);
}

#[test]
fn tls_and_passwords() {
    if !has_broker() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let run = |tool: &str, args: &[&str]| {
        assert!(Command::new(tool).args(args).stderr(Stdio::null()).status().unwrap().success(), "{tool}");
    };
    let (key, crt) = (at("ca.key"), at("ca.crt"));
    let subject = ["-subj", "/CN=test authority", "-days", "2", "-nodes", "-newkey", "rsa:2048"];
    run("openssl", &[&["req", "-x509", "-keyout", &key, "-out", &crt][..], &subject].concat());
    let (own, request, signed, names) = (at("b.key"), at("b.csr"), at("b.crt"), at("names"));
    fs::write(&names, "subjectAltName=DNS:localhost").unwrap();
    run("openssl", &["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker", "-keyout", &own, "-out", &request]);
    let sign = ["x509", "-req", "-in", &request, "-CA", &crt, "-CAkey", &key, "-CAcreateserial", "-days", "2"];
    run("openssl", &[&sign[..], &["-extfile", &names, "-out", &signed]].concat());
    run("mosquitto_passwd", &["-c", "-b", &at("users"), "me", PASSWORD]);
    let broker = Broker::start(
        folder.path(),
        &format!(
            "cafile {crt}\ncertfile {signed}\nkeyfile {own}\npassword_file {}\nallow_anonymous false",
            at("users")
        ),
    );
    fs::write(at("right"), format!("{PASSWORD}\n")).unwrap();
    fs::write(at("wrong"), "sesame").unwrap();
    let sets = |host: &str, password: &str, ca: &str| {
        vec![
            format!("mqtt.broker=\"mqtts://{host}:{}\"", broker.port),
            "mqtt.user=me".into(),
            format!("mqtt.password_file={:?}", at(password)),
            format!("mqtt.ca_file={ca:?}"),
        ]
    };
    let mut good = outlets(&sets("localhost", "right", &crt));
    good.publish(&record(0), &embedding(0)).unwrap();
    until("it is delivered over TLS", 20, || good.counts().1.unwrap().delivered == 1);
    // Wrong password, an authority that did not sign, a host that the certificate does not name.
    let (stranger, theirs) = (at("x.key"), at("x.crt"));
    run("openssl", &[&["req", "-x509", "-keyout", &stranger, "-out", &theirs][..], &subject].concat());
    for wrong in
        [sets("localhost", "wrong", &crt), sets("localhost", "right", &theirs), sets("127.0.0.1", "right", &crt)]
    {
        let mut outlets = outlets(&wrong);
        outlets.publish(&record(0), &embedding(0)).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let counts = outlets.counts().1.unwrap();
        assert_eq!((counts.connections, counts.delivered, counts.waiting), (0, 0, 1), "{wrong:?}");
    }
}

#[test]
fn detectors_ask_through_the_broker() {
    if !has_broker() {
        return;
    }
    for (payload, json) in [("json", true), ("binary", false)] {
        let place = common::TestDir::new();
        let broker = Broker::start(place.path(), "allow_anonymous true");
        let (_reader, out) = broker.subscribe("afterimage/#", &[]);
        let sets = [format!("mqtt.broker=mqtt://localhost:{}", broker.port), format!("mqtt.payload={payload}")];
        let source = "pattern://7?frames=2000&segments=100&width=64&height=48&rate=20&live=true";
        let running = place.start(
            &[
                &["embed", "--source", source, "--encoder", common::ENCODER, "--out", "live", "--camera", "front/door"]
                    [..],
                &["--set", &sets[0], "--set", &sets[1], "--set", "mqtt.boxes=true"],
            ]
            .concat(),
        );
        let came = |topic: &str| -> Vec<Vec<u8>> {
            let text = fs::read_to_string(&out).unwrap();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            whole.lines().filter_map(|line| Some(bytes(line.strip_prefix(topic)?.strip_prefix(' ')?))).collect()
        };
        until("embeddings come", 60, || !came("afterimage/front_door/embedding").is_empty());
        let ask = |text: &str| {
            let port = broker.port.to_string();
            let args = ["-h", "localhost", "-p", &port, "-q", "1", "-t", "afterimage/front_door/boxes", "-m", text];
            assert!(Command::new("mosquitto_pub").args(args).status().unwrap().success());
        };
        ask(r#"{"id": 5, "boxes": [{"box": [0, 0, 64, 48], "track": 3}, {"box": [70, 0, 80, 9]}]}"#);
        ask("no request");
        let answers = || came("afterimage/front_door/box");
        until("three answers come", 60, || answers().len() >= 3);
        // The header of each, and its embedding as bits.
        let read = |payload: &[u8]| -> (serde_json::Value, Vec<u32>) {
            if json {
                let answer: serde_json::Value = serde_json::from_slice(payload).unwrap();
                let values = answer["embedding"].as_array().unwrap();
                let bits = values.iter().map(|value| (value.as_f64().unwrap() as f32).to_bits()).collect();
                return (answer, bits);
            }
            let header = 4 + u32::from_le_bytes(payload[..4].try_into().unwrap()) as usize;
            let bits = payload[header..].chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().unwrap()));
            (serde_json::from_slice(&payload[4..header]).unwrap(), bits.collect())
        };
        // What is no request is answered at once, boxes when they are embedded.
        let mut found: Vec<_> = answers().iter().map(|payload| read(payload)).collect();
        found.sort_by_key(|(answer, _)| answer["error"] == "bad-request");
        let (first, whole) = &found[0];
        assert_eq!((&first["id"], &first["index"], &first["track"]), (&5.into(), &0.into(), &3.into()));
        assert_eq!((&first["camera"], &first["level"]), (&"front/door".into(), &"box".into()));
        assert_eq!((&found[1].0["error"], found[1].1.len()), (&"outside".into(), 0));
        assert_eq!(found[2].0["error"], "bad-request");
        // A box that is the whole frame has the embedding of the frame.
        let frames: Vec<_> = came("afterimage/front_door/embedding").iter().map(|payload| read(payload)).collect();
        let (_, bits) = frames.iter().find(|(record, _)| record["frame"] == first["frame"]).unwrap();
        assert_eq!(bits, whole);
        running.signal("TERM");
        running.end().ok();
    }
}

/// Outlets that hear detectors too.
fn hearing(port: u16) -> (LiveSinks, BoxServer) {
    let sets = [format!("mqtt.broker=\"mqtt://127.0.0.1:{port}\""), "mqtt.boxes=true".into()];
    let config = load(None, &sets).unwrap();
    let asked = BoxServer::open(&config).unwrap().unwrap();
    (LiveSinks::open(&config, Some(asked.sender())).unwrap().unwrap(), asked)
}

#[test]
fn messages_that_are_no_requests_are_ignored_and_records_go_on() {
    if !has_broker() {
        return;
    }
    // Longer than a request, but read; and longer than what is read at all, which costs the connection once.
    for (bytes, connections) in [(300, 1), (5_000_000, 1), (12_000_000, 2)] {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(folder.path(), "allow_anonymous true");
        let port = broker.port.to_string();
        let file = folder.path().join("large");
        fs::write(&file, vec![b'a'; bytes]).unwrap();
        let publish = |more: &[&str]| {
            let args = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "afterimage/gate/boxes"];
            assert!(Command::new("mosquitto_pub").args(args).args(more).status().unwrap().success());
        };
        publish(&["-r", "-f", file.to_str().unwrap()]);
        let (mut outlets, asked) = hearing(broker.port);
        until("the message is counted", 20, || outlets.counts().1.unwrap().ignored == 1);
        for frame in 0..50 {
            outlets.publish(&record(frame), &embedding(frame)).unwrap();
        }
        until("all records are delivered", 20, || outlets.counts().1.unwrap().delivered == 50);
        let counts = outlets.counts().1.unwrap();
        assert_eq!((counts.connections, counts.lost), (connections, 0), "{bytes} bytes: {counts:?}");
        if connections == 1 {
            // Detectors are heard all the same.
            publish(&["-m", r#"{"boxes": [{"box": [0, 0, 9, 9]}]}"#]);
            until("a request comes", 20, || !asked.requests().is_empty());
        }
    }
}

#[test]
fn an_orderly_end_is_no_fault_and_a_plain_password_is_named() {
    if !has_broker() {
        return;
    }
    let place = common::TestDir::new();
    let broker = Broker::start(place.path(), "allow_anonymous true");
    fs::write(place.at("password"), PASSWORD).unwrap();
    let set = format!("mqtt.broker=mqtt://127.0.0.1:{}", broker.port);
    for (i, more) in [&[][..], &["--set", "mqtt.user=me", "--set", "mqtt.password_file=password"]].iter().enumerate() {
        let out = format!("out{i}");
        let source = "pattern://7?frames=20&width=64&height=48";
        let args = ["embed", "--source", source, "--encoder", common::ENCODER, "--out", &out, "--set", &set];
        let ran = place.run(&[&args[..], more].concat()).ok();
        let warnings: Vec<&str> = ran.err.lines().filter(|line| line.contains("WARN")).collect();
        assert!(!ran.err.contains(PASSWORD));
        match i {
            0 => assert!(warnings.is_empty(), "{warnings:?}"),
            _ => assert!(warnings.len() == 1 && warnings[0].contains("plain text"), "{warnings:?}"),
        }
    }
}

#[test]
fn brokers_that_misbehave_are_survived_and_not_pestered() {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    const WELCOME: [u8; 4] = [0x20, 2, 0, 0];
    // What is sent after the greeting; the connection stays open, unless it is to be broken.
    let garbage: Vec<u8> = (0..500u32).map(|i| (i * 7919 % 251) as u8).collect();
    let acks: Vec<u8> = (0..100).flat_map(|i| [0x40, 2, i, i]).collect();
    let after: [(&str, bool, Vec<u8>, bool); 9] = [
        ("silent", false, Vec::new(), false),
        ("garbage", false, garbage, false),
        ("refuses", false, vec![0x20, 2, 0, 5], false),
        ("accepts and breaks", true, Vec::new(), true),
        ("a huge length", true, [&[0x30, 0xff, 0xff, 0xff, 0x7f][..], &[b'a'; 1000]].concat(), false),
        ("no length", true, vec![0x30, 0xff, 0xff, 0xff, 0xff, 0xff], false),
        ("a topic that is cut", true, vec![0x30, 6, 0, 200, b'a', b'b', b'c', b'd'], false),
        ("acknowledges what nobody sent", true, acks, false),
        ("acknowledges nothing", true, Vec::new(), false),
    ];
    std::thread::scope(|scope| {
        for (what, welcome, bytes, breaks) in after {
            scope.spawn(move || {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let (port, end, came) =
                    (listener.local_addr().unwrap().port(), AtomicBool::new(false), AtomicUsize::new(0));
                listener.set_nonblocking(true).unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let mut open = Vec::new();
                        while !end.load(Ordering::Relaxed) {
                            let Ok((mut stream, _)) = listener.accept() else {
                                std::thread::sleep(Duration::from_millis(5));
                                continue;
                            };
                            came.fetch_add(1, Ordering::Relaxed);
                            stream.set_nonblocking(false).unwrap();
                            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                            let _greeting = stream.read(&mut [0; 512]);
                            if welcome {
                                stream.write_all(&WELCOME).ok();
                            }
                            stream.write_all(&bytes).ok();
                            if !breaks {
                                open.push(stream);
                            }
                        }
                    });
                    let (mut outlets, _asked) = hearing(port);
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_millis(3500) {
                        outlets.publish(&record(1), &embedding(1)).unwrap();
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    // After .25, .5, 1, 2 seconds and so on, whatever the greeting was.
                    let connections = came.load(Ordering::Relaxed);
                    assert!((1..=5).contains(&connections), "{what}: {connections} connections in 3.5 s");
                    let began = Instant::now();
                    drop(outlets);
                    assert!(began.elapsed() < Duration::from_secs(3), "{what}: ended after {:?}", began.elapsed());
                    end.store(true, Ordering::Relaxed);
                });
            });
        }
    });
}
