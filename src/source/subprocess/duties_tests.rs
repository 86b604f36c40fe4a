//! The same clips decoded in every way: ffmpeg and GStreamer, from a file, from a stream, and live.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::super::tests::{config, installed};
use super::super::{PipelineSource, VideoSource};
use crate::error::Result;
use crate::frame::Frame;
use crate::source::tests::all_frames;
use crate::source::uri::Uri;
use crate::source::{Pull, Source};

const TOOLS: [&str; 2] = ["ffmpeg", "gst-launch-1.0"];
/// 120, 200 and 40 in the upper half, grey below, at three times that fit no frame rate.
const PICTURE: &str = "color=0x78c828:size=64x48:rate=10,drawbox=y=24:h=24:color=gray:t=fill";

fn make(folder: &Path, name: &str, args: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-y"]).args(args).arg(&path);
    assert!(ffmpeg.status().unwrap().success(), "{args:?}");
    path
}

/// A clip with this matrix and range in its pixels and its metadata.
fn clip(folder: &Path, name: &str, matrix: &str, range: &str) -> PathBuf {
    let filter = format!(
        "scale=out_color_matrix={matrix}:out_range={range},format=yuv420p,settb=1/1000,\
         setpts=(N+if(gte(N\\,2)\\,8))*100"
    );
    let space = if matrix == "bt601" { "smpte170m" } else { matrix };
    let tags = ["-colorspace", space, "-color_primaries", space, "-color_trc", space, "-color_range", range];
    let codec = "-frames:v 3 -fps_mode passthrough -c:v libx264 -bf 0 -qp 4 -movflags +faststart".split(' ');
    let codec: Vec<&str> = codec.collect();
    make(folder, name, &[&["-f", "lavfi", "-i", PICTURE, "-vf", &filter], codec.as_slice(), &tags].concat())
}

/// The colour of the pixel at (x, y).
fn colour(frame: &Frame, x: u32, y: u32) -> [u8; 3] {
    let at = ((y * frame.width + x) * 3) as usize;
    [frame.pixels[at], frame.pixels[at + 1], frame.pixels[at + 2]]
}

fn near(found: [u8; 3], right: [u8; 3]) -> bool {
    found.iter().zip(right).all(|(found, right)| found.abs_diff(right) <= 6)
}

/// The frames of a file, and of a stream of the same bytes.
fn both_ways(path: &Path, tool: &str) -> [Vec<Frame>; 2] {
    let stream = std::fs::File::open(path).unwrap();
    let mut videos =
        [VideoSource::open(path, &config(tool)), VideoSource::of_stream("on a pipe", stream, &config(tool))];
    videos.each_mut().map(|video| all_frames(video.as_mut().unwrap()))
}

/// Serves `path` over HTTP, as often as requested; returns the address.
fn served(path: &Path) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, bytes) = (listener.local_addr().unwrap().port(), std::fs::read(path).unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let asked = BufReader::new(connection.try_clone().unwrap()).lines();
            asked.map_while(std::result::Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            // A decoder closes the connection when it has seen enough.
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            drop(connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&bytes)));
        }
    });
    format!("http://127.0.0.1:{port}/film.mp4")
}

/// The frames that a live source of each program delivers from a video of three frames, at the video's own pace: all of
/// them, except those that a newer one replaced on a busy machine.
fn live(path: &Path) -> [Result<Vec<Frame>>; 2] {
    let pipeline = format!("gst:filesrc location={} ! decodebin ! videoconvert ! identity sync=true", path.display());
    [served(path), pipeline].map(|uri| {
        let mut live = PipelineSource::open(&Uri::parse(&uri)?, &config("auto"))?;
        let (mut frames, mut frame) = (Vec::new(), Frame::default());
        loop {
            match live.next(&mut frame, Duration::from_secs(9))? {
                Pull::Frame => frames.push(frame.clone()),
                Pull::Idle => {}
                Pull::End => break,
            }
        }
        let counts = live.counts();
        assert_eq!((counts.frames + counts.dropped, frames.len() as u64), (3, counts.frames), "{uri}");
        assert!(frames.windows(2).all(|pair| pair[0].index < pair[1].index && pair[0].stamp < pair[1].stamp), "{uri}");
        assert_eq!(frames.last().map(|frame| frame.index), Some(2), "{uri}");
        Ok(frames)
    })
}

/// The same image, apart from the last bits of colours and blurred edges.
fn alike(a: &Frame, b: &Frame) -> bool {
    let apart: u64 = a.pixels.iter().zip(&b.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    (a.width, a.height) == (b.width, b.height) && apart < 2 * a.pixels.len() as u64
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
        let path = clip(folder.path(), "a.mp4", matrix, range);
        for tool in TOOLS {
            for frames in both_ways(&path, tool) {
                let stamps: Vec<i64> = frames.iter().map(|frame| frame.stamp.0 / 1_000_000).collect();
                assert_eq!(stamps, [0, 100, 1_000], "{tool}, {matrix}, {range}");
                for frame in &frames {
                    let found = (colour(frame, 20, 8), colour(frame, 20, 40));
                    let right = near(found.0, [120, 200, 40]) && near(found.1, [128; 3]);
                    assert!(right, "{tool}, {matrix}, {range}: {found:?}");
                }
            }
        }
        // A pipeline controls its own input, including the range of an MP4.
        let path = make(folder.path(), "a.mkv", &["-i", path.to_str().unwrap(), "-c", "copy"]);
        for frame in live(&path).into_iter().flat_map(Result::unwrap) {
            let found = (colour(&frame, 20, 8), colour(&frame, 20, 40));
            let right = near(found.0, [120, 200, 40]) && near(found.1, [128; 3]);
            assert!(right, "live, {matrix}, {range}, {}: {found:?}", frame.index);
        }
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
    let mut first = None;
    for tool in TOOLS {
        for frames in both_ways(&turned, tool) {
            assert!(frames.len() == 3 && frames.iter().all(|f| (f.width, f.height) == (48, 64)), "{tool}");
            let first = first.get_or_insert_with(|| frames[0].clone());
            assert!(frames.iter().all(|frame| alike(first, frame)), "{tool}: turned to another side");
        }
        let stream = std::fs::File::open(&sound).unwrap();
        for opened in
            [VideoSource::open(&sound, &config(tool)), VideoSource::of_stream("a pipe", stream, &config(tool))]
        {
            let message = opened.unwrap_err().chain();
            assert!(message.contains("has sound but no picture"), "{tool}: {message}");
        }
    }
    for frame in live(&turned).into_iter().flat_map(Result::unwrap) {
        assert!(alike(first.as_ref().unwrap(), &frame), "a live source turns frame {} to another side", frame.index);
    }
    for found in live(&sound) {
        let message = found.unwrap_err().chain();
        assert!(message.contains("has sound but no picture"), "{message}");
    }
}

/// The consecutive boxes (atoms) in `bytes`.
fn boxes(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some(size) = bytes.first_chunk::<4>() {
        let (one, rest) = bytes.split_at(u32::from_be_bytes(*size) as usize);
        all.push(one);
        bytes = rest;
    }
    all
}

/// Puts the cover picture of an MP4 before its video, as some shops and phones write it.
fn cover_first(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let mut all: Vec<Vec<u8>> = boxes(&bytes).into_iter().map(<[u8]>::to_vec).collect();
    let index = all.iter_mut().find(|one| &one[4..8] == b"moov").unwrap();
    let mut parts = boxes(&index[8..]);
    parts.sort_by_key(|part| match &part[4..8] {
        b"mvhd" => 0,
        b"udta" => 1,
        _ => 2,
    });
    // The length does not change, so the frame offsets stay valid.
    *index = [&index[..8], parts.concat().as_slice()].concat();
    std::fs::write(path, all.concat()).unwrap();
}

#[test]
fn a_cover_picture_is_no_film_wherever_it_stands() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let film = clip(folder.path(), "a.mp4", "bt601", "tv");
    let cover = make(folder.path(), "a.png", &["-f", "lavfi", "-i", "color=red:size=96x96", "-frames:v", "1"]);
    let sound = ["-f", "lavfi", "-i", "sine=duration=1"];
    let inputs = ["-i", film.to_str().unwrap(), "-i", cover.to_str().unwrap()];
    let covered = "-map 0 -map 1 -map 2 -c:v copy -c:a aac -disposition:v:1 attached_pic -movflags +faststart";
    let covered: Vec<&str> = covered.split(' ').collect();
    let covered = make(folder.path(), "b.mp4", &[&inputs[..], &sound, &covered].concat());
    let alone = "-map 0 -map 1 -c:v copy -c:a aac -disposition:v:0 attached_pic -movflags +faststart";
    let alone: Vec<&str> = alone.split(' ').collect();
    let alone = make(folder.path(), "c.m4a", &[&["-i", cover.to_str().unwrap()], &sound[..], &alone].concat());
    for first in [false, true] {
        if first {
            cover_first(&covered);
            let probe = ["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0"];
            let found = Command::new("ffprobe").args(probe).arg(&covered).output().unwrap().stdout;
            assert!(found.starts_with(b"png"), "{}", found.escape_ascii());
        }
        for tool in TOOLS {
            for frames in both_ways(&covered, tool) {
                let stamps: Vec<i64> = frames.iter().map(|frame| frame.stamp.0 / 1_000_000).collect();
                assert_eq!(stamps, [0, 100, 1_000], "{tool} {first}");
                assert!(frames.iter().all(|f| near(colour(f, 20, 8), [120, 200, 40])), "{tool} {first}");
            }
            for frame in live(&covered).into_iter().flat_map(Result::unwrap) {
                assert!(near(colour(&frame, 20, 8), [120, 200, 40]), "live {first} {}", frame.index);
            }
            let message = VideoSource::open(&alone, &config(tool)).unwrap_err().chain();
            assert!(message.contains("has sound but no picture"), "{tool}: {message}");
        }
    }
}
