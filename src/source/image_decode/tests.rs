//! Images of every format: complete, truncated, rotated, too large and damaged.
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

const OTHERS: [ImageFormat; 4] = [ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::Tiff];

/// The gradient in a lossless format (in a GIF: few colours).
fn encoded(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut pixels = gradient(width, height);
    if format == ImageFormat::Gif {
        pixels.iter_mut().for_each(|value| *value &= 0xC0);
    }
    let image = ImageBuffer::<Rgb<u8>, _>::from_raw(width, height, pixels).unwrap();
    DynamicImage::from(image).write_to(&mut Cursor::new(&mut out), format).unwrap();
    out
}

/// EXIF with nothing but the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut out = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    out.extend([orientation, 0, 0, 0, 0, 0, 0]);
    out
}

fn with_exif_jpeg(whole: &[u8], exif: &[u8]) -> Vec<u8> {
    let length = u16::try_from(exif.len() + 8).unwrap().to_be_bytes();
    let app1 = [&[0xFF, 0xE1, length[0], length[1]], b"Exif\0\0".as_slice(), exif].concat();
    [&whole[..2], &app1, &whole[2..]].concat()
}

/// Puts the EXIF chunk after the pixels, before the last chunk.
fn with_exif_png(whole: &[u8], exif: &[u8]) -> Vec<u8> {
    let body = [b"eXIf".as_slice(), exif].concat();
    let length = u32::try_from(exif.len()).unwrap().to_be_bytes();
    let chunk = [&length, body.as_slice(), &crc32fast::hash(&body).to_be_bytes()].concat();
    let end = whole.len() - 12;
    [&whole[..end], &chunk, &whole[end..]].concat()
}

/// Converts to the extended format: header, pixels, EXIF (RFC 9649).
fn with_exif_webp(whole: &[u8], exif: &[u8], width: u32, height: u32) -> Vec<u8> {
    let sides = [width - 1, height - 1].map(u32::to_le_bytes);
    let mut body = b"WEBPVP8X\x0a\0\0\0\x08\0\0\0".to_vec();
    body.extend(sides.iter().flat_map(|side| &side[..3]));
    body.extend(&whole[12..]);
    body.extend(b"EXIF");
    body.extend(u32::try_from(exif.len()).unwrap().to_le_bytes());
    body.extend(exif);
    [b"RIFF".as_slice(), &u32::try_from(body.len()).unwrap().to_le_bytes(), &body].concat()
}

#[test]
fn pictures_are_turned_as_exif_says_in_every_kind_that_has_it() {
    let (width, height) = (37, 21);
    for orientation in 1..=8 {
        let turned = |stored: &[u8]| {
            let stored = image::RgbImage::from_raw(width, height, stored.to_vec()).unwrap();
            let mut whole = DynamicImage::from(stored);
            whole.apply_orientation(image::metadata::Orientation::from_exif(orientation).unwrap());
            whole
        };
        let stored = jpeg(width, height);
        let interlaced = png(ImageBuffer::<Rgb<u8>, _>::from_raw(width, height, gradient(width, height)).unwrap());
        let webp = encoded(ImageFormat::WebP, width, height);
        let exif = exif(orientation);
        let mut tiff = encoded(ImageFormat::Tiff, width, height);
        let tiff = tiff_oriented(&mut tiff, orientation);
        for (plain, oriented) in [
            (stored.clone(), with_exif_jpeg(&stored, &exif)),
            (interlaced.clone(), with_exif_png(&interlaced, &exif)),
            (webp.clone(), with_exif_webp(&webp, &exif, width, height)),
            (webp.clone(), with_exif_webp(&webp, &[b"Exif\0\0", &exif[..]].concat(), width, height)),
            (interlaced.clone(), with_exif_png(&interlaced, &[b"Exif\0\0", &exif[..]].concat())),
            (encoded(ImageFormat::Tiff, width, height), tiff),
        ] {
            let (expected, found) = (turned(&decoded(&plain).pixels), decoded(&oriented));
            let kind = PictureFormat::of(&plain);
            assert_eq!((found.width, found.height), (expected.width(), expected.height()), "{kind:?} {orientation}");
            assert!(found.pixels == expected.as_bytes(), "{kind:?} {orientation}");
        }
    }
    // The XMP orientation, if EXIF has none.
    let stored = jpeg(width, height);
    for text in ["tiff:Orientation=\"3\"", "<tiff:Orientation>3</tiff:Orientation>"] {
        let body = [b"http://ns.adobe.com/xap/1.0/\0".as_slice(), text.as_bytes()].concat();
        let length = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
        let oriented = [&stored[..2], &[0xFF, 0xE1, length[0], length[1]], &body, &stored[2..]].concat();
        assert_eq!(decoded(&oriented).pixels[..3], decoded(&stored).pixels[(width * height * 3 - 3) as usize..]);
    }
    // An invalid orientation changes nothing.
    let stored = jpeg(width, height);
    for bad in [exif(0), exif(9), b"MM\0*".to_vec(), Vec::new()] {
        assert_eq!(decoded(&with_exif_jpeg(&stored, &bad)).pixels, decoded(&stored).pixels);
    }
}

/// Replaces the last entry of a TIFF (the planar configuration, whose default all readers assume) with its orientation.
fn tiff_oriented(bytes: &mut [u8], orientation: u8) -> Vec<u8> {
    let at = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let entries = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    // Entries are sorted by tag: 274 goes between 262 and 277.
    let mut all: Vec<[u8; 12]> =
        (0..entries).map(|i| bytes[at + 2 + 12 * i..at + 14 + 12 * i].try_into().unwrap()).collect();
    let mut entry = [0x12, 0x01, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    entry[8] = orientation;
    all.push(entry);
    all.sort_by_key(|entry| u16::from_le_bytes([entry[0], entry[1]]));
    let mut out = bytes.to_vec();
    let new = u32::try_from(out.len()).unwrap();
    out[4..8].copy_from_slice(&new.to_le_bytes());
    out.extend((all.len() as u16).to_le_bytes());
    out.extend(all.concat());
    out.extend([0; 4]);
    out
}

#[test]
fn the_other_kinds_come_back_exactly_in_every_depth() {
    for format in OTHERS {
        let frame = decoded(&encoded(format, 20, 10));
        let mut expected = gradient(20, 10);
        if format == ImageFormat::Gif {
            expected.iter_mut().for_each(|value| *value &= 0xC0);
        }
        assert_eq!((frame.width, frame.height), (20, 10));
        assert!(frame.pixels == expected, "{format:?}");
        let whole = encoded(format, 20, 10);
        let mut frame = Frame::default();
        for length in 0..whole.len() {
            let read = decode(&whole[..length], &mut frame).is_ok();
            assert!(!read || frame.pixels == expected, "{length} of {} bytes of {format:?}", whole.len());
        }
    }
    let tiff = |image: DynamicImage| {
        let mut out = Vec::new();
        image.write_to(&mut Cursor::new(&mut out), ImageFormat::Tiff).unwrap();
        decoded(&out).pixels
    };
    assert_eq!(tiff(ImageBuffer::from_pixel(2, 1, Rgb([0u16, 0x8080, 0xFFFF])).into()), [0, 128, 255, 0, 128, 255]);
    assert_eq!(tiff(ImageBuffer::from_pixel(1, 1, Luma([0xFFFFu16])).into()), [255; 3]);
    assert_eq!(tiff(ImageBuffer::from_pixel(1, 1, Rgba([1u8, 2, 3, 0])).into()), [1, 2, 3]);
    assert_eq!(tiff(ImageBuffer::from_pixel(1, 1, Rgb([0.0f32, 0.5, 2.0])).into()), [0, 128, 255]);
}

#[test]
fn an_animation_is_no_picture_and_says_so() {
    use image::codecs::gif::GifEncoder;
    let film = |count: u8| {
        let mut out = Vec::new();
        let mut encoder = GifEncoder::new(&mut out);
        let picture = |shade| image::Frame::new(ImageBuffer::from_pixel(8, 8, Rgba([shade, 0, 0, 255])));
        encoder.encode_frames((0..count).map(picture)).unwrap();
        drop(encoder);
        out
    };
    let folder = tempfile::tempdir().unwrap();
    let found = |bytes: &[u8]| {
        let path = folder.path().join("x");
        std::fs::write(&path, bytes).unwrap();
        Sniffed::at(&path)
    };
    assert_eq!(found(&film(1)), Some(Sniffed::Picture));
    assert_eq!(found(&film(2)), Some(Sniffed::Animated(PictureFormat::Gif)));
    let refused = decode(&film(3), &mut Frame::default()).unwrap_err().chain();
    assert!(refused.contains("animated"), "{refused}");
    let mut webp = with_exif_webp(&encoded(ImageFormat::WebP, 8, 8), &exif(1), 8, 8);
    assert_eq!(found(&webp), Some(Sniffed::Picture));
    webp[20] |= 2;
    assert_eq!(found(&webp), Some(Sniffed::Animated(PictureFormat::WebP)));
    assert_eq!(found(b"BM is how this text begins, and it goes on"), None);
}

#[test]
fn the_decoders_own_warnings_tell_damaged_jpegs_from_whole_ones() {
    let whole = jpeg(160, 96);
    let pixels = decoded(&whole).pixels;
    let end = whole.len() - 2;
    // Padding or a trailer in place of the end marker, as cards and phones leave it.
    for tail in [vec![0; 512], b"trailer of a phone ".repeat(20), vec![0xFF; 9], Vec::new()] {
        assert_eq!(decoded(&[&whole[..end], &tail].concat()).pixels, pixels);
    }
    let mut frame = Frame::default();
    let half = &whole[..whole.len() / 2];
    let refused = decode(&[half, &[0xFF, 0xD9]].concat(), &mut frame).unwrap_err().chain();
    assert!(refused.contains("libjpeg says: Corrupt JPEG data: premature end of data segment"), "{refused}");
    assert!(frame.pixels.is_empty());
    let other = decode(b"\xff\xd8\xff\xe0\0\x10JFIF", &mut frame).unwrap_err().chain();
    assert!(other.contains("damaged") || other.contains("corrupt"), "{other}");
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
    let pixels = decoded(&whole).pixels;
    for length in 0..whole.len() {
        let read = decode(&whole[..length], &mut frame).is_ok();
        // Only the end marker may be missing, but no pixel.
        assert!(!read || (frame.pixels == pixels && length + 2 >= whole.len()), "{length} of {} bytes", whole.len());
        assert!(read || (frame.width == 0 && frame.pixels.is_empty()));
    }
    assert_eq!(decoded(&whole[..whole.len() - 2]).pixels, pixels);
    // A file whose end was never written, as after a power cut.
    let mut holed = whole.clone();
    let half = holed.len() / 2;
    holed[half..].fill(0);
    let refused = decode(&holed, &mut frame).unwrap_err().chain();
    assert!(refused.contains("truncated") || refused.contains("damaged"), "{refused}");
    // Extra bytes after the end, as in a camera's buffer, do not matter.
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
    for length in [10, 40, whole.len() / 2, whole.len() - 60] {
        assert!(decode(&whole[..length], &mut frame).is_err(), "{length} of {}", whole.len());
    }
    assert!(decode(b"", &mut frame).unwrap_err().chain().contains("empty"));
    for (bytes, named) in [
        (b"GIF89a".as_slice(), "corrupt"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"P6\n2 1\n255\nabcdef", "Pnm"),
        (b"some text", "of no kind"),
    ] {
        let refused = decode(bytes, &mut frame).unwrap_err().chain();
        assert!(refused.contains(named), "{refused}");
    }
    let missing = read_image(Path::new("/nowhere/a.jpg"), &mut frame).unwrap_err().chain();
    assert!(missing.contains("/nowhere/a.jpg") && missing.contains("No such file"), "{missing}");
}

#[test]
fn sizes_are_checked_before_memory_is_taken() {
    // The header of the JPEG says 65500 x 65500, but the file has only a few hundred bytes.
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

/// A grey TIFF in one strip, with 64-bit offsets if `big`.
fn tiff(width: u32, height: u32, pixels: &[u8], big: bool) -> Vec<u8> {
    let (offset, count) = (if big { 8 } else { 4 }, if big { 8 } else { 2 });
    let number = |value: u64, bytes: usize| value.to_le_bytes()[..bytes].to_vec();
    let head = if big { b"II\x2b\0\x08\0\0\0".to_vec() } else { b"II*\0".to_vec() };
    let first = head.len() + offset;
    let entries = 8;
    let behind = first + count + entries * (4 + 2 * offset) + offset;
    let sides = [u64::from(width), u64::from(height)];
    // Tag, type (3: 16 bits, 4: 32 bits), count, value.
    let all: [(u64, u64, u64, u64); 8] = [
        (256, 4, 1, sides[0]),
        (257, 4, 1, sides[1]),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, behind as u64),
        (277, 3, 1, 1),
        (279, 4, 1, pixels.len() as u64),
    ];
    let entry = |&(tag, kind, many, value): &(u64, u64, u64, u64)| {
        [number(tag, 2), number(kind, 2), number(many, offset), number(value, offset)].concat()
    };
    let all = all.iter().flat_map(entry).collect();
    [head, number(first as u64, offset), number(entries as u64, count), all, number(0, offset), pixels.to_vec()]
        .concat()
}

#[test]
fn a_tiff_with_long_offsets_is_read_as_any() {
    let pixels: Vec<u8> = (0..19 * 11).map(|i| (i * 7 % 256) as u8).collect();
    for big in [false, true] {
        let frame = decoded(&tiff(19, 11, &pixels, big));
        assert_eq!((frame.width, frame.height), (19, 11));
        assert!(frame.pixels.chunks(3).zip(&pixels).all(|(rgb, grey)| rgb == [*grey; 3]), "{big}");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), tiff(19, 11, &pixels, big)).unwrap();
        assert_eq!(Sniffed::at(&folder.path().join("a")), Some(Sniffed::Picture));
    }
}

/// Images of a few bytes whose headers claim `side` by `side` pixels.
fn bombs(side: u32) -> [(PictureFormat, Vec<u8>); 6] {
    let mut bmp = encoded(ImageFormat::Bmp, 4, 4);
    bmp[18..22].copy_from_slice(&side.to_le_bytes());
    bmp[22..26].copy_from_slice(&side.to_le_bytes());
    let mut gif = encoded(ImageFormat::Gif, 4, 4);
    let short = u16::try_from(side).unwrap().to_le_bytes();
    for at in [6, 8] {
        gif[at..at + 2].copy_from_slice(&short);
    }
    // Lossless: two 14-bit numbers after the signature; the decoder takes the largest value for none.
    let (mut webp, packed) = (encoded(ImageFormat::WebP, 4, 4), side.min(16_000) - 1);
    webp[21..25].copy_from_slice(&(packed | packed << 14).to_le_bytes());
    // The extended header has 24 bits for each side.
    let extended = with_exif_webp(&encoded(ImageFormat::WebP, 4, 4), &exif(1), side, side);
    [
        (PictureFormat::Bmp, bmp),
        (PictureFormat::Gif, gif),
        (PictureFormat::WebP, webp),
        (PictureFormat::WebP, extended),
        (PictureFormat::Tiff, tiff(side, side, &[7; 16], false)),
        (PictureFormat::Tiff, tiff(side, side, &[7; 16], true)),
    ]
}

#[test]
fn what_headers_announce_is_refused_before_memory_is_taken() {
    for side in [16_384, 20_000, 60_000] {
        for (kind, bytes) in bombs(side) {
            assert_eq!(PictureFormat::of(&bytes), Some(kind));
            assert!(bytes.len() < 1000, "{kind:?} {side}");
            let mut frame = Frame::default();
            let text = decode(&bytes, &mut frame).unwrap_err().chain();
            assert!(text.contains("pixels are too many"), "{kind:?} {side}: {text}");
            assert_eq!(frame.pixels.capacity(), 0, "{kind:?} {side}");
        }
    }
}

#[test]
fn broken_bytes_never_panic() {
    let grey = png(ImageBuffer::from_pixel(9, 7, LumaA([77u8, 9])));
    let mut frame = Frame::default();
    let mut state = 1u32;
    let others = OTHERS.map(|format| encoded(format, 24, 16));
    for whole in [jpeg(24, 16), grey].into_iter().chain(others) {
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % bytes.len();
                bytes[at] = state as u8;
            }
            // Some are still readable; none may panic, and a failure must leave an empty frame.
            if decode(&bytes, &mut frame).is_err() {
                assert!(frame.pixels.is_empty());
            }
        }
    }
}
