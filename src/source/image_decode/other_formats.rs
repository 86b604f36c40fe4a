//! WebP, BMP, GIF and TIFF, decoded with the `image` crate: it decodes the whole image at once, so its memory is
//! bounded first.
use std::io::{BufRead, Cursor};

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, Limits};

use super::PictureFormat;
use super::canvas::Canvas;
use super::corrupt;
use super::jpeg_outline::exif_orientation;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::frame_bytes;

/// Maximum memory for such an image, including the frame.
const MAX_BYTES: u64 = 1 << 29;

/// Decodes `bytes` into `frame`; drops alpha and rounds deeper colours to 8 bits.
/// # Errors
/// A runtime error: damaged, animated, too large, or a variant that the decoder does not support.
pub(super) fn fill(kind: PictureFormat, bytes: &[u8], frame: &mut Frame) -> Result<()> {
    let moves = match kind {
        PictureFormat::Gif => gif_moves(bytes),
        PictureFormat::WebP => webp_moves(bytes),
        _ => false,
    };
    if moves {
        return Err(Error::runtime(format!(
            "the {kind:?} is animated: it is a film, no picture; name it as a source of its own (as MP4 or GIF), or save one \
             of its pictures"
        )));
    }
    let stream = Cursor::new(bytes);
    match kind {
        PictureFormat::Bmp => through(BmpDecoder::new(stream), kind, frame),
        PictureFormat::Gif => through(GifDecoder::new(stream), kind, frame),
        PictureFormat::Tiff => through(TiffDecoder::new(stream), kind, frame),
        _ => through(WebPDecoder::new(stream), kind, frame),
    }
}

/// True if a GIF has more than one image; decodes nothing.
pub(super) fn gif_moves(stream: impl BufRead) -> bool {
    let mut options = gif::DecodeOptions::new();
    options.skip_frame_decoding(true);
    let Ok(mut decoder) = options.read_info(stream) else { return false };
    let mut next = || matches!(decoder.next_frame_info(), Ok(Some(_)));
    next() && next()
}

/// True if a WebP is animated: a flag in its extended header (RFC 9649, 2.7).
pub(super) fn webp_moves(head: &[u8]) -> bool {
    head.get(12..16) == Some(b"VP8X") && head.get(20).is_some_and(|flags| flags & 2 != 0)
}

fn through<D: ImageDecoder>(decoder: image::ImageResult<D>, kind: PictureFormat, frame: &mut Frame) -> Result<()> {
    let mut decoder = decoder.map_err(|error| failed(kind, error))?;
    let ((width, height), color) = (decoder.dimensions(), decoder.color_type());
    let exif = decoder.exif_metadata().ok().flatten().and_then(|exif| exif_orientation(&exif));
    let orientation = exif.or_else(|| decoder.orientation().ok()).unwrap_or(Orientation::NoTransforms);
    // Check the limits before any pixels are allocated.
    frame_bytes(width, height)?;
    let direct = color == ColorType::Rgb8 && orientation == Orientation::NoTransforms;
    let own = if direct { 0 } else { u64::from(color.bytes_per_pixel()) };
    let bytes = u64::from(width) * u64::from(height) * (3 + own + beside(kind, color));
    if bytes > MAX_BYTES {
        return Err(Error::runtime(format!(
            "{width}x{height} pixels are too many for a {kind:?} of this kind; it would take {} MB, at most {} are given; save \
             it as JPEG or PNG",
            bytes >> 20,
            MAX_BYTES >> 20
        )));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BYTES);
    decoder.set_limits(limits).map_err(|error| failed(kind, error))?;
    let mut canvas = Canvas::new(frame, width, height, orientation)?;
    if let Some(pixels) = canvas.upright().filter(|_| direct) {
        return decoder.read_image(pixels).map_err(|error| failed(kind, error));
    }
    let mut whole = vec![0; usize::try_from(decoder.total_bytes()).map_err(corrupt)?];
    decoder.read_image(&mut whole).map_err(|error| failed(kind, error))?;
    let mut row = vec![0; width as usize * 3];
    for (at, stored) in whole.chunks_exact(width as usize * usize::from(color.bytes_per_pixel())).enumerate() {
        to_rgb(color, stored, &mut row)?;
        canvas.put(at, &row);
    }
    Ok(())
}

/// Upper bound of the bytes per pixel that the decoder needs besides the output buffer.
fn beside(kind: PictureFormat, color: ColorType) -> u64 {
    match (kind, color) {
        // All strips, before they are assembled (CMYK has four values per pixel).
        (PictureFormat::Tiff, color) => {
            u64::from(color.bytes_per_pixel().max(4) * if color == ColorType::Rgb16 { 2 } else { 1 })
        }
        // RGBA for a lossless image; with alpha, the colour planes and a separate alpha plane.
        (PictureFormat::WebP, ColorType::Rgb8) => 4,
        (PictureFormat::WebP, _) => 8,
        (PictureFormat::Gif, _) => 5,
        _ => 0,
    }
}

fn failed(kind: PictureFormat, error: ImageError) -> Error {
    match error {
        ImageError::Unsupported(error) => {
            Error::runtime(format!("the {kind:?} is of a kind that is not read; save it as JPEG or PNG"))
                .with_source(error)
        }
        ImageError::Limits(error) => Error::runtime(format!(
            "the {kind:?} needs more than the {} MB that are given; save it as JPEG or PNG",
            MAX_BYTES >> 20
        ))
        .with_source(error),
        other => corrupt(other),
    }
}

/// Converts one row of `color`, in native byte order, to 8-bit RGB.
fn to_rgb(color: ColorType, row: &[u8], out: &mut [u8]) -> Result<()> {
    let channels = usize::from(color.channel_count());
    let size = usize::from(color.bytes_per_pixel()) / channels;
    let value = |sample: &[u8]| match *sample {
        [one] => one,
        // Rounds to the nearest of 256 levels; two levels are 257 apart.
        [a, b] => ((u32::from(u16::from_ne_bytes([a, b])) + 128) / 257) as u8,
        [a, b, c, d] => (f32::from_ne_bytes([a, b, c, d]).clamp(0.0, 1.0) * 255.0).round() as u8,
        _ => 0,
    };
    let grey = match color {
        ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16 => true,
        ColorType::Rgb8
        | ColorType::Rgba8
        | ColorType::Rgb16
        | ColorType::Rgba16
        | ColorType::Rgb32F
        | ColorType::Rgba32F => false,
        _ => return Err(Error::runtime(format!("pixels of {color:?} are not read; save it as JPEG or PNG"))),
    };
    for (out, pixel) in out.chunks_exact_mut(3).zip(row.chunks_exact(channels * size)) {
        for (at, out) in out.iter_mut().enumerate() {
            let channel = if grey { 0 } else { at };
            *out = value(&pixel[channel * size..][..size]);
        }
    }
    Ok(())
}
