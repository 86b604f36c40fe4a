//! Text where pictures or video are expected: most often a file of boxes.
use std::io::Read;
use std::path::Path;

use crate::files::open_regular;

/// So much of a file is looked at.
const HEAD_BYTES: u64 = 4096;
/// Numbers in a line of a file of boxes, at least: frame, track, left, top, width, height.
const NUMBERS: usize = 6;
/// Text that leads to video: playlists and descriptions of sessions.
const OF_VIDEO: &[&str] = &["#EXTM3U", "ffconcat", "v=0", "<?xml", "<MPD", "[playlist]"];

/// Endings of text that ffmpeg takes for the film of a terminal: it draws the letters. Any other text it refuses.
const DRAWN: &[&str] = &["ans", "art", "asc", "diz", "ice", "nfo", "txt", "vt"];

/// What kind of text a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// Lines of numbers with commas between them, as `--boxes` takes them.
    Boxes,
    /// Any other, but what leads to video.
    Other,
}

/// Whether a decoder would draw the text of the file at `path`.
pub(super) fn is_drawn(path: &Path) -> bool {
    path.extension().is_some_and(|found| DRAWN.iter().any(|known| found.eq_ignore_ascii_case(known)))
}

/// The kind of text that the file at `path` is; `None`: it is none, leads to video or cannot be read.
pub(super) fn of_file(path: &Path) -> Option<Text> {
    let mut head = Vec::new();
    open_regular(path).ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    of_bytes(&head)
}

fn of_bytes(head: &[u8]) -> Option<Text> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The end of the head may cut a character in two.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let printable = text.chars().all(|c| !c.is_control() || c.is_whitespace());
    if text.is_empty() || !printable || OF_VIDEO.iter().any(|start| text.starts_with(start)) {
        return None;
    }
    let line = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    let numbers = line.split(',').map(|field| field.trim().parse::<f64>()).collect::<Result<Vec<_>, _>>();
    Some(if numbers.is_ok_and(|all| all.len() >= NUMBERS) { Text::Boxes } else { Text::Other })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_other_text_and_what_is_none_are_told_apart() {
        for (text, expected) in [
            ("1,1,11,21,30,80,0.11,-1\n", Some(Text::Boxes)),
            ("# frame, track, ...\n 3, 1, 265.0, 220.0, 39.0, 88.0\r\n", Some(Text::Boxes)),
            ("1,2,3\n", Some(Text::Other)),
            ("frame,id,left,top,width,height\n", Some(Text::Other)),
            ("Notes of the day: caf\u{e9}\n", Some(Text::Other)),
            ("#EXTM3U\n#EXTINF:4\n", None),
            ("", None),
            ("\u{0}\u{0}\u{0} ftypisom", None),
        ] {
            assert_eq!(of_bytes(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(of_bytes(b"\x1a\x45\xdf\xa3"), None);
        assert_eq!(of_bytes(&"caf\u{e9}".as_bytes()[..4]), Some(Text::Other), "cut in a character");
    }
}
