//! A child process that never outlives its owner, and its standard error.
use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::decoder::Tool;
use super::spawner;
use crate::error::{Error, Result};
use crate::source::address::Address;

/// Maximum number of lines of standard error that are kept, and of characters kept per line.
const LINES: usize = 8;
const LINE_BYTES: usize = 300;
/// Bytes read of each line: a secret can only be found if it is complete.
const READ_BYTES: usize = 1 << 14;

/// Standard error of the child: its last lines, and how many of all lines report damage.
#[derive(Debug, Default)]
struct ErrorLines {
    last: VecDeque<String>,
    complaints: u64,
}

/// A running child. Dropping it kills it and its descendants, and waits for it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    words: Arc<Mutex<ErrorLines>>,
    listener: Option<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in a process group of its own, so that Ctrl-C at a terminal reaches this program only and
    /// leaves it to end the child.
    /// # Errors
    /// A runtime error: the program cannot be started.
    pub(super) fn start(tool: Tool, command: Command) -> Result<(Process, ChildStdout)> {
        Self::start_hiding(tool, command, None)
    }

    /// [`Process::start`] for a child that knows the secrets of `address`: they are removed from its output.
    /// # Errors
    /// Those of [`Process::start`].
    pub(super) fn start_hiding(
        tool: Tool,
        mut command: Command,
        address: Option<Address>,
    ) -> Result<(Process, ChildStdout)> {
        let failed = |e| Error::runtime(format!("cannot start the video decoder {}", tool.name())).with_source(e);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = spawner::spawn(command).map_err(failed)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let words = Arc::new(Mutex::new(ErrorLines::default()));
        let mut process = Process { child, words: words.clone(), listener: None, status: None };
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(Error::runtime(format!("the video decoder {} has no pipes", tool.name())));
        };
        let listener = std::thread::Builder::new().name("decoder-words".into());
        process.listener =
            Some(listener.spawn(move || listen(stderr, tool, address.as_ref(), &words)).map_err(failed)?);
        Ok((process, stdout))
    }

    /// Takes its standard input, if that is a pipe.
    pub(super) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// True if the child has ended by itself, or does so within `patience`.
    pub(super) fn ended(&mut self, patience: Duration) -> bool {
        let began = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => self.status = Some(status),
                Ok(None) if began.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                _ => {}
            }
            return self.status.is_some();
        }
    }

    /// Waits for the child to end, then kills it; `None` if it had to be killed.
    pub(super) fn finish(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.ended(patience);
        let own = self.status;
        self.kill();
        own
    }

    /// Kills the child and its descendants.
    pub(super) fn kill(&mut self) {
        if self.status.is_none() {
            // The child leads a group of its own number (`process_group(0)`) and has not been waited for, so the number
            // cannot belong to anyone else.
            kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
            self.status = self.child.wait().ok();
        }
    }

    /// The last lines on standard error, and the number of lines that report damage. For a child that has ended.
    pub(super) fn words(&mut self) -> (String, u64) {
        // The listener ends with the pipe; another process may still hold that, so the wait is bounded.
        let began = Instant::now();
        while self.listener.as_ref().is_some_and(|l| !l.is_finished()) && began.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let last: Vec<&str> = words.last.iter().map(String::as_str).collect();
        let said = if last.is_empty() { "it said nothing".into() } else { format!("it said: {}", last.join(" | ")) };
        (said, words.complaints)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Drains standard error to its end, so that the child never waits for a reader.
fn listen(mut stderr: ChildStderr, tool: Tool, address: Option<&Address>, words: &Mutex<ErrorLines>) {
    let mut line = Vec::new();
    let finish = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line).trim().to_string();
        line.clear();
        let text = address.map_or_else(|| text.clone(), |address| address.scrub(&text));
        let text: String = text.chars().take(LINE_BYTES).collect();
        // What GStreamer prints between an error and its cause.
        if !text.is_empty() && text != "Additional debug info:" {
            let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
            words.complaints += u64::from(tool.complains(&text));
            if words.last.len() == LINES {
                words.last.pop_front();
            }
            words.last.push_back(text);
        }
    };
    let mut chunk = [0u8; 4096];
    loop {
        match stderr.read(&mut chunk) {
            Ok(n) if n > 0 => {
                for &byte in chunk.iter().take(n) {
                    match byte {
                        b'\n' | b'\r' => finish(&mut line),
                        _ if line.len() < READ_BYTES => line.push(byte),
                        _ => {}
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    finish(&mut line);
}
