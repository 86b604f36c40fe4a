//! Pixel formats of cameras, and their conversion to RGB.
use crate::config::CameraPixels;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::source::frame_bytes;
use crate::source::image_decode;
use crate::source::yuv::{self, write_two};

/// The supported pixel formats, in order of preference at equal size and rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pixels {
    Rgb,
    Bgr,
    Nv12,
    Yuyv,
    Mjpeg,
    Grey,
}

impl Pixels {
    const ALL: [Pixels; 6] = [Pixels::Rgb, Pixels::Bgr, Pixels::Nv12, Pixels::Yuyv, Pixels::Mjpeg, Pixels::Grey];

    /// The kernel's code of the format.
    pub(super) fn fourcc(self) -> [u8; 4] {
        *match self {
            Pixels::Rgb => b"RGB3",
            Pixels::Bgr => b"BGR3",
            Pixels::Nv12 => b"NV12",
            Pixels::Yuyv => b"YUYV",
            Pixels::Mjpeg => b"MJPG",
            Pixels::Grey => b"GREY",
        }
    }

    /// The format with this code.
    pub(super) fn of(fourcc: [u8; 4]) -> Option<Pixels> {
        Self::ALL.into_iter().find(|pixels| pixels.fourcc() == fourcc)
    }

    /// The name of the format in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Pixels::Rgb => "RGB",
            Pixels::Bgr => "BGR",
            Pixels::Nv12 => "NV12",
            Pixels::Yuyv => "YUYV",
            Pixels::Mjpeg => "MJPEG",
            Pixels::Grey => "GREY",
        }
    }

    /// The format that `source.camera_pixels` selects; `None`: any.
    pub(super) fn asked(key: CameraPixels) -> Option<Pixels> {
        match key {
            CameraPixels::Auto => None,
            CameraPixels::Rgb => Some(Pixels::Rgb),
            CameraPixels::Bgr => Some(Pixels::Bgr),
            CameraPixels::Nv12 => Some(Pixels::Nv12),
            CameraPixels::Yuyv => Some(Pixels::Yuyv),
            CameraPixels::Mjpeg => Some(Pixels::Mjpeg),
            CameraPixels::Grey => Some(Pixels::Grey),
        }
    }
}

/// The memory layout of a frame in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PixelLayout {
    pixels: Pixels,
    width: usize,
    height: usize,
    /// Bytes from one row to the next.
    stride: usize,
}

impl PixelLayout {
    /// The layout of frames whose rows are `stride` bytes apart; 0: without padding.
    /// # Errors
    /// A runtime error: not a possible frame size.
    pub(super) fn new(pixels: Pixels, width: u32, height: u32, stride: u32) -> Result<Self> {
        frame_bytes(width, height)?;
        let mut layout = Self { pixels, width: width as usize, height: height as usize, stride: 0 };
        // A stride shorter than a row, or longer than any reasonable padding, is a driver bug.
        let least = layout.row();
        let stride = stride as usize;
        layout.stride = if stride > least && stride <= 2 * least + 4096 { stride } else { least };
        Ok(layout)
    }

    /// Bytes of a row without padding.
    fn row(&self) -> usize {
        match self.pixels {
            Pixels::Rgb | Pixels::Bgr => self.width * 3,
            // A row of luma needs room for a row of chroma, which two pixels share.
            Pixels::Nv12 => self.width,
            Pixels::Yuyv => self.width.div_ceil(2) * 4,
            Pixels::Grey => self.width,
            Pixels::Mjpeg => 0,
        }
    }

    /// Bytes of one image, without the padding of its last row; `None` if it varies (JPEG).
    fn length(&self) -> Option<usize> {
        let (height, stride) = (self.height, self.stride);
        match self.pixels {
            Pixels::Mjpeg => None,
            Pixels::Nv12 => {
                let chroma = stride.max(self.width.div_ceil(2) * 2);
                Some(stride * height + chroma * (height.div_ceil(2) - 1) + self.width.div_ceil(2) * 2)
            }
            _ => Some(stride * (height - 1) + self.row()),
        }
    }

    /// The bytes of `buffer` that belong to the image: cameras may deliver longer buffers.
    pub(super) fn trim<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        let length = self.length().or_else(|| image_decode::jpeg_end(buffer));
        length.and_then(|length| buffer.get(..length)).unwrap_or(buffer)
    }

    /// Converts one trimmed buffer to RGB.
    /// # Errors
    /// A runtime error: the buffer is too short, or the JPEG cannot be decoded or has another size.
    pub(super) fn to_rgb(self, buffer: &[u8], frame: &mut Frame) -> Result<()> {
        let (width, height, stride) = (self.width, self.height, self.stride);
        let Some(wanted) = self.length() else {
            image_decode::decode(buffer, frame)?;
            let found = (frame.width as usize, frame.height as usize);
            // The EXIF orientation may have rotated it.
            if found != (width, height) && found != (height, width) {
                return Err(Error::runtime(format!(
                    "a JPEG of {}x{} where {width}x{height} was set",
                    found.0, found.1
                )));
            }
            return Ok(());
        };
        frame.pixels.resize(width * height * 3, 0);
        let Some(bytes) = buffer.get(..wanted) else {
            let found = buffer.len();
            let name = self.pixels.name();
            return Err(Error::runtime(format!(
                "a frame of {found} bytes is too short for {name} {width}x{height} ({wanted} bytes)"
            )));
        };
        let rows = frame.pixels.chunks_exact_mut(width * 3);
        match self.pixels {
            Pixels::Rgb | Pixels::Mjpeg => {
                for (row, line) in rows.zip(bytes.chunks(stride)) {
                    row.copy_from_slice(line.get(..width * 3).unwrap_or_default());
                }
            }
            Pixels::Bgr => {
                for (row, line) in rows.zip(bytes.chunks(stride)) {
                    for (rgb, bgr) in row.chunks_exact_mut(3).zip(line.chunks_exact(3)) {
                        rgb.copy_from_slice(&[bgr[2], bgr[1], bgr[0]]);
                    }
                }
            }
            Pixels::Grey => {
                for (row, line) in rows.zip(bytes.chunks(stride)) {
                    for (rgb, grey) in row.chunks_exact_mut(3).zip(line) {
                        rgb.fill(*grey);
                    }
                }
            }
            Pixels::Yuyv => {
                for (row, line) in rows.zip(bytes.chunks(stride)) {
                    for (two, quad) in row.chunks_mut(6).zip(line.chunks_exact(4)) {
                        write_two(two, [quad[0], quad[2]], quad[1], quad[3]);
                    }
                }
            }
            Pixels::Nv12 => {
                let (luma, chroma) = bytes.split_at(stride * height);
                let chroma_stride = stride.max(width.div_ceil(2) * 2);
                for (y, (row, line)) in rows.zip(luma.chunks(stride)).enumerate() {
                    let pairs = chroma.chunks(chroma_stride).nth(y / 2).unwrap_or_default().chunks_exact(2);
                    yuv::row(row, line.get(..width).unwrap_or_default(), pairs.map(|uv| (uv[0], uv[1])));
                }
            }
        }
        (frame.width, frame.height) = (width as u32, height as u32);
        Ok(())
    }
}
