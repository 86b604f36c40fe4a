//! `http:` sources: cameras that send JPEGs, and playlists, served by this process to the real ffmpeg.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use afterimage::config;
use afterimage::frame::Frame;
use afterimage::source::{self, Pull, Source};
use common::skip::{Needs, installed};
use common::{TestDir, arguments_of_children};

/// Longest time that anything may take; whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pictures that the camera sends; the one that is none.
const PICTURES: u64 = 30;
const DAMAGED: u64 = 20;

fn config() -> config::Source {
    config::Source { stall_secs: 20.0, ..config::Source::default() }
}

fn ffmpeg(folder: &Path, args: &str) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(args.split(' ')).current_dir(folder);
    assert!(command.status().unwrap().success(), "{args}");
}

/// Serves the files of `folder`, and its pictures as a camera does, until the test ends; the port.
fn serve(folder: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (folder, connection) = (folder.clone(), connection.unwrap());
            // A client that goes away is its own affair.
            std::thread::spawn(move || answer(&folder, connection).ok());
        }
    });
    port
}

fn answer(folder: &Path, mut connection: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let login =
        lines.map_while(Result::ok).take_while(|line| !line.is_empty()).any(|line| line.starts_with("Authoriz"));
    let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let name = name.split('?').next().unwrap_or_default();
    match name {
        "camera" => camera(folder, connection),
        "guarded" if !login => {
            connection.write_all(b"HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\r\n")
        }
        "guarded" => camera(folder, connection),
        name => match fs::read(folder.join(name)) {
            Ok(bytes) => {
                write!(connection, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
                connection.write_all(&bytes)
            }
            Err(_) => connection.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n"),
        },
    }
}

/// Pictures as parts, 25 a second and later 5, the last of them again and again.
fn camera(folder: &Path, mut connection: TcpStream) -> std::io::Result<()> {
    connection.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")?;
    for number in 1.. {
        let mut picture = fs::read(folder.join(format!("{:02}.jpg", number.min(PICTURES))))?;
        if number == DAMAGED {
            picture.fill(0);
        }
        write!(connection, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", picture.len())?;
        connection.write_all(&picture)?;
        connection.write_all(b"\r\n")?;
        std::thread::sleep(Duration::from_millis(if number < 10 { 40 } else { 100 }));
    }
    Ok(())
}

/// Numbers and brightness of frames, until `enough` of them.
fn levels(source: &mut dyn Source, enough: impl Fn(&[(u64, u8)]) -> bool) -> Vec<(u64, u8)> {
    let (began, mut frame, mut seen) = (Instant::now(), Frame::default(), Vec::new());
    while !enough(&seen) {
        assert!(began.elapsed() < PATIENCE, "{seen:?}");
        match source.next(&mut frame, Duration::from_millis(50)).unwrap() {
            Pull::Frame => seen.push((frame.index, frame.pixels[0])),
            Pull::Idle => {}
            Pull::End => return seen,
        }
    }
    seen
}

/// How much brighter each picture is than the one before, and the last: six levels of 219 are seven of 255.
const STEP: f64 = 6.0 * 255.0 / 219.0;
const LAST: u8 = 203;
/// Pictures 01.jpg and on.
const BRIGHTER: &str = "-f lavfi -i color=black:size=64x48:rate=10,format=yuv420p,geq=lum='20+6*N':cb=128:cr=128";

#[test]
fn a_camera_of_jpegs_gives_each_picture_once_and_a_damaged_one_costs_itself() {
    if !installed(Needs::Ffmpeg, &["ffmpeg"]) {
        return;
    }
    let place = TestDir::new();
    ffmpeg(place.path(), &format!("{BRIGHTER} -frames:v {PICTURES} -q:v 2 -f image2 %02d.jpg"));
    let port = serve(place.path().to_path_buf());
    for uri in [format!("http://127.0.0.1:{port}/camera"), format!("http://me:secret@127.0.0.1:{port}/guarded")] {
        let mut source = source::open(&*uri, &config()).unwrap();
        assert!(source.live());
        let seen = levels(source.as_mut(), |seen| seen.last().is_some_and(|(_, level)| *level >= LAST));
        // The damaged one is missing, and no other.
        let (first, last) = (seen[0], seen[seen.len() - 1]);
        let pictures = (f64::from(last.1) - f64::from(first.1)) / STEP;
        let frames = (last.0 - first.0) as f64;
        assert!((pictures - 1.0 - frames).abs() < 0.5, "{pictures} pictures in {frames} frames: {seen:?}");
        assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1), "{seen:?}");
        let counts = source.counts();
        assert_eq!((counts.failures, counts.stalls), (0, 0), "{counts:?}");
        let told = arguments_of_children("ffmpeg");
        assert!(!told.is_empty(), "no ffmpeg runs");
        assert!(!told.iter().any(|words| words.contains("secret")), "the password is among the arguments: {told:?}");
    }
}

#[test]
fn a_playlist_and_a_film_give_every_frame_and_end() {
    if !installed(Needs::Ffmpeg, &["ffmpeg"]) {
        return;
    }
    let place = TestDir::new();
    ffmpeg(
        place.path(),
        &format!("{BRIGHTER} -frames:v 20 -c:v libx264 -qp 1 -g 10 -f hls -hls_time 1 -hls_list_size 0 list.m3u8"),
    );
    ffmpeg(place.path(), "-i list.m3u8 -c copy -movflags +faststart film.mp4");
    let port = serve(place.path().to_path_buf());
    for name in ["list.m3u8?a=b", "list.m3u8?token=secret", "film.mp4", "film.mp4?token=it's"] {
        let mut source = source::open(format!("http://127.0.0.1:{port}/{name}"), &config()).unwrap();
        let seen = levels(source.as_mut(), |_| false);
        let counts = source.counts();
        assert_eq!((counts.frames + counts.dropped, counts.failures), (20, 0), "{counts:?}");
        assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1) && seen.len() > 10, "{seen:?}");
    }
}

#[test]
fn what_an_address_does_not_give_is_told_without_the_password() {
    if !installed(Needs::Ffmpeg, &["ffmpeg"]) {
        return;
    }
    let place = TestDir::new();
    ffmpeg(place.path(), "-f lavfi -i sine=duration=1 -c:a mp2 sound.ts");
    let port = serve(place.path().to_path_buf());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (login, port, name, part) in [
        ("me:secret@", port, "none", "no stream of that path"),
        ("", port, "guarded", "write http://USER:PASSWORD@HOST/PATH"),
        ("me:secret@", free, "camera", "nothing answers there"),
        ("me:secret@", port, "sound.ts", "has sound but no picture"),
    ] {
        let Err(error) = source::open(format!("http://{login}127.0.0.1:{port}/{name}"), &config()) else {
            panic!("{name} opens")
        };
        let text = error.chain();
        assert!(text.contains(part) && !text.contains("secret"), "{part}: {text}");
    }
}
