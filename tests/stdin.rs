//! A single picture, and frames on standard input, through the built binary.
#![allow(clippy::unwrap_used, reason = "tests")]
mod common;

use std::fs::{self, File};
use std::process::Command;

use common::{ENCODER, Output, TestDir, frames, learn_args, rows, write_image};

const FRAMES: &str = "pattern://1?frames=40&segments=1&width=64&height=48";

fn embed(place: &TestDir, source: &str, out: &str, input: Option<&str>) -> Output {
    let args = ["embed", "--encoder", ENCODER, "--source", source, "--out", out, "--json"];
    with_input(place, &args, input)
}

fn with_input(place: &TestDir, args: &[&str], input: Option<&str>) -> Output {
    let more = |command: &mut Command| {
        if let Some(name) = input {
            command.stdin(File::open(place.at(name)).unwrap());
        }
    };
    place.start_with(args, more).end()
}

/// Frames as images in the folder `frames`, and one after the other in the file `all`.
fn pictures(place: &TestDir, end: &str) {
    let mut all = Vec::new();
    for frame in frames(FRAMES) {
        let path = place.at(&format!("frames/{:05}.{end}", frame.index));
        write_image(&path, &frame);
        all.extend(fs::read(path).unwrap());
    }
    fs::write(place.at("all"), all).unwrap();
}

#[test]
fn pictures_on_standard_input_give_the_rows_of_their_folder() {
    for end in ["png", "jpg"] {
        let place = TestDir::new();
        pictures(&place, end);
        embed(&place, "frames", "a", None).ok();
        let report = embed(&place, "-", "b", Some("all")).ok().json();
        assert_eq!((&report["frames"], &report["source"]["dropped"]), (&40.into(), &0.into()), "{report}");
        let mut of_folder = rows(&place.at("a/embeddings"));
        for (at, (record, _)) in of_folder.iter_mut().enumerate() {
            // A stream has no names of files; otherwise its rows are the same.
            assert_eq!(record.file.take().as_deref(), Some(format!("{at:05}.{end}").as_str()));
        }
        assert_eq!(of_folder, rows(&place.at("b/embeddings")), "{end}");
        let cut = fs::read(place.at("all")).unwrap();
        fs::write(place.at("cut"), &cut[..cut.len() - 20]).unwrap();
        let ran = embed(&place, "-", "c", Some("cut")).ok().said(&["broke off after 39 pictures"]);
        assert_eq!((&ran.json()["frames"], &ran.json()["source"]["unreadable"]), (&39.into(), &1.into()));
    }
}

#[test]
fn one_picture_is_one_frame() {
    let place = TestDir::new();
    pictures(&place, "png");
    fs::copy(place.at("frames/00000.png"), place.at("one.PNG")).unwrap();
    assert_eq!(embed(&place, "one.PNG", "a", None).ok().json()["frames"], 1);
    assert_eq!(embed(&place, "file:one.PNG", "b", None).ok().json()["frames"], 1);
    assert_eq!(rows(&place.at("a/embeddings")), rows(&place.at("b/embeddings")));
    fs::write(place.at("bad.jpg"), b"no image").unwrap();
    embed(&place, "bad.jpg", "c", None).fails(1, &["cannot read the image bad.jpg", "of no kind that is known"]);
    embed(&place, "file:none.png", "d", None).fails(1, &["none.png", "No such file"]);
}

#[test]
fn a_run_can_be_learned_from_standard_input_and_not_be_taken_up_again() {
    let place = TestDir::new();
    pictures(&place, "png");
    let report = with_input(&place, &learn_args("-", "run"), Some("all")).ok().json();
    assert_eq!((&report["frames"], &report["ended"]), (&40.into(), &true.into()), "{report}");
    let again = [&learn_args("-", "run")[..], &["--resume"]].concat();
    with_input(&place, &again, Some("all")).fails(2, &["--resume with --source -", "comes once"]);
    let sheet = ["contact-sheet", "--run", "run", "--source", "-", "--out", "s.png"];
    with_input(&place, &sheet, Some("all")).fails(2, &["read twice", "comes once"]);
}

#[test]
fn what_cannot_be_used_leaves_nothing_behind() {
    let place = TestDir::new();
    fs::write(place.at("text"), "no pictures\n".repeat(99)).unwrap();
    embed(&place, "-", "a", None).fails(1, &["standard input is empty"]);
    embed(&place, "-", "a", Some("text")).fails(1, &["begins with `no pictu`", "neither JPEG nor PNG", "rawvideo"]);
    with_input(&place, &learn_args("-", "a"), Some("text")).fails(1, &["neither JPEG nor PNG"]);
    pictures(&place, "png");
    let twice = ["embed", "--encoder", ENCODER, "--source", "-", "--source", "-", "--out", "a"];
    with_input(&place, &twice, Some("all")).fails(2, &["asked for twice"]);
    assert!(!place.at("a").exists());
}
