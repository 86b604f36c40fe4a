//! The marker segments of a JPEG: where it ends, its orientation, and whether all scans are present.
use image::metadata::Orientation;

/// Length of the JPEG at the start of `bytes`, including its end marker; `None` if it is cut off before that.
///
/// Walks the marker segments (ITU-T T.81, B.1.1), so that the end of an embedded thumbnail is not taken for the end.
pub(crate) fn jpeg_end(bytes: &[u8]) -> Option<usize> {
    jpeg_end_from(bytes, &mut 0)
}

/// [`jpeg_end`] for a growing buffer: `at` (0 at first) is where the next call continues when more bytes have come.
pub(in crate::source) fn jpeg_end_from(bytes: &[u8], at: &mut usize) -> Option<usize> {
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
        // An incomplete marker is read again later.
        *at += marker;
        match *bytes.get(*at + 1)? {
            // A fill byte: the marker follows.
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

/// What the headers of a JPEG say besides the pixels.
#[derive(Debug, PartialEq)]
pub(super) struct JpegOutline {
    /// The EXIF orientation.
    pub(super) orientation: Orientation,
    /// The scans contain every coefficient of every component with all its bits.
    pub(super) complete: bool,
}

/// Which bits of which coefficients are present. A progressive JPEG sends them in many scans, so a file that is cut
/// between two scans decodes without a warning.
struct Scans {
    components: [u8; MAX_COMPONENTS],
    count: usize,
    progressive: bool,
    /// Number of low bits still missing, by component and coefficient.
    missing: [[u8; COEFFICIENTS]; MAX_COMPONENTS],
}

const MAX_COMPONENTS: usize = 4;
const COEFFICIENTS: usize = 64;

impl Scans {
    fn new() -> Self {
        Self {
            components: [0; MAX_COMPONENTS],
            count: 0,
            progressive: false,
            missing: [[u8::MAX; COEFFICIENTS]; MAX_COMPONENTS],
        }
    }

    /// Reads a frame header (ITU-T T.81, B.2.2).
    fn frame(&mut self, marker: u8, segment: &[u8]) {
        self.progressive = matches!(marker, 0xC2 | 0xCA);
        self.count = usize::from(segment.get(5).copied().unwrap_or_default()).min(MAX_COMPONENTS);
        let each = segment.get(6..).unwrap_or_default().chunks(3);
        self.components.iter_mut().zip(each).for_each(|(to, from)| *to = from[0]);
    }

    /// Reads a scan header (B.2.3).
    fn scan(&mut self, segment: &[u8]) {
        let count = usize::from(segment.first().copied().unwrap_or_default());
        let Some([first, last, bits, ..]) = segment.get(1 + 2 * count..) else { return };
        let (first, last, bits) = if self.progressive {
            (usize::from(*first), usize::from(*last), bits & 15)
        } else {
            (0, COEFFICIENTS - 1, 0)
        };
        for name in segment.get(1..1 + 2 * count).unwrap_or_default().chunks(2) {
            let known = self.components.iter().take(self.count).position(|component| *component == name[0]);
            let missing = known.and_then(|at| self.missing.get_mut(at)).and_then(|all| all.get_mut(first..=last));
            missing.unwrap_or_default().fill(bits);
        }
    }

    fn complete(&self) -> bool {
        self.count > 0 && self.missing.iter().take(self.count).flatten().all(|missing| *missing == 0)
    }
}

impl JpegOutline {
    /// Parses the JPEG in `bytes`. Allocates nothing, and reads only the headers of a JPEG with a single scan.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (mut at, mut scans, mut exif, mut xmp) = (2, Scans::new(), None, None);
        while let Some((marker, segment, end)) = segment(bytes, at) {
            at = end;
            match marker {
                0xE1 => {
                    exif = exif.or_else(|| exif_orientation(segment));
                    xmp = xmp.or_else(|| xmp_orientation(segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0")?));
                }
                0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => scans.frame(marker, segment),
                0xDA => {
                    scans.scan(segment);
                    if scans.complete() {
                        break;
                    }
                }
                0xD9 => break,
                _ => {}
            }
        }
        Self { orientation: exif.or(xmp).unwrap_or(Orientation::NoTransforms), complete: scans.complete() }
    }
}

/// The EXIF orientation: a TIFF structure. JPEG puts a name before it, and other formats often do, too.
pub(super) fn exif_orientation(exif: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
}

/// The XMP orientation, which is used when EXIF has none: `tiff:Orientation="6"` or `<tiff:Orientation>6<`.
pub(super) fn xmp_orientation(xmp: &[u8]) -> Option<Orientation> {
    let name = b"tiff:Orientation";
    let at = xmp.windows(name.len()).position(|found| found == name)? + name.len();
    let value = match xmp.get(at..)? {
        [b'=', b'"' | b'\'', digit, ..] | [b'>', digit, ..] => digit,
        _ => return None,
    };
    Orientation::from_exif(value.checked_sub(b'0')?)
}

/// The next marker from `at` on, the content of its segment, and where the segment ends.
fn segment(bytes: &[u8], mut at: usize) -> Option<(u8, &[u8], usize)> {
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xFF)?;
        match *bytes.get(at + 1)? {
            0xFF => at += 1,
            0x00 | 0x01 | 0xD0..=0xD8 => at += 2,
            0xD9 => return Some((0xD9, &[], at + 2)),
            marker => {
                let length = usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?])).max(2);
                return Some((marker, bytes.get(at + 4..at + 2 + length)?, at + 2 + length));
            }
        }
    }
}
