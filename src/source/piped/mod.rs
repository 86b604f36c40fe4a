//! `-`: frames on standard input, told apart by the first bytes: JPEG and PNG pictures one after another, or a video stream
//! for the decoder. Bounded like a file: it waits, and drops nothing; only, it comes once.
mod cutter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod pictures;

use std::io::{Cursor, IsTerminal, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use self::cutter::{JPEG, PNG};
use self::pictures::Pictures;
use super::Source;
use super::child::Video;
use crate::config;
use crate::error::{Error, Result};

/// How messages call it.
const NAME: &str = "on standard input";
/// Bytes that tell all kinds but the transport stream.
const HEAD: u64 = 16;
/// Length of a packet of a transport stream; each begins with [`SYNC`].
const PACKET: usize = 188;
const SYNC: u8 = 0x47;
/// What videos begin with that a decoder reads from a pipe: their first bytes, and from where on.
const VIDEOS: [(usize, &[u8], &str); 10] = [
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"nut/multimedia", "NUT"),
    (0, b"YUV4MPEG2 ", "YUV4MPEG2"),
    (0, b"RIFF", "AVI"),
    (0, b"FLV\x01", "FLV"),
    (0, b"OggS", "Ogg"),
    (0, b"\0\0\x01\xba", "MPEG program stream"),
    (0, b"\0\0\0\x01", "bare H.264 or H.265"),
    (0, b"\0\0\x01", "bare MPEG video"),
    (4, b"ftyp", "MP4 or MOV"),
];

/// Standard input can be had once in a process.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Opens standard input; waits for its first bytes.
/// # Errors
/// Usage: it is a terminal, or was opened before. Otherwise as [`open`].
pub(super) fn open_input(config: &config::Source) -> Result<Box<dyn Source>> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err(Error::usage(
            "the source - is standard input, which is a terminal: pipe pictures or a video into it, as in \
             `cat *.jpg | afterimage embed --source - ...`",
        ));
    }
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Error::usage("the source - is asked for twice: standard input comes once; record it to a file"));
    }
    open(input, config)
}

/// The frames of `stream`.
/// # Errors
/// Work: it is empty, or begins with something else than pictures or a video; and those of the decoder.
pub(super) fn open(mut stream: impl Read + Send + 'static, config: &config::Source) -> Result<Box<dyn Source>> {
    let mut head = Vec::new();
    let mut read = |bytes: u64, head: &mut Vec<u8>| -> Result<()> {
        let read = (&mut stream).take(bytes).read_to_end(head);
        read.map(drop).map_err(|e| Error::work("standard input cannot be read").because(e))
    };
    read(HEAD, &mut head)?;
    if head.first() == Some(&SYNC) {
        read(PACKET as u64 + 1 - head.len() as u64, &mut head)?;
    }
    if head.is_empty() {
        return Err(Error::work(
            "standard input is empty: no byte came before its end; did the program that writes into it fail?",
        ));
    }
    if head.starts_with(JPEG) || head.starts_with(PNG) {
        return Ok(Box::new(Pictures::start(Cursor::new(head).chain(stream), config)?));
    }
    let Some(kind) = video(&head) else { return Err(unknown(&head)) };
    tracing::info!("a video {NAME}: {kind}");
    let hint = |e: Error| {
        match kind {
        "MP4 or MOV" => Error::new(
            e.kind(),
            "an MP4 can be piped only where its index comes first (`-movflags +faststart`); name the file itself, or pipe \
             another container, as in `ffmpeg -i clip.mp4 -c copy -f matroska - | afterimage ...`",
        )
        .because(e.chain()),
        _ => e,
    }
    };
    Ok(Box::new(Video::of_stream(NAME, Cursor::new(head).chain(stream), config).map_err(hint)?))
}

/// The kind of video that begins with `head`.
fn video(head: &[u8]) -> Option<&'static str> {
    let found = VIDEOS.iter().find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    let transport = head.first() == Some(&SYNC) && head.get(PACKET) == Some(&SYNC);
    found.map(|(_, _, kind)| *kind).or(transport.then_some("MPEG transport stream"))
}

fn unknown(head: &[u8]) -> Error {
    let first: String = head.iter().take(8).flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
    let known: Vec<&str> = VIDEOS.iter().map(|(_, _, kind)| *kind).collect();
    Error::work(format!(
        "standard input begins with `{first}`: neither JPEG nor PNG pictures nor a video that is known here ({}, MPEG \
         transport stream). Raw pixels tell no size and no rate; say them to ffmpeg: `... | ffmpeg -f rawvideo \
         -pixel_format rgb24 -video_size WxH -framerate R -i - -c:v copy -f nut - | afterimage ...`",
        known.join(", ")
    ))
}

#[cfg(test)]
mod tests;
