//! Preprocesses a frame into the encoder's input, as Pillow and torchvision do.
use std::cmp::Ordering;

mod background;
mod motion_crop;
mod resample;

use super::augment::Augmentation;
use super::exposure::{MAX_GAIN, gain, sum};
use super::model_card::{ChannelOrder, ModelCard, ResizeMode};
use crate::config::Size;
use crate::error::{Error, Result};
use crate::frame::Frame;

pub use background::{BackgroundModel, BackgroundState};
pub use motion_crop::CropRect;
use motion_crop::MotionCropper;
use resample::{Resample, Span};

/// Maps a frame to `tensor[(plane * height + y) * width + x] = (min(g * value / 255, 1) - mean) / std`.
///
/// `g` is 1 or, if the card has an exposure level, the gain that brings the mean of the resized image to that level.
/// The resize is bit-identical to Pillow's 8-bit `BILINEAR`. If the card asks for it, only the window around motion
/// in front of a fixed camera is resized, with the gain of the whole frame.
///
/// Buffers are reused: after the first frame nothing is allocated. (A changing background is sorted twice a second.)
#[derive(Debug)]
pub struct Preprocessor {
    size: Size,
    fit: ResizeMode,
    planes: [Plane; 3],
    /// The mean level that frames are brought to, 0 to 1; `None` leaves the exposure unchanged.
    exposure: Option<f32>,
    /// The gain that `planes` hold the values for.
    gain: f32,
    resized: Resample,
    motion: Option<MotionCropper>,
    /// Result of the last frame.
    last: Last,
    /// Working memory for augmented views.
    scratch: Vec<f32>,
}

/// How a frame was resized.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    window: Option<CropRect>,
    /// Left, top, width and height of the resized part of the window or the frame.
    region: [f64; 4],
    /// Sum of the resized pixels.
    sum: u64,
}

impl Preprocessor {
    /// Prepares for a model with `card` at `size`; the card's own size if unset.
    ///
    /// # Errors
    /// The card does not allow `size`.
    pub fn new(card: &ModelCard, size: Size) -> Result<Self> {
        let card = card.clone().sized(size)?;
        Ok(Self {
            size: card.size,
            fit: card.fit,
            planes: [0, 1, 2].map(|p| Plane::new(&card, p)),
            exposure: card.exposure,
            gain: 1.0,
            resized: Resample::new(card.size),
            motion: card.motion_crop.map(|secs| MotionCropper::new(secs, card.exposure, card.size)),
            last: Last::default(),
            scratch: Vec::new(),
        })
    }

    /// Continues with `background` (`None` keeps the current one); `learns` says whether frames still update it.
    /// Without `preprocess.motion_crop` this does nothing.
    pub fn start(&mut self, background: Option<BackgroundModel>, learns: bool) {
        if let Some(motion) = &mut self.motion {
            motion.start(background, learns);
        }
    }

    /// Size of the encoder's input.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The background, if motion cropping is on.
    pub fn background(&self) -> Option<&BackgroundModel> {
        self.motion.as_ref().map(MotionCropper::background)
    }

    /// The background, if the last frame has changed it.
    pub fn updated(&self) -> Option<&BackgroundModel> {
        self.motion.as_ref().filter(|motion| motion.updated).map(MotionCropper::background)
    }

    /// The window of the last frame; `None` if the whole frame was used.
    pub fn window(&self) -> Option<CropRect> {
        self.last.window
    }

    /// Left, top, width and height of the resized part of the last frame (or of its window), in its pixels.
    pub fn region(&self) -> [f64; 4] {
        self.last.region
    }

    /// Fills `tensor` (three planes of the input's size, one after the other) from `frame`.
    ///
    /// # Errors
    /// The frame is empty or does not have `width * height * 3` bytes, or `tensor` has the wrong length.
    pub fn run(&mut self, frame: &Frame, tensor: &mut [f32]) -> Result<()> {
        self.check(frame, tensor)?;
        let failed = |e: Error| Error::runtime(format!("frame {}", frame.index)).with_source(e);
        let window = match &mut self.motion {
            Some(motion) => motion.look(frame).map_err(failed)?,
            None => None,
        };
        self.last = match (&mut self.motion, window) {
            (Some(motion), Some(window)) => {
                let (pixels, width, height) = motion.cut(frame, window);
                self.resized.whole(pixels, width, height).map_err(failed)?;
                let region = [0.0, 0.0, f64::from(width), f64::from(height)];
                Last { window: Some(window), region, sum: 0 }
            }
            _ => {
                let spans = spans(self.fit, [frame.width, frame.height], self.size);
                self.resized.run(&frame.pixels, frame.width, frame.height, spans).map_err(failed)?;
                let [(left, wide), (top, high)] = spans.map(Span::source);
                Last { window: None, region: [left, top, wide, high], sum: 0 }
            }
        };
        self.last.sum = sum(self.resized.pixels());
        if let Some(level) = self.exposure {
            let gain = match (&self.motion, window) {
                (Some(motion), Some(_)) => motion.gain,
                _ => gain(level, self.resized.pixels()),
            };
            self.expose(gain);
        }
        self.fill(tensor);
        Ok(())
    }

    /// Fills `tensor` from `view` of `frame`, which must be the last frame that [`Preprocessor::run`] processed.
    ///
    /// A brighter view gets the exposure of a brighter frame.
    ///
    /// # Errors
    /// As [`Preprocessor::run`].
    pub fn view(&mut self, frame: &Frame, view: &Augmentation, tensor: &mut [f32]) -> Result<()> {
        self.check(frame, tensor)?;
        // The resized image still shows the frame, so it can be reused unless the view crops another part.
        if let Some([r, x, y]) = view.crop {
            let [left, top, wide, high] = self.last.region;
            let spans = [
                Span::part(left + x * (1.0 - r) * wide, r * wide, self.size.width),
                Span::part(top + y * (1.0 - r) * high, r * high, self.size.height),
            ];
            let (pixels, width, height) = match (&self.motion, self.last.window) {
                (Some(motion), Some([x0, y0, x1, y1])) => (motion.last(), (x1 - x0) as u32, (y1 - y0) as u32),
                _ => (frame.pixels.as_slice(), frame.width, frame.height),
            };
            self.resized.run(pixels, width, height, spans)?;
        }
        view.apply(self.size.dims(), self.resized.pixels_mut(), &mut self.scratch);
        if let Some(level) = self.exposure {
            let gain = match (&self.motion, self.last.window) {
                // The frame around the window would be brighter by the same factor as the window.
                (Some(motion), Some(_)) => {
                    let ratio = self.last.sum as f64 / sum(self.resized.pixels()).max(1) as f64;
                    (f64::from(motion.gain) * ratio).min(f64::from(MAX_GAIN)) as f32
                }
                _ => gain(level, self.resized.pixels()),
            };
            self.expose(gain);
        }
        self.fill(tensor);
        Ok(())
    }

    fn check(&self, frame: &Frame, tensor: &[f32]) -> Result<()> {
        let (size, values) = (self.size, self.size.values());
        if tensor.len() != values {
            let found = tensor.len();
            return Err(Error::runtime(format!("the input tensor has {found} values; {size} needs {values}")));
        }
        if !is_whole(frame) {
            return Err(Error::runtime(format!(
                "frame {}: {} x {} pixels with {} bytes; needs width * height * 3 bytes, and at least one pixel",
                frame.index,
                frame.width,
                frame.height,
                frame.pixels.len()
            )));
        }
        Ok(())
    }

    /// Writes the resized image to `tensor`.
    fn fill(&self, tensor: &mut [f32]) {
        let pixels = self.resized.pixels();
        for (plane, out) in self.planes.iter().zip(tensor.chunks_exact_mut(pixels.len() / 3)) {
            for (out, pixel) in out.iter_mut().zip(pixels.chunks_exact(3)) {
                *out = plane.levels[usize::from(pixel[plane.channel])];
            }
        }
    }

    /// Rebuilds the tables for another gain.
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
    /// The channel of the RGB frame that this plane shows.
    channel: usize,
    mean: f32,
    std: f32,
    /// The normalised value of each of the 256 pixel levels.
    levels: Box<[f32; 256]>,
}

impl Plane {
    fn new(card: &ModelCard, p: usize) -> Self {
        let channel = if card.channels == ChannelOrder::Rgb { p } else { 2 - p };
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

/// True if the frame has at least one pixel, and `width * height * 3` bytes.
pub(super) fn is_whole(frame: &Frame) -> bool {
    let bytes = u64::from(frame.width).checked_mul(u64::from(frame.height)).and_then(|n| n.checked_mul(3));
    bytes.is_some_and(|n| n > 0 && n == frame.pixels.len() as u64)
}

/// Which part of a frame of `[width, height]` pixels becomes the input, across the columns and down the rows.
///
/// `crop` is torchvision's `Resize` and `CenterCrop`: the frame is scaled until it covers the input, its longer axis
/// to `int(side * long / short)`. The middle of that is kept, from `int(round((longer - side) / 2))` on, where Python
/// rounds halves to even.
fn spans(fit: ResizeMode, frame: [u32; 2], size: Size) -> [Span; 2] {
    let size = [size.width, size.height];
    let mut spans = [0, 1].map(|axis| Span::whole(frame[axis], size[axis]));
    if fit == ResizeMode::Crop {
        let [width, height] = frame.map(u64::from);
        let [wide, high] = size.map(u64::from);
        let (axis, longer) = match (width * high).cmp(&(height * wide)) {
            Ordering::Greater => (0, high * width / height),
            Ordering::Less => (1, wide * height / width),
            Ordering::Equal => return spans,
        };
        let left_over = longer - u64::from(size[axis]);
        let half = left_over / 2;
        let start = if left_over % 2 == 1 && half % 2 == 1 { half + 1 } else { half };
        // An extremely narrow frame could exceed the largest length, so the length is clamped.
        let fits = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        spans[axis] = Span { total: fits(longer), start: fits(start), ..spans[axis] };
    }
    spans
}

#[cfg(test)]
mod tests;
