//! Network cameras: a real RTSP server (GStreamer's) on this machine, read by ffmpeg and by GStreamer.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
mod common;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use afterimage::config;
use afterimage::frame::Frame;
use afterimage::source::{self, Pull, Source, SourceCounts};
use common::arguments_of_children;
use common::skip::{Needs, installed, skip};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rtsp_server.py");
/// Sends what ffmpeg writes.
const TS_SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rtsp_ts_server.py");
/// Longest time that anything may take; whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server; gone with its value.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// On `port` (0: any), with a user and a password where there are any. `None` where its packages are missing.
    fn start(port: u16, login: &[&str]) -> Option<Server> {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(SERVER).arg(port.to_string()).args(login);
        Self::of(command)
    }

    /// The system's Python alone has the packages of the system.
    fn of(mut command: Command) -> Option<Server> {
        let Ok(mut child) = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
            skip(Needs::RtspServer, "there is no /usr/bin/python3");
            return None;
        };
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(port) = line.strip_prefix("ready ") else {
            assert_eq!(child.wait().unwrap().code(), Some(77), "the server does not start");
            skip(Needs::RtspServer, "install python3-gi, gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-good");
            return None;
        };
        let port = port.trim().parse().unwrap();
        Some(Server { child, port })
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The programs that read network cameras and are installed.
fn decoders() -> Vec<&'static str> {
    let programs = [("ffmpeg", Needs::Ffmpeg), ("gst-launch-1.0", Needs::Gstreamer)];
    programs.into_iter().filter(|(program, needs)| installed(*needs, &[program])).map(|(program, _)| program).collect()
}

fn config(decoder: &str, stall_secs: f64) -> config::Source {
    config::Source { decoder: decoder.parse().unwrap(), stall_secs, ..config::Source::default() }
}

/// Pulls until `seen` says so; the last frame, and how many there were.
fn until(source: &mut dyn Source, seen: impl Fn(&SourceCounts, u64) -> bool) -> (Frame, u64) {
    let (began, mut frame, mut last, mut found) = (Instant::now(), Frame::default(), Frame::default(), 0);
    while !seen(&source.counts(), found) {
        assert!(began.elapsed() < PATIENCE, "{found} frames: {:?}", source.counts());
        if source.next(&mut frame, Duration::from_millis(50)).unwrap() == Pull::Frame {
            std::mem::swap(&mut frame, &mut last);
            found += 1;
        }
    }
    (last, found)
}

#[test]
fn frames_come_and_a_server_that_was_away_is_found_again() {
    for decoder in decoders() {
        let Some(server) = Server::start(0, &["me", "secret"]) else { return };
        let port = server.port;
        let uri = format!("rtsp://me:secret@127.0.0.1:{port}/test");
        let mut source = source::open(&uri, &config(decoder, 20.0)).unwrap();
        let (frame, _) = until(source.as_mut(), |_, frames| frames == 30);
        assert_eq!((frame.width, frame.height), (160, 120), "{decoder}");
        // A white ball on black.
        let bright = frame.pixels.iter().filter(|value| **value > 200).count() as f64 / frame.pixels.len() as f64;
        let dark = frame.pixels.iter().filter(|value| **value < 50).count() as f64 / frame.pixels.len() as f64;
        assert!((0.005..0.3).contains(&bright) && dark > 0.6, "{decoder}: {bright} {dark}");
        let before = frame.index;
        if decoder == "ffmpeg" {
            let told = arguments_of_children("ffmpeg");
            assert!(!told.is_empty(), "no ffmpeg runs");
            assert!(
                !told.iter().any(|words| words.contains("secret")),
                "the password is among the arguments: {told:?}"
            );
        }

        drop(server);
        until(source.as_mut(), |counts, _| counts.failures == 1);
        // Away for longer than it takes to be refused.
        let away = Instant::now();
        until(source.as_mut(), |_, _| away.elapsed() > Duration::from_secs(2));
        let _server = Server::start(port, &["me", "secret"]).unwrap();
        let (frame, _) = until(source.as_mut(), |_, frames| frames == 1);
        assert!(frame.cut && frame.index > before, "{decoder}: a segment begins, and frames are counted on");
        let counts = source.counts();
        assert_eq!((counts.stalls, counts.failures, counts.reopens), (0, 1, 1), "{decoder}");
        let events = source.take_events();
        assert_eq!(events.iter().map(|event| event.what).collect::<Vec<_>>(), ["failed", "reopened"], "{decoder}");
        assert!(events[1].down_secs.unwrap() >= 2.0 && events[1].tries.unwrap() >= 2, "{decoder}: {events:?}");
        let told = format!("{events:?}");
        assert!(told.contains("me:***@127.0.0.1") && !told.contains("secret"), "{decoder}: {told}");
        println!("{decoder}: back after {:.1} s and {} tries", events[1].down_secs.unwrap(), events[1].tries.unwrap());
    }
}

#[test]
fn a_server_that_hangs_is_a_stall_and_comes_back() {
    for decoder in decoders() {
        let Some(server) = Server::start(0, &[]) else { return };
        let uri = format!("rtsp://127.0.0.1:{}/test", server.port);
        let mut source = source::open(&uri, &config(decoder, 4.0)).unwrap();
        until(source.as_mut(), |_, frames| frames == 10);
        server.signal("STOP");
        until(source.as_mut(), |counts, _| counts.stalls == 1);
        server.signal("CONT");
        until(source.as_mut(), |_, frames| frames == 10);
        assert_eq!(source.counts().reopens, 1, "{decoder}");
    }
}

/// Why it does not open.
fn refused(decoder: &str, uri: &str) -> String {
    let Err(error) = source::open(uri, &config(decoder, 20.0)) else { panic!("{decoder}: {uri} opens") };
    error.chain()
}

#[test]
fn what_never_worked_says_why_without_the_password() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for decoder in decoders() {
        let nobody = refused(decoder, &format!("rtsp://me:secret@127.0.0.1:{free}/test"));
        assert!(nobody.contains("nothing answers there: check address"), "{decoder}: {nobody}");
        let Some(server) = Server::start(0, &["me", "secret"]) else { return };
        let port = server.port;
        let wrong = refused(decoder, &format!("rtsp://me:mistaken@127.0.0.1:{port}/test"));
        let none = refused(decoder, &format!("rtsp://127.0.0.1:{port}/test"));
        for text in [&wrong, &none] {
            assert!(text.contains("refuses user and password; write rtsp://USER:PASSWORD@HOST/PATH"), "{text}");
        }
        let path = refused(decoder, &format!("rtsp://me:secret@127.0.0.1:{port}/other"));
        assert!(path.contains("no stream of that path"), "{decoder}: {path}");
        for text in [&nobody, &wrong, &path] {
            assert!(text.contains("me:***@127.0.0.1") && text.contains(decoder), "{text}");
            assert!(!text.contains("secret") && !text.contains("mistaken"), "{text}");
        }
    }
}

/// A camera that slows down from 25 frames a second to 2.5, as many do at night. Each of its frames is brighter than the one
/// before.
const SLOWING: &str = "ffmpeg -nostdin -v quiet -re -f lavfi -i color=black:size=64x48:rate=25:duration=60,format=yuv420p,\
                       geq=lum='30+N':cb=128:cr=128,select='lt(n\\,40)+not(mod(n\\,10))' -fps_mode passthrough -c:v libx264 \
                       -preset ultrafast -tune zerolatency -qp 1 -g 5 -flush_packets 1 -muxdelay 0 -f mpegts -";

#[test]
fn every_frame_of_a_camera_that_slows_down_comes_once() {
    let tools = decoders();
    if !tools.contains(&"ffmpeg") {
        return;
    }
    for decoder in tools {
        if decoder == "gst-launch-1.0"
            && !Command::new("gst-inspect-1.0").arg("tsdemux").output().unwrap().status.success()
        {
            skip(Needs::Gstreamer, "install gstreamer1.0-plugins-bad");
            continue;
        }
        let mut command = Command::new("/usr/bin/python3");
        command.arg(TS_SERVER).arg(SLOWING);
        let Some(server) = Server::of(command) else { return };
        let uri = format!("rtsp://127.0.0.1:{}/test", server.port);
        let mut source = source::open(&uri, &config(decoder, 20.0)).unwrap();
        let (began, mut frame, mut seen) = (Instant::now(), Frame::default(), Vec::new());
        // Frames are numbered as they come from the decoder: one that it repeats or leaves out shows in the brightness.
        while seen.iter().filter(|(_, level)| *level > 90).count() < 6 {
            assert!(began.elapsed() < PATIENCE, "{decoder}: {seen:?}");
            if source.next(&mut frame, Duration::from_millis(50)).unwrap() == Pull::Frame {
                seen.push((frame.index, frame.pixels[0]));
            }
        }
        let slow: Vec<_> = seen.into_iter().filter(|(_, level)| *level > 90).collect();
        for pair in slow.windows(2) {
            let (frames, brighter) = ((pair[1].0 - pair[0].0) as f64, f64::from(pair[1].1) - f64::from(pair[0].1));
            // Ten levels of 219 from one to the next.
            assert!((brighter - frames * 10.0 * 255.0 / 219.0).abs() < 4.0, "{decoder}: {slow:?}");
        }
    }
}
