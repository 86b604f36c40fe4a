//! From a frame to the encoder's input, as Pillow and torchvision prepare it.
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::card::{Card, Channels, Fit};
use super::exposure::gain;
use crate::error::{Error, Result};
use crate::frame::Frame;

/// Frame in, `tensor[(plane * side + y) * side + x] = (min(g * value / 255, 1) - mean) / std` out.
///
/// `g` is 1, or where the card has an exposure level the [`gain`] that brings the mean of the resized square to it.
/// The resize is Pillow's `BILINEAR`: a triangle as wide as the scale, so that shrinking averages; every value before
/// normalisation is within 1/255 of Pillow's. Buffers are kept: after the first frame nothing of ours is allocated.
/// (The resize library makes its tables of weights, a few kilobytes, anew for every frame.)
#[derive(Debug)]
pub struct Prepare {
    side: u32,
    fit: Fit,
    planes: [Plane; 3],
    /// The mean level that frames are brought to, 0 to 1; `None`: they stay as they are.
    exposure: Option<f32>,
    /// What `planes` hold the values for.
    gain: f32,
    resizer: Resizer,
    /// `[frame height, side]`: resized along the rows only.
    narrow: Image<'static>,
    resized: Image<'static>,
}

impl Prepare {
    /// Prepares for a model with `card` at `side` x `side` pixels.
    ///
    /// # Errors
    /// `side` is not what the card allows.
    pub fn new(card: &Card, side: u32) -> Result<Self> {
        let card = card.clone().sized(side)?;
        Ok(Self {
            side: card.size,
            fit: card.fit,
            planes: [0, 1, 2].map(|p| Plane::new(&card, p)),
            exposure: card.exposure,
            gain: 1.0,
            resizer: Resizer::new(),
            narrow: Image::new(card.size, 1, PixelType::U8x3),
            resized: Image::new(card.size, card.size, PixelType::U8x3),
        })
    }

    /// Fills `tensor` (`3 * side * side` values, planes one after the other) from `frame`.
    ///
    /// # Errors
    /// The frame is empty or has not `width * height * 3` bytes, or `tensor` has another length.
    pub fn run(&mut self, frame: &Frame, tensor: &mut [f32]) -> Result<()> {
        let area = self.side as usize * self.side as usize;
        if tensor.len() != 3 * area {
            return Err(Error::work(format!(
                "the input tensor has {} values; {side} x {side} needs {}",
                tensor.len(),
                3 * area,
                side = self.side
            )));
        }
        if !is_whole(frame) {
            return Err(Error::work(format!(
                "frame {}: {} x {} pixels with {} bytes; needs width * height * 3 bytes, and at least one pixel",
                frame.index,
                frame.width,
                frame.height,
                frame.pixels.len()
            )));
        }
        let failed = |e: String| Error::work(format!("frame {}: cannot resize: {e}", frame.index));
        let source = ImageRef::new(frame.width, frame.height, &frame.pixels, PixelType::U8x3)
            .map_err(|e| failed(e.to_string()))?;
        let (width, height) = (f64::from(frame.width), f64::from(frame.height));
        let ((left, wide), (top, high)) = match self.fit {
            Fit::Stretch => ((0.0, width), (0.0, height)),
            Fit::Crop => (kept(frame.width, frame.height, self.side), kept(frame.height, frame.width, self.side)),
        };
        if self.narrow.height() != frame.height {
            self.narrow = Image::new(self.side, frame.height, PixelType::U8x3);
        }
        // Pillow's order, rounding to 8 bits after each: along the rows first, then along the columns.
        let rows = options().crop(left, 0.0, wide, height);
        self.resizer.resize(&source, &mut self.narrow, &rows).map_err(|e| failed(e.to_string()))?;
        let columns = options().crop(0.0, top, f64::from(self.side), high);
        self.resizer.resize(&self.narrow, &mut self.resized, &columns).map_err(|e| failed(e.to_string()))?;
        if let Some(level) = self.exposure {
            self.expose(gain(level, self.resized.buffer()));
        }
        let pixels = self.resized.buffer();
        for (plane, out) in self.planes.iter().zip(tensor.chunks_exact_mut(area)) {
            for (out, pixel) in out.iter_mut().zip(pixels.chunks_exact(3)) {
                *out = plane.levels[usize::from(pixel[plane.channel])];
            }
        }
        Ok(())
    }

    /// Tables for another gain.
    fn expose(&mut self, gain: f32) {
        if self.gain.to_bits() != gain.to_bits() {
            self.planes.iter_mut().for_each(|plane| plane.fill(gain));
            self.gain = gain;
        }
    }
}

/// One plane of the input.
#[derive(Debug)]
struct Plane {
    /// The channel of the RGB frame that it shows.
    channel: usize,
    mean: f32,
    std: f32,
    /// The normalised value of each of the 256 levels of a pixel.
    levels: Box<[f32; 256]>,
}

impl Plane {
    fn new(card: &Card, p: usize) -> Self {
        let channel = if card.channels == Channels::Rgb { p } else { 2 - p };
        let mut plane = Self { channel, mean: card.mean[p], std: card.std[p], levels: Box::new([0.0; 256]) };
        plane.fill(1.0);
        plane
    }

    fn fill(&mut self, gain: f32) {
        for (value, out) in self.levels.iter_mut().enumerate() {
            *out = ((gain * (value as f32 / 255.0)).min(1.0) - self.mean) / self.std;
        }
    }
}

fn options() -> ResizeOptions {
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
}

/// At least one pixel, and `width * height * 3` bytes.
pub(super) fn is_whole(frame: &Frame) -> bool {
    let bytes = u64::from(frame.width).checked_mul(u64::from(frame.height)).and_then(|n| n.checked_mul(3));
    bytes.is_some_and(|n| n > 0 && n == frame.pixels.len() as u64)
}

/// Start and length, in pixels of the frame, of what `crop` keeps along an axis of `along` pixels (`across`: the
/// other).
///
/// torchvision scales the shorter axis to `side` and the longer to `int(side * long / short)`, then keeps `side` pixels
/// from `int(round((longer - side) / 2))`, where Python rounds halves to even. Here that window is mapped back.
fn kept(along: u32, across: u32, side: u32) -> (f64, f64) {
    if along <= across {
        return (0.0, f64::from(along));
    }
    let (along, across, side) = (u64::from(along), u64::from(across), u64::from(side));
    let longer = side * along / across;
    let half = (longer - side) / 2;
    let start = if (longer - side) % 2 == 1 && half % 2 == 1 { half + 1 } else { half };
    let scale = along as f64 / longer as f64;
    let first = start as f64 * scale;
    (first, (side as f64 * scale).min(along as f64 - first))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::Value;
    use std::path::{Path, PathBuf};

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
    }

    fn card() -> Card {
        Card::beside(&folder().join("tiny.onnx")).unwrap()
    }

    fn frame(width: u32, height: u32, value: impl Fn(usize) -> u8) -> Frame {
        Frame { width, height, pixels: (0..(width * height * 3) as usize).map(value).collect(), ..Frame::default() }
    }

    fn triple(value: &Value) -> [f32; 3] {
        [0, 1, 2].map(|i| value[i].as_f64().unwrap() as f32)
    }

    #[test]
    fn agrees_with_pillow() {
        let folder = folder().join("prepare");
        let cases: Value = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() >= 6);
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let image = image::open(folder.join(format!("{name}.png"))).unwrap().to_rgb8();
            let frame =
                Frame { width: image.width(), height: image.height(), pixels: image.into_raw(), ..Frame::default() };
            let side = case["side"].as_u64().unwrap() as u32;
            let card = Card {
                fit: if case["fit"] == "crop" { Fit::Crop } else { Fit::Stretch },
                channels: if case["channels"] == "bgr" { Channels::Bgr } else { Channels::Rgb },
                mean: triple(&case["mean"]),
                std: triple(&case["std"]),
                ..card()
            };
            let bytes = std::fs::read(folder.join(format!("{name}.f32"))).unwrap();
            let expected: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            let mut tensor = vec![f32::NAN; expected.len()];
            Prepare::new(&card, side).unwrap().run(&frame, &mut tensor).unwrap();
            let area = (side * side) as usize;
            let mut sum = 0.0;
            for (i, (ours, pillow)) in tensor.iter().zip(&expected).enumerate() {
                let levels = (ours - pillow).abs() * card.std[i / area] * 255.0;
                assert!(levels <= 1.001, "{name}: value {i} is {levels} levels off");
                sum += levels;
            }
            let mean = sum / tensor.len() as f32;
            assert!(mean < 0.3, "{name}: {mean} levels off in the mean");
        }
    }

    #[test]
    fn sizes_may_change_and_nothing_is_left_behind() {
        let mut prepare = Prepare::new(&card(), 32).unwrap();
        let (mut one, mut two) = (vec![0.0; 3 * 32 * 32], vec![0.0; 3 * 32 * 32]);
        let small = frame(32, 32, |i| (i % 251) as u8);
        prepare.run(&small, &mut one).unwrap();
        for (width, height) in [(640, 480), (1, 1), (3, 500), (500, 3), (4000, 1), (33, 31)] {
            prepare.run(&frame(width, height, |i| (i / 7) as u8), &mut two).unwrap();
            assert!(two.iter().all(|v| v.is_finite()));
        }
        prepare.run(&small, &mut two).unwrap();
        assert_eq!(one, two);
        // A frame of the input's size goes through as it is.
        assert_eq!(one[32 * 32], (1.0 / 255.0 - 0.456) / 0.224);
    }

    #[test]
    fn exposure_is_the_formula_for_every_frame_anew() {
        let card = Card { exposure: Some(0.45), ..card() };
        let mut prepare = Prepare::new(&card, 32).unwrap();
        let mut tensor = vec![0.0; 3 * 32 * 32];
        // Dark, bright, nearly black (the gain is bounded), black, dark again.
        for (scale, bounded) in [(90, false), (250, false), (9, true), (0, true), (90, false)] {
            let frame = frame(32, 32, |i| (i * 37 % (scale + 1)) as u8);
            prepare.run(&frame, &mut tensor).unwrap();
            let mean = frame.pixels.iter().map(|v| f64::from(*v) / 255.0).sum::<f64>() / frame.pixels.len() as f64;
            let gain = (0.45 / mean).min(8.0);
            assert_eq!(gain == 8.0, bounded, "{scale}");
            for (i, &value) in tensor.iter().enumerate() {
                let (plane, pixel) = (i / 1024, i % 1024);
                let x = (gain * f64::from(frame.pixels[3 * pixel + plane]) / 255.0).min(1.0);
                let right = (x - f64::from(card.mean[plane])) / f64::from(card.std[plane]);
                assert!((f64::from(value) - right).abs() < 1e-5, "{scale}: value {i} is {value}, not {right}");
            }
        }
    }

    #[test]
    fn every_shape_can_be_cropped() {
        let mut prepare = Prepare::new(&Card { fit: Fit::Crop, ..card() }, 32).unwrap();
        let mut tensor = vec![0.0; 3 * 32 * 32];
        for width in (1..40).chain([63, 64, 65, 97, 1000, 5001]) {
            for height in [1, 2, 31, 32, 33, 64, 65, 720] {
                prepare.run(&frame(width, height, |_| 255), &mut tensor).unwrap();
                assert!((tensor[0] - (1.0 - 0.485) / 0.229).abs() < 1e-6, "{width} x {height}");
            }
        }
    }

    #[test]
    fn bad_frames_are_refused() {
        let mut prepare = Prepare::new(&card(), 32).unwrap();
        let mut tensor = vec![0.0; 3 * 32 * 32];
        let mut short = frame(8, 8, |_| 1);
        short.pixels.pop();
        let huge = Frame { width: u32::MAX, height: u32::MAX, ..Frame::default() };
        for bad in [Frame::default(), short, frame(0, 5, |_| 1), huge] {
            let text = prepare.run(&bad, &mut tensor).unwrap_err().to_string();
            assert!(text.contains(&format!("{} x {} pixels with {} bytes", bad.width, bad.height, bad.pixels.len())));
        }
        assert!(prepare.run(&frame(8, 8, |_| 1), &mut tensor[1..]).is_err());
        assert!(Prepare::new(&card(), 33).is_err());
    }
}
