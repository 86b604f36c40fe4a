//! The colours of a full-range MP4 or MOV: GStreamer's reader of these files (1.22) takes the matrix from the colour
//! box and ignores the range. Source: ISO/IEC 14496-12, 4.2 and 12.1.5.
use std::io::{Read, Seek, SeekFrom};

/// Maximum number of bytes of the index that are read.
const MAX_INDEX: u64 = 64 << 20;
/// The bytes before the colours: the type of the box, and of its content.
const COLOURS: &[u8] = b"colrnclx";

/// The colours of the video in GStreamer's notation, if the file says that they have full range.
pub(super) fn full_range(mut file: impl Read + Seek) -> Option<&'static str> {
    let index = index(&mut file)?;
    let at = index.windows(COLOURS.len()).position(|eight| eight == COLOURS)?;
    // Primaries and transfer do not matter for RGB; matrix and range follow them.
    let colours = index.get(at + COLOURS.len()..)?.first_chunk::<7>()?;
    let full = colours[6] & 0x80 != 0;
    full.then_some(match u16::from_be_bytes([colours[4], colours[5]]) {
        0 => "1:1:0:0",
        1 => "1:3:0:0",
        7 => "1:5:0:0",
        9 | 10 => "1:6:0:0",
        _ => "1:4:0:0",
    })
}

/// The content of the box `moov`, or its beginning.
fn index(file: &mut (impl Read + Seek)) -> Option<Vec<u8>> {
    for _ in 0..1000 {
        let mut head = [0; 8];
        file.read_exact(&mut head).ok()?;
        let (size, kind) = head.split_at(4);
        let size = u64::from(u32::from_be_bytes(size.try_into().ok()?));
        let content = match size {
            0 => u64::MAX,
            1 => {
                let mut long = [0; 8];
                file.read_exact(&mut long).ok()?;
                u64::from_be_bytes(long).checked_sub(16)?
            }
            _ => size.checked_sub(8)?,
        };
        if kind == b"moov" {
            let mut index = Vec::new();
            file.take(content.min(MAX_INDEX)).read_to_end(&mut index).ok()?;
            return Some(index);
        }
        file.seek(SeekFrom::Current(i64::try_from(content).ok()?)).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn boxed(kind: &[u8], content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(content.len() + 8).unwrap_or_default();
        [&size.to_be_bytes(), kind, content].concat()
    }

    #[test]
    fn full_range_is_found_wherever_the_index_lies() {
        let film = |matrix: u8, range: u8| {
            let colours = boxed(b"colr", &[b"nclx\0\x06\0\x06\0".as_slice(), &[matrix, range]].concat());
            boxed(b"moov", &boxed(b"trak", &colours))
        };
        let data = boxed(b"mdat", &[7; 99]);
        let long = [b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x13".as_slice(), b"abc"].concat();
        for before in [Vec::new(), data, long] {
            let found = |film: Vec<u8>| full_range(Cursor::new([before.as_slice(), &film].concat()));
            assert_eq!(found(film(6, 0x80)), Some("1:4:0:0"));
            assert_eq!(found(film(1, 0x80)), Some("1:3:0:0"));
            assert_eq!(found(film(1, 0)), None);
            assert_eq!(found(boxed(b"moov", b"colrnclx")), None);
        }
        for broken in
            [b"".as_slice(), b"\0\0\0\x03moov", b"\0\0\0\x01moov", b"\0\0\0\0moov", b"\x1a\x45\xdf\xa3\xff\xff\xff\xff"]
        {
            assert_eq!(full_range(Cursor::new(broken)), None);
        }
    }
}
