//! Names of sources, as text. Parsing opens nothing; whether a path exists is seen when the source is opened.
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::source::pattern::Recipe;

/// What a source is called, by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Uri {
    /// `v4l2:///dev/video0`, `v4l2:0`, `v4l2:name=...`, `v4l2:bus=...`: a live camera.
    Camera(Wanted),
    /// `csi://0`: a sensor on a Jetson's camera port, by its number.
    Csi(u32),
    /// `rtsp://host/path`: a camera in the network. As given, password and all.
    Rtsp(String),
    /// `gst:PIPELINE`: the frames of a GStreamer pipeline.
    Gst(String),
    /// `dir:///frames`: a folder of images.
    Folder(PathBuf),
    /// `file:///clip.mp4`: a video file, or one image.
    Video(PathBuf),
    /// `pattern://SEED?frames=300`: synthetic frames.
    Pattern(Recipe),
    /// `-`: what comes on standard input.
    Input,
    /// A path without a scheme: a folder, a video file, an image or a device, whichever is there when it is opened.
    Path(PathBuf),
}

/// Which camera is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The one of this device file, or of a link to it.
    Path(PathBuf),
    /// The only one of this name.
    Name(String),
    /// The one that is plugged in there.
    Bus(String),
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Path(path) => write!(f, "{}", path.display()),
            Wanted::Name(name) => write!(f, "name={name}"),
            Wanted::Bus(bus) => write!(f, "bus={bus}"),
        }
    }
}

/// What can be opened, for messages.
const KNOWN: &str = "v4l2:///dev/video0 (camera), csi://0 (camera port of a Jetson), rtsp://host/path (network camera), \
                     gst:PIPELINE (GStreamer), dir:///frames (folder of images), file:///clip.mp4 (video file or image), \
                     pattern://SEED (synthetic), - (standard input), or a plain path to a camera, folder, video or image";

/// Every scheme.
const SCHEMES: &[&str] = &["v4l2", "csi", "rtsp", "rtsps", "gst", "dir", "file", "pattern"];

impl Uri {
    /// Reads the name of a source. Paths are taken as they stand (no `%` escapes) and may be relative:
    /// `dir:frames`, `dir://frames` and `frames` name the same folder.
    /// # Errors
    /// Usage: empty, a scheme that is not known, options of `pattern:` that are not known or out
    /// of range (all of them at once).
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
            "rtsp" | "rtsps" => rtsp(text, &scheme, whole).map(Uri::Rtsp),
            // The pipeline as it stands: it may begin with anything.
            "gst" => gst(whole).map(Uri::Gst),
            "dir" => path(text, rest).map(Uri::Folder),
            "file" => path(text, rest).map(Uri::Video),
            "pattern" => pattern(text, rest).map(Uri::Pattern),
            _ => Err(Error::usage(format!(
                "unknown kind of source `{scheme}:` in {}; known are {KNOWN}",
                redacted(text)
            ))),
        }
    }
}

/// True for the name of standard input, which can be read once and not again.
pub fn is_input(text: &str) -> bool {
    text == "-"
}

/// `(scheme in lower case, rest)`. A colon makes a scheme when the word before it is one we know, or `//` follows;
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
    if camera { Uri::Camera(Wanted::Path(text.into())) } else { Uri::Path(text.into()) }
}

fn csi(text: &str, rest: &str) -> Result<u32> {
    match rest.parse() {
        Ok(number) if number < 64 => Ok(number),
        _ => Err(Error::usage(format!("{text}: the number of a sensor is wanted, 0 to 63, as in csi://0"))),
    }
}

/// `whole` begins with the slashes.
fn rtsp(text: &str, scheme: &str, whole: &str) -> Result<String> {
    let host = whole.strip_prefix("//").and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if host.is_empty() || whole.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Error::usage(format!(
            "{}: write rtsp://HOST/PATH or rtsp://USER:PASSWORD@HOST:PORT/PATH, without spaces",
            redacted(text)
        )));
    }
    Ok(format!("{scheme}:{whole}"))
}

fn gst(pipeline: &str) -> Result<String> {
    let pipeline = pipeline.trim();
    if pipeline.is_empty() {
        return Err(Error::usage("gst: names no pipeline; write for instance 'gst:videotestsrc is-live=true'"));
    }
    Ok(pipeline.to_owned())
}

/// `text` with the password of every address in it (`scheme://user:password@host`) made invisible, and the values of
/// `password=` and the like. For everything that is shown or written.
pub fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'<>|".contains(c)).unwrap_or(after.len());
        let (authority, after) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                out.push_str(user.split(':').next().unwrap_or_default());
                if user.contains(':') {
                    out.push_str(":***");
                }
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = after;
    }
    out.push_str(rest);
    for key in ["user-pw=", "password=", "passwd=", "pwd="] {
        out = without_values(&out, key);
    }
    out
}

/// `key` is in lower case.
fn without_values(text: &str, key: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.to_ascii_lowercase().find(key) {
        let (before, value) = rest.split_at(at + key.len());
        out.push_str(before);
        let quote = value.chars().next().filter(|c| "\"'".contains(*c));
        let end = match quote {
            Some(quote) => value.get(1..).and_then(|inner| inner.find(quote)).map_or(value.len(), |end| end + 2),
            None => value.find(|c: char| c.is_whitespace() || "&\"'".contains(c)).unwrap_or(value.len()),
        };
        out.push_str("***");
        rest = value.get(end..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

fn path(text: &str, rest: &str) -> Result<PathBuf> {
    if rest.is_empty() {
        return Err(Error::usage(format!(
            "{text} names no path; write for instance dir:///frames or file:///clip.mp4"
        )));
    }
    Ok(rest.into())
}

fn device(text: &str, rest: &str) -> Result<Wanted> {
    let named = |key: &str| rest.strip_prefix(key).map(str::to_owned);
    if let Some(name) = named("name=") {
        return if name.is_empty() { Err(no_device(text)) } else { Ok(Wanted::Name(name)) };
    }
    if let Some(bus) = named("bus=") {
        return if bus.is_empty() { Err(no_device(text)) } else { Ok(Wanted::Bus(bus)) };
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
    Ok(Wanted::Path(match rest.parse::<u32>() {
        Ok(number) => format!("/dev/video{number}").into(),
        Err(_) => rest.into(),
    }))
}

fn no_device(text: &str) -> Error {
    Error::usage(format!(
        "{text} names no device; write for instance v4l2:///dev/video0, v4l2:0, v4l2:name=NAME or v4l2:bus=BUS"
    ))
}

fn pattern(text: &str, rest: &str) -> Result<Recipe> {
    let (seed, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut recipe = Recipe::default();
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
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn refused(text: &str) -> String {
        let error = Uri::parse(text).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{text}");
        error.chain()
    }

    #[test]
    fn every_kind_is_known() {
        let camera = |path: &str| Uri::Camera(Wanted::Path(path.into()));
        assert_eq!(Uri::parse("v4l2:///dev/video0").unwrap(), camera("/dev/video0"));
        assert_eq!(Uri::parse("V4L2:/dev/video1").unwrap(), camera("/dev/video1"));
        for text in ["v4l2:3", "v4l2://3"] {
            assert_eq!(Uri::parse(text).unwrap(), camera("/dev/video3"));
        }
        assert_eq!(Uri::parse("v4l2:name=HD Cam: C9").unwrap(), Uri::Camera(Wanted::Name("HD Cam: C9".into())));
        assert_eq!(Uri::parse("v4l2:bus=usb-1.2").unwrap(), Uri::Camera(Wanted::Bus("usb-1.2".into())));
        assert_eq!(Uri::parse("csi://1").unwrap(), Uri::Csi(1));
        let network = "rtsp://user:p@ss@host:554/a?b=c";
        assert_eq!(Uri::parse(network).unwrap(), Uri::Rtsp(network.into()));
        let pipeline = "videotestsrc pattern=ball ! queue";
        assert_eq!(Uri::parse(&format!("gst:{pipeline}")).unwrap(), Uri::Gst(pipeline.into()));
        assert_eq!(Uri::parse("dir:///frames").unwrap(), Uri::Folder("/frames".into()));
        assert_eq!(Uri::parse("dir:frames/a").unwrap(), Uri::Folder("frames/a".into()));
        assert_eq!(Uri::parse("file:///a b%20.mp4").unwrap(), Uri::Video("/a b%20.mp4".into()));
        assert_eq!(Uri::parse("/dev/video12").unwrap(), camera("/dev/video12"));
        assert_eq!(Uri::parse("/dev/video").unwrap(), Uri::Path("/dev/video".into()));
        assert_eq!(Uri::parse("frames").unwrap(), Uri::Path("frames".into()));
        assert_eq!((Uri::parse("-").unwrap(), Uri::parse("./-").unwrap()), (Uri::Input, Uri::Path("./-".into())));
        assert_eq!(Uri::parse("clip:1.mp4").unwrap(), Uri::Path("clip:1.mp4".into()));
        let Uri::Pattern(recipe) =
            Uri::parse("pattern://7?frames=30&rate=12.5&width=64&height=48&segments=3&live=true").unwrap()
        else {
            unreachable!()
        };
        let expected =
            Recipe { seed: 7, frames: Some(30), rate: 12.5, width: 64, height: 48, segments: Some(3), live: true };
        assert_eq!(recipe, expected);
    }

    #[test]
    fn unknown_and_incomplete_names_are_refused_with_what_is_known() {
        let message = refused("http://me:secret@host/clip.mp4");
        assert!(message.contains("unknown kind of source `http:`") && message.contains("pattern://SEED"), "{message}");
        assert!(!message.contains("secret"), "{message}");
        assert!(refused("").contains("empty"));
        assert!(refused("dir://").contains("names no path"));
        for text in ["v4l2://", "v4l2:name=", "v4l2:bus="] {
            assert!(refused(text).contains("names no device"));
        }
        assert!(refused("v4l2:///dev/video0?width=9").contains("source.camera_width"));
        for text in ["csi://", "csi://x", "csi://64"] {
            assert!(refused(text).contains("0 to 63"));
        }
        for text in ["rtsp://", "rtsp:host", "rtsp://me:secret@/x", "rtsp://host/a b"] {
            let message = refused(text);
            assert!(message.contains("rtsp://HOST/PATH") && !message.contains("secret"), "{message}");
        }
        assert!(refused("gst: ").contains("names no pipeline"));
    }

    #[test]
    fn passwords_are_made_invisible() {
        for (text, shown) in [
            ("rtsp://user:secret@host:554/a", "rtsp://user:***@host:554/a"),
            ("rtsp://user:se@cret@host", "rtsp://user:***@host"),
            ("rtsp://user@host/a@b", "rtsp://user@host/a@b"),
            (
                "Could not open rtsp://a:secret@h/x. And rtsp://b:secret@h",
                "Could not open rtsp://a:***@h/x. And rtsp://b:***@h",
            ),
            ("rtspsrc user-id=me user-pw=secret ! x", "rtspsrc user-id=me user-pw=*** ! x"),
            ("rtspsrc user-pw=\"se cret\" ! x", "rtspsrc user-pw=*** ! x"),
            ("rtsp://h/cam?user=a&Password=secret&n=1", "rtsp://h/cam?user=a&Password=***&n=1"),
            ("dir:///frames", "dir:///frames"),
            ("pwd=", "pwd=***"),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }

    #[test]
    fn all_mistakes_of_a_pattern_are_told_at_once() {
        let message = refused("pattern://x?frames=0&colour=red&rate=nan&frames=2&live=maybe&width=9999999");
        for part in ["seed `x`", "frames", "colour", "rate", "twice", "live", "width", "segments"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(refused("pattern://1?frames=10&segments=11").contains("segments"));
        assert!(refused("pattern://1?frames").contains("frames"));
        assert!(refused("pattern://-1").contains("seed"));
    }
}
