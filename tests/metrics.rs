//! Metrics of a running program: what a scraper reads, and that no client disturbs the run.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{PATIENCE, Running, TestDir};

/// Goes on until it is told to stop, and promotes heads early.
const LONG: &str = "pattern://7?frames=1000000&segments=100000&width=64&height=48";
const LISTEN: [&str; 2] = ["--set", "metrics.listen=127.0.0.1:0"];

/// The address that the program logs.
fn address(running: &mut Running) -> String {
    running.wait_to_say("/metrics");
    let said = running.said();
    let (_, rest) = said.split_once("serving metrics on http://").unwrap();
    rest.split_once("/metrics").unwrap().0.to_owned()
}

/// Status and body of an answer; 503 where there was no place, and the connection was closed before all was read.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes());
    let mut text = String::new();
    if let Err(e) = asked.and_then(|()| stream.read_to_string(&mut text)) {
        assert!(matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{e}");
        return (503, text);
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(length.parse(), Ok(body.len()));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Samples by name with labels, as they stand in the text.
type Samples = BTreeMap<String, f64>;

/// Reads a page as strictly as the format allows: a family has its help and its type once and before its samples, names
/// and labels are well formed, no sample comes twice, counters end in `_total`, classes of histograms add up.
fn parse(page: &str) -> Samples {
    let (mut samples, mut families) = (Samples::new(), BTreeMap::<String, String>::new());
    let (mut helped, mut current) = (BTreeSet::new(), String::new());
    let name_ok = |name: &str| {
        let mut letters = name.chars();
        letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()) && help.ends_with('.'), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(name_ok(name) && helped.contains(name), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            name.clone_into(&mut current);
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let family = if families[&current] == "histogram" {
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap()
            } else {
                name
            };
            assert_eq!(family, current, "{line} stands in another family");
            let labels = labels.strip_suffix('}').unwrap();
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once('=').unwrap();
                let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap();
                assert!(name_ok(name) && !inner.contains(['"', '\\']), "{line}");
            }
            assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    for family in families.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
        let mut classes: Vec<(f64, f64)> = samples
            .iter()
            .filter_map(|(name, count)| {
                let bound = name.strip_prefix(&format!("{family}_bucket{{le=\""))?.strip_suffix("\"}")?;
                Some((bound.parse().unwrap(), *count))
            })
            .collect();
        classes.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(classes.windows(2).all(|two| two[0].1 <= two[1].1), "{family}: {classes:?}");
        assert_eq!(classes.last().unwrap(), &(f64::INFINITY, samples[&format!("{family}_count")]));
    }
    samples
}

/// Waits until `reached`, and returns the samples then.
fn wait(running: &mut Running, address: &str, reached: impl Fn(&Samples) -> bool) -> Samples {
    let began = Instant::now();
    loop {
        let samples = parse(&get(address, "/metrics").1);
        if reached(&samples) {
            return samples;
        }
        assert!(!running.over() && began.elapsed() < PATIENCE, "{samples:#?}\n{}", running.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_scraper_reads_what_the_report_says() {
    let place = TestDir::new();
    let mut running = place.start_learn(LONG, "run", &LISTEN);
    let address = address(&mut running);
    let samples = wait(&mut running, &address, |samples| {
        samples.get("afterimage_promotions_total").is_some_and(|n| *n >= 1.0)
            && samples["afterimage_head_number"] >= 1.0
    });
    assert_eq!(get(&address, "/health").0, 200);
    assert!(samples["afterimage_encoder_nodes{provider=\"CPUExecutionProvider\"}"] > 0.0);
    assert_eq!(samples["afterimage_encoder_info{provider=\"cpu\",fallback=\"false\"}"], 1.0);
    assert_eq!(samples.iter().filter(|(name, _)| name.starts_with("afterimage_space_info{")).count(), 1);
    let states = samples.iter().filter(|(name, _)| name.starts_with("afterimage_learner_state{"));
    assert_eq!(states.map(|(_, on)| *on).sum::<f64>(), 1.0);
    assert!(samples["process_resident_memory_bytes"] > 1e6 && samples["process_cpu_seconds_total"] > 0.0);
    assert_eq!(get(&address, "/other").0, 404);
    running.signal("TERM");
    let report = running.end().ok().json();
    for (key, name) in [
        ("frames", "afterimage_frames_total"),
        ("promotions", "afterimage_promotions_total"),
        ("steps", "afterimage_gradient_steps_total"),
    ] {
        let count = report[key].as_f64().unwrap();
        assert!(samples[name] > 0.0 && samples[name] <= count, "{name}: {} of {count}", samples[name]);
    }
    // It belongs to the machine, not to the run: `embed --run` does not ask for the same port.
    let info = std::fs::read_to_string(place.at("run/run.json")).unwrap();
    assert!(!info.contains("127.0.0.1"), "{info}");
}

#[test]
fn clients_that_hang_or_shout_do_not_trouble_the_run() {
    let place = TestDir::new();
    let mut running = place.start_learn(LONG, "run", &LISTEN);
    let address = address(&mut running);
    let before = wait(&mut running, &address, |samples| samples["afterimage_frames_total"] > 0.0);
    // More than there are places: some say nothing, some never end.
    let mut clients: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for client in clients.iter_mut().step_by(2) {
        // The program may have hung up on it already.
        client.write_all(b"GET /metrics HTTP/1.1\r\nX: ").ok();
        client.write_all(&b"a".repeat(1 << 20)).ok();
    }
    drop(clients);
    let goal = before["afterimage_frames_total"] + 100.0;
    let began = Instant::now();
    // Places become free again within the time limit of a connection; the run has gone on meanwhile.
    loop {
        let (status, page) = get(&address, "/metrics");
        if status == 200 && parse(&page)["afterimage_frames_total"] >= goal {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{status}: {page}");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal("TERM");
    running.end().ok();
}

#[test]
fn an_address_that_cannot_be_used_is_told_before_anything_is_opened() {
    let place = TestDir::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("metrics.listen={}", taken.local_addr().unwrap());
    // The encoder is not there: the port is told of first.
    let args = ["learn", "--encoder", "none.onnx", "--source", "pattern://7", "--out", "run", "--set", &listen];
    place.run(&args).fails(1, &["metrics.listen", "another program listens there"]);
    for wrong in ["9090", "localhost:9090", "127.0.0.1:99999", "127.0.0.1"] {
        let set = format!("metrics.listen=\"{wrong}\"");
        let ran = place.learn("pattern://7", "run", &["--set", &set]);
        ran.fails(78, &["metrics.listen", "must be an IP address and a port"]);
    }
    assert!(!place.at("run").exists());
}
