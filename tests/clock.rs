//! Board clocks jump: by years at startup without a backup battery, and whenever a time server responds.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use afterimage::export::Record;
use common::{TestDir, rows};

const LIVE: &str = "pattern://7?rate=100&live=true&width=64&height=48&frames=1000000&segments=10000";
const SECOND: i64 = 1_000_000_000;

/// Shifts the wall clock of a program by the seconds that stand in a file; all other clocks stay.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, clock, at);
    const char *name = getenv("CLOCK_SHIFT");
    if (clock == CLOCK_REALTIME && name) {
        FILE *file = fopen(name, "r");
        long secs = 0;
        if (file) {
            if (fscanf(file, "%ld", &secs) == 1) at->tv_sec += secs;
            fclose(file);
        }
    }
    return result;
}
"#;

fn shift(place: &TestDir, secs: i64) {
    let (new, name) = (place.at("shift.new"), place.at("shift"));
    fs::write(&new, secs.to_string()).unwrap();
    fs::rename(new, name).unwrap();
}

/// What a run has written, in order.
fn records(run: &Path) -> Vec<Record> {
    rows(&run.join("embeddings")).into_iter().map(|(record, _)| record).collect()
}

fn wall(record: &Record) -> i64 {
    record.wall_ns.unwrap()
}

#[test]
fn a_clock_that_is_set_anew_changes_neither_the_order_nor_the_learning() {
    let place = TestDir::new();
    fs::write(place.at("shim.c"), SHIM).unwrap();
    let shim = place.at("shim.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(place.at("shim.c")).status();
    assert!(built.unwrap().success());
    let args = [
        &common::learn_args(LIVE, "run")[..],
        &["--set", "learn.frames_per_sec=100", "--set", "checkpoint.every_frames=100"],
    ]
    .concat();
    let start = |more: &[&str]| {
        place.start_with(&[&args, more].concat(), |command| {
            command.env("LD_PRELOAD", &shim).env("CLOCK_SHIFT", place.at("shift"));
        })
    };
    let run = place.at("run");
    let saved = |path: &Path| fs::metadata(path).ok().and_then(|file| file.modified().ok());
    let state = run.join("state.safetensors");
    let day = 86_400;

    // Wakes up in the past, hears the time, is set back by an hour.
    shift(&place, -3650 * day);
    let mut running = start(&[]);
    for secs in [0, -3600] {
        running.wait_for_file(&state);
        let before = saved(&state);
        running.wait("to save twice more", |_| saved(&state) != before);
        shift(&place, secs);
        let before = saved(&state);
        running.wait("to save once more", |_| saved(&state) != before);
    }
    running.signal("TERM");
    let first = running.end().ok().json();
    let before = records(&run);
    assert!(before.windows(2).all(|two| two[0].stamp_ns < two[1].stamp_ns));
    // No gap of ten years or an hour in what learning goes by; both in what the clock said.
    assert!(before.windows(2).all(|two| two[1].stamp_ns - two[0].stamp_ns < 60 * SECOND));
    let steps: Vec<i64> = before.windows(2).map(|two| (wall(&two[1]) - wall(&two[0])) / SECOND).collect();
    assert!(steps.iter().any(|step| *step > 3600 * day), "the clock was set");
    assert!(steps.iter().any(|step| (-3700..-3500).contains(step)), "the clock was set back");
    assert_eq!(first["source"]["stalls"], 0, "a clock is no stall");
    assert!(first["learned"]["samples"].as_u64().unwrap() > 0);

    // After a power cut it wakes up in the past again: capture times go on.
    shift(&place, -7300 * day);
    let mut running = start(&["--resume"]);
    running.wait_to_say("the clock of this machine stands before the newest frame");
    let old = saved(&state);
    running.wait("to save", |_| saved(&state) != old);
    running.signal("TERM");
    let second = running.end().ok().json();
    let all = records(&run);
    assert!(all.len() > before.len());
    assert!(all.windows(2).all(|two| two[0].stamp_ns < two[1].stamp_ns && two[0].frame < two[1].frame));
    let (last, next) = (&all[before.len() - 1], &all[before.len()]);
    assert!(wall(next) < wall(last) - 300 * day * SECOND);
    assert!(second["learned"]["samples"].as_u64() > first["learned"]["samples"].as_u64(), "it goes on learning");
}
