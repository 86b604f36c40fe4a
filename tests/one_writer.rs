//! A folder has only one writer, a failed start leaves nothing behind, and decoders end with the program.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{ENCODER, PATIENCE, TestDir, learn_args};

const SHORT: &str = "pattern://1?frames=20&segments=2&width=64&height=48";

#[test]
fn a_second_writer_is_refused_with_the_number_of_the_first_and_readers_are_welcome() {
    let place = TestDir::new();
    place.learn(SHORT, "one", &[]).ok();
    place.learn("pattern://2?frames=20&segments=2&width=64&height=48", "two", &[]).ok();
    let live = "pattern://3?live=true&rate=50&frames=100000&segments=1000&width=64&height=48";
    let mut first = place.start_learn(live, "run", &[]);
    let began = Instant::now();
    while !place.at("run/journal.jsonl").exists() {
        assert!(!first.over() && began.elapsed() < PATIENCE, "{}", first.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    let embed = ["embed", "--encoder", ENCODER, "--source", SHORT, "--out", "run"];
    let resume = [&learn_args(live, "run")[..], &["--resume"]].concat();
    for second in [&resume[..], &embed, &["merge", "one", "two", "-o", "run"]] {
        place.run(second).fails(1, &["run is being written by process ", "only one"]);
    }
    place.run(&["check", "--run", "run"]).ok();
    assert!(first.kill());
    // The kernel has given the lock up with the process.
    place.run(&["embed", "--encoder", ENCODER, "--source", SHORT, "--out", "run/again"]).ok();
}

#[test]
fn a_start_that_fails_leaves_no_folder_and_the_next_one_may_take_its_place() {
    let place = TestDir::new();
    fs::write(place.at("cut.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let embed = |source: &str| place.run(&["embed", "--encoder", ENCODER, "--source", source, "--out", "a/b"]);
    embed("cut.png").fails(1, &["cut.png"]);
    assert!(!place.at("a").exists(), "nothing was embedded, so nothing must be left");
    embed("none.png");
    assert!(!place.at("a").exists());
    embed(SHORT).ok();
    embed(SHORT).fails(2, &["has embeddings already"]);
}

#[test]
fn a_decoder_ends_with_a_program_that_is_killed() {
    let place = TestDir::new();
    fs::create_dir(place.at("stub")).unwrap();
    let (stub, pid) = (place.at("stub/ffmpeg"), place.at("decoder.pid"));
    // Silent, deaf, and never writing: no closed pipe ends it.
    fs::write(&stub, format!("#!/bin/sh\necho $$ >{}\nexec sleep 600\n", pid.display())).unwrap();
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", place.at("stub").display(), std::env::var("PATH").unwrap());
    let mut running = place.start_with(
        &[&learn_args("rtsp://127.0.0.1:9/x", "run")[..], &["--set", "source.decoder=ffmpeg"]].concat(),
        |command| {
            command.env("PATH", path);
        },
    );
    let number = || fs::read_to_string(&pid).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let began = Instant::now();
    while number().is_none() {
        assert!(!running.over() && began.elapsed() < PATIENCE, "{}", running.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    // Longer than the thread that opened it may live.
    std::thread::sleep(Duration::from_secs(1));
    let of = format!("/proc/{}/stat", number().unwrap());
    let alive = || fs::read_to_string(Path::new(&of)).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(alive(), "it ends before the program does");
    running.kill();
    let began = Instant::now();
    while alive() {
        assert!(began.elapsed() < Duration::from_secs(10), "the decoder outlives the program");
        std::thread::sleep(Duration::from_millis(10));
    }
}
