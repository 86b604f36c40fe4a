//! The command lines behind `csi:`, `rtsp:` and `gst:`, and advice for when one fails.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::decoder::Tool;
use super::duties;
use crate::config::{self, Decoder};
use crate::error::{Error, Result};
use crate::source::address::Address;
use crate::source::uri::Uri;

/// Packages of GStreamer.
const INSTALL: &str = "`apt install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
                       gstreamer1.0-libav`";

/// Extensions of playlists and video files: these sources have their own pace and may end.
const PACED: [&str; 9] = [".m3u8", ".mpd", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"];

/// Where distributions keep the trusted CA certificates.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// ffmpeg options for a network camera.
const RTSP: &[(&str, &str)] = &[("rtsp_transport", "tcp")];

/// The end of every GStreamer pipeline.
fn tail() -> String {
    format!("{} ! {} ! fdsink fd=1", duties::GSTREAMER_PICTURE, duties::GSTREAMER_OUTPUT)
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CommandLine {
    pub(super) tool: Tool,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// The arguments for older versions of the program, if they differ.
    older: Option<Vec<String>>,
    /// The call that keeps an address with secrets out of the arguments, which every user of the machine can read.
    discreet: Option<Discreet>,
    /// If the program ends without an error, the source has ended; it is not a failure.
    pub(super) may_end: bool,
}

/// A call that reads its address from standard input.
#[derive(Debug, Clone, PartialEq)]
struct Discreet {
    arguments: Vec<String>,
    /// The text for standard input.
    list: String,
}

impl CommandLine {
    /// The command that delivers the frames of `uri`. Looks for programs in `search`, a list as in `PATH`.
    /// # Errors
    /// A usage error: an invalid pipeline. A runtime error: GStreamer (or ffmpeg) is not installed.
    pub(super) fn new(uri: &Uri, config: &config::Source, search: &OsStr) -> Result<CommandLine> {
        match uri {
            Uri::Csi(number) => Self::pipeline(&csi(*number, config), search, false),
            Uri::Gst(pipeline) => {
                let text = pipeline.reveal();
                Self::pipeline(&format!("{} ! {}", text.strip_prefix("gst:").unwrap_or(text), tail()), search, true)
            }
            Uri::Rtsp(address) => {
                let (tool, program) = Tool::find(config.decoder, search)?;
                match tool {
                    Tool::Ffmpeg => Ok(Self::ffmpeg(program, address, RTSP, "-fflags nobuffer", false)),
                    Tool::Gstreamer => {
                        let address = address.reveal();
                        let convert = hardware(&program);
                        let mut arguments = vec!["-q".to_owned(), "rtspsrc".into(), format!("location={address}")];
                        // The address is a single argument, whatever it contains.
                        let rest = format!(
                            "protocols=tcp latency=200 ! application/x-rtp,media=video ! decodebin ! {convert}{}",
                            tail()
                        );
                        arguments.extend(rest.split(' ').map(str::to_owned));
                        Ok(CommandLine { tool, program, arguments, older: None, discreet: None, may_end: false })
                    }
                }
            }
            Uri::Http(address) => {
                let (_, program) = Tool::find(Decoder::Ffmpeg, search)
                    .map_err(|e| Error::runtime("http: and https: sources need ffmpeg").with_source(e.chain()))?;
                // A playlist or video file delivers seconds at once, must be played at its own pace, and may end; a
                // camera never ends.
                let path = address.reveal().split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
                let paced = PACED.iter().any(|end| path.ends_with(end));
                let options = if paced { "-re" } else { "-fflags nobuffer" };
                let tls = address.reveal().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
                let own = if tls { trusted(&config.certificates)? } else { Vec::new() };
                Ok(Self::ffmpeg(program, address, &own, options, paced))
            }
            _ => Err(Error::usage("only csi:, rtsp:, http: and gst: sources are pipelines")),
        }
    }

    /// `own`: options of the protocol; `options`: options of the input.
    fn ffmpeg(program: PathBuf, address: &Address, own: &[(&str, &str)], options: &str, may_end: bool) -> CommandLine {
        let words = own.iter().flat_map(|(name, value)| [format!("-{name}"), (*value).to_owned()]).collect::<Vec<_>>();
        let [arguments, older] = duties::FFMPEG_SYNC.map(|sync| ffmpeg(address.reveal(), &words, options, sync));
        let discreet = address.has_secrets().then(|| {
            let [new, _] = duties::FFMPEG_SYNC;
            let list = duties::ffmpeg_list(address.reveal(), own);
            Discreet { arguments: ffmpeg("pipe:0", &[], &format!("{options} {}", duties::FFMPEG_LIST), new), list }
        });
        CommandLine { tool: Tool::Ffmpeg, program, arguments, older: Some(older), discreet, may_end }
    }

    /// Switches once to the arguments for older versions; false if there are none. Older versions take no options from
    /// a list either.
    pub(super) fn fall_back(&mut self) -> bool {
        self.discreet = None;
        self.older.take().map(|older| self.arguments = older).is_some()
    }

    fn pipeline(text: &str, search: &OsStr, may_end: bool) -> Result<CommandLine> {
        let (tool, program) = Tool::find(Decoder::Gstreamer, search).map_err(|_| {
            Error::runtime(format!("csi: and gst: sources need gst-launch-1.0, which is not in PATH; {INSTALL}"))
        })?;
        let mut arguments = vec!["-q".to_owned()];
        arguments.extend(words(text)?);
        Ok(CommandLine { tool, program, arguments, older: None, discreet: None, may_end })
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        match &self.discreet {
            Some(discreet) => command.args(&discreet.arguments).stdin(Stdio::piped()),
            None => command.args(&self.arguments).stdin(Stdio::null()),
        };
        command
    }

    /// The text for the child's standard input.
    pub(super) fn list(&self) -> Option<&str> {
        self.discreet.as_ref().map(|discreet| discreet.list.as_str())
    }

    /// The command as a user would type it.
    pub(super) fn shown(&self) -> String {
        let quoted = |word: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
            if word.chars().all(plain) { word.clone() } else { format!("'{word}'") }
        };
        format!("{} {}", self.tool.name(), self.arguments.iter().map(quoted).collect::<Vec<_>>().join(" "))
    }
}

fn csi(number: u32, config: &config::Source) -> String {
    let (width, height) = (config.camera_width, config.camera_height);
    let millis = (config.camera_frame_rate * 1000.0).round();
    let rate = if millis % 1000.0 == 0.0 { format!("{}/1", millis / 1000.0) } else { format!("{millis}/1000") };
    format!(
        "nvarguscamerasrc sensor-id={number} ! \
         video/x-raw(memory:NVMM),format=NV12,width={width},height={height},framerate={rate} ! nvvidconv ! \
         video/x-raw,format=I420 ! {}",
        tail()
    )
}

/// `own` and `options`: how to read the input.
fn ffmpeg(address: &str, own: &[String], options: &str, sync: &str) -> Vec<String> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let after = words(&format!("{} {sync} passthrough {}", duties::FFMPEG_FILM, duties::FFMPEG_OUTPUT));
    let input = words(options).into_iter().chain(["-i".to_owned(), address.to_owned()]);
    words(duties::FFMPEG_INPUT).into_iter().chain(own.iter().cloned()).chain(input).chain(after).collect()
}

/// The ffmpeg options that select the trusted certificates (by default ffmpeg trusts all).
fn trusted(certificates: &str) -> Result<Vec<(&'static str, &str)>> {
    let verify = ("tls_verify", "1");
    match certificates {
        "any" => Ok(Vec::new()),
        "system" if Path::new(AUTHORITIES).is_file() => Ok(vec![verify, ("ca_file", AUTHORITIES)]),
        "system" => Ok(vec![verify]),
        file if Path::new(file).is_file() => Ok(vec![verify, ("ca_file", file)]),
        file => Err(Error::config(format!(
            "source.certificates = \"{file}\" is no file; name one of certificates (PEM), \"system\" or \"any\""
        ))),
    }
}

/// The element that copies frames out of the memory of a Jetson's hardware decoder, if there is one; decodebin picks
/// the decoder by itself.
fn hardware(program: &Path) -> &'static str {
    let inspect = program.with_file_name("gst-inspect-1.0");
    let mut command = Command::new(inspect);
    command.args(["--exists", "nvvidconv"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) { "nvvidconv ! video/x-raw,format=I420 ! " } else { "" }
}

/// Splits a pipeline into arguments as a shell does.
fn words(text: &str) -> Result<Vec<String>> {
    shlex::split(text).ok_or_else(|| {
        Error::usage(format!(
            "the pipeline `{}` has a quote that is not closed, or ends in a backslash",
            Address::new(&format!("gst:{text}"))
        ))
    })
}

/// What to do about the last error output of a child; empty if the output says it.
pub(super) fn advice(uri: &Uri, words: &str) -> &'static str {
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if matches!(uri, Uri::Rtsp(_) | Uri::Http(_)) {
        // No numbers: they may be port numbers.
        if says(&["nauthorized", "Not authorized", "Forbidden"]) {
            return match uri {
                Uri::Http(_) => "the camera refuses user and password; write http://USER:PASSWORD@HOST/PATH",
                _ => "the camera refuses user and password; write rtsp://USER:PASSWORD@HOST/PATH",
            };
        }
        if says(&["certificate failed verification", "certificate verify failed"]) {
            return "the certificate of the server is not trusted; where it is the camera's own, name its file (PEM) with --set \
                    source.certificates=FILE, or trust whatever answers there with source.certificates=any";
        }
        if says(&["Not Found", "Not found"]) {
            return "the camera has no stream of that path; its manual names it";
        }
        if says(&[
            "refused",
            "No route",
            "unreachable",
            "resolve",
            "Name or service",
            "timed out",
            "connect to",
            "Failed to connect",
        ]) {
            return "nothing answers there: check address, port (rtsp: 554, http: 80 where none is named) and cable";
        }
    }
    if says(&["no element \"nvarguscamerasrc\""]) {
        return "csi: needs a Jetson with its camera software (nvidia-l4t-gstreamer); elsewhere use v4l2: or gst:";
    }
    if says(&["no element \"matroskamux\"", "no element \"videoconvert\"", "no element \"videoscale\""]) {
        return "install gstreamer1.0-plugins-base and gstreamer1.0-plugins-good";
    }
    if says(&["No cameras available", "Failed to create CaptureSession"]) {
        return "no sensor answers; check the ribbon cable, and restart nvargus-daemon";
    }
    ""
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A folder with programs of these names.
    fn programs(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::write(&path, "#!/bin/sh\nexit 1\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    fn shown(uri: &str, names: &[&str]) -> String {
        let folder = programs(names);
        let uri = Uri::parse(uri).unwrap();
        match CommandLine::new(&uri, &config::Source::default(), folder.path().as_os_str()) {
            Ok(call) => call.shown(),
            Err(error) => error.chain(),
        }
    }

    #[test]
    fn pipelines_are_built_and_missing_programs_named() {
        const GST: &[&str] = &["gst-launch-1.0"];
        let csi = shown("csi://2", GST);
        for part in ["sensor-id=2", "width=640,height=480,framerate=30/1", "nvvidconv", "matroskamux"] {
            assert!(csi.contains(part), "{part}: {csi}");
        }
        let own = shown("gst:videotestsrc pattern=\"ball\" ! 'video/x-raw, width=64'", GST);
        assert!(
            own.starts_with("gst-launch-1.0 -q videotestsrc pattern=ball '!' 'video/x-raw, width=64' '!' videoc"),
            "{own}"
        );
        let network = shown("rtsp://h/a?x=1&y=2", GST);
        assert!(network.contains("location=rtsp://h/a?x=1&y=2'") && network.contains("protocols=tcp"), "{network}");
        assert!(shown("rtsp://h/a", &["ffmpeg"]).contains("-rtsp_transport tcp"));
        assert!(shown("http://h/a.M3U8?x=.1", &["ffmpeg"]).contains(" -re -i "));
        assert!(shown("http://h/video.cgi?x=a.m3u8", &["ffmpeg"]).contains(" -fflags nobuffer -i "));
        for uri in ["csi://0", "gst:x"] {
            let none = shown(uri, &["ffmpeg"]);
            assert!(none.contains("gst-launch-1.0, which is not in PATH") && none.contains("apt install"), "{none}");
        }
        assert!(shown("rtsp://h/a", &[]).contains("apt install ffmpeg"));
        assert!(shown("gst:x \"y", GST).contains("not closed"));
    }

    #[test]
    fn last_words_are_explained() {
        let rtsp = Uri::parse("rtsp://h/a").unwrap();
        for (words, part) in [
            ("method DESCRIBE failed: 401 Unauthorized", "USER:PASSWORD"),
            ("Connection refused", "nothing answers"),
            ("Failed to connect. (Generic error)", "nothing answers"),
            ("tcp://127.0.0.1:40401 failed: Connection refused", "nothing answers"),
            ("404 Not Found", "no stream of that path"),
            ("[tls @ 0x1] Peer certificate failed verification", "source.certificates=FILE"),
            ("else", ""),
        ] {
            assert!(advice(&rtsp, words).contains(part) && (part.is_empty() == advice(&rtsp, words).is_empty()));
        }
        assert!(
            advice(&Uri::Csi(0), "WARNING: erroneous pipeline: no element \"nvarguscamerasrc\"").contains("Jetson")
        );
    }
}
