//! Pixel formats of cameras: which one to ask for, and how it becomes RGB.
//!
//! YUV is ITU-R BT.601 with limited range (Y 16 to 235), in whole numbers:
//! `R = (298 (Y-16) + 409 (V-128) + 128) >> 8`, `G = (298 (Y-16) - 100 (U-128) - 208 (V-128) + 128) >> 8`,
//! `B = (298 (Y-16) + 516 (U-128) + 128) >> 8`, within 1 of the exact values.
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::frame_bytes;
use crate::source::picture;

/// A pixel format that can be read here, in order of preference where size and rate are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pixels {
    Rgb,
    Bgr,
    Nv12,
    Yuyv,
    Mjpeg,
    Grey,
}

/// Something that a camera offers or was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) pixels: Pixels,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rate: u32,
}

impl std::fmt::Display for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}x{} at {} frames per second", self.pixels, self.width, self.height, self.rate)
    }
}

/// The offer nearest to the wish: colour before grey, then the nearest size (sum of both differences), then the nearest
/// rate, then the format that costs least to decode. `None` when nothing is offered.
pub(super) fn nearest(offers: &[Offer], width: u32, height: u32, rate: u32) -> Option<Offer> {
    let key = |offer: &Offer| {
        let size = u64::from(offer.width.abs_diff(width)) + u64::from(offer.height.abs_diff(height));
        (offer.pixels == Pixels::Grey, size, offer.rate.abs_diff(rate), offer.pixels)
    };
    let usable = |offer: &&Offer| frame_bytes(offer.width, offer.height).is_ok() && offer.rate > 0;
    offers.iter().filter(usable).min_by_key(|offer| key(offer)).copied()
}

impl Offer {
    /// Bytes of one picture; `None` where it varies (JPEG).
    fn length(&self) -> Option<usize> {
        let (width, height) = (self.width as usize, self.height as usize);
        match self.pixels {
            Pixels::Rgb | Pixels::Bgr => Some(width * height * 3),
            Pixels::Nv12 => Some(width * height + self.chroma_row() * height.div_ceil(2)),
            Pixels::Yuyv => Some(self.chroma_row() * 2 * height),
            Pixels::Grey => Some(width * height),
            Pixels::Mjpeg => None,
        }
    }

    /// Bytes of one row of U and V, which two pixels share.
    fn chroma_row(&self) -> usize {
        self.width.div_ceil(2) as usize * 2
    }

    /// The bytes of `buffer` that belong to the picture: cameras hand over buffers that are longer.
    pub(super) fn trim<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        let length = self.length().or_else(|| picture::jpeg_end(buffer));
        length.and_then(|length| buffer.get(..length)).unwrap_or(buffer)
    }

    /// Turns one trimmed buffer into RGB.
    /// # Errors
    /// Work: too short, or a JPEG that cannot be decoded or has another size.
    pub(super) fn to_rgb(self, buffer: &[u8], frame: &mut Frame) -> Result<()> {
        let Some(wanted) = self.length() else {
            return picture::decode(buffer, frame);
        };
        let (width, height) = (self.width as usize, self.height as usize);
        frame.pixels.resize(frame_bytes(self.width, self.height)?, 0);
        let Some(bytes) = buffer.get(..wanted) else {
            let found = buffer.len();
            return Err(Error::work(format!("a frame of {found} bytes is too short for {self} ({wanted} bytes)")));
        };
        let rows = frame.pixels.chunks_exact_mut(width * 3);
        match self.pixels {
            Pixels::Rgb | Pixels::Mjpeg => frame.pixels.copy_from_slice(bytes),
            Pixels::Bgr => {
                for (rgb, bgr) in frame.pixels.chunks_exact_mut(3).zip(bytes.chunks_exact(3)) {
                    rgb.copy_from_slice(&[bgr[2], bgr[1], bgr[0]]);
                }
            }
            Pixels::Grey => {
                for (rgb, grey) in frame.pixels.chunks_exact_mut(3).zip(bytes) {
                    rgb.fill(*grey);
                }
            }
            Pixels::Yuyv => {
                for (row, line) in rows.zip(bytes.chunks_exact(self.chroma_row() * 2)) {
                    for (two, quad) in row.chunks_mut(6).zip(line.chunks_exact(4)) {
                        write_two(two, [quad[0], quad[2]], quad[1], quad[3]);
                    }
                }
            }
            Pixels::Nv12 => {
                let (luma, chroma) = bytes.split_at(width * height);
                for (y, (row, line)) in rows.zip(luma.chunks_exact(width)).enumerate() {
                    let pairs = chroma.chunks_exact(self.chroma_row()).nth(y / 2).unwrap_or_default().chunks_exact(2);
                    for ((two, y), uv) in row.chunks_mut(6).zip(line.chunks(2)).zip(pairs) {
                        write_two(two, [y[0], y[y.len() - 1]], uv[0], uv[1]);
                    }
                }
            }
        }
        (frame.width, frame.height) = (self.width, self.height);
        Ok(())
    }
}

/// One or two neighbours that share their colour.
fn write_two(out: &mut [u8], y: [u8; 2], u: u8, v: u8) {
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    let (red, green, blue) = (409 * v + 128, -100 * u - 208 * v + 128, 516 * u + 128);
    for (rgb, y) in out.chunks_exact_mut(3).zip(y) {
        let luma = 298 * (i32::from(y) - 16);
        rgb.copy_from_slice(&[red, green, blue].map(|c| ((luma + c) >> 8).clamp(0, 255) as u8));
    }
}
