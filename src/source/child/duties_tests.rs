//! The same clips through every way: ffmpeg and GStreamer, from a file, from a stream, and live.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::super::tests::{config, installed};
use super::super::{Live, Video};
use crate::frame::Frame;
use crate::source::tests::all_frames;
use crate::source::uri::Uri;
use crate::source::{Pull, Source};

const TOOLS: [&str; 2] = ["ffmpeg", "gst-launch-1.0"];
/// 120, 200 and 40 above, grey below, at three moments that no rate explains.
const PICTURE: &str = "color=0x78c828:size=64x48:rate=10,drawbox=y=24:h=24:color=gray:t=fill";

fn make(folder: &Path, name: &str, args: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-y"]).args(args).arg(&path);
    assert!(ffmpeg.status().unwrap().success(), "{args:?}");
    path
}

/// A clip whose pixels are of this matrix and range, and say so.
fn clip(folder: &Path, name: &str, matrix: &str, range: &str) -> PathBuf {
    let filter = format!(
        "scale=out_color_matrix={matrix}:out_range={range},format=yuv420p,settb=1/1000,\
         setpts=(N+if(gte(N\\,2)\\,20))*500"
    );
    let space = if matrix == "bt601" { "smpte170m" } else { matrix };
    let tags = ["-colorspace", space, "-color_primaries", space, "-color_trc", space, "-color_range", range];
    let codec = "-frames:v 3 -fps_mode passthrough -c:v libx264 -bf 0 -qp 4 -movflags +faststart".split(' ');
    let codec: Vec<&str> = codec.collect();
    make(folder, name, &[&["-f", "lavfi", "-i", PICTURE, "-vf", &filter], codec.as_slice(), &tags].concat())
}

/// The colour at this place.
fn colour(frame: &Frame, x: u32, y: u32) -> [u8; 3] {
    let at = ((y * frame.width + x) * 3) as usize;
    [frame.pixels[at], frame.pixels[at + 1], frame.pixels[at + 2]]
}

fn near(found: [u8; 3], right: [u8; 3]) -> bool {
    found.iter().zip(right).all(|(found, right)| found.abs_diff(right) <= 6)
}

/// The frames of a file and of a stream of the same bytes.
fn both_ways(path: &Path, tool: &str) -> [Vec<Frame>; 2] {
    let stream = std::fs::File::open(path).unwrap();
    let mut videos = [Video::open(path, &config(tool)), Video::of_stream("on a pipe", stream, &config(tool))];
    videos.each_mut().map(|video| all_frames(video.as_mut().unwrap()))
}

fn ready() -> bool {
    TOOLS.into_iter().all(installed)
}

#[test]
fn colours_stamps_and_frames_are_those_of_the_film_whichever_way_it_comes() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (matrix, range) in [("bt601", "tv"), ("bt709", "tv"), ("bt601", "pc")] {
        let name = if range == "pc" { "a.mkv" } else { "a.mp4" };
        let path = clip(folder.path(), name, matrix, range);
        for tool in TOOLS {
            for frames in both_ways(&path, tool) {
                let stamps: Vec<i64> = frames.iter().map(|frame| frame.stamp.0 / 1_000_000).collect();
                assert_eq!(stamps, [0, 500, 11_000], "{tool}, {matrix}, {range}");
                for frame in &frames {
                    let found = (colour(frame, 20, 8), colour(frame, 20, 40));
                    let right = near(found.0, [120, 200, 40]) && near(found.1, [128; 3]);
                    assert!(right, "{tool}, {matrix}, {range}: {found:?}");
                }
            }
        }
        let uri = format!("gst:filesrc location={} ! decodebin", path.display());
        let mut live = Live::open(&Uri::parse(&uri).unwrap(), &config("gst-launch-1.0")).unwrap();
        let mut frame = Frame::default();
        assert_eq!(live.next(&mut frame, Duration::from_secs(9)).unwrap(), Pull::Frame);
        let found = colour(&frame, 20, 8);
        assert!(near(found, [120, 200, 40]), "live, {matrix}, {range}: {found:?}");
    }
}

#[test]
fn films_are_turned_and_sound_alone_is_told() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = clip(folder.path(), "a.mp4", "bt601", "tv");
    let source = path.to_str().unwrap();
    let turned = make(
        folder.path(),
        "b.mp4",
        &["-i", source, "-c", "copy", "-metadata:s:v", "rotate=90", "-movflags", "+faststart"],
    );
    let sound = "-f lavfi -i sine=duration=1 -c:a aac -movflags +faststart".split(' ').collect::<Vec<_>>();
    let sound = make(folder.path(), "c.m4a", &sound);
    let mut sides = Vec::new();
    for tool in TOOLS {
        for frames in both_ways(&turned, tool) {
            assert!(frames.len() == 3 && frames.iter().all(|f| (f.width, f.height) == (48, 64)), "{tool}");
            sides.push(near(colour(&frames[0], 8, 30), [120, 200, 40]));
        }
        let stream = std::fs::File::open(&sound).unwrap();
        for opened in [Video::open(&sound, &config(tool)), Video::of_stream("a pipe", stream, &config(tool))] {
            let message = opened.unwrap_err().chain();
            assert!(message.contains("has sound but no picture"), "{tool}: {message}");
        }
    }
    assert!(sides.iter().all(|side| *side == sides[0]), "turned to the same side: {sides:?}");
}
