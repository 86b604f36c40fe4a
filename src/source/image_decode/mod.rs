//! One picture file to one frame: JPEG, PNG, WebP, BMP, GIF and TIFF, any colour type, to 8-bit RGB.
//!
//! Pictures are turned as their EXIF orientation says. A damaged one is an error, not a frame that is half grey.
mod canvas;
mod jpeg;
mod other_formats;
mod jpeg_outline;
mod png_rows;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

use image::ImageFormat;

pub(crate) use self::jpeg_outline::jpeg_end;
pub(in crate::source) use self::jpeg_outline::jpeg_end_from;
use crate::error::{Error, Result};
use crate::files::open_regular;
use crate::frame::Frame;

/// What is read, for messages.
pub(super) const READ: &str = "JPEG, PNG, WebP, BMP, still GIF and TIFF";
/// What to do with the others, for messages.
pub(super) const WAY_OUT: &str = "other pictures are to be converted (as in `mogrify -format jpg *.heic`)";

/// Extensions of image files, in lower case.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// An image file larger than this is not read.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 28;
/// How a TIFF with 64-bit offsets begins, in either order of bytes.
const BIG_TIFF: [&[u8]; 2] = [b"II\x2b\0", b"MM\0\x2b"];
/// Bytes that tell all kinds.
const HEAD: usize = 32;
/// Bytes of a file that are looked at where it is no picture.
const BEGINNING: u64 = 512;

/// A kind of picture file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PictureFormat {
    Jpeg,
    Png,
    WebP,
    Bmp,
    Gif,
    Tiff,
}

impl PictureFormat {
    /// By the first bytes, never by a name.
    fn of(head: &[u8]) -> Option<Self> {
        if BIG_TIFF.iter().any(|start| head.starts_with(start)) {
            return Some(Self::Tiff);
        }
        match image::guess_format(head).ok()? {
            ImageFormat::Jpeg => Some(Self::Jpeg),
            ImageFormat::Png => Some(Self::Png),
            ImageFormat::WebP => Some(Self::WebP),
            ImageFormat::Gif => Some(Self::Gif),
            ImageFormat::Tiff => Some(Self::Tiff),
            // Two letters are little: the length of the second header tells too.
            ImageFormat::Bmp => {
                let length = head.get(14..18)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
                [12, 16, 40, 52, 56, 64, 108, 124].contains(&length).then_some(Self::Bmp)
            }
            _ => None,
        }
    }
}

/// What a file is that has a picture in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sniffed {
    /// One that stands still.
    Picture,
    /// A film.
    Animated(PictureFormat),
}

impl Sniffed {
    /// By the content of the file at `path`; `None`: it has no picture of a kind that is read, or cannot be opened.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let mut file = open_regular(path).ok()?;
        let mut head = Vec::with_capacity(HEAD);
        file.by_ref().take(HEAD as u64).read_to_end(&mut head).ok()?;
        let kind = PictureFormat::of(&head)?;
        let moves = match kind {
            PictureFormat::Gif => {
                other_formats::gif_moves(BufReader::new(head.as_slice().chain(file).take(MAX_FILE_BYTES)))
            }
            PictureFormat::WebP => other_formats::webp_moves(&head),
            _ => false,
        };
        Some(if moves { Self::Animated(kind) } else { Self::Picture })
    }
}

/// The first bytes of a regular file.
pub(super) fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(BEGINNING).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// True for a name that ends in one of [`EXTENSIONS`], in any case.
pub fn is_image_name(path: &Path) -> bool {
    path.extension().is_some_and(|found| EXTENSIONS.iter().any(|known| found.eq_ignore_ascii_case(known)))
}

/// Reads the image at `path` into `frame`: pixels and size only; stamp, index and cut stay.
/// # Errors
/// Work: missing, of no kind that is read, truncated, damaged or too large. The frame is empty then.
pub fn read_image(path: &Path, frame: &mut Frame) -> Result<()> {
    let outcome = file_bytes(path).and_then(|bytes| decode(&bytes, frame));
    outcome.map_err(|e| Error::new(e.kind(), format!("cannot read the image {}", path.display())).with_source(e))
}

fn file_bytes(path: &Path) -> Result<Vec<u8>> {
    let failed = |e: io::Error| Error::runtime("the file cannot be read").with_source(e);
    let file: File = open_regular(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::runtime(format!("the file is too large; at most {MAX_FILE_BYTES} bytes are read")));
    }
    Ok(bytes)
}

/// Decodes a whole picture, its kind told by its first bytes, into `frame`, and turns it as its EXIF orientation says.
/// # Errors
/// Work: as [`read_image`]. The frame is empty then.
pub(crate) fn decode(bytes: &[u8], frame: &mut Frame) -> Result<()> {
    let fill = || match PictureFormat::of(bytes) {
        Some(PictureFormat::Jpeg) => jpeg::fill(bytes, frame),
        Some(PictureFormat::Png) => png_rows::fill(bytes, frame),
        Some(kind) => other_formats::fill(kind, bytes, frame),
        None => Err(no_picture(bytes)),
    };
    // A decoder that did not foresee some bytes is no reason to end a run.
    let outcome = quietly(fill);
    let outcome = outcome.unwrap_or_else(|_| {
        Err(Error::runtime("its decoder gave up; it is damaged or of a kind that is not read, save it as JPEG or PNG"))
    });
    if outcome.is_err() {
        (frame.width, frame.height) = (0, 0);
        frame.pixels.clear();
    }
    outcome
}

thread_local! {
    /// A panic on this thread is caught and told as an error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives, or that it panicked, without the message that a panic writes.
fn quietly<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                before(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    outcome
}

/// What is wrong with bytes of no kind that is read.
fn no_picture(bytes: &[u8]) -> Error {
    if bytes.is_empty() {
        return Error::runtime("the file is empty");
    }
    let name = match bytes.get(4..12) {
        Some(b"ftypheic" | b"ftypheix" | b"ftypmif1" | b"ftypmsf1" | b"ftyphevc") => Some("HEIC".to_owned()),
        Some(b"ftypavif" | b"ftypavis") => Some("AVIF".to_owned()),
        _ => image::guess_format(bytes).ok().filter(|kind| *kind != ImageFormat::Bmp).map(|kind| format!("{kind:?}")),
    };
    let found = name.unwrap_or_else(|| "of no kind that is known".to_owned());
    Error::runtime(format!("the content is {found}; {READ} are read; convert it (as in `convert NAME NAME.png`)"))
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::runtime("the content is corrupt or truncated").with_source(error)
}
