//! Child processes for live pipelines (`csi:`, `rtsp:`, `gst:`; [`PipelineSource`]) and videos (`file:`;
//! [`VideoSource`], decoded by `ffmpeg` or `gst-launch-1.0`).
//!
//! The child writes raw frames into a pipe. The pipe and two waiting frames are its only buffer, so it cannot run ahead
//! of its reader. It is killed when it stalls and when the source is dropped.
mod decoder;
mod duties;
mod stdin_feeder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(super) mod kind;
mod pipeline_source;
mod matroska;
mod mp4;
mod nut;
mod command_line;
mod media_probe;
mod process;
mod reader;
mod spawner;
mod stream;

use std::ffi::OsStr;
use std::io::{Cursor, Read, Seek};
use std::path::Path;
use std::time::{Duration, Instant};

use self::decoder::{Input, Tool};
pub(super) use self::duties::NO_PICTURE;
use self::kind::PACKET;
use self::media_probe::{Decoder, probe, stall_error};
pub use self::pipeline_source::PipelineSource;
use self::process::Process;
use self::reader::{Frames, Item};
use self::stdin_feeder::StdinFeeder;
use super::clock::FileClock;
use super::{Pull, Source, SourceCounts, stall_time};
use crate::config;
use crate::error::{Error, Result};
use crate::files::open_regular;
use crate::frame::{Frame, Timestamp};

/// How long a child may take to exit after it closed its pipe.
const ENDING: Duration = Duration::from_secs(2);

/// How much of a stream is kept until its size and rate are known; the larger sizes are used only if the smaller ones
/// were not enough.
const BEGINNINGS: [usize; 3] = [1 << 20, 1 << 23, 1 << 26];

/// A video as a source: a file, or a stream that can be read only once.
#[derive(Debug)]
pub struct VideoSource {
    /// The path of the file, or the name of the stream.
    name: String,
    tool: Tool,
    process: Process,
    /// Feeds the decoder's standard input, if it reads from there.
    feed: Option<StdinFeeder>,
    frames: Frames,
    /// The video has timestamps of its own.
    timed: bool,
    /// Frames per second if it does not.
    rate: f64,
    clock: FileClock,
    stall: Duration,
    /// When the last frame was taken; a decoder that waits for its reader is not stalled.
    last_taken: Instant,
    /// Number of frames decoded so far: the position of the next frame.
    decoded: u64,
    over: bool,
    counts: SourceCounts,
}

impl VideoSource {
    /// Starts to decode the video at `path`. Timestamps are the frames' own presentation times; the first frame is at
    /// 0.
    /// # Errors
    /// A runtime error: no such file, no decoder installed, or nothing in it that the decoder can decode.
    pub fn open(path: &Path, config: &config::Source) -> Result<Self> {
        Self::open_with(path, config, &std::env::var_os("PATH").unwrap_or_default())
    }

    /// [`VideoSource::open`] with a search path for decoders: `search`, a list of folders as in `PATH`.
    fn open_with(path: &Path, config: &config::Source, search: &OsStr) -> Result<Self> {
        let found = std::fs::metadata(path).map_err(|e| Error::io("cannot open the video", path, e))?;
        if !found.is_file() {
            let path = path.display();
            return Err(Error::runtime(format!("{path} is not a video file; folders of images are named dir:{path}")));
        }
        let failed = |e| Error::io("cannot open the video", path, e);
        let (mut file, mut head) = (open_regular(path).map_err(failed)?, Vec::new());
        (&mut file).take(512).read_to_end(&mut head).map_err(failed)?;
        if let Some(why) = kind::text(&head) {
            return Err(Error::runtime(format!("{} {why}", path.display())));
        }
        let (tool, program) = Tool::find(config.decoder, search)?;
        let (name, stall) = (path.display().to_string(), stall_time(config)?);
        limits_of(tool, &head, &name, false)?;
        let input = Input::File(path);
        let found = probe(tool, &program, input, &name, None, stall)?;
        file.rewind().map_err(failed)?;
        let decoder = Decoder { name, tool, program, stall, timed: !kind::bare(&head), colours: mp4::full_range(file) };
        decoder.start(input, found, None::<std::io::Empty>, config)
    }

    /// Decodes a video from `stream`, called `name` in messages: a container or elementary stream that can be decoded
    /// without seeking. Frames and timestamps are those of a file with the same bytes.
    /// # Errors
    /// A runtime error: no decoder installed, or nothing in it that the decoder can decode.
    pub(super) fn of_stream(
        name: &str,
        mut stream: impl Read + Send + 'static,
        config: &config::Source,
    ) -> Result<Self> {
        let search = std::env::var_os("PATH").unwrap_or_default();
        let (tool, program) = Tool::find(config.decoder, &search)?;
        let stall = stall_time(config)?;
        // A stream can be read only once, so its beginning is kept and decoded twice: for size and rate, then with the
        // rest.
        let mut beginning = Vec::new();
        (&mut stream).take(PACKET as u64 + 1).read_to_end(&mut beginning).map_err(|e| unread(name, e))?;
        limits_of(tool, &beginning, name, true)?;
        let mut decoder = Decoder { name: name.to_owned(), tool, program, stall, timed: true, colours: None };
        for most in BEGINNINGS {
            let more = (most - beginning.len()) as u64;
            let read = (&mut stream).take(more).read_to_end(&mut beginning);
            read.map_err(|e| unread(name, e))?;
            let last = beginning.len() < most || most == BEGINNINGS[BEGINNINGS.len() - 1];
            match probe(tool, &decoder.program, Input::Stream, &decoder.name, Some(&beginning), stall) {
                Ok(found) => {
                    decoder.timed = !kind::bare(&beginning);
                    decoder.colours = mp4::full_range(Cursor::new(&beginning));
                    return decoder.start(Input::Stream, found, Some(Cursor::new(beginning).chain(stream)), config);
                }
                Err(error) if last => return Err(error),
                Err(_) => {}
            }
        }
        Err(Error::runtime(format!("{} has no beginning", decoder.name)))
    }

    fn pull(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        if self.over {
            return Ok(Pull::End);
        }
        let now = Instant::now();
        let deadline = now.checked_add(wait);
        loop {
            let stalled = self.last_sign() + self.stall;
            match self.frames.next(deadline.map_or(stalled, |deadline| deadline.min(stalled))) {
                Some(Item::Frame(mut next, time)) => {
                    std::mem::swap(frame, &mut next);
                    self.frames.recycle(next);
                    frame.index = self.decoded;
                    frame.stamp = self.stamp(time);
                    frame.cut = false;
                    frame.arrived = None;
                    self.decoded += 1;
                    self.last_taken = Instant::now();
                    return Ok(Pull::Frame);
                }
                Some(Item::End(broken)) => return self.end(broken),
                None if Instant::now() >= self.last_sign() + self.stall => {
                    self.over = true;
                    return Err(self.stalled());
                }
                None if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Ok(Pull::Idle),
                None => {}
            }
        }
    }

    /// The timestamp of the next frame, whose presentation time is `time`.
    fn stamp(&mut self, time: Option<i64>) -> Timestamp {
        let before = self.clock.untimed;
        let stamp = self.clock.stamp(self.decoded, time.filter(|_| self.timed));
        if before == 0 && self.clock.untimed > 0 {
            let (name, index, rate) = (&self.name, self.decoded, self.rate);
            tracing::warn!(
                "the video {name} names no time for frame {index}, or one before that of the frame before; such frames follow \
                 the one before as that did (at first: {rate} frames per second) and are counted as untimed"
            );
        }
        stamp
    }

    /// When the decoder last made progress, or had nothing to do.
    fn last_sign(&self) -> Instant {
        let own = self.frames.last_byte().max(self.last_taken);
        self.feed.as_ref().map_or(own, |feed| own.max(feed.last_byte()))
    }

    fn stalled(&mut self) -> Error {
        self.process.kill();
        stall_error(self.tool, &self.name, self.stall, self.decoded, &self.process.words().0)
    }

    /// The stream of frames has ended: checks whether that was the end of the video.
    fn end(&mut self, broken: Option<String>) -> Result<Pull> {
        self.over = true;
        let status = self.process.finish(ENDING);
        let (words, complaints) = self.process.words();
        let (tool, path, count) = (self.tool.name(), &self.name, self.decoded);
        let how = match status {
            Some(status) => format!("{status}"),
            None => "it did not end by itself".into(),
        };
        let reason = broken.map(|reason| format!("{reason}; ")).unwrap_or_default();
        let whole = reason.is_empty() && status.is_some_and(|s| s.success());
        if count == 0 {
            return Err(Error::runtime(format!(
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

/// Rejects or warns about what `tool` cannot do with a video that begins with `head`.
fn limits_of(tool: Tool, head: &[u8], name: &str, piped: bool) -> Result<()> {
    if tool != Tool::Gstreamer {
        return Ok(());
    }
    if head.starts_with(kind::GIF) {
        return Err(Error::runtime(format!("the video {name} is a GIF, which GStreamer cannot read: install ffmpeg")));
    }
    if let Some(what) = kind::lost_by_gstreamer(head, piped) {
        tracing::warn!(
            "the video {name}: GStreamer {what}, so that stamps may come too early; ffmpeg tells them right"
        );
    }
    Ok(())
}

fn unread(name: &str, error: std::io::Error) -> Error {
    Error::runtime(format!("cannot read the video {name}")).with_source(error)
}

impl Source for VideoSource {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        let pull = self.pull(frame, wait)?;
        self.counts.frames += u64::from(pull == Pull::Frame);
        Ok(pull)
    }

    /// Decodes frames and discards them.
    fn skip_to(&mut self, index: u64) -> Result<()> {
        let mut scratch = Frame::default();
        while self.decoded < index {
            if self.pull(&mut scratch, self.stall)? == Pull::End {
                let (found, path) = (self.decoded, &self.name);
                return Err(Error::runtime(format!(
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
        SourceCounts { untimed: self.clock.untimed, ..self.counts.clone() }
    }
}

#[cfg(test)]
mod tests;
