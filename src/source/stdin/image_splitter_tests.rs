use super::*;
use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageFormat, Rgb};

fn picture(format: ImageFormat, shade: u8) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let image = ImageBuffer::from_fn(19, 11, |x, y| Rgb([shade, (x * 9) as u8, (y * 9) as u8]));
    assert!(DynamicImage::ImageRgb8(image).write_to(&mut out, format).is_ok());
    out.into_inner()
}

/// Returns `step` bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.1.min(buffer.len());
        self.0.read(&mut buffer[..n])
    }
}

fn pictures() -> Vec<Vec<u8>> {
    let kinds = [ImageFormat::Jpeg, ImageFormat::Png];
    (0..6).map(|i| picture(kinds[i % 2], 40 * i as u8)).collect()
}

#[test]
fn pictures_are_cut_where_they_end_however_the_bytes_come() {
    let all = pictures();
    // With padding and a part header between the images.
    let parted = all.iter().flat_map(|one| [one.as_slice(), &[0; 7], b"--part\r\nContent-Length: 9\r\n\r\n\xff"]);
    for bytes in [all.concat(), parted.collect::<Vec<_>>().concat()] {
        for step in [1, 7, 1000, 1 << 20] {
            let mut cutter = ImageSplitter::new(Slow(&bytes, step));
            for one in &all {
                assert_eq!(cutter.next(), SplitItem::Picture(one.clone()), "{step}");
            }
            assert_eq!(cutter.next(), SplitItem::End);
        }
    }
}

#[test]
fn a_cut_in_the_last_picture_and_garbage_behind_it_are_told() {
    let all = pictures();
    for (at, one) in all.iter().enumerate() {
        let before = all[..at].concat();
        for length in [JPEG.len().max(PNG.len()), one.len() / 2, one.len() - 1] {
            let mut cutter = ImageSplitter::new(Cursor::new([before.as_slice(), &one[..length]].concat()));
            for _ in 0..at {
                assert!(matches!(cutter.next(), SplitItem::Picture(_)));
            }
            assert_eq!(cutter.next(), SplitItem::Broken("it ends in the middle of a picture".into()), "{at} {length}");
        }
    }
    let mut cutter = ImageSplitter::new(Cursor::new([all[0].as_slice(), &vec![7; 1 << 18]].concat()));
    assert!(matches!(cutter.next(), SplitItem::Picture(_)));
    assert!(matches!(cutter.next(), SplitItem::Broken(why) if why.contains("no picture begins")));
    assert!(cutter.bytes.len() <= 2 * PIECE, "what is no picture is not gathered");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_go_on_for_ever(
        png in proptest::bool::ANY,
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..3000),
        step in 1usize..500,
    ) {
        let start = if png { PNG } else { JPEG };
        let all = [start, &bytes].concat();
        let mut cutter = ImageSplitter::new(Slow(&all, step));
        let mut taken = 0;
        while let SplitItem::Picture(picture) = cutter.next() {
            taken += picture.len();
            // A JPEG that is truncated at once leaves two bytes.
            proptest::prop_assert!(picture.starts_with(&JPEG[..2]) || picture.starts_with(PNG));
        }
        proptest::prop_assert!(taken <= all.len());
    }
}

#[test]
fn a_picture_that_breaks_off_costs_no_other() {
    let all = pictures();
    // A truncated JPEG or PNG before an image of either format.
    for (broken, next) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        let (broken, next, after) = (all[broken].as_slice(), all[next].as_slice(), all[5 - next].as_slice());
        let end = JPEG.len().max(PNG.len());
        for cut in end..broken.len() - 1 {
            let bytes = [&broken[..cut], next, after].concat();
            for step in [1, 97, 1 << 20] {
                let mut cutter = ImageSplitter::new(Slow(&bytes, step));
                for right in [&broken[..cut], next, after] {
                    assert_eq!(cutter.next(), SplitItem::Picture(right.to_vec()), "{cut} {step}");
                }
                assert_eq!(cutter.next(), SplitItem::End);
            }
        }
    }
}

#[test]
fn pixels_of_a_whole_png_that_look_like_a_jpeg_are_pixels() {
    let all = pictures();
    let body = [b"teXt", JPEG, &[0xE0, 0, 16]].concat();
    let length = (body.len() as u32 - 4).to_be_bytes();
    let mut chunk = [&length, body.as_slice(), &crc32fast::hash(&body).to_be_bytes()].concat();
    let of = |chunk: &[u8]| [&all[1][..33], chunk, &all[1][33..]].concat();
    for step in [1, 97] {
        let bytes = [of(&chunk), all[0].clone()].concat();
        let mut cutter = ImageSplitter::new(Slow(&bytes, step));
        assert_eq!(cutter.next(), SplitItem::Picture(of(&chunk)));
        assert_eq!(cutter.next(), SplitItem::Picture(all[0].clone()));
    }
    // A wrong checksum alone does not split the image.
    chunk.truncate(8);
    chunk[..4].fill(0);
    chunk.extend([7; 4]);
    let bytes = [of(&chunk), all[0].clone()].concat();
    let mut cutter = ImageSplitter::new(Slow(&bytes, 97));
    assert_eq!(cutter.next(), SplitItem::Picture(of(&chunk)));
    assert_eq!(cutter.next(), SplitItem::Picture(all[0].clone()));
}

#[test]
fn a_picture_that_never_ends_is_bounded() {
    struct Endless(usize);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(1);
            if self.0 == 0 {
                buffer[..3].copy_from_slice(JPEG);
            }
            self.0 += buffer.len();
            Ok(buffer.len())
        }
    }
    let mut cutter = ImageSplitter::new(Endless(0));
    assert!(matches!(cutter.next(), SplitItem::Broken(why) if why.contains("more than")));
    assert!(cutter.stream.0 as u64 <= MAX_FILE_BYTES + 2 * PIECE as u64);
}
