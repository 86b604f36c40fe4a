//! Scripts in place of ffmpeg that fail, stall or run too fast.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use std::path::Path;

/// Opens a source with a script in place of ffmpeg.
fn open(script: &str) -> Result<PipelineSource> {
    let search = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/decoders").join(script);
    let config = config::Source { stall_secs: 0.5, decoder: config::Decoder::Ffmpeg, ..config::Source::default() };
    PipelineSource::open_with(&Uri::parse("rtsp://me:secret@host/a").unwrap(), &config, search.as_os_str())
}

/// The number of frames until it fails, and the error.
fn broken(script: &str) -> (u64, Error) {
    let (mut live, mut frame) = (open(script).unwrap(), Frame::default());
    loop {
        match live.next(&mut frame, Duration::from_secs(5)) {
            Ok(Pull::End) => panic!("a network camera has no end"),
            Ok(_) => assert_eq!(frame.pixels, b"abcdef"),
            Err(error) => return (live.counts().frames, error),
        }
    }
}

#[test]
fn a_child_that_fails_or_stalls_is_an_error_without_the_password() {
    for (script, kind, part) in [
        ("fails", crate::error::ErrorKind::Runtime, "the disk is on fire"),
        ("breaks", crate::error::ErrorKind::Runtime, "in the middle of a frame"),
        ("stalls", crate::error::ErrorKind::Stalled, "last words"),
    ] {
        let (frames, error) = broken(script);
        assert_eq!(error.kind(), kind, "{script}");
        let text = error.chain();
        assert!(frames >= 1 && text.contains(part) && text.contains("-rtsp_transport tcp"), "{script}: {text}");
        assert!(text.contains("rtsp://me:***@host/a") && !text.contains("secret"), "{script}: {text}");
    }
}

#[test]
fn the_newest_frame_wins_and_the_child_never_waits() {
    let (mut live, mut frame) = (open("plenty").unwrap(), Frame::default());
    let mut last = None;
    for _ in 0..3 {
        while live.next(&mut frame, Duration::from_secs(5)).unwrap() != Pull::Frame {}
        assert!(last.is_none_or(|last| frame.index > last) && frame.arrived.is_some());
        last = Some(frame.index);
        std::thread::sleep(Duration::from_millis(100));
    }
    let counts = live.counts();
    assert!(counts.frames == 3 && counts.dropped > 0, "{counts:?}");
    assert!(live.live() && live.skip_to(3).is_err());
}
