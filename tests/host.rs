//! The program as a service on a board: systemd notifications, health on SIGUSR1, CPU affinity, and disk space.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use afterimage::export::Reader;
use common::skip::{Needs, skip};
use common::{PATIENCE, Running, TestDir, learn_args};

/// Never ends, and has heads to promote.
const LIVE: &str = "pattern://7?live=true&rate=200&frames=100000000&segments=10000000&width=64&height=48";

/// Stands in for systemd.
struct Manager(UnixDatagram);

impl Manager {
    fn new(place: &TestDir) -> Self {
        let socket = UnixDatagram::bind(place.at("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn hear(&self) -> String {
        let mut bytes = [0; 4096];
        let count = self.0.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    /// The next message that begins so.
    fn hears(&self, start: &str) -> String {
        let began = Instant::now();
        loop {
            let heard = self.hear();
            if heard.starts_with(start) {
                return heard;
            }
            assert!(began.elapsed() < PATIENCE, "waited for {start}, heard {heard}");
        }
    }
}

/// `learn` under a service manager whose watchdog waits for `watchdog`.
fn serve(place: &TestDir, source: &str, watchdog: Duration, more: &[&str]) -> Running {
    place.start_with(&[&learn_args(source, "run"), more].concat(), |command| {
        command.env("NOTIFY_SOCKET", place.at("notify")).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
    })
}

#[test]
fn a_service_manager_hears_of_start_life_and_end() {
    let place = TestDir::new();
    let manager = Manager::new(&place);
    let running = serve(&place, LIVE, Duration::from_millis(400), &[]);
    assert_eq!(manager.hears("READY=1"), "READY=1");
    let mut last = String::new();
    for _ in 0..5 {
        last = manager.hears("WATCHDOG=1\nSTATUS=ok: ");
    }
    assert!(last.contains("segments; dropped ") && last.contains("; learner ") && last.ends_with(" MB"), "{last}");
    running.signal("TERM");
    manager.hears("STOPPING=1");
    assert_eq!(running.end().ok().json()["ended"], false);
}

#[test]
fn a_camera_that_is_gone_is_no_reason_for_the_watchdog() {
    let place = TestDir::new();
    let manager = Manager::new(&place);
    // Gives some frames, then none: the guard opens it again and again.
    let pipeline = "gst:videotestsrc ! video/x-raw,width=64,height=48,framerate=30/1";
    let tools = place.at("tools");
    fs::create_dir(&tools).unwrap();
    // In place of GStreamer: five frames, then silence.
    let script = "#!/usr/bin/env python3\nimport sys, time\nout = sys.stdout.buffer\n\
                  for i in range(5):\n    out.write(b'P6\\n64 48\\n255\\n' + bytes([40 * i]) * (64 * 48 * 3)); out.flush(); time.sleep(.03)\n\
                  time.sleep(1000)\n";
    let program = tools.join("gst-launch-1.0");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let more = ["--set", "source.stall_secs=0.5"];
    let mut running = place.start_with(&[&learn_args(pipeline, "run")[..], &more].concat(), |command| {
        command.env("PATH", path).env("NOTIFY_SOCKET", place.at("notify")).env("WATCHDOG_USEC", "500000");
    });
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1\nSTATUS=no frame for ");
    for _ in 0..5 {
        manager.hears("WATCHDOG=1");
    }
    assert!(!running.over());
    running.signal("USR1");
    running.wait_to_say("health: ");
    running.wait(" to count the stall", |running| running.said().contains("no frame"));
    running.signal("INT");
    running.end().ok();
}

#[test]
fn health_is_told_on_request_even_to_the_quiet() {
    let place = TestDir::new();
    let mut running = place.start(&[&learn_args(LIVE, "run")[..], &["-qqq"]].concat());
    running.wait_for_file(&place.at("run/journal.jsonl"));
    for times in 1..=2 {
        running.signal("USR1");
        running.wait("to tell its health again", |running| running.said().matches("health: ok: ").count() == times);
    }
    running.signal("TERM");
    let ran = running.end().ok();
    assert_eq!(ran.err.lines().count(), 2, "{}", ran.err);
}

#[test]
fn the_learner_stays_on_its_cores() {
    let place = TestDir::new();
    let allowed = fs::read_to_string("/proc/self/status").unwrap();
    let list = |status: &str| {
        let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let core = list(&allowed).split([',', '-']).next_back().unwrap().to_owned();
    let mut running = place.start_learn(LIVE, "run", &["--set", &format!("host.learner_cores={core}")]);
    let threads = |id: u32| -> Vec<(String, String)> {
        let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let statuses = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default());
        let named = statuses.filter(|status| !status.is_empty()).map(|status| {
            (status.lines().next().unwrap().trim_start_matches("Name:").trim().to_owned(), list(&status))
        });
        named.filter(|(name, _)| name == "learner" || name == "capture").collect()
    };
    let learner = ("learner".to_owned(), core);
    running.wait("to pin its learner", |running| threads(running.id()).contains(&learner));
    let mut seen = threads(running.id());
    seen.sort();
    assert_eq!(seen, [("capture".into(), list(&allowed)), learner]);
    running.signal("TERM");
    running.end().ok();
    let wrong = ["--set", "host.learner_cores=0,1023"];
    place.learn(LIVE, "other", &wrong).fails(78, &["host.learner_cores names 1023", "may use the cores"]);
    assert!(!place.at("other").exists());
}

#[test]
fn exports_keep_to_their_budget_and_heads_stay() {
    let place = TestDir::new();
    let more = ["export.rotate_megabytes=0.02", "export.latents=true", "host.disk_budget_megabytes=0.1"];
    let more: Vec<&str> = more.iter().flat_map(|set| ["--set", set]).collect();
    let report = place.learn(common::PATTERN, "run", &more).ok().json();
    let removed = &report["exports"]["removed"];
    assert!(removed["files"].as_u64().unwrap() > 10, "{report}");
    let (mut bytes, mut kept) = (0, 0);
    for kind in ["embeddings", "latents"] {
        let folder = place.at("run").join(kind);
        bytes += common::tree(&folder).values().map(Vec::len).sum::<usize>();
        let frames: Vec<u64> = Reader::open(&folder).unwrap().map(|item| item.unwrap().0.frame).collect();
        // The newest, without holes, to the last frame.
        assert!(frames.iter().copied().eq(frames[0]..2400) && frames[0] > 1000, "{kind}: {frames:?}");
        kept += common::tree(&folder).len() / 2;
    }
    assert!(bytes <= 100_000, "{bytes}");
    let files = [&report["exports"]["embeddings"]["files"], &report["exports"]["latents"]["files"]];
    assert_eq!(
        files.map(|n| n.as_u64().unwrap()).iter().sum::<u64>(),
        kept as u64 + removed["files"].as_u64().unwrap()
    );
    place.learn(common::PATTERN, "whole", &["--set", "export.latents=true"]).ok();
    common::assert_same(&common::heads(&place.at("run")), &common::heads(&place.at("whole")));
    // A run without old exports is as good as another.
    place.run(&["contact-sheet", "--run", "run", "--source", common::PATTERN, "--out", "sheet.png"]).ok();
    let wrong = ["--set", "export.rotate_megabytes=64", "--set", "host.disk_budget_megabytes=100"];
    place.learn(common::PATTERN, "other", &wrong).fails(78, &["host.disk_budget_megabytes = 100", "at least 128"]);
}

#[test]
fn a_machine_that_cannot_tell_its_mode_is_named_before_the_start() {
    let place = TestDir::new();
    if fs::exists("/var/lib/nvpmodel/status").unwrap() {
        return skip(Needs::NoPowerModes, "this machine tells its power mode");
    }
    let set = ["--set", "host.pause_power_modes=[\"15W\"]"];
    place.learn(LIVE, "run", &set).fails(78, &["host.pause_power_modes", "/var/lib/nvpmodel/status"]);
    assert!(!place.at("run").exists());
}

#[test]
fn the_library_reports_nothing_to_its_maker() {
    let place = TestDir::new();
    let home = place.at("home");
    fs::create_dir(&home).unwrap();
    // The library that tests use, found before its place is hidden by another home.
    let cache =
        std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{}/.cache", std::env::var("HOME").unwrap()));
    let library =
        std::env::var("ORT_DYLIB_PATH").unwrap_or_else(|_| format!("{cache}/afterimage/onnxruntime/libonnxruntime.so"));
    let args = learn_args("pattern://1?frames=30&segments=3&width=64&height=48", "run");
    let running = place.start_with(&args, |command| {
        command.env("HOME", &home).env_remove("XDG_CACHE_HOME").env_remove("ORT_DISABLE_TELEMETRY");
        command.env("ORT_DYLIB_PATH", library);
    });
    running.end().ok();
    // An identifier of the machine and a store of events would be below `.cache/Microsoft`.
    let left: Vec<_> = common::tree(&home).into_keys().collect();
    assert!(left.is_empty(), "{left:?}");
}
