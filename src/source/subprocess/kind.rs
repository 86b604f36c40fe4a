//! Detects the format of a video by its first bytes.

/// Number of bytes that identify all formats except the transport stream.
pub(in crate::source) const HEAD: usize = 16;
/// Length of a transport stream packet; each begins with [`SYNC`].
pub(in crate::source) const PACKET: usize = 188;
pub(in crate::source) const SYNC: u8 = 0x47;
/// Elementary streams, which have no timestamps.
const BARE: [&str; 2] = ["bare H.264 or H.265", "bare MPEG video"];
const AVI: &str = "AVI";
const OGG: &str = "Ogg";
const PROGRAM: &str = "MPEG program stream";
const TRANSPORT: &str = "MPEG transport stream";
/// Signature of a GIF.
pub(super) const GIF: &[u8] = b"GIF8";
/// Signatures of the videos that a decoder can read from a pipe: offset, bytes and name.
pub(in crate::source) const VIDEOS: [(usize, &[u8], &str); 11] = [
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"nut/multimedia", "NUT"),
    (0, b"YUV4MPEG2 ", "YUV4MPEG2"),
    (0, b"RIFF", AVI),
    (0, GIF, "GIF"),
    (0, b"FLV\x01", "FLV"),
    (0, b"OggS", OGG),
    (0, b"\0\0\x01\xba", PROGRAM),
    (0, b"\0\0\0\x01", BARE[0]),
    (0, b"\0\0\x01", BARE[1]),
    (4, b"ftyp", "MP4 or MOV"),
];
/// First bytes of texts that refer to a video, or begin one.
const PLAYLISTS: [&[u8]; 5] = [b"#EXTM3U", b"ffconcat", b"v=0", b"<", b"YUV4MPEG2 "];

/// The format of a video that begins with `head`.
pub(in crate::source) fn video(head: &[u8]) -> Option<&'static str> {
    let found = VIDEOS.iter().find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    let transport = head.first() == Some(&SYNC) && head.get(PACKET) == Some(&SYNC);
    found.map(|(_, _, kind)| *kind).or(transport.then_some(TRANSPORT))
}

/// True for elementary streams, which have no timestamps: a decoder guesses a rate.
pub(in crate::source) fn bare(head: &[u8]) -> bool {
    video(head).is_some_and(|kind| BARE.contains(&kind)) || head.starts_with(&[0xFF, 0xD8, 0xFF])
}

/// How GStreamer distorts the timestamps of a video that begins with `head`, if it does.
pub(super) fn lost_by_gstreamer(head: &[u8], piped: bool) -> Option<&'static str> {
    match video(head)? {
        TRANSPORT | PROGRAM | OGG => Some("may shorten the gaps of this container"),
        AVI if piped => Some("takes the frames of an AVI in a pipe to be evenly spaced"),
        _ => None,
    }
}

/// Why `head` is not a video, if it is text (a decoder would render the letters as images). The text may be in any
/// encoding: every video begins with a control character.
pub(in crate::source) fn text(head: &[u8]) -> Option<&'static str> {
    let wide = matches!(head, [0xFF, 0xFE, _, 0, ..] | [0xFE, 0xFF, 0, ..]);
    let control = |byte: &u8| byte.is_ascii_control() && !b"\t\n\r\x0c\x1b".contains(byte);
    // 0xFF begins images and audio, but no text except UTF-16.
    let text = wide || head.first() != Some(&0xFF) && !head.iter().any(control);
    if !text || head.is_empty() || PLAYLISTS.iter().any(|start| head.starts_with(start)) {
        return None;
    }
    Some(if boxes(head) {
        "is text with rows of numbers, no video; is this meant for --boxes?"
    } else {
        "is text, no video; name a video, a folder of images or a camera"
    })
}

/// True if the first line is numbers, as in a file of boxes.
pub(in crate::source) fn boxes(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let figure = |byte: &u8| byte.is_ascii_digit() || b" \t,.-+\r".contains(byte);
    line.iter().all(figure) && line.iter().filter(|byte| b", \t".contains(byte)).count() >= 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gstreamer_loses_is_known() {
        let transport = [[SYNC; 1].as_slice(), &[0; PACKET - 1], &[SYNC]].concat();
        assert!(lost_by_gstreamer(&transport, false).is_some_and(|what| what.contains("gaps")));
        assert_eq!(lost_by_gstreamer(b"RIFF\x90\0\0\0AVI ", false), None);
        assert!(lost_by_gstreamer(b"RIFF\x90\0\0\0AVI ", true).is_some());
        assert_eq!(lost_by_gstreamer(b"\x1a\x45\xdf\xa3", true), None);
    }

    #[test]
    fn text_is_told_from_films_and_boxes_from_other_text() {
        for boxes in ["1,1,11,21,30,80,0.11,-1\n2,", "1 2 3.5 4 5\r\n", "1,-1,794.2,47.5,71.2,174.8,67.5,-1,-1,-1"] {
            assert!(text(boxes.as_bytes()).is_some_and(|why| why.contains("--boxes")), "{boxes}");
        }
        for other in ["{\"boxes\": []}", "hello, world\n", "1\n00:00:01 --> 00:00:02", "h\u{e9}, \u{4f60}"] {
            assert!(text(other.as_bytes()).is_some_and(|why| !why.contains("--boxes")), "{other}");
        }
        for other in [b"caf\xe9".as_slice(), b"\xff\xfeh\0i\0", b"\xfe\xff\0h\0i", b"\x1b[2Jcolours", b"cut \xe4\xbd"] {
            assert!(text(other).is_some_and(|why| !why.contains("--boxes")), "{other:?}");
        }
        for film in [
            b"#EXTM3U\n#EXT".as_slice(),
            b"YUV4MPEG2 W2 H2",
            b"\0\0\0\x18ftypmp42",
            b"GIF89a\x10\0",
            b"nut/multimedia container\0",
            b"RIFF\x90\0\0\0AVI ",
            b"OggS\0",
            b"FLV\x01",
            b"\xff\xd8\xff",
            b"",
        ] {
            assert_eq!(text(film), None, "{film:?}");
        }
    }
}
