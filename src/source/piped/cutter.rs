//! One picture after another out of a stream of bytes: JPEG and PNG, as `cat *.jpg` and `ffmpeg -f mjpeg` give them.
use std::io::{ErrorKind, Read};

use crate::source::picture::{MAX_FILE_BYTES, jpeg_end_from};

/// How a JPEG begins.
pub(super) const JPEG: &[u8] = &[0xFF, 0xD8, 0xFF];
/// How a PNG begins.
pub(super) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// What may lie between two pictures, as padding or headers of parts; more of it is no stream of pictures.
const MAX_BETWEEN: usize = 1 << 16;
/// Bytes asked for at once.
const PIECE: usize = 1 << 16;

/// Cuts a stream into whole pictures.
pub(super) struct Cutter<R> {
    stream: R,
    /// Read and not handed out.
    bytes: Vec<u8>,
    piece: Vec<u8>,
    ended: bool,
}

/// What a stream has next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The bytes of a picture, from its first to its last.
    Picture(Vec<u8>),
    /// The end, after a whole picture.
    End,
    /// The end in a way that it should not be, in words.
    Broken(String),
}

impl<R: Read> Cutter<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, bytes: Vec::new(), piece: vec![0; PIECE], ended: false }
    }

    /// The next picture.
    pub(super) fn next(&mut self) -> Cut {
        self.picture().unwrap_or_else(|error| Cut::Broken(format!("it cannot be read: {error}")))
    }

    fn picture(&mut self) -> std::io::Result<Cut> {
        if let Some(other) = self.drop_before()? {
            return Ok(other);
        }
        let jpeg = self.bytes.starts_with(JPEG);
        let (mut at, mut seen) = (0, 0);
        loop {
            let end = if jpeg { jpeg_end_from(&self.bytes, &mut at) } else { png_end_from(&self.bytes, &mut at) };
            // A picture whose end is missing ends where the next begins, so that its damage is its own.
            let end = match end {
                Some(end) => Some(self.next_start(jpeg, end, seen).unwrap_or(end)),
                None if !jpeg || self.ended => self.next_start(jpeg, self.bytes.len(), seen),
                None => None,
            };
            seen = self.bytes.len();
            if let Some(end) = end {
                let rest = self.bytes.split_off(end);
                return Ok(Cut::Picture(std::mem::replace(&mut self.bytes, rest)));
            }
            if self.ended {
                return Ok(Cut::Broken("it ends in the middle of a picture".into()));
            }
            if self.bytes.len() as u64 > MAX_FILE_BYTES {
                return Ok(Cut::Broken(format!("a picture has more than {MAX_FILE_BYTES} bytes")));
            }
            self.more()?;
        }
    }

    /// Where another picture begins within the first `end` bytes; of a PNG's, `seen` were looked at before.
    fn next_start(&self, jpeg: bool, end: usize, seen: usize) -> Option<usize> {
        let bytes = self.bytes.get(..end).unwrap_or_default();
        if jpeg {
            return second_jpeg(bytes);
        }
        let from = seen.saturating_sub(PNG.len()).max(1);
        bytes.get(from..)?.windows(PNG.len()).position(|eight| eight == PNG).map(|at| from + at)
    }

    /// Drops what lies before the next picture; something else than `None` where there is none.
    fn drop_before(&mut self) -> std::io::Result<Option<Cut>> {
        let mut between = 0;
        loop {
            let starts = |at: &usize| {
                let rest = self.bytes.get(*at..).unwrap_or_default();
                rest.starts_with(JPEG) || rest.starts_with(PNG)
            };
            let start = (0..self.bytes.len()).find(starts);
            // The beginning of a beginning stays.
            let gone = start.unwrap_or_else(|| self.bytes.len().saturating_sub(PNG.len() - 1));
            between += gone;
            self.bytes.drain(..gone);
            if between > MAX_BETWEEN {
                return Ok(Some(Cut::Broken(format!("no picture begins within {MAX_BETWEEN} bytes after the last"))));
            }
            if start.is_some() {
                return Ok(None);
            }
            if !self.more()? {
                return Ok(Some(Cut::End));
            }
        }
    }

    /// Reads on; false at the end.
    fn more(&mut self) -> std::io::Result<bool> {
        while !self.ended {
            match self.stream.read(&mut self.piece) {
                Ok(n) => {
                    self.ended = n == 0;
                    self.bytes.extend_from_slice(self.piece.get(..n).unwrap_or_default());
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(!self.ended)
    }
}

/// Where a second JPEG begins in `bytes`, which begin with one. Segments of applications and comments may hold whole
/// pictures; the others, and what lies between segments, hold none.
fn second_jpeg(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xFF)?;
        let length = match *bytes.get(at + 1)? {
            0xD8 => return Some(at),
            0xFF => 1,
            0x00 | 0x01 | 0xD0..=0xD9 => 2,
            marker => {
                let length = usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]));
                let next = at + 2 + length;
                // It may have swallowed the first bytes of the next picture.
                let inside = bytes.get(at + 2..bytes.len().min(next + 2)).unwrap_or_default();
                // One that is whole is followed by a marker.
                let holds = matches!(marker, 0xE0..=0xEF | 0xFE) && bytes.get(next).is_none_or(|byte| *byte == 0xFF);
                if let (Some(start), false) = (inside.windows(JPEG.len()).position(|three| three == JPEG), holds) {
                    return Some(at + 2 + start);
                }
                2 + length.max(2)
            }
        };
        at += length;
    }
}

/// Bytes of the PNG at the start of `bytes`, with its last chunk (`IEND`); `at` as for a JPEG.
/// Source: PNG specification, third edition, 5.3: length, type, data, checksum.
fn png_end_from(bytes: &[u8], at: &mut usize) -> Option<usize> {
    *at = (*at).max(PNG.len());
    loop {
        let head = bytes.get(*at..)?.first_chunk::<8>()?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let end = at.checked_add(length)?.checked_add(12)?;
        if &head[4..] == b"IEND" {
            return bytes.get(end - 4..end).map(|checksum| end - swallowed(checksum));
        }
        *at = end;
    }
}

/// How many bytes at the end of a PNG's last checksum begin the next picture already, where that checksum broke off.
fn swallowed(checksum: &[u8]) -> usize {
    let begins = |rest: &[u8]| PNG.starts_with(rest) || rest.starts_with(JPEG) || JPEG.starts_with(rest);
    if checksum == [0xAE, 0x42, 0x60, 0x82] {
        return 0;
    }
    (0..checksum.len()).find_map(|at| checksum.get(at..).filter(|rest| begins(rest))).map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    use image::{DynamicImage, ImageBuffer, ImageFormat, Rgb};

    fn picture(format: ImageFormat, shade: u8) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        let image = ImageBuffer::from_fn(19, 11, |x, y| Rgb([shade, (x * 9) as u8, (y * 9) as u8]));
        assert!(DynamicImage::ImageRgb8(image).write_to(&mut out, format).is_ok());
        out.into_inner()
    }

    /// Gives `step` bytes at a time.
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
        // Padding and the header of a part between them.
        let parted = all.iter().flat_map(|one| [one.as_slice(), &[0; 7], b"--part\r\nContent-Length: 9\r\n\r\n\xff"]);
        for bytes in [all.concat(), parted.collect::<Vec<_>>().concat()] {
            for step in [1, 7, 1000, 1 << 20] {
                let mut cutter = Cutter::new(Slow(&bytes, step));
                for one in &all {
                    assert_eq!(cutter.next(), Cut::Picture(one.clone()), "{step}");
                }
                assert_eq!(cutter.next(), Cut::End);
            }
        }
    }

    #[test]
    fn a_cut_in_the_last_picture_and_garbage_behind_it_are_told() {
        let all = pictures();
        for (at, one) in all.iter().enumerate() {
            let before = all[..at].concat();
            for length in [JPEG.len().max(PNG.len()), one.len() / 2, one.len() - 1] {
                let mut cutter = Cutter::new(Cursor::new([before.as_slice(), &one[..length]].concat()));
                for _ in 0..at {
                    assert!(matches!(cutter.next(), Cut::Picture(_)));
                }
                assert_eq!(cutter.next(), Cut::Broken("it ends in the middle of a picture".into()), "{at} {length}");
            }
        }
        let mut cutter = Cutter::new(Cursor::new([all[0].as_slice(), &vec![7; 1 << 18]].concat()));
        assert!(matches!(cutter.next(), Cut::Picture(_)));
        assert!(matches!(cutter.next(), Cut::Broken(why) if why.contains("no picture begins")));
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
            let mut cutter = Cutter::new(Slow(&all, step));
            let mut taken = 0;
            while let Cut::Picture(picture) = cutter.next() {
                taken += picture.len();
                // Of a JPEG that broke off at once there are two bytes.
                proptest::prop_assert!(picture.starts_with(&JPEG[..2]) || picture.starts_with(PNG));
            }
            proptest::prop_assert!(taken <= all.len());
        }
    }

    #[test]
    fn a_picture_that_breaks_off_costs_no_other() {
        let all = pictures();
        for (which, broken) in all.iter().take(2).enumerate() {
            let end = JPEG.len().max(PNG.len());
            for cut in (end..broken.len() - 1).step_by(3) {
                let bytes = [&broken[..cut], &all[which + 2], &all[3 - which]].concat();
                let mut cutter = Cutter::new(Slow(&bytes, 97));
                assert_eq!(cutter.next(), Cut::Picture(broken[..cut].to_vec()), "{which} {cut}");
                assert_eq!(cutter.next(), Cut::Picture(all[which + 2].clone()), "{which} {cut}");
                assert_eq!(cutter.next(), Cut::Picture(all[3 - which].clone()), "{which} {cut}");
                assert_eq!(cutter.next(), Cut::End);
            }
        }
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
        let mut cutter = Cutter::new(Endless(0));
        assert!(matches!(cutter.next(), Cut::Broken(why) if why.contains("more than")));
        assert!(cutter.stream.0 as u64 <= MAX_FILE_BYTES + 2 * PIECE as u64);
    }
}
