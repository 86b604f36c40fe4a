//! Box requests to a running program, through the socket and through a broker.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::skip::{Needs, installed};
use common::{ENCODER, PATIENCE, Running, TestDir, rows};
use serde_json::{Value, json};

/// 20 frames a second, and the same frames as a file would give.
const LIVE: &str = "pattern://7?frames=2000&segments=100&width=64&height=48&rate=20&live=true";
const FILE: &str = "pattern://7?frames=2000&segments=100&width=64&height=48&rate=20";
const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/clients/boxes.py");

/// A connection to the desk.
struct Desk(UnixStream);

impl Desk {
    fn open(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn say(&mut self, text: &[u8]) {
        self.0.write_all(&(text.len() as u32).to_le_bytes()).unwrap();
        self.0.write_all(text).unwrap();
    }

    /// One answer with its embedding as bits; `None` once hung up on.
    fn answer(&mut self) -> Option<(Value, Vec<u32>)> {
        let mut four = [0; 4];
        self.0.read_exact(&mut four).ok()?;
        let mut message = vec![0; u32::from_le_bytes(four) as usize];
        self.0.read_exact(&mut message).unwrap();
        let (head, rest) = message.split_at(4);
        let (header, values) = rest.split_at(u32::from_le_bytes(head.try_into().unwrap()) as usize);
        let bits = values.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect();
        Some((serde_json::from_slice(header).unwrap(), bits))
    }

    /// The answers to all boxes of a request.
    fn ask(&mut self, request: &Value) -> Vec<(Value, Vec<u32>)> {
        self.say(request.to_string().as_bytes());
        (0..request["boxes"].as_array().unwrap().len()).map(|_| self.answer().unwrap()).collect()
    }

    /// Why the one answer to `text` is no embedding.
    fn refusal(&mut self, text: &str) -> (String, String) {
        self.say(text.as_bytes());
        let (answer, bits) = self.answer().unwrap();
        assert!(bits.is_empty() && answer["dim"] == 0, "{answer}");
        ["error", "reason"].map(|key| answer[key].as_str().unwrap().to_owned()).into()
    }
}

/// Starts a live run with a desk, and waits until frames have come.
fn start(place: &TestDir, verb: &[&str], encoder: &str, more: &[&str]) -> (Running, Desk) {
    let socket = place.at("boxes");
    let set = format!("box_server.listen=unix:{}", socket.display());
    let base = ["--source", LIVE, "--encoder", encoder, "--out", "live", "--camera", "door", "--json", "--set", &set];
    let mut running = place.start(&[verb, &base, more].concat());
    running.wait_to_say("serving box embeddings on");
    let mut desk = Desk::open(&socket);
    let began = Instant::now();
    while desk.ask(&json!({"boxes": [{"box": [0, 0, 9, 9]}]}))[0].0.get("error").is_some() {
        assert!(began.elapsed() < PATIENCE);
    }
    (running, desk)
}

fn grid_card(place: &TestDir) -> String {
    let card = fs::read_to_string(Path::new(ENCODER).with_extension("toml")).unwrap();
    let kept: Vec<&str> =
        card.lines().filter(|line| !line.starts_with("kind") && !line.starts_with("output")).collect();
    let grid = format!("kind = \"grid\"\nlayout = \"dhw\"\noutput = \"grid8\"\n{}", kept.join("\n"));
    fs::write(place.at("grid.toml"), grid).unwrap();
    fs::copy(ENCODER, place.at("grid.onnx")).unwrap();
    place.at("grid.onnx").display().to_string()
}

/// Asks for boxes of the newest frame, then embeds the same boxes of the same frame out of a file.
fn same_as_out_of_a_file(place: &TestDir, encoder: &str) {
    let (running, mut desk) = start(place, &["embed"], encoder, &[]);
    let (first, second) = (json!([10.5, 20.25, 22.5, 30.25]), json!([-20, -20, 30, 30]));
    let request = json!({"id": 7, "camera": "door", "boxes": [
        {"box": first, "track": 5, "class": 2, "score": 0.5}, {"box": second},
    ]});
    let answers = desk.ask(&request);
    let frame = answers[0].0["frame"].as_u64().unwrap();
    // By its number it is the same frame, and by the wall clock.
    let wall = answers[0].0["wall_ns"].as_i64().unwrap();
    for (key, value) in [("frame", json!(frame)), ("wall_ns", json!(wall + 9_000_000))] {
        let mut again = request.clone();
        again[key] = value;
        assert_eq!(desk.ask(&again), answers, "{key}");
    }
    // One that is still to come is waited for.
    let ahead = desk.ask(&json!({"frame": frame + 12, "boxes": [{"box": [0, 0, 64, 48]}]}));
    assert_eq!(ahead[0].0["frame"], frame + 12, "{}", ahead[0].0);
    running.signal("TERM");
    let report = running.end().ok().json();
    assert_eq!(report["boxes"]["embedded"].as_u64().unwrap(), 8, "{}", report["boxes"]);

    let number = frame + 1;
    let boxes = format!("{number},5,10.5,20.25,12,10,0.5,2\n{number},-1,-20,-20,50,50\n{},-1,0,0,64,48\n", number + 12);
    fs::write(place.at("boxes.txt"), boxes).unwrap();
    let file = ["--source", FILE, "--encoder", encoder, "--out", "file", "--boxes", "boxes.txt", "--camera", "door"];
    place.run(&[&["embed"], &file[..]].concat()).ok();
    let written = rows(&place.at("file/embeddings"));
    assert_eq!(written.len(), 3);
    for ((record, bits), (answer, asked)) in written.iter().zip(answers.iter().chain(&ahead)) {
        assert_eq!(bits, asked, "the very same numbers");
        let expected = serde_json::to_value(record).unwrap();
        let same =
            ["camera", "frame", "level", "space", "head", "encoder", "preparation", "box", "track", "class", "score"];
        for key in same {
            assert_eq!(answer.get(key), expected.get(key), "{key}");
        }
    }
    assert_eq!(
        (&answers[0].0["id"], &answers[0].0["index"], &answers[1].0["index"]),
        (&json!(7), &json!(0), &json!(1))
    );
}

#[test]
fn a_crop_asked_for_is_the_one_out_of_a_file() {
    let place = TestDir::new();
    same_as_out_of_a_file(&place, ENCODER);
}

#[test]
fn a_box_out_of_a_grid_asked_for_is_the_one_out_of_a_file() {
    let place = TestDir::new();
    let encoder = grid_card(&place);
    same_as_out_of_a_file(&place, &encoder);
}

#[test]
fn what_cannot_be_embedded_is_answered_with_its_reason() {
    let place = TestDir::new();
    // Room for some ten frames of 64 x 48 pixels would be less than a megabyte: large frames, then, of 3 MB.
    let source = LIVE.replace("width=64&height=48", "width=1200&height=800");
    let (mut running, mut desk) = {
        let socket = place.at("boxes");
        let set = format!("box_server.listen=unix:{}", socket.display());
        let mut running = place.start(&[
            "embed",
            "--source",
            &source,
            "--encoder",
            ENCODER,
            "--out",
            "live",
            "--camera",
            "door",
            "--json",
            "--set",
            &set,
            "--set",
            "box_server.window_megabytes=10",
            "--set",
            "box_server.wait_secs=0.3",
        ]);
        running.wait_to_say("serving box embeddings on");
        (running, Desk::open(&socket))
    };
    // Until more frames have come than there is room for, so that the first is gone; a slow machine drops some between.
    let (began, mut seen) = (Instant::now(), std::collections::BTreeSet::new());
    let newest = loop {
        let (answer, _) = desk.ask(&json!({"boxes": [{"box": [0, 0, 9, 9]}]})).remove(0);
        seen.extend(answer.get("frame").and_then(Value::as_u64));
        match seen.last() {
            Some(frame) if seen.len() > 5 => break *frame,
            _ => assert!(began.elapsed() < PATIENCE),
        }
    };
    for (request, error, reason) in [
        (r#"{"boxes": [{"box": [1200, 0, 1300, 9]}]}"#, "outside", "outside the frame of 1200 x 800"),
        (r#"{"boxes": [{"box": [5, 5, 5, 9]}]}"#, "empty", "no width"),
        (r#"{"boxes": [{"box": [1198, 0, 1300, 9]}]}"#, "small", "fewer than 4 pixels"),
        (r#"{"boxes": [{"box": [0, 0, 9, 9], "score": 0}]}"#, "low-score", "boxes.score_above"),
        (r#"{"frame": 0, "boxes": [{"box": [0, 0, 9, 9]}]}"#, "gone", "box_server.window_megabytes"),
        (r#"{"wall_ns": 5, "boxes": [{"box": [0, 0, 9, 9]}]}"#, "gone", "is the oldest"),
        (r#"{"frame": 1999, "boxes": [{"box": [0, 0, 9, 9]}]}"#, "no-frame", "within 0.3 s"),
        (r#"{"camera": "gate", "boxes": [{"box": [0, 0, 9, 9]}]}"#, "no-camera", "there are door"),
        (r#"{"frame": 1, "wall_ns": 2, "boxes": [{"box": [0, 0, 9, 9]}]}"#, "bad-request", "one of them"),
        (r#"{"boxes": []}"#, "bad-request", "0 boxes; 1 to 1000"),
        (r#"{"boxes": [{"box": [0, 0, 9]}]}"#, "bad-request", "wanted is"),
        (r#"{"boxes": [{"box": [0, 0, 9, 1e999]}]}"#, "bad-request", "no JSON"),
        (r#"{"boxes": [{"box": [0, 0, 9, 9]}], "colour": 1}"#, "bad-request", "unknown field `colour`"),
        ("boxes, please", "bad-request", "no JSON object"),
    ] {
        let (found, why) = desk.refusal(request);
        assert!(found == error && why.contains(reason), "{request}: {found}, {why}");
    }
    // Each box has its answer, in order, whatever became of the others.
    let some = json!({"id": 3, "boxes": [{"box": [0, 0, 0, 0]}, {"box": [0, 0, 20, 20]}, {"box": [-9, -9, 0, 0]}]});
    let answers = desk.ask(&some);
    let errors: Vec<Option<&str>> = answers.iter().map(|(a, _)| a.get("error").and_then(Value::as_str)).collect();
    assert_eq!(errors, [Some("empty"), None, Some("outside")]);
    assert!(answers.iter().enumerate().all(|(i, (a, _))| a["index"] == i && a["id"] == 3));

    // What claims to be a gigabyte is hung up on; so is nobody else.
    let mut liar = Desk::open(&place.at("boxes"));
    liar.0.write_all(&(1u32 << 30).to_le_bytes()).unwrap();
    let (answer, _) = liar.answer().unwrap();
    assert!(answer["error"] == "bad-request" && answer["reason"].as_str().unwrap().contains("1073741824"), "{answer}");
    assert!(liar.answer().is_none());
    // One that asks and never reads, and one that leaves in the middle of a word.
    let mut deaf = Desk::open(&place.at("boxes"));
    let many = json!({"boxes": vec![json!({"box": [0, 0, 0, 0]}); 900]}).to_string();
    deaf.0.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    for _ in 0..300 {
        if deaf
            .0
            .write_all(&(many.len() as u32).to_le_bytes())
            .and_then(|()| deaf.0.write_all(many.as_bytes()))
            .is_err()
        {
            break;
        }
    }
    Desk::open(&place.at("boxes")).0.write_all(&[9, 0]).unwrap();
    assert!(desk.ask(&json!({"boxes": [{"box": [0, 0, 20, 20]}]}))[0].0["frame"].as_u64().unwrap() > newest);
    assert!(!running.over());
    running.signal("TERM");
    let report = running.end().ok().json();
    // Far from every frame had a box; none was lost to them.
    assert!(report["boxes"]["refused"].as_u64().unwrap() > 10, "{}", report["boxes"]);
    assert!(!place.at("boxes").exists(), "the socket is gone with the program");
    // What waits at the end is told so, or cut off with the connection; it does not hang.
    drop(deaf);
}

#[test]
fn a_head_that_learned_from_boxes_embeds_those_that_are_asked_for() {
    let place = TestDir::new();
    // Two things that stay where they are, in each of many scenes: enough for a head.
    let lines: String =
        (1..=2000).map(|n| format!("{n},{},2,2,28,40\n{n},{},34,2,28,40\n", n / 20, 500 + n / 20)).collect();
    fs::write(place.at("tracks.txt"), lines).unwrap();
    place.learn(FILE, "people", &["--boxes", "tracks.txt"]).ok();
    assert!(place.at("people/latest").exists(), "a head was promoted");
    let (running, mut desk) = start(&place, &["embed"], ENCODER, &["--set", "box_server.run=people"]);
    let (answer, asked) = desk.ask(&json!({"boxes": [{"box": [2, 2, 30, 42]}]})).remove(0);
    running.signal("TERM");
    running.end().ok();
    let frame = answer["frame"].as_u64().unwrap();
    fs::write(place.at("boxes.txt"), format!("{},-1,2,2,28,40\n", frame + 1)).unwrap();
    place.run(&["embed", "--run", "people", "--source", FILE, "--out", "file", "--boxes", "boxes.txt"]).ok();
    let written = rows(&place.at("file/embeddings"));
    assert_eq!(written[0].1, asked);
    assert_eq!(answer["space"], *written[0].0.space);
    assert!(answer["head"].as_u64().unwrap() > 0);
}

#[test]
fn the_python_client_gets_what_it_asks_for() {
    if !installed(Needs::Python, &["python3"]) {
        return;
    }
    let place = TestDir::new();
    let (running, mut desk) = start(&place, &["learn", "--config", "learn.toml"], ENCODER, &[]);
    let address = format!("unix:{}", place.at("boxes").display());
    let said = Command::new("python3").args([READER, &address, "0,0,64,48", "70,0,80,9"]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8(said.stdout).unwrap();
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((answers.len(), &answers[1]["error"]), (2, &json!("outside")));
    let frame = answers[0]["frame"].as_u64().unwrap();
    let (same, bits) = desk.ask(&json!({"frame": frame, "boxes": [{"box": [0, 0, 64, 48]}]})).remove(0);
    assert_eq!(same["frame"], frame);
    let values: Vec<u32> =
        answers[0]["embedding"].as_array().unwrap().iter().map(|v| (v.as_f64().unwrap() as f32).to_bits()).collect();
    assert_eq!(values, bits);
    running.signal("TERM");
    running.end().ok();
}

#[test]
fn desks_that_make_no_sense_are_refused_at_the_start() {
    let place = TestDir::new();
    let set = format!("box_server.listen=unix:{}", place.at("boxes").display());
    let embed = |source: &str, more: &[&str]| {
        place.run(&[&["embed", "--source", source, "--encoder", ENCODER, "--out", "out"], more].concat())
    };
    embed(FILE, &["--set", &set]).fails(2, &["not live", "--boxes"]);
    embed(LIVE, &["--set", &set, "--set", "boxes.method=roi"]).fails(78, &["there is no grid"]);
    embed(LIVE, &["--set", &set, "--set", "box_server.run=nowhere"]).fails(78, &["box_server.run", "nowhere"]);
    embed(LIVE, &["--set", &set, "--set", &set.replace("box_server.listen=", "stream.socket=")])
        .fails(78, &["one of its own"]);
    embed(LIVE, &["--set", &set, "--set", "preprocess.motion_crop=true", "--set", "mqtt.boxes=true"])
        .fails(78, &["2 mistakes", "no mqtt.broker", "leave one out"]);
    fs::write(place.at("boxes.txt"), "1,-1,0,0,9,9\n").unwrap();
    embed(FILE, &["--set", &set, "--boxes", "boxes.txt"]).fails(78, &["come from a file or from detectors"]);
}
