//! Pipelines in the real GStreamer: which ones yield frames, and the error messages of those that do not.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use afterimage::config;
use afterimage::frame::Frame;
use afterimage::source::{self, Pull};
use common::TestDir;
use common::skip::{Needs, skip};

/// False, with a line that says so, where GStreamer is missing.
fn has_gstreamer() -> bool {
    let inspect = |element: &str| {
        let mut command = Command::new("gst-inspect-1.0");
        command.args(["--exists", element]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let there = inspect("videotestsrc") && inspect("matroskamux");
    if !there {
        skip(Needs::Gstreamer, "install gstreamer1.0-tools, gstreamer1.0-plugins-base and gstreamer1.0-plugins-good");
    }
    there
}

fn config(stall_secs: f64) -> config::Source {
    config::Source { stall_secs, ..config::Source::default() }
}

fn refused(uri: &str, stall_secs: f64) -> String {
    match source::open(uri, &config(stall_secs)) {
        Ok(_) => panic!("{uri} opens"),
        Err(error) => error.chain(),
    }
}

#[test]
fn a_pipeline_gives_frames_with_the_right_colours_and_may_end() {
    if !has_gstreamer() {
        return;
    }
    // Of a size whose rows are padded; with a caps filter whose spaces are kept together by quotes.
    let uri = "gst:videotestsrc is-live=true num-buffers=40 pattern=solid-color foreground-color=0xffc06020 ! \
               'video/x-raw, width=50, height=34, framerate=40/1'";
    let mut source = source::open(uri, &config(30.0)).unwrap();
    let (mut frame, mut frames, mut last) = (Frame::default(), 0, None);
    loop {
        match source.next(&mut frame, Duration::from_millis(100)).unwrap() {
            Pull::Frame => {
                assert!((frame.width, frame.height, frame.pixels.len()) == (50, 34, 50 * 34 * 3));
                for rgb in frame.pixels.chunks(3) {
                    assert!(
                        rgb.iter().zip([0xc0, 0x60, 0x20]).all(|(found, right)| found.abs_diff(right) <= 4),
                        "{rgb:?}"
                    );
                }
                assert!(last.is_none_or(|last| frame.index > last) && frame.arrived.is_some());
                (frames, last) = (frames + 1, Some(frame.index));
            }
            Pull::Idle => {}
            Pull::End => break,
        }
    }
    let counts = source.counts();
    assert_eq!((counts.frames, counts.frames + counts.dropped), (frames, 40), "{counts:?}");
    assert_eq!((counts.stalls, counts.failures, counts.unreadable), (0, 0, 0), "{counts:?}");
}

#[test]
fn a_pipeline_without_frames_is_a_stall_and_is_printed() {
    if !has_gstreamer() {
        return;
    }
    let text = refused("gst:videotestsrc is-live=true ! valve drop=true", 2.0);
    for part in
        ["no frame for 2 s (source.stall_secs)", "`gst-launch-1.0 -q videotestsrc is-live=true '!' valve drop=true"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_a_pipeline_cannot_do_is_told_in_its_own_last_words() {
    if !has_gstreamer() {
        return;
    }
    for (pipeline, part) in [
        ("videotestsrcx is-live=true", "no element \"videotestsrcx\""),
        ("videotestsrc colour=blue", "no property \"colour\""),
        ("audiotestsrc", "could not link audiotestsrc0 to videoconvert0"),
        ("filesrc location=/not/there ! decodebin", "No such file \"/not/there\""),
        ("v4l2src device=/dev/video4711", "Cannot identify device '/dev/video4711'"),
        ("fakesrc num-buffers=0", "failed after 0 frames"),
    ] {
        let text = refused(&format!("gst:{pipeline}"), 30.0);
        assert!(text.contains(part) && text.contains("gst-launch-1.0 -q"), "{part}: {text}");
    }
    let csi = refused("csi://0", 30.0);
    for part in ["no element \"nvarguscamerasrc\"", "csi: needs a Jetson", "elsewhere use v4l2: or gst:"] {
        assert!(csi.contains(part), "{part}: {csi}");
    }
}

#[test]
fn without_gstreamer_its_packages_are_named() {
    let place = TestDir::new();
    for source in ["gst:videotestsrc", "csi://0"] {
        let args = common::learn_args(source, "run");
        let ran = place
            .start_with(&args, |command| {
                command.env("PATH", place.path());
            })
            .end();
        ran.fails(
            1,
            &["gst-launch-1.0, which is not in PATH", "apt install gstreamer1.0-tools gstreamer1.0-plugins-base"],
        );
    }
    let args = common::learn_args("rtsp://me:secret@host/a", "run");
    let ran = place
        .start_with(&args, |command| {
            command.env("PATH", place.path());
        })
        .end();
    assert!(!ran.err.contains("secret"));
    ran.fails(1, &["no video decoder found in PATH", "apt install ffmpeg"]);
}
