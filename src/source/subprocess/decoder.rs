//! Which program decodes a video, and its command lines.
//!
//! Each decoder has two short command lines: one that reports size and frame rate (the header of a YUV4MPEG2 stream,
//! which both programs write), and one that writes the frames.
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::duties;
use crate::config::Decoder;
use crate::error::{Error, Result};
use crate::files::open_regular;

/// A program that decodes videos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Ffmpeg,
    Gstreamer,
}

/// Where the decoder reads the video.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    File(&'a Path),
    /// Standard input, through a feeder.
    Stream,
}

/// Size and frames per second from the stream header.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    /// `None` if the video has no rate, or one that no camera has.
    pub(super) rate: Option<f64>,
}

/// Higher rates are time bases of files without a frame rate.
const MAX_RATE: f64 = 480.0;

impl Tool {
    /// The program's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Tool::Ffmpeg => "ffmpeg",
            Tool::Gstreamer => "gst-launch-1.0",
        }
    }

    /// The requested program (`auto`, `ffmpeg` or `gst-launch-1.0`) and its path in `search`, a list as in `PATH`.
    /// # Errors
    /// A runtime error: not installed; the message says what to install.
    pub(super) fn find(asked: Decoder, search: &OsStr) -> Result<(Tool, PathBuf)> {
        let tools: &[Tool] = match asked {
            Decoder::Auto => &[Tool::Ffmpeg, Tool::Gstreamer],
            Decoder::Ffmpeg => &[Tool::Ffmpeg],
            Decoder::Gstreamer => &[Tool::Gstreamer],
        };
        for tool in tools {
            for folder in std::env::split_paths(search) {
                let program = folder.join(tool.name());
                let runs = |m: std::fs::Metadata| m.is_file() && m.permissions().mode() & 0o111 != 0;
                if std::fs::metadata(&program).is_ok_and(runs) {
                    return Ok((*tool, program));
                }
            }
        }
        Err(Error::runtime(format!(
            "no video decoder found in PATH (source.decoder = \"{asked}\"); install ffmpeg (`apt install ffmpeg`), or \
             gst-launch-1.0 (`apt install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
             gstreamer1.0-libav`)"
        )))
    }

    /// The command that writes a YUV4MPEG2 stream whose first line is the header. `sync`: see [`Tool::sync_options`].
    pub(super) fn header_call(self, program: &Path, video: Input, sync: &str) -> Result<Command> {
        match self {
            Tool::Ffmpeg => {
                let tail = "-frames:v 1 -vf scale=16:16 -pix_fmt yuv420p -f yuv4mpegpipe pipe:1";
                Ok(ffmpeg(program, video, sync, tail))
            }
            // The last element is not part of the pipeline's output: it only tests whether that option is supported.
            Tool::Gstreamer => {
                let picture = duties::GSTREAMER_PICTURE;
                let rest = format!("{picture} ! videoconvert ! y4menc ! fdsink fd=1 matroskamux {sync}");
                gstreamer(program, video, &rest)
            }
        }
    }

    /// The command that writes every frame in order, without repeating or dropping any. `colours`: in GStreamer's
    /// notation, if it does not detect them.
    pub(super) fn frames_call(
        self,
        program: &Path,
        video: Input,
        (header, sync): (Header, &str),
        colours: Option<&str>,
    ) -> Result<Command> {
        match self {
            Tool::Ffmpeg => Ok(ffmpeg(program, video, sync, duties::FFMPEG_OUTPUT)),
            Tool::Gstreamer => {
                let Header { width, height, .. } = header;
                let output = duties::GSTREAMER_OUTPUT;
                let size = format!("video/x-raw,format=RGB,width={width},height={height}");
                let decoded = colours.map(duties::gstreamer_colours).unwrap_or_default();
                let rest = format!(
                    "{decoded}{} ! videoscale ! {size} ! {output} {sync} ! fdsink fd=1",
                    duties::GSTREAMER_PICTURE
                );
                gstreamer(program, video, &rest)
            }
        }
    }

    /// Spellings of options that differ between versions, newest first.
    pub(super) fn sync_options(self) -> &'static [&'static str] {
        match self {
            Tool::Ffmpeg => duties::FFMPEG_SYNC,
            Tool::Gstreamer => duties::GSTREAMER_TICKS,
        }
    }

    /// True for a line on standard error that reports damage in the video. Other lines are about the program itself.
    pub(super) fn complains(self, line: &str) -> bool {
        match self {
            // Its NUT writer comments on timestamps.
            Tool::Ffmpeg => !line.trim().is_empty() && !line.starts_with("[nut"),
            Tool::Gstreamer => line.starts_with("ERROR"),
        }
    }
}

fn ffmpeg(program: &Path, video: Input, sync: &str, tail: &str) -> Command {
    let (input, stdin) = match video {
        // `file:` keeps names such as `-x.mp4` or `http:x` from being read as something else.
        Input::File(path) => {
            let mut input = OsString::from("file:");
            input.push(path);
            (input, Stdio::null())
        }
        Input::Stream => ("pipe:0".into(), Stdio::piped()),
    };
    let mut command = Command::new(program);
    command.args(duties::FFMPEG_INPUT.split(' ')).arg("-i").arg(input).args(duties::FFMPEG_FILM.split(' '));
    command.args([sync, "passthrough"]).args(tail.split(' ')).stdin(stdin);
    command
}

fn gstreamer(program: &Path, video: Input, rest: &str) -> Result<Command> {
    let (stdin, source) = match video {
        // The file is passed as an open descriptor, so that no character in its name has a special meaning, and read as
        // a file: a pipe would lose frames of an MP4 whose video starts late.
        Input::File(path) => {
            let file = open_regular(path).map_err(|e| Error::io("cannot open the video", path, e))?;
            (Stdio::from(file), "filesrc location=/dev/stdin")
        }
        Input::Stream => (Stdio::piped(), "fdsrc fd=0"),
    };
    let pipeline = format!("{source} ! decodebin ! {rest}");
    let mut command = Command::new(program);
    command.arg("-q").args(pipeline.split(' ')).stdin(stdin);
    Ok(command)
}

/// Parses `YUV4MPEG2 W160 H120 F30000:1001 ...`.
pub(super) fn parse_header(line: &str) -> Option<Header> {
    let mut words = line.trim_end().split(' ');
    if words.next() != Some("YUV4MPEG2") {
        return None;
    }
    let (mut width, mut height, mut rate) = (None, None, None);
    for word in words {
        let Some((tag, value)) = word.split_at_checked(1) else { continue };
        match tag {
            "W" => width = value.parse().ok(),
            "H" => height = value.parse().ok(),
            "F" => rate = value.split_once(':').and_then(|(n, d)| fraction(n, d)),
            _ => {}
        }
    }
    Some(Header { width: width?, height: height?, rate })
}

fn fraction(numerator: &str, denominator: &str) -> Option<f64> {
    let rate = f64::from(numerator.parse::<u32>().ok()?) / f64::from(denominator.parse::<u32>().ok()?);
    (rate > 0.0 && rate <= MAX_RATE).then_some(rate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn headers_are_read() {
        let header = parse_header("YUV4MPEG2 W160 H120 F30000:1001 Ip A4:3 C420mpeg2\n").unwrap();
        assert_eq!((header.width, header.height), (160, 120));
        assert!((header.rate.unwrap() - 29.97).abs() < 1e-3);
        for none in ["F0:0", "F1000:1", "F25", "Fx:1", "F5:0", ""] {
            assert_eq!(parse_header(&format!("YUV4MPEG2 W2 H2 {none}")).unwrap().rate, None, "{none}");
        }
        for bad in ["", "P6", "YUV4MPEG2 W160", "YUV4MPEG2 W-1 H2", "YUV4MPEG2 W99999999999 H2"] {
            assert_eq!(parse_header(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_decoder_that_is_not_there_is_named_with_its_packages() {
        let empty = tempfile::tempdir().unwrap();
        let message = Tool::find(Decoder::Auto, empty.path().as_os_str()).unwrap_err().chain();
        assert!(message.contains("apt install ffmpeg") && message.contains("gstreamer1.0-libav"), "{message}");
        // A file that is not executable is not a decoder.
        std::fs::write(empty.path().join("ffmpeg"), b"").unwrap();
        assert!(Tool::find(Decoder::Ffmpeg, empty.path().as_os_str()).is_err());
    }
}
