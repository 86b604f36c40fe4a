//! `-`: frames on standard input: either JPEG and PNG images one after another, or a video stream for the decoder; the
//! first bytes decide. The source is bounded like a file: it blocks the sender and drops nothing, but it can be read
//! only once.
mod image_splitter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod image_stream;

use std::io::{Cursor, IsTerminal, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use self::image_splitter::{JPEG, PNG};
use self::image_stream::ImageStream;
use super::Source;
use super::subprocess::kind::{HEAD, PACKET, SYNC, VIDEOS, text, video};
use super::subprocess::{NO_PICTURE, VideoSource};
use crate::config;
use crate::error::{Error, Result};

/// The name of the source in messages.
const NAME: &str = "on standard input";
/// Standard input can be opened only once per process.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Opens standard input; waits for its first bytes.
/// # Errors
/// A usage error: it is a terminal, or was opened before. Otherwise those of [`open`].
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

/// Opens the frames of `stream`.
/// # Errors
/// A runtime error: the stream is empty, or begins with neither an image nor a video; or an error of the decoder.
pub(super) fn open(mut stream: impl Read + Send + 'static, config: &config::Source) -> Result<Box<dyn Source>> {
    let mut head = Vec::new();
    let mut read = |bytes: u64, head: &mut Vec<u8>| -> Result<()> {
        let read = (&mut stream).take(bytes).read_to_end(head);
        read.map(drop).map_err(|e| Error::runtime("standard input cannot be read").with_source(e))
    };
    read(HEAD as u64, &mut head)?;
    if head.first() == Some(&SYNC) {
        read(PACKET as u64 + 1 - head.len() as u64, &mut head)?;
    }
    if head.is_empty() {
        return Err(Error::runtime(
            "standard input is empty: no byte came before its end; did the program that writes into it fail?",
        ));
    }
    if head.starts_with(JPEG) || head.starts_with(PNG) || multipart(&head) {
        return Ok(Box::new(ImageStream::start(Cursor::new(head).chain(stream), config)?));
    }
    let Some(kind) = video(&head) else { return Err(unknown(&head)) };
    tracing::info!("a video {NAME}: {kind}");
    let hint = |e: Error| {
        match kind {
        "MP4 or MOV" if !e.chain().contains(NO_PICTURE) => Error::new(
            e.kind(),
            "an MP4 can be piped only where its index comes first (`-movflags +faststart`); name the file itself, or pipe \
             another container, as in `ffmpeg -i clip.mp4 -c copy -f matroska - | afterimage ...`",
        )
        .with_source(e.chain()),
        _ => e,
    }
    };
    Ok(Box::new(VideoSource::of_stream(NAME, Cursor::new(head).chain(stream), config).map_err(hint)?))
}

/// True for MJPEG as a camera sends it over HTTP: parts with a boundary and their own headers, possibly after the HTTP
/// response headers.
fn multipart(head: &[u8]) -> bool {
    let head = head.trim_ascii_start();
    head.starts_with(b"--") || head.starts_with(b"HTTP/1.")
}

fn unknown(head: &[u8]) -> Error {
    if let Some(why) = text(head).filter(|why| why.contains("--boxes")) {
        return Error::runtime(format!("what comes {NAME} {why}"));
    }
    let first: String = head.iter().take(8).flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
    let known: Vec<&str> = VIDEOS.iter().map(|(_, _, kind)| *kind).collect();
    Error::runtime(format!(
        "standard input begins with `{first}`: neither JPEG nor PNG pictures nor a video that is known here ({}, MPEG \
         transport stream). Raw pixels tell no size and no rate; say them to ffmpeg: `... | ffmpeg -f rawvideo \
         -pixel_format rgb24 -video_size WxH -framerate R -i - -c:v copy -f nut - | afterimage ...`",
        known.join(", ")
    ))
}

#[cfg(test)]
mod tests;
