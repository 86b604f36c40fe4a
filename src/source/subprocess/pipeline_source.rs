//! `csi:`, `rtsp:`, `http:` and `gst:`: live frames from a child process. The newest frame wins.
use std::ffi::OsStr;
use std::io::{BufReader, Write};
use std::process::ChildStdout;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ENDING;
use super::command_line::{CommandLine, advice};
use super::duties::{plainly, unknown_option};
use super::process::Process;
use super::stream::{Next, Stream};
use crate::config;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::latest_slot::{LatestSlot, Taken};
use crate::source::uri::Uri;
use crate::source::{Pull, Source, SourceCounts, clock, stall_time};

/// A frame with its number and when it was read.
#[derive(Debug, Default)]
struct Read {
    frame: Frame,
    number: u64,
    at: Option<Instant>,
}

/// A live source that reads from a child process. The child is killed when it stalls and when the source is dropped.
#[derive(Debug)]
pub struct PipelineSource {
    uri: Uri,
    call: CommandLine,
    process: Process,
    mailbox: Arc<LatestSlot<Read>>,
    read: Read,
    stall: Duration,
    last: Instant,
    /// The frame read at the opening has not been handed out yet.
    first: bool,
    /// Why the stream closed, and when.
    closed: Option<(String, Instant)>,
    over: bool,
    counts: SourceCounts,
}

impl PipelineSource {
    /// Starts the child and waits for its first frame.
    /// # Errors
    /// A usage error: not a live source, or an invalid pipeline. A runtime error: a program is missing, or the child
    /// fails. Stalled: no frame within `source.stall_secs`. The message contains the command and the child's last error
    /// output, without passwords.
    pub fn open(uri: &Uri, config: &config::Source) -> Result<Self> {
        Self::open_with(uri, config, &std::env::var_os("PATH").unwrap_or_default())
    }

    /// [`PipelineSource::open`] with a search path for programs: `search`, a list of folders as in `PATH`.
    fn open_with(uri: &Uri, config: &config::Source, search: &OsStr) -> Result<Self> {
        let mut call = CommandLine::new(uri, config, search)?;
        let stall = stall_time(config)?;
        match Self::start(uri, call.clone(), stall) {
            Err(error) if unknown_option(&error.chain()) && call.fall_back() => Self::start(uri, call, stall),
            result => result,
        }
    }

    fn start(uri: &Uri, call: CommandLine, stall: Duration) -> Result<Self> {
        let (mut process, stdout) = Process::start_hiding(call.tool, call.command(), uri.address().cloned())?;
        if let (Some(list), Some(mut stdin)) = (call.list(), process.take_stdin()) {
            // A child that has already ended explains why in its error output.
            stdin.write_all(list.as_bytes()).ok();
        }
        let mailbox = Arc::new(LatestSlot::new());
        let thread_mailbox = mailbox.clone();
        let work = move || read(stdout, &thread_mailbox);
        let thread = std::thread::Builder::new().name("live-frames".into()).spawn(work);
        thread.map_err(|e| Error::runtime("cannot start the thread that reads live frames").with_source(e))?;
        let (uri, read, last, counts) = (uri.clone(), Read::default(), Instant::now(), SourceCounts::default());
        let (first, closed, over) = (false, None, false);
        let mut live = Self { uri, call, process, mailbox, read, stall, last, first, closed, over, counts };
        match live.mailbox.take(&mut live.read, stall) {
            Taken::Fresh => {
                live.first = true;
                let (width, height) = (live.read.frame.width, live.read.frame.height);
                tracing::info!("{} gives frames of {width}x{height}", live.shown());
                Ok(live)
            }
            Taken::Nothing => Err(live.stalled()),
            Taken::Closed(reason) => Err(live.failed(&reason, ENDING)),
        }
    }

    fn shown(&self) -> String {
        self.uri.scrub(&self.call.shown())
    }

    /// Ends the child; returns its last error output and advice.
    fn words(&mut self) -> String {
        self.process.kill();
        let words = self.process.words().0;
        let advice = plainly(&words).unwrap_or_else(|| advice(&self.uri, &words));
        let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
        format!("{words}{advice}")
    }

    fn stalled(&mut self) -> Error {
        let (frames, secs, words) = (self.counts.frames, self.stall.as_secs_f64(), self.words());
        Error::stalled(format!(
            "no frame for {secs} s (source.stall_secs) after {frames} frames of `{}`, which was ended; {words}",
            self.shown()
        ))
    }

    fn failed(&mut self, reason: &str, patience: Duration) -> Error {
        let status = self.process.finish(patience);
        let how = status.map_or_else(|| "it did not end by itself".to_owned(), |status| status.to_string());
        let (frames, words) = (self.counts.frames, self.words());
        Error::runtime(format!("`{}` failed after {frames} frames ({reason}, {how}); {words}", self.shown()))
    }

    /// Handles a stream that closed with `reason`: the source ends once the child has ended, too. That may take up to
    /// [`ENDING`], but no pull waits for it: there may be other cameras.
    fn end(&mut self, reason: String, wait: Duration) -> Result<Pull> {
        let (reason, since) = self.closed.get_or_insert_with(|| (reason, Instant::now())).clone();
        let patience = ENDING.saturating_sub(since.elapsed());
        if !self.process.ended(wait.min(patience)) && since.elapsed() < ENDING {
            return Ok(Pull::Idle);
        }
        self.over = true;
        let well = reason == WHOLE && self.call.may_end;
        if well && self.process.finish(Duration::ZERO).is_some_and(|status| status.success()) {
            return Ok(Pull::End);
        }
        Err(self.failed(&reason, Duration::ZERO))
    }

    fn hand_out(&mut self, frame: &mut Frame) -> Pull {
        std::mem::swap(frame, &mut self.read.frame);
        let at = self.read.at.unwrap_or_else(Instant::now);
        (frame.stamp, frame.arrived) = (clock::stamp(at), Some(at));
        (frame.index, frame.cut) = (self.read.number, false);
        self.counts.frames += 1;
        self.counts.age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last = Instant::now();
        Pull::Frame
    }
}

impl Source for PipelineSource {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        if std::mem::take(&mut self.first) {
            return Ok(self.hand_out(frame));
        }
        if self.over {
            return Ok(Pull::End);
        }
        let until_stall = self.stall.saturating_sub(self.last.elapsed());
        match self.mailbox.take(&mut self.read, wait.min(until_stall)) {
            Taken::Fresh => Ok(self.hand_out(frame)),
            Taken::Nothing if self.last.elapsed() >= self.stall => Err(self.stalled()),
            Taken::Nothing => Ok(Pull::Idle),
            Taken::Closed(reason) => self.end(reason, wait),
        }
    }

    fn skip_to(&mut self, index: u64) -> Result<()> {
        Err(Error::usage(format!("a live source cannot go on at frame {index}")))
    }

    fn live(&self) -> bool {
        true
    }

    fn counts(&self) -> SourceCounts {
        SourceCounts { dropped: self.mailbox.dropped(), ..self.counts.clone() }
    }
}

impl Drop for PipelineSource {
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}

/// Reason for a stream that closed between two frames.
const WHOLE: &str = "its stream ended";

/// Reads frames to the end of the stream, or until nobody takes them; the pipe never stays full.
fn read(stdout: ChildStdout, mailbox: &LatestSlot<Read>) {
    let mut stream = Stream::new(BufReader::with_capacity(1 << 16, stdout));
    let (mut read, mut number) = (Read::default(), 0);
    let reason = loop {
        match stream.next(&mut read.frame) {
            Ok(Next::Frame(_)) => {}
            Ok(Next::End) => break WHOLE.to_owned(),
            Err(error) => break error.chain(),
        }
        (read.number, read.at) = (number, Some(Instant::now()));
        number += 1;
        if !mailbox.put(&mut read) {
            break WHOLE.to_owned();
        }
    };
    mailbox.close(&reason);
}

#[cfg(test)]
#[path = "pipeline_source_tests.rs"]
mod tests;
