//! On a full disk, learning continues in memory, exports stop and resume with one message each, and promoted heads are
//! not lost.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::skip::{Needs, skip};
use common::{CUTS, PATIENCE, PATTERN, Paced, TestDir, assert_same, frames, heads, rows};

/// A tmpfs of a few kilobytes, `disk` in a [`TestDir`].
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with a line that says so, where mounting is not allowed.
    fn mount(place: &TestDir, kilobytes: u32) -> Option<Self> {
        let folder = place.at("disk");
        fs::create_dir_all(&folder).unwrap();
        let size = format!("size={kilobytes}k");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        skip(Needs::Root, "a small tmpfs cannot be mounted here (needs root)");
        None
    }

    /// Fills the disk but for so many kilobytes.
    fn fill(&self, room: usize) -> PathBuf {
        let path = self.0.join("ballast");
        std::io::copy(&mut std::io::repeat(1), &mut File::create(&path).unwrap()).unwrap_err();
        let length = fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(length - room as u64 * 1024).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

fn newest(run: &Path) -> u32 {
    fs::read_to_string(run.join("latest")).map_or(0, |text| text.trim().parse().unwrap())
}

/// Heads as promoted without any want of room.
fn reference(place: &TestDir, more: &[&str]) {
    Paced::new(place).give_all(&frames(PATTERN));
    Paced::start_learn(place, "whole", &[&CUTS[..], more].concat()).end().ok();
    assert!(newest(&place.at("whole")) >= 2, "too few promotions to show anything");
}

#[test]
fn exports_stop_and_resume_and_heads_are_kept() {
    for (every_frames, format) in [
        ("checkpoint.every_frames=0", "export.format=npy"),
        ("checkpoint.every_frames=100", "export.format=parquet"),
        ("checkpoint.every_frames=100", "export.format=safetensors"),
    ] {
        let place = TestDir::new();
        let Some(disk) = SmallDisk::mount(&place, 16 * 1024) else { return };
        // A reserve for heads that exports would take too, if it were given up as a whole.
        let more = [&CUTS[..], &["--set", every_frames, "--set", format, "--set", "head.hidden=2000"]].concat();
        reference(&place, &more[4..]);
        let ballast = disk.fill(60 + 480);
        let run = place.at("disk/run");
        let all = frames(PATTERN);
        let paced = Paced::new(&place);
        let mut running = Paced::start_learn(&place, "disk/run", &more);
        let mut given = all.iter();
        let mut until = |what: &str, pause: Duration, reached: &dyn Fn() -> bool| {
            let began = Instant::now();
            while !reached() {
                let Some(frame) = given.next() else {
                    panic!("no frame is left to wait for {what}; it said\n{}", running.said())
                };
                assert!(paced.give(frame) && began.elapsed() < PATIENCE, "{what}");
                std::thread::sleep(pause);
            }
        };
        until("exports to stop", Duration::ZERO, &|| running.said().contains("exports stop"));
        let there = newest(&run);
        // Slowly, so that exports look for room meanwhile: what is kept for heads is not for them.
        until("a head on the full disk", Duration::from_millis(10), &|| newest(&run) > there);
        fs::remove_file(&ballast).unwrap();
        until("exports to go on", Duration::from_millis(5), &|| running.said().contains("go on;"));
        running.wait_to_say("go on;");
        given.all(|frame| paced.give(frame));
        drop(paced);
        let ran = running.end();
        assert_eq!(ran.status.code(), Some(1), "rows were lost: {}", ran.err);
        let ran = ran.said(&["rows are lost"]);
        assert_eq!(count(&ran.err, "exports stop"), 1, "{}", ran.err);
        assert_eq!(count(&ran.err, " go on; "), 1, "{}", ran.err);
        assert!(count(&ran.err, "learning goes on in memory") <= 1 && count(&ran.err, "ERROR") <= 3, "{}", ran.err);
        let report = ran.json();
        assert_same(&heads(&run), &heads(&place.at("whole")));
        let lost = report["exports"]["embeddings"]["lost_rows"].as_u64().unwrap();
        let written = rows(&run.join("embeddings"));
        assert_eq!(written.len() as u64 + lost, 2400, "{report}");
        assert!(lost > 0 && written.last().unwrap().0.frame == 2399, "{report}");
        // What was written is what would have been.
        let whole = rows(&place.at("whole/embeddings"));
        assert!(written.iter().all(|row| whole[row.0.frame as usize] == *row));
        assert!(run.join("state.safetensors").exists() && run.join("heads/.reserve").exists());
    }
}

#[test]
fn a_head_that_never_finds_room_is_an_error_that_names_it() {
    let place = TestDir::new();
    let Some(disk) = SmallDisk::mount(&place, 4096) else { return };
    let more = ["--set", "export.embeddings=false"];
    reference(&place, &more);
    // Room for run.json and the journal's first lines only.
    let ballast = disk.fill(16);
    let all = frames(PATTERN);
    let more = [&CUTS[..], &more].concat();
    Paced::new(&place).give_all(&all);
    let ran = Paced::start_learn(&place, "disk/run", &more).end();
    ran.fails(1, &["head 1 was promoted but", "has no room for it", "--resume"])
        .said(&["no room for a promoted head is held in reserve"]);
    // With room, the run is made good.
    fs::remove_file(ballast).unwrap();
    Paced::new(&place).give_all(&all);
    Paced::start_learn(&place, "disk/run", &[&more[..], &["--resume"]].concat()).end().ok();
    assert_same(&heads(&place.at("disk/run")), &heads(&place.at("whole")));
}

#[test]
fn a_disk_without_any_room_is_named_before_anything_is_learned() {
    let place = TestDir::new();
    let Some(disk) = SmallDisk::mount(&place, 256) else { return };
    disk.fill(0);
    place.learn(PATTERN, "disk/run", &[]).fails(1, &["run.json", "No space left"]);
    assert!(!place.at("disk/run/run.json").exists());
}
