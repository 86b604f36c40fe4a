//! Live cameras with known pictures. Runs only in the virtual machine of `tools/camera_vm` (`make test-camera`). The
//! camera is `v4l2loopback`, into which `tools/camera_vm/feeder.py` plays what the test wrote.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
#[path = "common/skip.rs"]
mod skip;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use afterimage::config;
use afterimage::frame::Frame;
use afterimage::source::camera::LiveCamera;
use afterimage::source::{self, Pull, Source, SourceCounts};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use skip::{Needs, skip};

const DEVICE: &str = "/dev/video0";
const WIDTH: u32 = 320;
const HEIGHT: u32 = 180;
/// A camera must be back so soon after its device is.
const SOON: Duration = Duration::from_secs(10);
/// Longest time that anything may take; whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Set for the copy of this program that another user runs.
const OTHER_USER: &str = "AFTERIMAGE_CAMERA_OTHER_USER";

fn here() -> bool {
    let here = std::env::var_os("AFTERIMAGE_CAMERA_VM").is_some_and(|camera| camera == "loopback");
    if !here {
        skip(Needs::Camera, "`make test-camera` runs this in a virtual machine with a camera");
    }
    here
}

fn wanted() -> config::Source {
    config::Source {
        camera_width: WIDTH,
        camera_height: HEIGHT,
        camera_frame_rate: 15.0,
        stall_secs: 2.0,
        ..config::Source::default()
    }
}

/// Eight pictures that differ much.
fn clip() -> Vec<Vec<u8>> {
    let uri = format!("pattern://11?frames=8&segments=8&width={WIDTH}&height={HEIGHT}");
    let mut source = source::open(&uri, &config::Source::default()).unwrap();
    let (mut frame, mut clip) = (Frame::default(), Vec::new());
    while source.next(&mut frame, SOON).unwrap() == Pull::Frame {
        clip.push(frame.pixels.clone());
    }
    clip
}

fn jpeg(pixels: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, 92).write_image(pixels, WIDTH, HEIGHT, ExtendedColorType::Rgb8).unwrap();
    out
}

/// BT.601, limited range.
fn yuyv(pixels: &[u8]) -> Vec<u8> {
    let yuv = |rgb: &[u8]| {
        let [r, g, b] = [0, 1, 2].map(|i| f64::from(rgb[i]));
        let y = 0.299 * r + 0.587 * g + 0.114 * b;
        [16.0 + y * 219.0 / 255.0, 128.0 + (b - y) / 1.772 * 224.0 / 255.0, 128.0 + (r - y) / 1.402 * 224.0 / 255.0]
    };
    let pair = |two: &[u8]| {
        let (a, b) = (yuv(&two[..3]), yuv(&two[3..]));
        [a[0], (a[1] + b[1]) / 2.0, b[0], (a[2] + b[2]) / 2.0].map(|value| value.round() as u8)
    };
    pixels.chunks(6).flat_map(pair).collect()
}

/// What plays into the camera; ended with its value.
struct Feeder(Child);

impl Feeder {
    /// Plays `frames`, written to a file, again and again; the camera is there when this returns.
    fn play(pixels: &str, frames: &[Vec<u8>]) -> Feeder {
        let file = std::env::temp_dir().join("clip");
        fs::write(&file, frames.concat()).unwrap();
        Self::again(pixels, &file)
    }

    fn again(pixels: &str, file: &Path) -> Feeder {
        let feeder = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/camera_vm/feeder.py");
        // The system's Python starts faster than what may stand before it in the path.
        let python = ["/usr/bin/python3", "python3"].into_iter().find(|program| Path::new(program).exists());
        let mut command = Command::new(python.unwrap_or("python3"));
        command.args([feeder, DEVICE, &format!("{WIDTH}x{HEIGHT}@15"), pixels]).arg(file).stderr(Stdio::piped());
        let mut feeder = Feeder(command.spawn().unwrap());
        // It says so once the format is set. Whoever looks at the device before makes it keep the old one.
        let mut line = String::new();
        BufReader::new(feeder.0.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("feeder: ") && line.contains(" frames, "), "{line}");
        let began = Instant::now();
        while !offers(pixels) {
            assert!(began.elapsed() < PATIENCE, "the feeder does not get the camera to give {pixels}");
            std::thread::sleep(Duration::from_millis(50));
        }
        feeder
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn offers(pixels: &str) -> bool {
    let told = Command::new("v4l2-ctl").args(["-d", DEVICE, "--list-formats"]).output().unwrap();
    String::from_utf8_lossy(&told.stdout).contains(&format!("'{pixels}'"))
}

/// Mean difference of two pictures.
fn apart(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

/// Which picture of the clip this is, and how far it is from that.
fn which(frame: &Frame, clip: &[Vec<u8>]) -> (usize, f64) {
    let far = clip.iter().map(|picture| apart(&frame.pixels, picture)).enumerate();
    far.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
}

/// Pulls until `seen` says so, with `each` for the frames.
fn until(source: &mut dyn Source, limit: Duration, mut each: impl FnMut(&Frame), seen: impl Fn(&SourceCounts) -> bool) {
    let (began, mut frame) = (Instant::now(), Frame::default());
    while !seen(&source.counts()) {
        assert!(began.elapsed() < limit, "{:?}", source.counts());
        if source.next(&mut frame, Duration::from_millis(50)).unwrap() == Pull::Frame {
            each(&frame);
        }
    }
}

#[test]
fn pictures_are_those_of_the_clip() {
    if !here() {
        return;
    }
    let clip = clip();
    let jpegs: Vec<Vec<u8>> = clip.iter().map(|pixels| jpeg(pixels)).collect();
    let raw: Vec<Vec<u8>> = clip.iter().map(|pixels| yuyv(pixels)).collect();
    // Another decoder's pictures of the same JPEGs; and how far a loss of quality takes them from the clip.
    let decoded: Vec<Vec<u8>> =
        jpegs.iter().map(|bytes| image::load_from_memory(bytes).unwrap().into_rgb8().into_raw()).collect();
    for (pixels, frames, right, most) in [("MJPG", &jpegs, &decoded, 1.0), ("YUYV", &raw, &clip, 3.0)] {
        let feeder = Feeder::play(pixels, frames);
        let mut source = source::open("v4l2:0", &wanted()).unwrap();
        let (mut seen, mut worst) = ([0; 8], 0.0f64);
        let each = |frame: &Frame| {
            assert_eq!((frame.width, frame.height), (WIDTH, HEIGHT));
            let (at, far) = which(frame, right);
            seen[at] += 1;
            worst = worst.max(far);
        };
        until(source.as_mut(), PATIENCE, each, |counts| counts.frames == 60);
        println!("{pixels}: mean difference at most {worst:.2} of 255; each picture so often: {seen:?}");
        assert!(worst <= most && seen.iter().all(|count| *count > 0), "{pixels}: {worst} {seen:?}");
        assert_eq!(source.counts().unreadable, 0);
        drop((source, feeder));
    }
}

#[test]
fn broken_jpegs_amid_good_ones_are_counted_and_left_out() {
    if !here() {
        return;
    }
    let clip = clip();
    let mut frames: Vec<Vec<u8>> = clip.iter().map(|pixels| jpeg(pixels)).collect();
    // The first bytes only; and what is no JPEG behind them.
    let end = [0xff, 0xd9];
    frames[1] = [&frames[1][..20], &end].concat();
    frames[4] = [&frames[4][..4], &[7; 3000], &end].concat();
    let _feeder = Feeder::play("MJPG", &frames);
    let mut source = source::open("v4l2:0", &wanted()).unwrap();
    let (mut seen, mut worst) = ([0; 8], 0.0f64);
    let each = |frame: &Frame| {
        let (at, far) = which(frame, &clip);
        seen[at] += 1;
        worst = worst.max(far);
    };
    until(source.as_mut(), PATIENCE, each, |counts| counts.frames >= 60 && counts.unreadable >= 5);
    let counts = source.counts();
    println!("{counts:?}, each picture so often: {seen:?}, mean difference at most {worst:.2}");
    for (at, count) in seen.iter().enumerate() {
        assert_eq!(*count > 0, ![1, 4].contains(&at), "{seen:?}");
    }
    assert!(worst < 6.0, "{worst}");
    assert_eq!((counts.stalls, counts.failures, counts.reopens), (0, 0, 0), "a broken picture is no broken camera");
}

#[test]
fn a_feeder_that_is_killed_and_comes_back_is_read_again() {
    if !here() {
        return;
    }
    let clip = clip();
    let frames: Vec<Vec<u8>> = clip.iter().map(|pixels| jpeg(pixels)).collect();
    let feeder = Feeder::play("MJPG", &frames);
    let mut source = source::open("v4l2:0", &wanted()).unwrap();
    until(source.as_mut(), PATIENCE, |_| (), |counts| counts.frames == 10);
    drop(feeder);
    until(source.as_mut(), PATIENCE, |_| (), |counts| counts.stalls + counts.failures == 1);
    // Away for some tries.
    let away = Instant::now();
    until(source.as_mut(), PATIENCE, |_| (), |_| away.elapsed() > Duration::from_secs(3));
    let file: PathBuf = std::env::temp_dir().join("clip");
    let feeder = Feeder::again("MJPG", &file);
    let (back, before) = (Instant::now(), source.counts().frames);
    until(source.as_mut(), SOON, |_| (), |counts| counts.frames >= before + 5);
    let counts = source.counts();
    println!("fed again, back after {:?}: {counts:?}", back.elapsed());
    assert_eq!((counts.stalls + counts.failures, counts.reopens), (1, 1), "{counts:?}");
    drop(feeder);
}

#[test]
fn a_camera_with_bayer_frames_only_is_refused_with_what_to_use() {
    if !here() {
        return;
    }
    let frame = vec![100; (WIDTH * HEIGHT) as usize];
    let _feeder = Feeder::play("BA81", &[frame.clone(), frame]);
    let error = LiveCamera::open(Path::new(DEVICE), &wanted()).unwrap_err().chain();
    println!("{error}");
    assert!(error.contains("gives raw Bayer frames only") && error.contains("use csi://0"), "{error}");
}

#[test]
fn a_user_who_may_not_open_the_camera_is_told_which_group_may() {
    if std::env::var_os(OTHER_USER).is_some() {
        println!("{}", LiveCamera::open(Path::new(DEVICE), &wanted()).unwrap_err().chain());
        return;
    }
    if !here() {
        return;
    }
    // As udev leaves it: root's and the group's.
    assert!(Command::new("chown").args(["root:video", DEVICE]).status().unwrap().success());
    fs::set_permissions(DEVICE, fs::Permissions::from_mode(0o660)).unwrap();
    // Where that user can read it.
    let copy = Path::new("/run/camera_loopback");
    fs::copy(std::env::current_exe().unwrap(), copy).unwrap();
    let test = "a_user_who_may_not_open_the_camera_is_told_which_group_may";
    let mut command = Command::new(copy);
    command.args(["--exact", test, "--nocapture"]).env(OTHER_USER, "1").uid(65534).gid(65534);
    let output = command.current_dir("/").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success() && said.contains("it belongs to the group video"), "{said}");
    assert!(said.contains("sudo usermod -aG video $USER"), "{said}");
}
