//! Real decoders if they are installed, and misbehaving scripts in their place.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::source::tests::all_frames;
use std::path::PathBuf;
use std::process::Command;

pub(super) fn config(decoder: &str) -> config::Source {
    config::Source { decoder: decoder.parse().unwrap(), stall_secs: 20.0, ..config::Source::default() }
}

/// False, with a message, if a program is missing.
pub(super) fn installed(program: &str) -> bool {
    let mut there = Tool::find(program.parse().unwrap(), &std::env::var_os("PATH").unwrap()).is_ok();
    if there && program == "gst-launch-1.0" {
        let found = Command::new("gst-inspect-1.0").args(["--exists", "avdec_ffv1"]).status();
        there = found.is_ok_and(|status| status.success());
    }
    if !there {
        println!("skipped: {program} (with gstreamer1.0-libav) is not installed");
    }
    there
}

/// Lossless frames whose grey level rises by eight, so that order and completeness show in the pixels.
fn clip(folder: &Path, name: &str, frames: u32, rate: &str, size: &str, codec: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let picture = format!("color=black:size={size}:rate={rate},format=gray,geq=lum='16+8*N'");
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", &picture, "-frames:v", &frames.to_string()])
        .args(codec)
        .arg(&path)
        .status();
    assert!(status.unwrap().success());
    path
}

const FFV1: &[&str] = &["-c:v", "ffv1", "-pix_fmt", "yuv420p"];

fn in_order(frames: &[Frame]) -> bool {
    frames.windows(2).all(|pair| pair[0].pixels[0] < pair[1].pixels[0])
}

fn scripts(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/decoders").join(name)
}

#[test]
fn every_frame_in_order_with_the_videos_own_rate() {
    for tool in ["ffmpeg", "gst-launch-1.0"] {
        if !installed("ffmpeg") || !installed(tool) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        // A width whose rows are padded in GStreamer's layout, and a name that needs escaping.
        let path = clip(folder.path(), "-a b'\"!.mkv", 12, "30000/1001", "50x34", FFV1);
        let mut source = VideoSource::open(&path, &config(tool)).unwrap();
        let frames = all_frames(&mut source);
        assert_eq!(frames.len(), 12, "{tool}");
        assert!(in_order(&frames), "{tool}");
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!((frame.index, frame.width, frame.height, frame.cut), (i as u64, 50, 34, false));
            // Matroska timestamps are in milliseconds.
            let exact = (i as f64 * 1e9 * 1001.0 / 30000.0).round() as i64;
            assert!(frame.stamp.0.abs_diff(exact) <= 500_000 && frame.stamp.0 % 1_000_000 == 0, "{tool}: {frame:?}");
            assert!(frame.pixels.iter().all(|v| v.abs_diff(frame.pixels[0]) <= 2), "{tool}: no padding in the picture");
        }
        assert_eq!(source.counts(), SourceCounts { frames: 12, ..SourceCounts::default() });
        assert_eq!(source.next(&mut Frame::default(), Duration::ZERO).unwrap(), Pull::End);
    }
}

#[test]
fn skip_to_equals_an_uninterrupted_run() {
    for tool in ["ffmpeg", "gst-launch-1.0"] {
        if !installed("ffmpeg") || !installed(tool) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = clip(folder.path(), "clip.mp4", 9, "10", "64x48", &["-c:v", "mpeg4"]);
        let whole = all_frames(&mut VideoSource::open(&path, &config(tool)).unwrap());
        for start in [0, 1, 8, 9] {
            let mut source = VideoSource::open(&path, &config(tool)).unwrap();
            source.skip_to(start).unwrap();
            let rest = all_frames(&mut source);
            assert_eq!(rest.len(), 9 - start as usize, "{tool}");
            assert_eq!(source.counts().frames, rest.len() as u64);
            for (a, b) in whole[start as usize..].iter().zip(&rest) {
                assert_eq!((a.index, a.stamp, &a.pixels), (b.index, b.stamp, &b.pixels));
            }
        }
        let error = VideoSource::open(&path, &config(tool)).unwrap().skip_to(10).unwrap_err().chain();
        assert!(error.contains("has 9 frames"), "{error}");
    }
}

#[test]
fn a_size_that_changes_midway_loses_no_frame() {
    if !installed("ffmpeg") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let codec = ["-c:v", "mjpeg", "-f", "mjpeg"];
    let small = clip(folder.path(), "a.mjpeg", 6, "25", "64x48", &codec);
    let large = clip(folder.path(), "b.mjpeg", 6, "25", "96x80", &codec);
    let both = folder.path().join("both.mjpeg");
    std::fs::write(&both, [std::fs::read(small).unwrap(), std::fs::read(large).unwrap()].concat()).unwrap();
    let frames = all_frames(&mut VideoSource::open(&both, &config("ffmpeg")).unwrap());
    assert_eq!(frames.len(), 12);
    assert!(frames.iter().all(|f| f.pixels.len() == (f.width * f.height * 3) as usize));
}

#[test]
fn a_video_that_ends_early_is_counted() {
    if !installed("ffmpeg") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = clip(folder.path(), "a.avi", 20, "10", "64x48", &["-c:v", "mpeg4"]);
    let bytes = std::fs::read(&path).unwrap();
    // Zeros in the middle, as after a write that never reached the disk, and then the end.
    let mut damaged = bytes[..bytes.len() * 3 / 4].to_vec();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 400].fill(0);
    std::fs::write(&path, damaged).unwrap();
    let mut source = VideoSource::open(&path, &config("ffmpeg")).unwrap();
    let frames = all_frames(&mut source);
    assert!(!frames.is_empty() && frames.len() < 20, "{}", frames.len());
    assert_eq!(source.counts().unreadable, 1);
}

#[test]
fn what_is_no_video_is_refused_with_the_decoders_words() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path, tool: &str| VideoSource::open(path, &config(tool)).unwrap_err().chain();
    let missing = folder.path().join("missing.mp4");
    assert!(open(&missing, "auto").contains("missing.mp4: No such file"));
    assert!(open(folder.path(), "auto").contains("not a video file"));
    let text = folder.path().join("text.mp4");
    std::fs::write(&text, b"this is no video\n".repeat(100)).unwrap();
    assert!(open(&text, "auto").contains("text.mp4 is text, no video"));
    let noise = folder.path().join("noise.mp4");
    std::fs::write(&noise, b"this is no video\0".repeat(100)).unwrap();
    let empty = folder.path().join("empty.mp4");
    std::fs::write(&empty, b"").unwrap();
    for tool in ["ffmpeg", "gst-launch-1.0"] {
        if installed(tool) {
            for path in [&noise, &empty] {
                let message = open(path, tool);
                assert!(message.contains("it said: ") && message.contains(tool), "{message}");
            }
        }
    }
    let error = VideoSource::open_with(&noise, &config("auto"), folder.path().as_os_str()).unwrap_err().chain();
    assert!(error.contains("apt install ffmpeg"), "{error}");
}

#[test]
fn a_stalled_decoder_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let video = folder.path().join("a.mp4");
    // The script writes its process id and that of its own child beside the video.
    std::fs::write(&video, b"\0x").unwrap();
    let config = config::Source { stall_secs: 0.4, ..config("ffmpeg") };
    let mut source = VideoSource::open_with(&video, &config, scripts("stalls").as_os_str()).unwrap();
    let mut frame = Frame::default();
    let pull = |source: &mut VideoSource, frame: &mut Frame, millis| source.next(frame, Duration::from_millis(millis));
    assert_eq!(pull(&mut source, &mut frame, 10_000).unwrap(), Pull::Frame);
    assert_eq!(frame.pixels, b"abcdef");
    assert_eq!(pull(&mut source, &mut frame, 10).unwrap(), Pull::Idle);
    let began = Instant::now();
    let error = pull(&mut source, &mut frame, 60_000).unwrap_err().chain();
    assert!(began.elapsed() < Duration::from_secs(10));
    for part in ["ffmpeg stalled", "0.4 s", "after 1 frames", "a.mp4", "last words"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    for number in std::fs::read_to_string(folder.path().join("a.mp4.pids")).unwrap().split_whitespace() {
        assert!(ended(number), "process {number} is still there");
    }
    assert_eq!(pull(&mut source, &mut frame, 10).unwrap(), Pull::End);
}

#[test]
fn a_dropped_source_ends_its_decoder() {
    let folder = tempfile::tempdir().unwrap();
    let video = folder.path().join("a.mp4");
    std::fs::write(&video, b"\0x").unwrap();
    let mut source = VideoSource::open_with(&video, &config("ffmpeg"), scripts("stalls").as_os_str()).unwrap();
    assert_eq!(source.next(&mut Frame::default(), Duration::from_secs(10)).unwrap(), Pull::Frame);
    drop(source);
    for number in std::fs::read_to_string(folder.path().join("a.mp4.pids")).unwrap().split_whitespace() {
        assert!(ended(number), "process {number} is still there");
    }
}

/// Gone, or a zombie orphan that init has not reaped yet, within a second.
fn ended(number: &str) -> bool {
    (0..100).any(|_| {
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        let over = matches!(state, None | Some('Z' | 'X'));
        if !over {
            std::thread::sleep(Duration::from_millis(10));
        }
        over
    })
}

#[test]
fn a_slow_reader_is_no_stall() {
    let folder = tempfile::tempdir().unwrap();
    let video = folder.path().join("a.mp4");
    std::fs::write(&video, b"\0x").unwrap();
    let config = config::Source { stall_secs: 0.5, ..config("ffmpeg") };
    let mut source = VideoSource::open_with(&video, &config, scripts("plenty").as_os_str()).unwrap();
    let mut frame = Frame::default();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(source.next(&mut frame, Duration::from_secs(10)).unwrap(), Pull::Frame);
    }
}

#[test]
fn a_decoder_that_fails_midway_ends_the_source_with_a_count() {
    let folder = tempfile::tempdir().unwrap();
    let video = folder.path().join("a.mp4");
    std::fs::write(&video, b"\0x").unwrap();
    for (script, frames) in [("fails", 2), ("breaks", 1)] {
        let mut source = VideoSource::open_with(&video, &config("ffmpeg"), scripts(script).as_os_str()).unwrap();
        assert_eq!(all_frames(&mut source).len(), frames, "{script}");
        assert_eq!(
            source.counts(),
            SourceCounts { frames: frames as u64, unreadable: 1, untimed: frames as u64, ..SourceCounts::default() },
            "{script}"
        );
    }
}

#[test]
fn an_older_ffmpeg_is_asked_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let video = folder.path().join("a.mp4");
    std::fs::write(&video, b"\0x").unwrap();
    // It only supports -vsync, and reports no frame rate: source.frame_rate is used.
    let config = config::Source { frame_rate: 4.0, ..config("ffmpeg") };
    let mut source = VideoSource::open_with(&video, &config, scripts("old").as_os_str()).unwrap();
    let frames = all_frames(&mut source);
    assert_eq!(frames.iter().map(|f| f.stamp.0).collect::<Vec<_>>(), [0, 250_000_000]);
    let counts = source.counts();
    assert_eq!((counts.unreadable, counts.untimed), (0, 2), "what is not the video's own time is counted");
}

/// A clip whose frames come at `stamps` (an ffmpeg expression), and those timestamps in nanoseconds.
fn times(name: &str, tool: &str, stamps: &str, codec: &[&str]) -> Vec<i64> {
    let folder = tempfile::tempdir().unwrap();
    let more = [&["-vf", stamps, "-fps_mode", "passthrough"], codec].concat();
    let path = clip(folder.path(), name, 4, "10", "50x34", &more);
    let mut source = VideoSource::open(&path, &config(tool)).unwrap();
    let frames = all_frames(&mut source);
    assert_eq!(source.counts().untimed, 0);
    frames.iter().map(|frame| frame.stamp.0).collect()
}

#[test]
fn stamps_are_the_videos_own() {
    for tool in ["ffmpeg", "gst-launch-1.0"] {
        if !installed("ffmpeg") || !installed(tool) {
            continue;
        }
        let codec = ["-c:v", "libx264", "-video_track_timescale", "96000", "-enc_time_base", "1:96000"];
        for (stamps, expected) in [
            // Gaps of seconds and minutes; 960 frames per second; one per minute.
            (
                "settb=1/96000,setpts=(N+if(gte(N\\,2)\\,30)+if(gte(N\\,3)\\,300))*96000",
                [0, 1, 32, 333].map(|s| s * 1_000_000_000),
            ),
            ("settb=1/96000,setpts=N*100", [0, 1_041_667, 2_083_333, 3_125_000]),
            ("settb=1/96000,setpts=N*60*96000", [0, 60, 120, 180].map(|s| s * 1_000_000_000)),
        ] {
            let found = times("a.mp4", tool, stamps, &codec);
            let near = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= 2_000);
            assert!(near && found.len() == 4, "{tool}, {stamps}: {found:?}");
        }
    }
    if installed("ffmpeg") {
        let delays = "settb=1/100,setpts=N*10+if(gte(N\\,2)\\,190)";
        let found = times("a.gif", "ffmpeg", delays, &["-c:v", "gif", "-enc_time_base", "1:100"]);
        assert_eq!(found, [0, 100, 2_100, 2_200].map(|ms| ms * 1_000_000), "the delays of a GIF");
    }
}
