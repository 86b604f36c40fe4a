//! Decodes PNG to 8-bit RGB row by row: besides the frame the decoder needs only a few rows, whatever the colour type.
use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Reader, Transformations};

use image::metadata::Orientation;

use super::canvas::Canvas;
use super::corrupt;
use super::jpeg_outline::{exif_orientation, xmp_orientation};
use crate::error::{Error, Result};
use crate::frame::Frame;

/// Maximum memory for an interlaced image besides the frame: its rows come in seven passes, so the whole image is kept.
const MAX_INTERLACED_BYTES: usize = 1 << 27;
/// Working memory of the decoder for chunks and rows (16,384 pixels of 8 bytes are 128 KiB).
const MAX_DECODER_BYTES: usize = 1 << 26;

/// Decodes `bytes` into `frame`: converts grey to RGB, rounds 16 bits to 8, and drops alpha.
///
/// # Errors
/// A runtime error: damaged, truncated, or too many pixels; the frame's pixels are then undefined.
pub(super) fn fill(bytes: &[u8], frame: &mut Frame) -> Result<()> {
    let limits = png::Limits { bytes: MAX_DECODER_BYTES };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::EXPAND);
    // Before any pixels are allocated.
    let header = decoder.read_header_info().map_err(corrupt)?;
    let mut canvas = Canvas::new(frame, header.width, header.height, orientation(bytes))?;
    let mut reader = decoder.read_info().map_err(corrupt)?;
    if reader.info().interlaced {
        fill_interlaced(&mut reader, &mut canvas)?;
    } else {
        fill_rows(&mut reader, &mut canvas)?;
    }
    // All rows are there. What follows (more images of an animation, the end) cannot affect them, but the checksum of
    // the last pixel chunk comes after them.
    if chunks(bytes).filter(|chunk| chunk.name == *b"IDAT").all(|chunk| chunk.sound()) {
        return Ok(());
    }
    Err(Error::runtime("the PNG is damaged: a checksum of its pixels is another"))
}

/// A chunk with all of its data (PNG specification, third edition, 5.3).
struct Chunk<'a> {
    name: [u8; 4],
    /// Type and data.
    body: &'a [u8],
    /// The stored checksum, unless the file ends before it.
    sum: Option<u32>,
}

impl Chunk<'_> {
    fn sound(&self) -> bool {
        self.sum.is_none_or(|sum| sum == crc32fast::hash(self.body))
    }
}

/// The complete chunks of a PNG.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let end = (u32::from_be_bytes(*length) as usize).checked_add(4)?;
        let body = after.get(..end)?;
        let sum = after.get(end..).and_then(|behind| behind.first_chunk()).map(|sum| u32::from_be_bytes(*sum));
        rest = after.get(end + 4..).unwrap_or_default();
        Some(Chunk { name: *body.first_chunk()?, body, sum })
    })
}

/// The orientation from the EXIF chunk, wherever it is (11.3.4.5), otherwise from XMP.
fn orientation(bytes: &[u8]) -> Orientation {
    let exif = |chunk: Chunk<'_>| exif_orientation(chunk.body.strip_prefix(b"eXIf")?);
    let xmp = |chunk: Chunk<'_>| xmp_orientation(chunk.body.strip_prefix(b"iTXtXML:com.adobe.xmp\0\0")?);
    let found = chunks(bytes).find_map(exif).or_else(|| chunks(bytes).find_map(xmp));
    found.unwrap_or(Orientation::NoTransforms)
}

fn fill_rows(reader: &mut Reader<Cursor<&[u8]>>, canvas: &mut Canvas<'_>) -> Result<()> {
    let (format, width) = (reader.output_color_type(), canvas.width);
    let mut next = |out: &mut [u8]| {
        let row =
            reader.next_row().map_err(corrupt)?.ok_or_else(|| Error::runtime("the PNG ends before its last row"))?;
        to_rgb(row.data(), format, out)
    };
    if let Some(pixels) = canvas.upright() {
        return pixels.chunks_exact_mut(width * 3).try_for_each(next);
    }
    let mut row = vec![0; width * 3];
    for at in 0..canvas.height {
        next(&mut row)?;
        canvas.put(at, &row);
    }
    Ok(())
}

fn fill_interlaced(reader: &mut Reader<Cursor<&[u8]>>, canvas: &mut Canvas<'_>) -> Result<()> {
    let format = reader.output_color_type();
    if let Some(pixels) = canvas.upright().filter(|_| format == (ColorType::Rgb, BitDepth::Eight)) {
        return reader.next_frame(pixels).map(drop).map_err(corrupt);
    }
    let bytes = reader.output_buffer_size().filter(|bytes| *bytes <= MAX_INTERLACED_BYTES).ok_or_else(|| {
        let info = reader.info();
        Error::runtime(format!(
            "{}x{} pixels are too many for an interlaced PNG of this kind, of which at most {} MB are read; save it without \
             interlacing",
            info.width,
            info.height,
            MAX_INTERLACED_BYTES >> 20
        ))
    })?;
    let mut whole = vec![0; bytes];
    reader.next_frame(&mut whole).map_err(corrupt)?;
    let mut row = vec![0; canvas.width * 3];
    for (at, stored) in whole.chunks_exact(bytes / canvas.height).enumerate() {
        to_rgb(stored, format, &mut row)?;
        canvas.put(at, &row);
    }
    Ok(())
}

/// Converts pixels of `format` (big-endian if 16 bits) to 8-bit RGB.
fn to_rgb(pixels: &[u8], (color, depth): (ColorType, BitDepth), out: &mut [u8]) -> Result<()> {
    let channels = color.samples();
    // Rounds to the nearest of 256 levels; two levels are 257 apart.
    let narrow = |sample: &[u8]| match *sample {
        [high, low] => ((u32::from(u16::from_be_bytes([high, low])) + 128) / 257) as u8,
        [sample] => sample,
        _ => 0,
    };
    let size = if depth == BitDepth::Sixteen { 2 } else { 1 };
    if pixels.len() / (channels * size) < out.len() / 3 {
        return Err(Error::runtime("a row of the PNG is too short"));
    }
    for (out, pixel) in out.chunks_exact_mut(3).zip(pixels.chunks_exact(channels * size)) {
        let sample = |channel: usize| narrow(&pixel[channel * size..][..size]);
        match color {
            ColorType::Rgb | ColorType::Rgba => out.copy_from_slice(&[sample(0), sample(1), sample(2)]),
            ColorType::Grayscale | ColorType::GrayscaleAlpha | ColorType::Indexed => out.fill(sample(0)),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use image::{DynamicImage, ImageFormat, ImageReader};

    use super::*;

    /// Pixels of every level, in all formats of a PNG.
    fn encode(color: ColorType, depth: BitDepth, palette: Option<&[u8]>, side: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, side, side);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette.to_vec());
            encoder.set_trns(vec![9, 200]);
        }
        let bits = side as usize * color.samples() * depth as usize;
        let row = bits.div_ceil(8);
        let data: Vec<u8> = (0..row * side as usize).map(|i| (i * 37 + i / 251) as u8).collect();
        encoder.write_header().unwrap().write_image_data(&data).unwrap();
        out
    }

    /// Decodes with `image`, which holds the whole image in memory twice.
    fn by_image(bytes: &[u8]) -> Vec<u8> {
        let mut reader = ImageReader::new(Cursor::new(bytes));
        reader.set_format(ImageFormat::Png);
        reader.decode().map(DynamicImage::into_rgb8).unwrap().into_raw()
    }

    #[test]
    fn every_colour_type_and_depth_is_that_of_the_image_crate() {
        use BitDepth::{Eight, Four, One, Sixteen, Two};
        use ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
        let palette: Vec<u8> = (0..768).map(|i| (i * 11) as u8).collect();
        let mut frame = Frame::default();
        for (color, depths) in [
            (Grayscale, &[One, Two, Four, Eight, Sixteen][..]),
            (Indexed, &[One, Two, Four, Eight]),
            (GrayscaleAlpha, &[Eight, Sixteen]),
            (Rgb, &[Eight, Sixteen]),
            (Rgba, &[Eight, Sixteen]),
        ] {
            for &depth in depths {
                let colours = 3 << (depth as usize).min(8);
                let bytes = encode(color, depth, (color == Indexed).then(|| &palette[..colours]), 67);
                fill(&bytes, &mut frame).unwrap();
                assert_eq!((frame.width, frame.height), (67, 67));
                assert!(frame.pixels == by_image(&bytes), "{color:?} of {depth:?}");
            }
        }
    }

    #[test]
    fn all_levels_of_16_bits_are_rounded_as_in_the_image_crate() {
        let pixels: Vec<u16> = (0..=u16::MAX).collect();
        let grey = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(256, 256, pixels).unwrap();
        let mut bytes = Vec::new();
        DynamicImage::from(grey).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        let mut frame = Frame::default();
        fill(&bytes, &mut frame).unwrap();
        assert!(frame.pixels == by_image(&bytes));
    }

    #[test]
    fn a_cut_picture_is_an_error_wherever_it_is_cut() {
        let bytes = encode(ColorType::Grayscale, BitDepth::Eight, None, 67);
        let mut frame = Frame::default();
        let whole = by_image(&bytes);
        for length in 0..bytes.len() {
            // Only the last chunk and checksums may be missing, but no pixel.
            let read = fill(&bytes[..length], &mut frame).is_ok();
            assert!(!read || (frame.pixels == whole && length > bytes.len() - 24), "{length} of {}", bytes.len());
        }
    }

    #[test]
    fn every_changed_byte_of_the_pixels_is_seen_and_what_follows_them_is_not_needed() {
        let bytes = encode(ColorType::Grayscale, BitDepth::Eight, None, 67);
        let whole = by_image(&bytes);
        let mut frame = Frame::default();
        let pixels = bytes.windows(4).position(|name| name == b"IDAT").unwrap();
        for at in (pixels..bytes.len() - 12).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            assert!(fill(&changed, &mut frame).is_err(), "{at} of {}", bytes.len());
        }
        // An animation frame out of order: the first one is missing.
        let end = bytes.len() - 12;
        let odd = [&bytes[..end], b"\0\0\0\x04fdAT\0\0\0\x09", &[0; 4], &bytes[end..]].concat();
        fill(&odd, &mut frame).unwrap();
        assert!(frame.pixels == whole);
    }

    #[test]
    fn interlaced_pictures_come_back_and_large_ones_are_refused_before_their_memory() {
        let side = 5u32;
        let plain: Vec<u8> = (0..side * side).map(|i| (i * 9) as u8).collect();
        let bytes = interlaced(side, side, &plain);
        let mut frame = Frame::default();
        fill(&bytes, &mut frame).unwrap();
        assert_eq!(frame.pixels, plain.iter().flat_map(|v| [*v; 3]).collect::<Vec<u8>>());
        let mut large = interlaced(side, side, &plain);
        // As RGBA of that size: 512 MiB besides the frame.
        large[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x20, 0]);
        large[25] = 6;
        fix_header(&mut large);
        let refused = fill(&large, &mut frame).unwrap_err().chain();
        assert!(refused.contains("16384x8192 pixels are too many for an interlaced PNG"), "{refused}");
    }

    /// An interlaced grey PNG (Adam7, PNG specification 8.2), each row unfiltered.
    fn interlaced(width: u32, height: u32, plain: &[u8]) -> Vec<u8> {
        let mut rows = Vec::new();
        for (x0, y0, dx, dy) in
            [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        {
            for y in (y0..height).step_by(dy) {
                let row: Vec<u8> = (x0..width).step_by(dx).map(|x| plain[(y * width + x) as usize]).collect();
                if !row.is_empty() {
                    rows.push(0);
                    rows.extend(row);
                }
            }
        }
        // One stored zlib block.
        let length = u16::try_from(rows.len()).unwrap();
        let mut data = vec![0x78, 0x01, 0x01];
        data.extend(length.to_le_bytes());
        data.extend((!length).to_le_bytes());
        data.extend(&rows);
        let (mut a, mut b) = (1u32, 0u32);
        for byte in &rows {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        data.extend(((b << 16) | a).to_be_bytes());
        let mut header = Vec::new();
        header.extend(width.to_be_bytes());
        header.extend(height.to_be_bytes());
        header.extend([8, 0, 0, 0, 1]);
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        for (name, data) in [(b"IHDR", &header), (b"IDAT", &data), (b"IEND", &Vec::new())] {
            out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            let start = out.len();
            out.extend(name);
            out.extend(data);
            let check = crc32fast::hash(&out[start..]);
            out.extend(check.to_be_bytes());
        }
        out
    }

    fn fix_header(bytes: &mut [u8]) {
        let check = crc32fast::hash(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&check.to_be_bytes());
    }
}
