//! Asks the decoder about a video (size, rate, and supported options), and starts decoding it.
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use super::decoder::{Header, Input, Tool, parse_header};
use super::duties::{plainly, unknown_option};
use super::process::Process;
use super::reader::Frames;
use super::stdin_feeder::StdinFeeder;
use super::{ENDING, VideoSource};
use crate::config;
use crate::error::{Error, Result};
use crate::source::SourceCounts;
use crate::source::clock::FileClock;

/// The decoder of one video.
pub(super) struct Decoder {
    pub(super) name: String,
    pub(super) tool: Tool,
    pub(super) program: PathBuf,
    pub(super) stall: Duration,
    /// False for elementary streams: their timestamps are the decoder's guess.
    pub(super) timed: bool,
    /// The colours that GStreamer must be told.
    pub(super) colours: Option<&'static str>,
}

impl Decoder {
    /// Starts the decoder on `input`; `stream`: the data for its standard input, if it reads from there.
    pub(super) fn start(
        self,
        input: Input,
        (header, sync): (Header, &'static str),
        stream: Option<impl Read + Send + 'static>,
        config: &config::Source,
    ) -> Result<VideoSource> {
        let Self { name, tool, program, stall, timed, colours } = self;
        // The rate for frames without their own timestamps.
        let rate = header.rate.unwrap_or(config.frame_rate);
        let (mut process, stdout) = Process::start(tool, tool.frames_call(&program, input, (header, sync), colours)?)?;
        let fed = process.take_stdin().zip(stream);
        let feed = fed.map(|(stdin, stream)| StdinFeeder::start(stdin, stream)).transpose()?;
        let frames = Frames::start(stdout)?;
        let (last_taken, counts, clock) = (Instant::now(), SourceCounts::default(), FileClock::new(rate));
        Ok(VideoSource {
            name,
            tool,
            process,
            feed,
            frames,
            timed,
            rate,
            clock,
            stall,
            last_taken,
            decoded: 0,
            over: false,
            counts,
        })
    }
}

/// Asks the decoder for size and rate, and finds the spelling of options that it supports. `beginning`: the first bytes
/// of a stream.
pub(super) fn probe(
    tool: Tool,
    program: &Path,
    input: Input,
    name: &str,
    beginning: Option<&[u8]>,
    stall: Duration,
) -> Result<(Header, &'static str)> {
    let mut failure = None;
    for sync in tool.sync_options() {
        let (mut process, stdout) = Process::start(tool, tool.header_call(program, input, sync)?)?;
        if let Some((stdin, bytes)) = process.take_stdin().zip(beginning) {
            StdinFeeder::start(stdin, Cursor::new(bytes.to_vec()))?;
        }
        match first_line(stdout, stall)? {
            Some(line) => {
                if let Some(header) = parse_header(&line) {
                    return Ok((header, sync));
                }
                failure = Some(format!("it answered `{}`", line.trim_end().escape_debug()));
            }
            None => {
                process.kill();
                return Err(stall_error(tool, name, stall, 0, &process.words().0));
            }
        }
        let status = process.finish(ENDING);
        let (words, _) = process.words();
        if let Some(plain) = plainly(&words) {
            return Err(Error::runtime(format!("the video {name} {plain}")));
        }
        if !unknown_option(&words) {
            let how = status.map_or_else(|| "it did not end by itself".into(), |status| format!("{status}"));
            failure = Some(format!("{how}; {words}"));
            break;
        }
    }
    let (tool, failure) = (tool.name(), failure.unwrap_or_default());
    Err(Error::runtime(format!(
        "{tool} cannot read the video {name} ({failure}). Is it a video that this {tool} can decode?"
    )))
}

/// The first line (at most 256 bytes) of `stdout`; `None` if it has not come within `stall`.
fn first_line(stdout: ChildStdout, stall: Duration) -> Result<Option<String>> {
    let (send, line) = crossbeam_channel::bounded(1);
    let work = move || {
        let mut text = Vec::new();
        // If reading fails, the line stays empty.
        let _ = BufReader::new(stdout).take(256).read_until(b'\n', &mut text);
        let _ = send.send(String::from_utf8_lossy(&text).into_owned());
    };
    let thread = std::thread::Builder::new().name("decoder-header".into()).spawn(work);
    thread.map_err(|e| Error::runtime("cannot start the thread that reads the video decoder").with_source(e))?;
    Ok(line.recv_timeout(stall).ok())
}

pub(super) fn stall_error(tool: Tool, name: &str, stall: Duration, frames: u64, words: &str) -> Error {
    Error::runtime(format!(
        "the video decoder {} stalled: no byte for {} s (source.stall_secs) after {frames} frames of {name}; {words}. It \
         was ended; try the file with another player, or a larger source.stall_secs on a slow disk",
        tool.name(),
        stall.as_secs_f64()
    ))
}
