//! The calls behind `csi:`, `rtsp:` and `gst:`, and what to do where one fails.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::decoder::Tool;
use crate::config;
use crate::error::{Error, Result};
use crate::source::address::Address;
use crate::source::uri::Uri;

/// What every pipeline of ours ends in: frames whose header names their size. Rows of a width that is no multiple of 8 are
/// padded, by some versions of y4menc in its stream too, and the header does not say so: such frames become the nearest size
/// that leaves no doubt.
const TAIL: &str = "videoconvert ! videoscale ! video/x-raw,format=I420,width=[8,16384,8],height=[2,16384,2] ! y4menc ! \
                    fdsink fd=1";
/// Packages of GStreamer.
const INSTALL: &str = "`apt install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
                       gstreamer1.0-libav`";

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) tool: Tool,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// An end without an error is the end of the source, not a fault.
    pub(super) may_end: bool,
}

impl Call {
    /// How the frames of `uri` are got, with the programs in `search`, a list as in `PATH`.
    /// # Errors
    /// Usage: a pipeline that cannot be read. Work: GStreamer (or ffmpeg) is not installed.
    pub(super) fn new(uri: &Uri, config: &config::Source, search: &OsStr) -> Result<Call> {
        match uri {
            Uri::Csi(number) => Self::pipeline(&csi(*number, config), search, false),
            Uri::Gst(pipeline) => {
                let text = pipeline.reveal();
                Self::pipeline(&format!("{} ! {TAIL}", text.strip_prefix("gst:").unwrap_or(text)), search, true)
            }
            Uri::Rtsp(address) => {
                let (tool, program) = Tool::find(&config.decoder, search)?;
                let address = address.reveal();
                match tool {
                    Tool::Ffmpeg => Ok(Call { tool, program, arguments: ffmpeg(address), may_end: false }),
                    Tool::Gstreamer => {
                        let convert = hardware(&program);
                        let mut arguments = vec!["-q".to_owned(), "rtspsrc".into(), format!("location={address}")];
                        // The address is one argument, whatever is in it.
                        let rest = format!(
                            "protocols=tcp latency=200 ! application/x-rtp,media=video ! decodebin ! {convert}{TAIL}"
                        );
                        arguments.extend(rest.split(' ').map(str::to_owned));
                        Ok(Call { tool, program, arguments, may_end: false })
                    }
                }
            }
            _ => Err(Error::usage("only csi:, rtsp: and gst: sources are pipelines")),
        }
    }

    fn pipeline(text: &str, search: &OsStr, may_end: bool) -> Result<Call> {
        let (tool, program) = Tool::find("gst-launch-1.0", search).map_err(|_| {
            Error::work(format!("csi: and gst: sources need gst-launch-1.0, which is not in PATH; {INSTALL}"))
        })?;
        let mut arguments = vec!["-q".to_owned()];
        arguments.extend(words(text)?);
        Ok(Call { tool, program, arguments, may_end })
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null());
        command
    }

    /// As one would type it.
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
         video/x-raw,format=I420 ! {TAIL}"
    )
}

fn ffmpeg(address: &str) -> Vec<String> {
    let before = "-hide_banner -nostdin -v error -rtsp_transport tcp -fflags nobuffer -i";
    let after = "-map 0:v:0 -an -f image2pipe -c:v ppm -pix_fmt rgb24 pipe:1";
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    [words(before), vec![address.to_owned()], words(after)].concat()
}

/// What brings frames out of the memory of a Jetson's decoder, where it has one: decodebin takes the decoder by itself.
fn hardware(program: &Path) -> &'static str {
    let inspect = program.with_file_name("gst-inspect-1.0");
    let mut command = Command::new(inspect);
    command.args(["--exists", "nvvidconv"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) { "nvvidconv ! video/x-raw,format=I420 ! " } else { "" }
}

/// Splits a pipeline into arguments as a shell does: white space between, `'...'`, `"..."` and `\` kept together.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match quote {
        Some(quote) => Err(Error::usage(format!(
            "the pipeline `{}` has a quote {quote} that is not closed",
            Address::new(&format!("gst:{text}"))
        ))),
        None => Ok(words),
    }
}

/// What to do about the last words of a child; empty where they say it themselves.
pub(super) fn advice(uri: &Uri, words: &str) -> &'static str {
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if matches!(uri, Uri::Rtsp(_)) {
        if says(&["401", "403", "nauthorized", "Not authorized", "Forbidden"]) {
            return "the camera refuses user and password; write rtsp://USER:PASSWORD@HOST/PATH";
        }
        if says(&["404", "Not Found", "Not found"]) {
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
            return "nothing answers there: check address, port (554 where none is named) and cable";
        }
    }
    if says(&["no element \"nvarguscamerasrc\""]) {
        return "csi: needs a Jetson with its camera software (nvidia-l4t-gstreamer); elsewhere use v4l2: or gst:";
    }
    if says(&["no element \"y4menc\"", "no element \"videoconvert\"", "no element \"videoscale\""]) {
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
        match Call::new(&uri, &config::Source::default(), folder.path().as_os_str()) {
            Ok(call) => call.shown(),
            Err(error) => error.chain(),
        }
    }

    #[test]
    fn pipelines_are_built_and_missing_programs_named() {
        const GST: &[&str] = &["gst-launch-1.0"];
        let csi = shown("csi://2", GST);
        for part in ["sensor-id=2", "width=640,height=480,framerate=30/1", "nvvidconv", "y4menc"] {
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
            ("404 Not Found", "no stream of that path"),
            ("else", ""),
        ] {
            assert!(advice(&rtsp, words).contains(part) && (part.is_empty() == advice(&rtsp, words).is_empty()));
        }
        assert!(
            advice(&Uri::Csi(0), "WARNING: erroneous pipeline: no element \"nvarguscamerasrc\"").contains("Jetson")
        );
    }
}
