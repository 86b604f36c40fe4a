//! A test that cannot run reports that, and fails if everything is required.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/skip.rs"]
mod skip;

use std::process::{Command, Output};

use skip::{Needs, installed, skip};

/// Set for the copy of this program that skips.
const INSIDE: &str = "AFTERIMAGE_TEST_OF_SKIPS";

#[test]
fn skips_when_asked() {
    match std::env::var(INSIDE).as_deref() {
        Ok("reason") => skip(Needs::Camera, "there is no camera"),
        Ok("program") => assert!(!installed(Needs::Broker, &["sh", "no-such-program"])),
        _ => assert!(installed(Needs::Broker, &["sh"])),
    }
}

/// This program with a test that skips.
fn skipping(how: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["skips_when_asked", "--exact"]).env(INSIDE, how);
    command.env_remove("REQUIRE_ALL").env_remove("ALLOW_SKIP").env_remove("SKIPPED_TESTS");
    command.envs(variables.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_skip_is_said_and_written_although_the_test_passes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("skipped");
    let named = [("SKIPPED_TESTS", file.to_str().unwrap())];
    let lines = [
        ("reason", "skipped: skips::skips_when_asked: camera: there is no camera\n"),
        ("program", "skipped: skips::skips_when_asked: broker: no-such-program is not installed\n"),
    ];
    for (how, line) in lines {
        let output = skipping(how, &named);
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains(line), "{}", said(&output));
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines.map(|(_, line)| line).concat());
}

#[test]
fn what_is_required_and_not_allowed_to_be_missing_fails() {
    let all = ("REQUIRE_ALL", "1");
    let failed = skipping("reason", &[all, ("ALLOW_SKIP", "gpu cameras")]);
    assert_eq!(failed.status.code(), Some(101), "{}", said(&failed));
    assert!(said(&failed).contains("skipped: skips::skips_when_asked: camera"));
    assert!(skipping("reason", &[all, ("ALLOW_SKIP", "gpu camera")]).status.success());
    assert!(skipping("reason", &[("REQUIRE_ALL", "0")]).status.success());
}
