//! Programs that decode videos.
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::commands::diagnostics::Diagnostics;
use crate::config;

/// Each program, its version flag, and how to install it.
const TOOLS: [(&str, &str, &str); 2] = [
    ("ffmpeg", "-version", "apt install ffmpeg"),
    (
        "gst-launch-1.0",
        "--version",
        "apt install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-libav",
    ),
];
/// Time limit for a program to print its version.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum length of the version line.
const MAX_LINE_BYTES: u64 = 4096;

/// Checks both decoders; one is enough, unless the configuration names the other.
pub(super) fn decoders(all: &mut Diagnostics, config: &config::Source, search: &OsStr) {
    let found = TOOLS.map(|(name, flag, _)| find(name, search).map(|path| (version(&path, flag, PATIENCE), path)));
    let any = found.iter().any(|tool| matches!(tool, Some((Ok(_), _))));
    for ((name, _, install), tool) in TOOLS.into_iter().zip(found) {
        let what = format!("decoder {name}");
        let asked = config.decoder.as_str() == name;
        let (broken, todo) = match tool {
            Some((Ok(line), path)) => {
                all.ok(what, format!("{}: {line}", path.display()));
                continue;
            }
            Some((Err(why), path)) => (format!("{} {why}", path.display()), "install it anew".to_owned()),
            None => ("not found in PATH".to_owned(), install.to_owned()),
        };
        if asked {
            all.fail(what, format!("{broken}, but source.decoder asks for it"), format!("{todo}, or set it to auto"));
        } else if any {
            all.ok(what, format!("{broken}; the other one is enough"));
        } else {
            all.warn(what, format!("{broken}; video files cannot be read"), todo);
        }
    }
}

fn find(name: &str, search: &OsStr) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(search).map(|folder| folder.join(name)).find(runs)
}

/// The first line that the program prints. The error completes the sentence "the program ...".
fn version(program: &Path, flag: &str, patience: Duration) -> Result<String, String> {
    let command = &mut Command::new(program);
    command.arg(flag).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| format!("cannot be started: {e}"))?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < patience => std::thread::sleep(Duration::from_millis(2)),
            gone => {
                // Killing fails only if the program has already ended.
                child.kill().ok();
                child.wait().ok();
                return Err(match gone {
                    Err(e) => format!("cannot be waited for: {e}"),
                    Ok(_) => format!("did not tell its version within {} s", patience.as_secs_f64()),
                });
            }
        }
    };
    if !status.success() {
        return Err(format!("cannot tell its version: {status}"));
    }
    let mut line = Vec::new();
    if let Some(out) = child.stdout.take() {
        let read = BufReader::new(out.take(MAX_LINE_BYTES)).read_until(b'\n', &mut line);
        read.map_err(|e| format!("cannot be listened to: {e}"))?;
    }
    Ok(String::from_utf8_lossy(&line).trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        // Written by a separate process: a program is "busy" while any process has it open for writing, and parallel
        // tests start processes, which briefly inherit the files open here.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let written = Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(text).status().unwrap();
        assert!(written.success());
        path
    }

    fn report(decoder: &str, search: &Path) -> (String, u8) {
        let mut all = Diagnostics::default();
        let config = config::Source { decoder: decoder.parse().unwrap(), ..config::Source::default() };
        decoders(&mut all, &config, search.as_os_str());
        let done = all.done(false, None);
        (done.output.text, done.exit_code)
    }

    #[test]
    fn one_decoder_is_enough_unless_the_other_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (text, code) = report("auto", folder.path());
        assert!(code == 0 && text.matches("warn").count() == 2 && text.contains("apt install ffmpeg"), "{text}");
        script(folder.path(), "ffmpeg", "echo ffmpeg version 9 \"$1\"; echo more");
        let (text, code) = report("auto", folder.path());
        assert!(code == 0 && !text.contains("warn") && text.contains("ffmpeg version 9 -version\n"), "{text}");
        let (text, code) = report("gst-launch-1.0", folder.path());
        assert!(code == 3 && text.contains("fail  decoder gst-launch-1.0") && text.contains("libav"), "{text}");
    }

    #[test]
    fn a_broken_or_silent_program_is_told_from_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        script(folder.path(), "ffmpeg", "exit 7");
        assert!(report("auto", folder.path()).0.contains("exit status: 7; video files cannot be read"));
        // The shell is replaced by the sleeping program, so that killing it ends everything.
        let silent = script(folder.path(), "silent", "exec sleep 60");
        let began = Instant::now();
        assert!(version(&silent, "-version", Duration::from_millis(50)).unwrap_err().contains("within 0.05 s"));
        assert!(began.elapsed() < Duration::from_secs(10));
        let none = script(folder.path(), "none", "exit 0");
        assert_eq!(version(&none, "", PATIENCE).unwrap(), "");
    }
}
