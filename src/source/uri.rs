//! Parses the names of sources. Parsing opens nothing; whether a path exists is only known when the source is opened.
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::source::address::Address;
use crate::source::synthetic::SyntheticSpec;

/// The name of a source, by type.
#[derive(Clone, PartialEq)]
pub enum Uri {
    /// `v4l2:///dev/video0`, `v4l2:0`, `v4l2:name=...`, `v4l2:bus=...`: a live camera.
    Camera(CameraSelector),
    /// `csi://0`: a sensor on a Jetson's camera port, by its number.
    Csi(u32),
    /// `rtsp://host/path`: a network camera.
    Rtsp(Address),
    /// `http://host/path`: MJPEG or a playlist (HLS) on the network.
    Http(Address),
    /// `gst:PIPELINE`: the frames of a GStreamer pipeline. The text includes the scheme.
    Gst(Address),
    /// `dir:///frames`: a folder of images.
    Folder(PathBuf),
    /// `file:///clip.mp4`: a video file, or one image.
    Video(PathBuf),
    /// `pattern://SEED?frames=300`: synthetic frames.
    Pattern(SyntheticSpec),
    /// `-`: standard input.
    Input,
    /// A path without a scheme: a folder, a video file, an image or a device; decided when it is opened.
    Path(PathBuf),
}

impl std::fmt::Debug for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = |f: &mut std::fmt::Formatter<'_>, name: &str, of: &dyn std::fmt::Debug| {
            f.debug_tuple(name).field(of).finish()
        };
        // The path may be a mistyped address.
        let of_path = |path: &PathBuf| Address::new(&path.to_string_lossy());
        match self {
            Uri::Camera(wanted) => kind(f, "Camera", wanted),
            Uri::Csi(number) => kind(f, "Csi", number),
            Uri::Rtsp(address) => kind(f, "Rtsp", address),
            Uri::Http(address) => kind(f, "Http", address),
            Uri::Gst(pipeline) => kind(f, "Gst", pipeline),
            Uri::Folder(path) => kind(f, "Folder", &of_path(path)),
            Uri::Video(path) => kind(f, "Video", &of_path(path)),
            Uri::Pattern(recipe) => kind(f, "Pattern", recipe),
            Uri::Input => f.write_str("Input"),
            Uri::Path(path) => kind(f, "Path", &of_path(path)),
        }
    }
}

/// Selects a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameraSelector {
    /// By its device file, or a link to it.
    Path(PathBuf),
    /// By its name, which must be unique.
    Name(String),
    /// By the port where it is plugged in.
    Bus(String),
}

impl std::fmt::Display for CameraSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CameraSelector::Path(path) => write!(f, "{}", path.display()),
            CameraSelector::Name(name) => write!(f, "name={name}"),
            CameraSelector::Bus(bus) => write!(f, "bus={bus}"),
        }
    }
}

/// The supported sources, for messages.
const KNOWN: &str = "v4l2:///dev/video0 (camera), csi://0 (camera port of a Jetson), rtsp://host/path (network camera), \
                     http://host/path (MJPEG or HLS), gst:PIPELINE (GStreamer), dir:///frames (folder of images), file:///clip.mp4 (video file or image), \
                     pattern://SEED (synthetic), - (standard input), or a plain path to a camera, folder, video or image";

/// Every scheme.
const SCHEMES: &[&str] = &["v4l2", "csi", "rtsp", "rtsps", "http", "https", "gst", "dir", "file", "pattern"];

impl Uri {
    /// Parses the name of a source. Paths are used literally (no `%` escapes) and may be relative: `dir:frames`,
    /// `dir://frames` and `frames` name the same folder.
    /// # Errors
    /// A usage error: an empty name, an unknown scheme, or unknown or out-of-range options of `pattern:` (the message
    /// lists all of them).
    pub fn parse(text: &str) -> Result<Uri> {
        if text.is_empty() {
            return Err(Error::usage(format!("the name of the source is empty; known are {KNOWN}")));
        }
        let Some((scheme, whole)) = split_scheme(text) else {
            return Ok(if is_input(text) { Uri::Input } else { bare(text) });
        };
        let rest = whole.strip_prefix("//").unwrap_or(whole);
        match scheme.as_str() {
            "v4l2" => device(text, rest).map(Uri::Camera),
            "csi" => csi(text, rest).map(Uri::Csi),
            "rtsp" | "rtsps" => network(text, &scheme, whole).map(Uri::Rtsp),
            "http" | "https" => network(text, &scheme, whole).map(Uri::Http),
            // The pipeline is used literally: it may begin with anything.
            "gst" => gst(whole).map(Uri::Gst),
            "dir" => path(text, rest).map(Uri::Folder),
            "file" => path(text, rest).map(Uri::Video),
            "pattern" => pattern(text, rest).map(Uri::Pattern),
            _ => Err(Error::usage(format!(
                "unknown kind of source `{scheme}:` in {}; known are {KNOWN}",
                Address::new(text)
            ))),
        }
    }
}

impl Uri {
    /// The address, if the source is on the network or a pipeline that may contain one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Uri::Rtsp(address) | Uri::Http(address) | Uri::Gst(address) => Some(address),
            _ => None,
        }
    }

    /// `words` without the secrets of this source.
    pub(super) fn scrub(&self, words: &str) -> String {
        self.address().map_or_else(|| words.to_owned(), |address| address.scrub(words))
    }
}

/// True for the name of standard input, which can be read only once.
pub fn is_input(text: &str) -> bool {
    text == "-"
}

/// `(scheme in lower case, rest)`. A colon ends a scheme if the word before it is a known scheme, or `//` follows;
/// otherwise it is part of a file name.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (before, rest) = text.split_once(':')?;
    let word = before.starts_with(|c: char| c.is_ascii_alphabetic())
        && before.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let scheme = before.to_ascii_lowercase();
    let known = SCHEMES.contains(&scheme.as_str());
    (word && (known || rest.starts_with("//"))).then_some((scheme, rest))
}

fn bare(text: &str) -> Uri {
    let camera =
        text.strip_prefix("/dev/video").is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    if camera { Uri::Camera(CameraSelector::Path(text.into())) } else { Uri::Path(text.into()) }
}

fn csi(text: &str, rest: &str) -> Result<u32> {
    match rest.parse() {
        Ok(number) if number < 64 => Ok(number),
        _ => Err(Error::usage(format!("{text}: the number of a sensor is wanted, 0 to 63, as in csi://0"))),
    }
}

/// `whole` includes the slashes.
fn network(text: &str, scheme: &str, whole: &str) -> Result<Address> {
    let rest = whole.strip_prefix("//").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // `admin:Pa#word@host` would parse as the host `admin` with the port `Pa`.
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|_| !host.ends_with(']'));
    let cut = rest.contains('@') && port.is_some_and(|port| port.parse::<u16>().is_err());
    if host.is_empty() || cut || whole.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Error::usage(format!(
            "{}: write {scheme}://HOST/PATH or {scheme}://USER:PASSWORD@HOST:PORT/PATH, and characters of the password \
             that mean something in an address as # %23, / %2F, ? %3F, @ %40, : %3A, & %26, % %25, a blank %20",
            Address::new(text)
        )));
    }
    Ok(Address::new(&format!("{scheme}:{whole}")))
}

fn gst(pipeline: &str) -> Result<Address> {
    let pipeline = pipeline.trim();
    if pipeline.is_empty() {
        return Err(Error::usage("gst: names no pipeline; write for instance 'gst:videotestsrc is-live=true'"));
    }
    Ok(Address::new(&format!("gst:{pipeline}")))
}

fn path(text: &str, rest: &str) -> Result<PathBuf> {
    if rest.is_empty() {
        return Err(Error::usage(format!(
            "{text} names no path; write for instance dir:///frames or file:///clip.mp4"
        )));
    }
    Ok(rest.into())
}

fn device(text: &str, rest: &str) -> Result<CameraSelector> {
    let named = |key: &str| rest.strip_prefix(key).map(str::to_owned);
    if let Some(name) = named("name=") {
        return if name.is_empty() { Err(no_device(text)) } else { Ok(CameraSelector::Name(name)) };
    }
    if let Some(bus) = named("bus=") {
        return if bus.is_empty() { Err(no_device(text)) } else { Ok(CameraSelector::Bus(bus)) };
    }
    if rest.is_empty() {
        return Err(no_device(text));
    }
    if let Some((_, options)) = rest.split_once('?') {
        return Err(Error::usage(format!(
            "v4l2 sources take no options (found `?{options}` in {text}); set source.camera_width, \
             source.camera_height, source.camera_frame_rate and source.camera_pixels in the config"
        )));
    }
    Ok(CameraSelector::Path(match rest.parse::<u32>() {
        Ok(number) => format!("/dev/video{number}").into(),
        Err(_) => rest.into(),
    }))
}

fn no_device(text: &str) -> Error {
    Error::usage(format!(
        "{text} names no device; write for instance v4l2:///dev/video0, v4l2:0, v4l2:name=NAME or v4l2:bus=BUS"
    ))
}

fn pattern(text: &str, rest: &str) -> Result<SyntheticSpec> {
    let (seed, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut recipe = SyntheticSpec::default();
    let mut problems = Vec::new();
    if !seed.is_empty() {
        match seed.parse() {
            Ok(seed) => recipe.seed = seed,
            Err(_) => problems.push(format!("the seed `{seed}` is no whole number from 0 to {}", u64::MAX)),
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for option in query.split('&').filter(|o| !o.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        if seen.contains(&key) {
            problems.push(format!("`{key}` is given twice"));
        }
        seen.push(key);
        if let Err(problem) = recipe.set(key, value) {
            problems.push(problem);
        }
    }
    if problems.is_empty() {
        problems.extend(recipe.check());
    }
    if problems.is_empty() {
        return Ok(recipe);
    }
    Err(Error::usage(format!("cannot use {text}: {}", problems.join("; "))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "uri_tests.rs"]
mod tests;
