//! Names of sources, as text. Parsing opens nothing; whether a path exists is seen when the source is opened.
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::source::pattern::Recipe;

/// What a source is called, by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Uri {
    /// `v4l2:///dev/video0`: a live camera.
    Camera(PathBuf),
    /// `dir:///frames`: a folder of images.
    Folder(PathBuf),
    /// `file:///clip.mp4`: a video file.
    Video(PathBuf),
    /// `pattern://SEED?frames=300`: synthetic frames.
    Pattern(Recipe),
    /// A path without a scheme: a folder, a video file or a device, whichever is there when it is opened.
    Path(PathBuf),
}

/// What can be opened, for messages.
const KNOWN: &str = "v4l2:///dev/video0 (camera), dir:///frames (folder of images), file:///clip.mp4 (video file), \
                     pattern://SEED (synthetic), or a plain path to one of the first three";

/// Schemes that have a meaning here but cannot be opened.
const PLANNED: &[&str] = &["csi", "rtsp", "gst"];

impl Uri {
    /// Reads the name of a source. Paths are taken as they stand (no `%` escapes) and may be relative:
    /// `dir:frames`, `dir://frames` and `frames` name the same folder.
    /// # Errors
    /// Usage: empty, a scheme that is not known or not supported yet, options of `pattern:` that are not known or out
    /// of range (all of them at once).
    pub fn parse(text: &str) -> Result<Uri> {
        if text.is_empty() {
            return Err(Error::usage(format!("the name of the source is empty; known are {KNOWN}")));
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok(bare(text));
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        match scheme.as_str() {
            "v4l2" => device(text, rest).map(Uri::Camera),
            "dir" => path(text, rest).map(Uri::Folder),
            "file" => path(text, rest).map(Uri::Video),
            "pattern" => pattern(text, rest).map(Uri::Pattern),
            _ if PLANNED.contains(&scheme.as_str()) => Err(Error::usage(format!(
                "`{scheme}:` sources are not supported yet (asked for {text}); supported are {KNOWN}"
            ))),
            _ => Err(Error::usage(format!("unknown kind of source `{scheme}:` in {text}; known are {KNOWN}"))),
        }
    }
}

/// `(scheme in lower case, rest)`. A colon makes a scheme when the word before it is one we know, or `//` follows;
/// otherwise it is part of a file name.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (before, rest) = text.split_once(':')?;
    let word = before.starts_with(|c: char| c.is_ascii_alphabetic())
        && before.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let scheme = before.to_ascii_lowercase();
    let known = ["v4l2", "dir", "file", "pattern"].contains(&scheme.as_str()) || PLANNED.contains(&scheme.as_str());
    (word && (known || rest.starts_with("//"))).then_some((scheme, rest))
}

fn bare(text: &str) -> Uri {
    let camera =
        text.strip_prefix("/dev/video").is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    if camera { Uri::Camera(text.into()) } else { Uri::Path(text.into()) }
}

fn path(text: &str, rest: &str) -> Result<PathBuf> {
    if rest.is_empty() {
        return Err(Error::usage(format!(
            "{text} names no path; write for instance dir:///frames or file:///clip.mp4"
        )));
    }
    Ok(rest.into())
}

fn device(text: &str, rest: &str) -> Result<PathBuf> {
    if rest.is_empty() {
        return Err(Error::usage(format!("{text} names no device; write for instance v4l2:///dev/video0")));
    }
    if let Some((_, options)) = rest.split_once('?') {
        return Err(Error::usage(format!(
            "v4l2 sources take no options (found `?{options}` in {text}); set source.camera_width, \
             source.camera_height and source.camera_frame_rate in the config"
        )));
    }
    Ok(rest.into())
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
        assert_eq!(Uri::parse("v4l2:///dev/video0").unwrap(), Uri::Camera("/dev/video0".into()));
        assert_eq!(Uri::parse("V4L2:/dev/video1").unwrap(), Uri::Camera("/dev/video1".into()));
        assert_eq!(Uri::parse("dir:///frames").unwrap(), Uri::Folder("/frames".into()));
        assert_eq!(Uri::parse("dir:frames/a").unwrap(), Uri::Folder("frames/a".into()));
        assert_eq!(Uri::parse("file:///a b%20.mp4").unwrap(), Uri::Video("/a b%20.mp4".into()));
        assert_eq!(Uri::parse("/dev/video12").unwrap(), Uri::Camera("/dev/video12".into()));
        assert_eq!(Uri::parse("/dev/video").unwrap(), Uri::Path("/dev/video".into()));
        assert_eq!(Uri::parse("frames").unwrap(), Uri::Path("frames".into()));
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
    fn unsupported_and_unknown_kinds_are_named_with_what_is_known() {
        for text in ["csi://0", "rtsp://host/path", "gst:videotestsrc ! fakesink"] {
            let message = refused(text);
            assert!(message.contains("not supported yet") && message.contains("dir:///frames"), "{message}");
        }
        let message = refused("http://host/clip.mp4");
        assert!(message.contains("unknown kind of source `http:`") && message.contains("pattern://SEED"), "{message}");
        assert!(refused("").contains("empty"));
        assert!(refused("dir://").contains("names no path"));
        assert!(refused("v4l2://").contains("names no device"));
        assert!(refused("v4l2:///dev/video0?width=9").contains("source.camera_width"));
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
