//! Child processes: live pipelines (`csi:`, `rtsp:`, `gst:`; [`Live`]) and videos.
//!
//! `file:`: a video, decoded by `ffmpeg` or `gst-launch-1.0` as a child process.
//!
//! The child writes raw frames into a pipe; the pipe and two waiting frames are all the room it has, so it runs no
//! faster than its frames are taken. It is killed when it stalls and when the source is dropped.
mod decoder;
mod live;
mod pipeline;
mod process;
mod reader;
mod y4m;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use self::decoder::{Header, Tool, parse_header};
pub use self::live::Live;
use self::process::Process;
use self::reader::{Frames, Item};
use super::{Pull, Source, SourceCounts, stall_time, stamp_at};
use crate::config;
use crate::error::{Error, Result};
use crate::frame::Frame;

/// How long a child that closed its pipe may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// A video file as a source.
#[derive(Debug)]
pub struct Video {
    path: PathBuf,
    tool: Tool,
    process: Process,
    frames: Frames,
    rate: f64,
    stall: Duration,
    /// When the last frame was taken; a decoder that waits for its reader is not stalled.
    last_taken: Instant,
    /// Frames decoded so far: the position of the next.
    decoded: u64,
    over: bool,
    counts: SourceCounts,
}

impl Video {
    /// Starts to decode the video at `path`. Stamps are frame number / frame rate, the rate as the video names it.
    /// # Errors
    /// Work: no such file, no decoder installed, nothing in it that the decoder knows.
    pub fn open(path: &Path, config: &config::Source) -> Result<Self> {
        Self::open_with(path, config, &std::env::var_os("PATH").unwrap_or_default())
    }

    /// [`Video::open`] with decoders looked for in `search`, a list of folders as in `PATH`.
    fn open_with(path: &Path, config: &config::Source, search: &OsStr) -> Result<Self> {
        let found = std::fs::metadata(path).map_err(|e| Error::io("cannot open the video", path, e))?;
        if !found.is_file() {
            let path = path.display();
            return Err(Error::work(format!("{path} is not a video file; folders of images are named dir:{path}")));
        }
        let (tool, program) = Tool::find(&config.decoder, search)?;
        let stall = stall_time(config)?;
        let (header, sync) = probe(tool, &program, path, stall)?;
        let rate = header.rate.unwrap_or_else(|| {
            let (rate, path) = (config.frame_rate, path.display());
            tracing::warn!("{path} names no usable frame rate; {rate} frames per second (source.frame_rate) are taken");
            rate
        });
        let layout = tool.layout(header)?;
        let (process, stdout) = Process::start(tool, tool.frames_call(&program, path, sync, header)?)?;
        let frames = Frames::start(stdout, layout)?;
        Ok(Self {
            path: path.into(),
            tool,
            process,
            frames,
            rate,
            stall,
            last_taken: Instant::now(),
            decoded: 0,
            over: false,
            counts: SourceCounts::default(),
        })
    }

    fn pull(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        if self.over {
            return Ok(Pull::End);
        }
        let now = Instant::now();
        let deadline = now.checked_add(wait);
        loop {
            let stalled = self.frames.last_byte().max(self.last_taken) + self.stall;
            match self.frames.next(deadline.map_or(stalled, |deadline| deadline.min(stalled))) {
                Some(Item::Frame(mut next)) => {
                    std::mem::swap(frame, &mut next);
                    self.frames.recycle(next);
                    frame.index = self.decoded;
                    frame.stamp = stamp_at(self.decoded, self.rate);
                    frame.cut = false;
                    frame.arrived = None;
                    self.decoded += 1;
                    self.last_taken = Instant::now();
                    return Ok(Pull::Frame);
                }
                Some(Item::End(broken)) => return self.end(broken),
                None if Instant::now() >= self.frames.last_byte().max(self.last_taken) + self.stall => {
                    self.over = true;
                    return Err(self.stalled());
                }
                None if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Ok(Pull::Idle),
                None => {}
            }
        }
    }

    fn stalled(&mut self) -> Error {
        self.process.kill();
        stall_error(self.tool, &self.path, self.stall, self.decoded, &self.process.words().0)
    }

    /// The stream of frames has ended: was that the end of the video?
    fn end(&mut self, broken: Option<String>) -> Result<Pull> {
        self.over = true;
        let status = self.process.finish(ENDING);
        let (words, complaints) = self.process.words();
        let (tool, path, count) = (self.tool.name(), self.path.display(), self.decoded);
        let how = match status {
            Some(status) => format!("{status}"),
            None => "it did not end by itself".into(),
        };
        let reason = broken.map(|reason| format!("{reason}; ")).unwrap_or_default();
        let whole = reason.is_empty() && status.is_some_and(|s| s.success());
        if count == 0 {
            return Err(Error::work(format!(
                "{tool} found no frame in the video {path} ({reason}{how}); {words}. Is it a video that this \
                 {tool} can decode?"
            )));
        }
        if !whole || complaints > 0 {
            self.counts.unreadable += 1;
            tracing::warn!(
                "parts of the video {path} could not be read: {tool} gave {count} frames ({reason}{how}); {words}"
            );
        }
        Ok(Pull::End)
    }
}

impl Source for Video {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        let pull = self.pull(frame, wait)?;
        self.counts.frames += u64::from(pull == Pull::Frame);
        Ok(pull)
    }

    /// Decodes and discards.
    fn skip_to(&mut self, index: u64) -> Result<()> {
        let mut scratch = Frame::default();
        while self.decoded < index {
            if self.pull(&mut scratch, self.stall)? == Pull::End {
                let (found, path) = (self.decoded, self.path.display());
                return Err(Error::work(format!(
                    "the video {path} has {found} frames, too few to go on at frame {index}; is it the same file?"
                )));
            }
        }
        Ok(())
    }

    fn live(&self) -> bool {
        false
    }

    fn length(&self) -> Option<u64> {
        None
    }

    fn marks_cuts(&self) -> bool {
        false
    }

    fn counts(&self) -> SourceCounts {
        self.counts.clone()
    }
}

/// Asks the decoder for size and rate, and finds the spelling of its options that it understands.
fn probe(tool: Tool, program: &Path, path: &Path, stall: Duration) -> Result<(Header, &'static str)> {
    let mut failure = None;
    for sync in tool.sync_options() {
        let (mut process, stdout) = Process::start(tool, tool.header_call(program, path, sync)?)?;
        match first_line(stdout, stall)? {
            Some(line) => {
                if let Some(header) = parse_header(&line) {
                    return Ok((header, sync));
                }
                failure = Some(format!("it answered `{}`", line.trim_end().escape_debug()));
            }
            None => {
                process.kill();
                return Err(stall_error(tool, path, stall, 0, &process.words().0));
            }
        }
        let status = process.finish(ENDING);
        let (words, _) = process.words();
        if !words.contains("Unrecognized option") {
            let how = status.map_or_else(|| "it did not end by itself".into(), |status| format!("{status}"));
            failure = Some(format!("{how}; {words}"));
            break;
        }
    }
    let (tool, path) = (tool.name(), path.display());
    let failure = failure.unwrap_or_default();
    Err(Error::work(format!(
        "{tool} cannot read the video {path} ({failure}). Is it a video that this {tool} can decode?"
    )))
}

/// The first line (at most 256 bytes) of `stdout`; `None` when it has not come within `stall`.
fn first_line(stdout: ChildStdout, stall: Duration) -> Result<Option<String>> {
    let (send, line) = crossbeam_channel::bounded(1);
    let work = move || {
        let mut text = Vec::new();
        // What cannot be read counts as said nothing.
        let _ = BufReader::new(stdout).take(256).read_until(b'\n', &mut text);
        let _ = send.send(String::from_utf8_lossy(&text).into_owned());
    };
    let thread = std::thread::Builder::new().name("decoder-header".into()).spawn(work);
    thread.map_err(|e| Error::work("cannot start the thread that reads the video decoder").because(e))?;
    Ok(line.recv_timeout(stall).ok())
}

fn stall_error(tool: Tool, path: &Path, stall: Duration, frames: u64, words: &str) -> Error {
    Error::work(format!(
        "the video decoder {} stalled: no byte for {} s (source.stall_secs) after {frames} frames of {}; {words}. It \
         was ended; try the file with another player, or a larger source.stall_secs on a slow disk",
        tool.name(),
        stall.as_secs_f64(),
        path.display()
    ))
}

#[cfg(test)]
mod tests;
