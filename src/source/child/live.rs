//! `csi:`, `rtsp:` and `gst:`: live frames out of a child process. The newest one wins.
use std::ffi::OsStr;
use std::io::BufReader;
use std::process::ChildStdout;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ENDING;
use super::decoder::Tool;
use super::pipeline::{Call, advice};
use super::process::Process;
use super::reader::{Layout, read_frame};
use super::y4m::Y4m;
use crate::config;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::mailbox::{Mailbox, Taken};
use crate::source::uri::{Uri, redacted};
use crate::source::{Pull, Source, SourceCounts, clock, stall_time};

/// A frame, counted, and when it was read.
#[derive(Debug, Default)]
struct Read {
    frame: Frame,
    number: u64,
    at: Option<Instant>,
}

/// A live source that a child process feeds. The child is ended when it stalls and when this is dropped.
#[derive(Debug)]
pub struct Live {
    uri: Uri,
    call: Call,
    process: Process,
    mailbox: Arc<Mailbox<Read>>,
    read: Read,
    stall: Duration,
    last: Instant,
    /// Taken at the opening, and not handed out yet.
    first: bool,
    over: bool,
    counts: SourceCounts,
}

impl Live {
    /// Starts the child and waits for its first frame.
    /// # Errors
    /// Usage: no live source, or a pipeline that cannot be read. Work: a program is missing, the child fails; stalled: it
    /// gives no frame within `source.stall_secs`. The message has the call and the child's last words, without passwords.
    pub fn open(uri: &Uri, config: &config::Source) -> Result<Self> {
        Self::open_with(uri, config, &std::env::var_os("PATH").unwrap_or_default())
    }

    /// [`Live::open`] with programs looked for in `search`, a list of folders as in `PATH`.
    fn open_with(uri: &Uri, config: &config::Source, search: &OsStr) -> Result<Self> {
        let call = Call::new(uri, config, search)?;
        let stall = stall_time(config)?;
        let (process, stdout) = Process::start(call.tool, call.command())?;
        let mailbox = Arc::new(Mailbox::new());
        let (thread_mailbox, tool) = (mailbox.clone(), call.tool);
        let work = move || read(stdout, tool, &thread_mailbox);
        let thread = std::thread::Builder::new().name("live-frames".into()).spawn(work);
        thread.map_err(|e| Error::work("cannot start the thread that reads live frames").because(e))?;
        let (uri, read, last, counts) = (uri.clone(), Read::default(), Instant::now(), SourceCounts::default());
        let mut live = Self { uri, call, process, mailbox, read, stall, last, first: false, over: false, counts };
        match live.mailbox.take(&mut live.read, stall) {
            Taken::Fresh => {
                live.first = true;
                let (width, height) = (live.read.frame.width, live.read.frame.height);
                tracing::info!("{} gives frames of {width}x{height}", live.shown());
                Ok(live)
            }
            Taken::Nothing => Err(live.stalled()),
            Taken::Closed(reason) => Err(live.failed(&reason)),
        }
    }

    fn shown(&self) -> String {
        redacted(&self.call.shown())
    }

    /// The child's last words, and what to do about them. Ends it.
    fn words(&mut self) -> String {
        self.process.kill();
        let words = self.process.words().0;
        let advice = advice(&self.uri, &words);
        let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
        redacted(&format!("{words}{advice}"))
    }

    fn stalled(&mut self) -> Error {
        let (frames, secs, words) = (self.counts.frames, self.stall.as_secs_f64(), self.words());
        Error::stalled(format!(
            "no frame for {secs} s (source.stall_secs) after {frames} frames of `{}`, which was ended; {words}",
            self.shown()
        ))
    }

    fn failed(&mut self, reason: &str) -> Error {
        let status = self.process.finish(ENDING);
        let how = status.map_or_else(|| "it did not end by itself".to_owned(), |status| status.to_string());
        let (frames, words) = (self.counts.frames, self.words());
        Error::work(format!("`{}` failed after {frames} frames ({reason}, {how}); {words}", self.shown()))
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

impl Source for Live {
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
            Taken::Closed(reason) => {
                self.over = true;
                let well = reason == WHOLE && self.call.may_end;
                if well && self.process.finish(ENDING).is_some_and(|status| status.success()) {
                    return Ok(Pull::End);
                }
                Err(self.failed(&reason))
            }
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

impl Drop for Live {
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}

/// Why a stream closed that ended between two frames.
const WHOLE: &str = "its stream ended";

/// Reads frames to the end of the stream, or until nobody takes them; the pipe is never left full.
fn read(stdout: ChildStdout, tool: Tool, mailbox: &Mailbox<Read>) {
    let stream = BufReader::with_capacity(1 << 16, stdout);
    let outcome = match tool {
        Tool::Gstreamer => {
            let mut frames = Y4m::new(stream);
            each(mailbox, |frame| frames.next(frame))
        }
        Tool::Ffmpeg => {
            let mut stream = stream;
            each(mailbox, |frame| read_frame(&mut stream, Layout::Ppm, frame))
        }
    };
    mailbox.close(&outcome.err().map_or_else(|| WHOLE.to_owned(), |error| error.chain()));
}

fn each(mailbox: &Mailbox<Read>, mut next: impl FnMut(&mut Frame) -> Result<bool>) -> Result<()> {
    let (mut read, mut number) = (Read::default(), 0);
    while next(&mut read.frame)? {
        (read.number, read.at) = (number, Some(Instant::now()));
        number += 1;
        if !mailbox.put(&mut read) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::path::Path;

    /// With one of the scripts that play ffmpeg.
    fn open(script: &str) -> Result<Live> {
        let search = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/decoders").join(script);
        let config = config::Source { stall_secs: 0.5, decoder: "ffmpeg".into(), ..config::Source::default() };
        Live::open_with(&Uri::parse("rtsp://me:secret@host/a").unwrap(), &config, search.as_os_str())
    }

    /// Frames until it breaks, and how.
    fn broken(script: &str) -> (u64, Error) {
        let (mut live, mut frame) = (open(script).unwrap(), Frame::default());
        loop {
            match live.next(&mut frame, Duration::from_secs(5)) {
                Ok(Pull::End) => panic!("a network camera has no end"),
                Ok(_) => assert_eq!(frame.pixels, b"abcdef"),
                Err(error) => return (live.counts().frames, error),
            }
        }
    }

    #[test]
    fn a_child_that_fails_or_stalls_is_an_error_without_the_password() {
        for (script, kind, part) in [
            ("fails", crate::error::Kind::Work, "the disk is on fire"),
            ("breaks", crate::error::Kind::Work, "in the middle of a frame"),
            ("stalls", crate::error::Kind::Stalled, "last words"),
        ] {
            let (frames, error) = broken(script);
            assert_eq!(error.kind(), kind, "{script}");
            let text = error.chain();
            assert!(frames >= 1 && text.contains(part) && text.contains("-rtsp_transport tcp"), "{script}: {text}");
            assert!(text.contains("rtsp://me:***@host/a") && !text.contains("secret"), "{script}: {text}");
        }
    }

    #[test]
    fn the_newest_frame_wins_and_the_child_never_waits() {
        let (mut live, mut frame) = (open("plenty").unwrap(), Frame::default());
        let mut last = None;
        for _ in 0..3 {
            while live.next(&mut frame, Duration::from_secs(5)).unwrap() != Pull::Frame {}
            assert!(last.is_none_or(|last| frame.index > last) && frame.arrived.is_some());
            last = Some(frame.index);
            std::thread::sleep(Duration::from_millis(100));
        }
        let counts = live.counts();
        assert!(counts.frames == 3 && counts.dropped > 0, "{counts:?}");
        assert!(live.live() && live.skip_to(3).is_err());
    }
}
