//! Decodes an image file to one frame: JPEG, PNG, WebP, BMP, GIF and TIFF, any colour type, to 8-bit RGB.
//!
//! The EXIF orientation is applied. A damaged image is an error, never a half-grey frame.
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

/// The supported formats, for messages.
pub(super) const READ: &str = "JPEG, PNG, WebP, BMP, still GIF and TIFF";
/// What to do with other formats, for messages.
pub(super) const WAY_OUT: &str = "other pictures are to be converted (as in `mogrify -format jpg *.heic`)";

/// Extensions of image files, in lower case.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// Maximum size of an image file.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 28;
/// Signature of a TIFF with 64-bit offsets, in either byte order.
const BIG_TIFF: [&[u8]; 2] = [b"II\x2b\0", b"MM\0\x2b"];
/// Number of bytes that identify any format.
const HEAD: usize = 32;
/// Number of bytes that are examined in a file that is not an image.
const BEGINNING: u64 = 512;

/// An image file format.
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
    /// Detects the format by the first bytes, never by the file name.
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
            // Two letters are weak evidence, so the length of the second header is checked, too.
            ImageFormat::Bmp => {
                let length = head.get(14..18)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
                [12, 16, 40, 52, 56, 64, 108, 124].contains(&length).then_some(Self::Bmp)
            }
            _ => None,
        }
    }
}

/// Type of a file with image content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sniffed {
    /// A still image.
    Picture,
    /// An animation, decoded as a video.
    Animated(PictureFormat),
}

impl Sniffed {
    /// Detects the type of the file at `path` by its content; `None`: not a supported image, or the file cannot be
    /// opened.
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

/// True for a name with one of the [`EXTENSIONS`], in upper or lower case.
pub fn is_image_name(path: &Path) -> bool {
    path.extension().is_some_and(|found| EXTENSIONS.iter().any(|known| found.eq_ignore_ascii_case(known)))
}

/// Reads the image at `path` into `frame`. Sets only pixels and size; timestamp, index and cut stay.
/// # Errors
/// A runtime error: the file is missing, of an unsupported format, truncated, damaged or too large. The frame is then
/// empty.
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

/// Decodes a complete image into `frame`: detects the format by the first bytes, and applies the EXIF orientation.
/// # Errors
/// A runtime error: as in [`read_image`]. The frame is then empty.
pub(crate) fn decode(bytes: &[u8], frame: &mut Frame) -> Result<()> {
    let fill = || match PictureFormat::of(bytes) {
        Some(PictureFormat::Jpeg) => jpeg::fill(bytes, frame),
        Some(PictureFormat::Png) => png_rows::fill(bytes, frame),
        Some(kind) => other_formats::fill(kind, bytes, frame),
        None => Err(no_picture(bytes)),
    };
    // Unexpected bytes that make a decoder panic must not end a run.
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
    /// A panic on this thread will be caught and returned as an error, so its message is not printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` and catches a panic without printing its message.
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

/// Explains bytes in an unsupported format.
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
