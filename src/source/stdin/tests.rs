//! Streams in memory; videos if ffmpeg is installed.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::process::Command;
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::*;
use crate::frame::Frame;
use crate::source::tests::all_frames;
use crate::source::{Pull, SourceCounts};

fn config() -> config::Source {
    config::Source { frame_rate: 4.0, ..config::Source::default() }
}

fn jpeg(shade: u8) -> Vec<u8> {
    let mut out = Vec::new();
    JpegEncoder::new(&mut out).write_image(&[shade; 16 * 8 * 3], 16, 8, ExtendedColorType::Rgb8).unwrap();
    out
}

fn png(shade: u8) -> Vec<u8> {
    let mut out = Vec::new();
    image::codecs::png::PngEncoder::new(&mut out)
        .write_image(&[shade; 16 * 8 * 3], 16, 8, ExtendedColorType::Rgb8)
        .unwrap();
    out
}

fn opened(bytes: Vec<u8>) -> Result<Box<dyn Source>> {
    open(Cursor::new(bytes), &config())
}

fn failure(bytes: Vec<u8>) -> String {
    opened(bytes).err().map(|error| error.chain()).unwrap()
}

#[test]
fn pictures_become_frames_in_order_and_bad_ones_leave_a_gap() {
    let bad = vec![0xFF, 0xD8, 0xFF, 0xD9];
    let bytes = [jpeg(10), png(20), bad, jpeg(30), png(40)].concat();
    let mut source = opened(bytes).unwrap();
    assert_eq!((source.live(), source.length(), source.marks_cuts()), (false, None, false));
    let frames = all_frames(source.as_mut());
    let told: Vec<_> = frames.iter().map(|f| (f.index, f.stamp.0 / 1_000_000, f.width, f.pixels[0])).collect();
    assert_eq!(told, [(0, 0, 16, 10), (1, 250, 16, 20), (3, 750, 16, 30), (4, 1000, 16, 40)]);
    assert_eq!(source.counts(), SourceCounts { frames: 4, unreadable: 1, ..SourceCounts::default() });
    assert_eq!(source.next(&mut Frame::default(), Duration::ZERO).unwrap(), Pull::End);
}

#[test]
fn a_picture_that_breaks_off_costs_itself_only_and_parts_are_read() {
    let (a, b) = (jpeg(10), jpeg(200));
    let bytes = [a.as_slice(), &a[..a.len() / 2], &b, &b].concat();
    let mut source = opened(bytes).unwrap();
    let stamps: Vec<_> = all_frames(source.as_mut()).iter().map(|f| (f.stamp.0 / 1_000_000, f.pixels[0])).collect();
    assert_eq!((stamps, source.counts().unreadable), (vec![(0, 10), (500, 200), (750, 200)], 1));
    let part = [b"--frame\r\nContent-Type: image/jpeg\r\n\r\n".as_slice(), &a, b"\r\n"].concat();
    for before in [b"".as_slice(), b"\r\n"] {
        let mut source = opened([before, &part, &part, b"--frame--\r\n"].concat()).unwrap();
        assert_eq!(all_frames(source.as_mut()).len(), 2);
    }
}

#[test]
fn cut_streams_are_counted_and_those_without_a_picture_are_errors() {
    let whole = jpeg(10);
    let mut source = opened([whole.as_slice(), &whole[..whole.len() - 9]].concat()).unwrap();
    assert_eq!(all_frames(source.as_mut()).len(), 1);
    assert_eq!(source.counts().unreadable, 1);
    let mut source = opened(whole[..whole.len() - 9].to_vec()).unwrap();
    let error = source.next(&mut Frame::default(), Duration::from_secs(9)).unwrap_err().chain();
    assert!(error.contains("no whole picture") && error.contains("in the middle"), "{error}");
    let mut frame = Frame::default();
    let mut source = opened([JPEG, &[0xD9, 0xFF, 0xD9]].concat()).unwrap();
    let error = loop {
        if let Err(error) = source.next(&mut frame, Duration::from_secs(9)) {
            break error.chain();
        }
    };
    assert!(error.contains("none of the 1 pictures"), "{error}");
    assert!(opened(whole).unwrap().skip_to(3).unwrap_err().chain().contains("come once"));
}

#[test]
fn what_is_neither_is_refused_with_what_is_known() {
    assert!(failure(Vec::new()).contains("standard input is empty"));
    for bytes in [b"hello, world".to_vec(), vec![0x80; 64 * 48 * 3], vec![SYNC; 100], b"BM9".to_vec()] {
        let message = failure(bytes);
        assert!(message.contains("neither JPEG nor PNG") && message.contains("-f rawvideo"), "{message}");
    }
    assert!(failure(b"\xff\xd8hello".to_vec()).contains("`\\xff\\xd8hello`"));
}

#[test]
fn a_sender_that_is_slow_is_waited_for() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (go, gone) = crossbeam_channel::bounded(1);
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        writer.write_all(&jpeg(10)).unwrap();
        gone.recv().unwrap();
        writer.write_all(&jpeg(90)).unwrap();
    });
    let config = config::Source { stall_secs: 0.1, ..config() };
    let mut source = open(reader, &config).unwrap();
    // Items that have already come need no wait.
    assert_eq!(source.next(&mut Frame::default(), Duration::from_secs(9)).unwrap(), Pull::Frame);
    assert_eq!(source.next(&mut Frame::default(), Duration::from_millis(300)).unwrap(), Pull::Idle);
    go.send(()).unwrap();
    assert_eq!(all_frames(source.as_mut()).len(), 1);
    sender.join().unwrap();
}

/// Ten seconds of a moving test image, with a sound track that does not matter.
fn clip(folder: &std::path::Path, name: &str, more: &[&str]) -> Option<std::path::PathBuf> {
    let path = folder.join(name);
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=30000/1001:duration=10"]);
    let made = ffmpeg.args(more).arg(&path).status();
    match made {
        Ok(status) if status.success() => Some(path),
        _ => {
            println!("skipped: ffmpeg is not installed");
            None
        }
    }
}

#[test]
fn a_video_gives_the_frames_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let kinds: [(&str, &[&str]); 6] = [
        ("a.mkv", &["-c:v", "mpeg4"]),
        ("a.ts", &["-c:v", "mpeg2video"]),
        ("a.nut", &["-c:v", "rawvideo", "-pix_fmt", "rgb24", "-s", "640x480", "-frames:v", "4"]),
        ("a.y4m", &["-pix_fmt", "yuv420p"]),
        ("a.gif", &["-frames:v", "20"]),
        ("a.mp4", &["-c:v", "mpeg4", "-movflags", "+faststart"]),
    ];
    for (name, more) in kinds {
        let Some(path) = clip(folder.path(), name, more) else { return };
        let of_file = all_frames(&mut VideoSource::open(&path, &config()).unwrap());
        assert!(of_file.len() >= 4, "{name}");
        let mut source = open(std::fs::File::open(&path).unwrap(), &config()).unwrap();
        let piped = all_frames(source.as_mut());
        let same =
            piped.iter().zip(&of_file).all(|(a, b)| (a.index, a.stamp, &a.pixels) == (b.index, b.stamp, &b.pixels));
        assert!(piped.len() == of_file.len() && same, "{name}: {} of {}", piped.len(), of_file.len());
    }
}

#[test]
fn a_cut_video_is_counted_and_one_that_cannot_be_piped_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = clip(folder.path(), "a.avi", &["-c:v", "mpeg4"]) else { return };
    let bytes = std::fs::read(path).unwrap();
    let mut source = opened(bytes[..bytes.len() / 2].to_vec()).unwrap();
    let count = all_frames(source.as_mut()).len();
    assert!(count > 10 && count < 299 && source.counts().unreadable == 1, "{count}, {:?}", source.counts());
    let message = failure([b"\x1a\x45\xdf\xa3".as_slice(), &[9; 5000]].concat());
    assert!(message.contains("cannot read the video on standard input") && message.contains("it said"), "{message}");
    let Some(path) = clip(folder.path(), "b.mp4", &["-c:v", "mpeg4"]) else { return };
    // The index of the MP4 is at its end: a small file still fits in the kept beginning, a truncated one has no index.
    let bytes = std::fs::read(path).unwrap();
    let message = failure(bytes[..bytes.len() / 2].to_vec());
    assert!(message.contains("faststart") && message.contains("-f matroska"), "{message}");
}

#[test]
fn a_sender_that_pauses_does_not_stall_the_decoder() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = clip(folder.path(), "a.ts", &["-c:v", "mpeg2video", "-b:v", "2M", "-s", "320x240"]) else {
        return;
    };
    let bytes = std::fs::read(path).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        let (first, rest) = bytes.split_at(bytes.len().min((1 << 20) + 200_000));
        writer.write_all(first).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        writer.write_all(rest).unwrap();
    });
    let config = config::Source { stall_secs: 0.6, ..config() };
    let mut source = open(reader, &config).unwrap();
    assert_eq!(all_frames(source.as_mut()).len(), 300);
    sender.join().unwrap();
}
