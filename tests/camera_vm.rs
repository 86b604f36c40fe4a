//! Live cameras with a real driver. Runs only in the virtual machine of `tools/camera_vm` (`make test-camera`). The
//! camera is the kernel's `vivid`, which can be made to stall, fail and disappear.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
#[path = "common/skip.rs"]
mod skip;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use afterimage::config;
use afterimage::frame::Frame;
use afterimage::source::camera::LiveCamera;
use afterimage::source::{self, Pull, Source, SourceCounts};
use skip::{Needs, skip};

/// A camera must be back so soon after its device is.
const SOON: Duration = Duration::from_secs(10);
const DRIVER: &str = "/sys/bus/platform/drivers/vivid";

fn here() -> bool {
    let here = std::env::var_os("AFTERIMAGE_CAMERA_VM").is_some_and(|camera| camera == "vivid");
    if !here {
        skip(Needs::Camera, "`make test-camera` runs this in a virtual machine with a camera");
    }
    here
}

/// 320x180, so that an emulated processor keeps up.
fn small() -> config::Source {
    config::Source { camera_width: 320, camera_height: 180, stall_secs: 2.0, ..config::Source::default() }
}

fn camera() -> Box<dyn Source> {
    source::open("v4l2:bus=platform:vivid-000", &small()).unwrap()
}

/// So many frames, within `limit`; the time it took.
fn frames(source: &mut dyn Source, count: u64, limit: Duration) -> Duration {
    let (began, mut frame, mut found) = (Instant::now(), Frame::default(), 0);
    while found < count {
        assert!(began.elapsed() < limit, "{found} of {count} frames after {limit:?}: {:?}", source.counts());
        if source.next(&mut frame, Duration::from_millis(50)).unwrap() == Pull::Frame {
            found += 1;
        }
    }
    began.elapsed()
}

/// Pulls until `seen` says so.
fn until(source: &mut dyn Source, seen: impl Fn(&SourceCounts) -> bool) {
    let (began, mut frame) = (Instant::now(), Frame::default());
    while !seen(&source.counts()) {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", source.counts());
        source.next(&mut frame, Duration::from_millis(50)).unwrap();
    }
}

fn device() -> String {
    let found = fs::read_dir("/sys/class/video4linux").unwrap().flatten().next().unwrap();
    format!("/dev/{}", found.file_name().to_str().unwrap())
}

fn control(setting: &str) {
    let status = Command::new("v4l2-ctl").args(["-d", &device(), "-c", setting]).status().unwrap();
    assert!(status.success(), "{setting}");
}

fn unbind() {
    fs::write(format!("{DRIVER}/unbind"), "vivid.0").unwrap();
}

fn bind() {
    fs::write(format!("{DRIVER}/bind"), "vivid.0").unwrap();
    let began = Instant::now();
    while fs::read_dir("/sys/class/video4linux").map_or(0, Iterator::count) == 0 {
        assert!(began.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// File descriptors and threads of this process.
fn held() -> (usize, usize) {
    let count = |path: &str| fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
fn a_camera_that_is_unplugged_comes_back_under_another_number_too() {
    if !here() {
        return;
    }
    let mut source = camera();
    frames(source.as_mut(), 10, SOON);
    for (nth, keep_number) in [(1, true), (2, false)] {
        // Whoever holds the old device makes the new one get another number.
        let before = device();
        let holder = (!keep_number).then(|| fs::File::open(&before).unwrap());
        unbind();
        until(source.as_mut(), |counts| counts.failures == nth);
        bind();
        let took = frames(source.as_mut(), 10, SOON);
        println!("unplugged from {before}, back as {} after {took:?}", device());
        assert_eq!(before == device(), keep_number);
        drop(holder);
        assert_eq!(source.counts().reopens, nth);
    }
    let events = source.take_events();
    assert_eq!(events.iter().map(|event| event.what).collect::<Vec<_>>(), ["failed", "reopened", "failed", "reopened"]);
}

#[test]
fn a_stall_a_broken_stream_and_a_disconnect_are_survived() {
    if !here() {
        return;
    }
    let mut source = camera();
    frames(source.as_mut(), 10, SOON);
    control("percentage_of_dropped_buffers=100");
    until(source.as_mut(), |counts| counts.stalls == 1);
    control("percentage_of_dropped_buffers=0");
    println!("stalled, back after {:?}", frames(source.as_mut(), 10, SOON));
    control("inject_fatal_streaming_error=1");
    until(source.as_mut(), |counts| counts.failures == 1);
    println!("broken stream, back after {:?}", frames(source.as_mut(), 10, SOON));
    control("disconnect=1");
    until(source.as_mut(), |counts| counts.failures == 2);
    unbind();
    bind();
    println!("disconnected, back after {:?}", frames(source.as_mut(), 10, SOON));
    let counts = source.counts();
    assert_eq!((counts.stalls, counts.failures), (1, 2), "{counts:?}");
    assert!(counts.reopens >= 3, "{counts:?}");
}

#[test]
fn formats_are_taken_exactly_whatever_the_camera_was_left_in() {
    if !here() {
        return;
    }
    let left = |arguments: &[&str]| {
        assert!(Command::new("v4l2-ctl").args(["-d", &device()]).args(arguments).status().unwrap().success());
    };
    let mut frame = Frame::default();
    let mut mean = |pixels: &str| {
        let config = config::Source { camera_pixels: pixels.parse().unwrap(), ..small() };
        let mut camera = LiveCamera::open(Path::new(&device()), &config).unwrap();
        while camera.next(&mut frame, Duration::from_secs(5)).unwrap() != Pull::Frame {}
        assert_eq!((frame.width, frame.height, frame.pixels.len()), (320, 180, 320 * 180 * 3), "{pixels}");
        let channel = |at: usize| {
            let values = frame.pixels.iter().skip(at).step_by(3);
            values.map(|v| u64::from(*v)).sum::<u64>() as f64 / f64::from(320 * 180)
        };
        [channel(0), channel(1), channel(2)]
    };
    left(&["-v", "width=640,height=360,pixelformat=GREY"]);
    let rgb = mean("rgb");
    left(&["-v", "width=640,height=360,pixelformat=UYVY", "-p", "15"]);
    for pixels in ["bgr", "nv12", "yuyv"] {
        for (found, right) in mean(pixels).iter().zip(rgb) {
            assert!((found - right).abs() < 8.0, "{pixels}: {found} {right}");
        }
    }
    let grey = mean("grey");
    assert!((grey[0] - grey[1]).abs() < 1e-9 && grey[0] > 1.0, "{grey:?}");
    let wrong = config::Source { camera_width: 333, ..small() };
    let error = LiveCamera::open(Path::new(&device()), &wrong).unwrap_err().chain();
    assert!(error.contains("does not offer 333x180") && error.contains("camera_nearest"), "{error}");
    let near = config::Source { camera_nearest: true, ..wrong };
    LiveCamera::open(Path::new(&device()), &near).unwrap();
    let held = LiveCamera::open(Path::new(&device()), &small()).unwrap();
    let busy = LiveCamera::open(Path::new(&device()), &small()).unwrap_err().chain();
    assert!(busy.contains("in use by"), "{busy}");
    drop(held);
}

#[test]
fn a_camera_that_another_program_holds_is_refused_with_its_name() {
    if !here() {
        return;
    }
    let mut holder = Command::new("v4l2-ctl");
    holder.args(["-d", &device(), "--stream-mmap", "--stream-count=0"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    // It shows each frame by a sign; from the first on it has the camera.
    holder.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let busy = LiveCamera::open(Path::new(&device()), &small()).unwrap_err().chain();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(busy.contains(&format!("in use by v4l2-ctl (process {})", holder.id())), "{busy}");
}

#[test]
fn two_hundred_openings_leave_nothing_behind() {
    if !here() {
        return;
    }
    let (device, mut frame, mut before) = (device(), Frame::default(), (0, 0));
    for nth in 0..201 {
        let mut camera = LiveCamera::open(Path::new(&device), &small()).unwrap();
        while camera.next(&mut frame, Duration::from_secs(5)).unwrap() != Pull::Frame {}
        drop(camera);
        if nth == 0 {
            before = held();
        }
    }
    // A thread that has ended is not gone at once on a busy machine.
    let began = Instant::now();
    while held() != before {
        assert!(began.elapsed() < SOON, "descriptors and threads: {:?}, {before:?} at first", held());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn three_hundred_frames_are_learned_from_live_and_every_drop_is_counted() {
    if !here() {
        return;
    }
    let folder = std::env::temp_dir().join("live");
    let root = env!("CARGO_MANIFEST_DIR");
    let mut learn = Command::new(env!("CARGO_BIN_EXE_afterimage"));
    learn.args(["learn", "--json", "--source", &format!("v4l2:{}", device()), "--out"]).arg(&folder);
    learn.args(["--encoder", &format!("{root}/tests/data/tiny.onnx"), "--set", "source.camera_height=360"]);
    let child = learn.stdout(Stdio::piped()).spawn().unwrap();
    // Ten seconds of frames, after an encoder that opens at an emulated processor's pace.
    let began = Instant::now();
    while !folder.join("journal.jsonl").exists() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(14));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{}", report["source"]);
    let count = |key: &str| report["source"][key].as_u64().unwrap();
    assert!(count("frames") >= 300, "{report}");
    assert_eq!((count("unreadable"), count("stalls"), count("failures")), (0, 0, 0), "{report}");
    // The newest record's position: every frame before it was handed out, replaced by a newer one, or lost by the driver.
    let mut files: Vec<_> =
        fs::read_dir(folder.join("embeddings")).unwrap().flatten().map(|file| file.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    files.sort();
    let text = fs::read_to_string(files.last().unwrap()).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let position = last["frame"].as_u64().unwrap() + 1;
    let explained = count("frames") + count("dropped") + count("lost");
    assert!((position..position + 8).contains(&explained), "{position} {report}");
}
