//! One image file to one frame: JPEG and PNG, any colour type, to 8-bit RGB.
//!
//! Pixels come as they are stored: an orientation in the metadata is not applied.
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::ImageFormat;
use mozjpeg::ColorSpace;

use super::{frame_bytes, png_rows};
use crate::error::{Error, Result};
use crate::files::open_regular;
use crate::frame::Frame;

/// Extensions of image files, in lower case.
pub const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png"];

/// An image file larger than this is not read.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 28;

/// True for a name that ends in one of [`EXTENSIONS`], in any case.
pub fn is_image_name(path: &Path) -> bool {
    path.extension().is_some_and(|found| EXTENSIONS.iter().any(|known| found.eq_ignore_ascii_case(known)))
}

/// True for a file that begins as a JPEG or a PNG does.
pub(super) fn is_image(path: &Path) -> bool {
    let mut head = [0; 8];
    let read = open_regular(path).and_then(|mut file| file.read(&mut head)).unwrap_or_default();
    matches!(image::guess_format(head.get(..read).unwrap_or_default()), Ok(ImageFormat::Jpeg | ImageFormat::Png))
}

/// Reads the image at `path` into `frame`: pixels and size only; stamp, index and cut stay.
/// # Errors
/// Work: missing, neither JPEG nor PNG, truncated, corrupt or too large. The frame is empty then.
pub fn read_image(path: &Path, frame: &mut Frame) -> Result<()> {
    let outcome = file_bytes(path).and_then(|bytes| decode(&bytes, frame));
    outcome.map_err(|e| Error::new(e.kind(), format!("cannot read the image {}", path.display())).because(e))
}

fn file_bytes(path: &Path) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::work("the file cannot be read").because(e);
    let file = open_regular(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::work(format!("the file is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Decodes a whole JPEG or PNG, told apart by its first bytes, into `frame`.
/// # Errors
/// Work: as [`read_image`]. The frame is empty then.
pub(crate) fn decode(bytes: &[u8], frame: &mut Frame) -> Result<()> {
    let outcome = match image::guess_format(bytes) {
        // The decoder paints what is missing grey and says nothing, so a cut is looked for first.
        Ok(ImageFormat::Jpeg) if jpeg_end(bytes).is_none() => Err(Error::work("the JPEG is truncated")),
        Ok(ImageFormat::Jpeg) => fill_jpeg(bytes, frame),
        Ok(ImageFormat::Png) => png_rows::fill(bytes, frame),
        _ if bytes.is_empty() => Err(Error::work("the file is empty")),
        Ok(other) => Err(Error::work(format!(
            "the content is {other:?}, neither JPEG nor PNG; convert it (as in `convert NAME NAME.png`)"
        ))),
        _ => Err(Error::work("the content is neither JPEG nor PNG")),
    };
    if outcome.is_err() {
        (frame.width, frame.height) = (0, 0);
        frame.pixels.clear();
    }
    outcome
}

/// libjpeg reports an error by unwinding; it is caught here, silently, and becomes an error like any other.
fn fill_jpeg(bytes: &[u8], frame: &mut Frame) -> Result<()> {
    let outcome = catch_unwind(AssertUnwindSafe(|| read_jpeg(bytes, frame)));
    outcome.unwrap_or_else(|_| Err(Error::work("the JPEG is corrupt or of a kind that libjpeg cannot decode")))
}

fn read_jpeg(bytes: &[u8], frame: &mut Frame) -> Result<()> {
    let decoder = mozjpeg::Decompress::new_mem(bytes).map_err(corrupt)?;
    let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (width, height) = (side(decoder.width()), side(decoder.height()));
    let length = frame_bytes(width, height)?;
    if matches!(decoder.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK) {
        return Err(Error::work("the JPEG has print colours (CMYK); save it as RGB"));
    }
    let mut decoder = decoder.rgb().map_err(corrupt)?;
    frame.pixels.resize(length, 0);
    let read = decoder.read_scanlines_into::<u8>(&mut frame.pixels).map_err(corrupt)?.len();
    if read != length {
        return Err(Error::work(format!("the JPEG ends after {read} of {length} bytes of pixels")));
    }
    decoder.finish().map_err(corrupt)?;
    (frame.width, frame.height) = (width, height);
    Ok(())
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::work("the content is corrupt or truncated").because(error)
}

/// Bytes of the JPEG at the start of `bytes`, up to and with its end marker; `None` when it is cut off before that.
///
/// Walks the marker segments (ITU-T T.81, B.1.1), so that the end of a thumbnail inside is not taken for the end.
pub(crate) fn jpeg_end(bytes: &[u8]) -> Option<usize> {
    jpeg_end_from(bytes, &mut 0)
}

/// [`jpeg_end`] of bytes that grow: `at` (0 at first) is where the next call goes on when more have come.
pub(super) fn jpeg_end_from(bytes: &[u8], at: &mut usize) -> Option<usize> {
    if *at == 0 {
        if !bytes.starts_with(&[0xFF, 0xD8]) {
            return None;
        }
        *at = 2;
    }
    loop {
        let rest = bytes.get(*at..)?;
        let Some(marker) = rest.iter().position(|&byte| byte == 0xFF) else {
            *at = bytes.len();
            return None;
        };
        // A marker that is not whole yet is looked at again.
        *at += marker;
        match *bytes.get(*at + 1)? {
            // A fill byte: the marker comes later.
            0xFF => *at += 1,
            // Stuffing, TEM, restarts and a second start: markers without a length.
            0x00 | 0x01 | 0xD0..=0xD8 => *at += 2,
            0xD9 => return Some(*at + 2),
            _ => {
                let length = usize::from(u16::from_be_bytes([*bytes.get(*at + 2)?, *bytes.get(*at + 3)?]));
                *at += 2 + length.max(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{DynamicImage, ExtendedColorType, ImageBuffer, ImageEncoder, Luma, LumaA, Rgb, Rgba};
    use std::io::Cursor;

    fn gradient(width: u32, height: u32) -> Vec<u8> {
        (0..width * height).flat_map(|i| [(i % width * 7) as u8, (i / width * 5) as u8, (i * 3) as u8]).collect()
    }

    fn jpeg(width: u32, height: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let pixels = gradient(width, height);
        JpegEncoder::new(&mut out).write_image(&pixels, width, height, ExtendedColorType::Rgb8).unwrap();
        out
    }

    fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
        let mut out = Vec::new();
        image.into().write_to(&mut Cursor::new(&mut out), ImageFormat::Png).unwrap();
        out
    }

    fn decoded(bytes: &[u8]) -> Frame {
        let mut frame = Frame::default();
        decode(bytes, &mut frame).unwrap();
        assert_eq!(frame.pixels.len(), (frame.width * frame.height * 3) as usize);
        frame
    }

    #[test]
    fn png_pixels_come_back_exactly() {
        let frame = decoded(&png(ImageBuffer::<Rgb<u8>, _>::from_raw(20, 10, gradient(20, 10)).unwrap()));
        assert_eq!((frame.width, frame.height), (20, 10));
        assert_eq!(frame.pixels, gradient(20, 10));
    }

    #[test]
    fn other_colour_types_become_rgb() {
        let grey = decoded(&png(ImageBuffer::from_pixel(3, 2, Luma([77u8]))));
        assert_eq!(grey.pixels, [77; 18]);
        let grey = decoded(&png(ImageBuffer::from_pixel(3, 2, LumaA([77u8, 9]))));
        assert_eq!(grey.pixels, [77; 18]);
        let alpha = decoded(&png(ImageBuffer::from_pixel(3, 1, Rgba([1u8, 2, 3, 0]))));
        assert_eq!(alpha.pixels, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
        let deep = decoded(&png(ImageBuffer::from_pixel(2, 1, Rgb([0u16, 0x8080, 0xFFFF]))));
        assert_eq!(deep.pixels, [0, 128, 255, 0, 128, 255]);
        let deep = decoded(&png(ImageBuffer::from_pixel(2, 1, Luma([0xFFFFu16]))));
        assert_eq!(deep.pixels, [255; 6]);
        let mut out = Vec::new();
        JpegEncoder::new(&mut out).write_image(&[200; 64], 8, 8, ExtendedColorType::L8).unwrap();
        assert!(decoded(&out).pixels.iter().all(|v| v.abs_diff(200) <= 1));
    }

    #[test]
    fn every_cut_of_a_jpeg_is_seen() {
        let whole = jpeg(40, 24);
        assert_eq!(decoded(&whole).width, 40);
        assert_eq!(jpeg_end(&whole), Some(whole.len()));
        let mut frame = Frame::default();
        for length in 0..whole.len() {
            assert!(decode(&whole[..length], &mut frame).is_err(), "{length} of {} bytes", whole.len());
            assert!(frame.width == 0 && frame.pixels.is_empty());
        }
        // A file whose end was never written, as after a power cut.
        let mut holed = whole.clone();
        let half = holed.len() / 2;
        holed[half..].fill(0);
        assert!(decode(&holed, &mut frame).unwrap_err().chain().contains("truncated"));
        // Bytes behind the end, as in a camera's buffer, do not matter.
        let mut longer = whole.clone();
        longer.extend([0xFF, 0xD8, 0, 0, 0xFF, 0xD9]);
        assert_eq!(jpeg_end(&longer), Some(whole.len()));
        assert_eq!(decoded(&longer).pixels, decoded(&whole).pixels);
    }

    #[test]
    fn the_end_of_a_thumbnail_is_not_the_end() {
        let whole = jpeg(40, 24);
        let thumbnail = jpeg(8, 8);
        let length = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
        let mut nested = vec![0xFF, 0xD8, 0xFF, 0xE1, length[0], length[1]];
        nested.extend(&thumbnail);
        nested.extend(&whole[2..]);
        assert_eq!(jpeg_end(&nested), Some(nested.len()));
        assert_eq!(jpeg_end(&nested[..nested.len() - 2]), None);
        assert_eq!(decoded(&nested).pixels, decoded(&whole).pixels);
    }

    #[test]
    fn cut_pngs_and_other_files_are_errors() {
        let whole = png(ImageBuffer::<Rgb<u8>, _>::from_raw(20, 10, gradient(20, 10)).unwrap());
        let mut frame = Frame::default();
        for length in [10, 40, whole.len() / 2, whole.len() - 20] {
            assert!(decode(&whole[..length], &mut frame).is_err(), "{length} of {}", whole.len());
        }
        assert!(decode(b"", &mut frame).unwrap_err().chain().contains("empty"));
        assert!(decode(b"GIF89a", &mut frame).unwrap_err().chain().contains("neither JPEG nor PNG"));
        let missing = read_image(Path::new("/nowhere/a.jpg"), &mut frame).unwrap_err().chain();
        assert!(missing.contains("/nowhere/a.jpg") && missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn sizes_are_checked_before_memory_is_taken() {
        // The header of the JPEG says 65500 x 65500, the file is a few hundred bytes.
        let mut large = jpeg(8, 8);
        let start = large.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
        large[start + 5..start + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
        let mut frame = Frame::default();
        assert!(decode(&large, &mut frame).unwrap_err().chain().contains("too many"));
        let mut large = png(ImageBuffer::from_pixel(8, 8, Luma([1u8])));
        large[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        let check = crc32fast::hash(&large[12..29]);
        large[29..33].copy_from_slice(&check.to_be_bytes());
        let refused = decode(&large, &mut frame).unwrap_err().chain();
        assert!(refused.contains("65536x65536 pixels are too many; at most"), "{refused}");
        assert!(frame.pixels.capacity() < 1 << 20);
    }

    #[test]
    fn broken_bytes_never_panic() {
        let grey = png(ImageBuffer::from_pixel(9, 7, LumaA([77u8, 9])));
        let mut frame = Frame::default();
        let mut state = 1u32;
        for whole in [jpeg(24, 16), grey] {
            for _ in 0..3000 {
                let mut bytes = whole.clone();
                for _ in 0..3 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let at = (state >> 8) as usize % bytes.len();
                    bytes[at] = state as u8;
                }
                // Some are still readable; what counts is that none panics and a failure leaves an empty frame.
                if decode(&bytes, &mut frame).is_err() {
                    assert!(frame.pixels.is_empty());
                }
            }
        }
    }
}
