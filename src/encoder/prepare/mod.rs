//! From a frame to the encoder's input, as Pillow and torchvision prepare it.
mod background;
mod motion;
mod shrink;

use super::card::{Card, Channels, Fit};
use super::exposure::{MAX_GAIN, gain, sum};
use super::views::View;
use crate::error::{Error, Result};
use crate::frame::Frame;

pub use background::{Background, BackgroundState};
use motion::Motion;
pub use motion::Window;
use shrink::{Region, Shrink};

/// Frame in, `tensor[(plane * side + y) * side + x] = (min(g * value / 255, 1) - mean) / std` out.
///
/// `g` is 1, or where the card has an exposure level the gain that brings the mean of the resized square to it.
/// The resize is Pillow's `BILINEAR`; every value before normalisation is within 1/255 of Pillow's. Where the card says
/// so, only the window around what moves before a fixed camera is resized, with the gain of the whole frame.
///
/// Buffers are kept: after the first frame nothing of ours is allocated. (The resize library makes its tables of
/// weights, a few kilobytes, anew for every frame; a background that changes is sorted twice a second.)
#[derive(Debug)]
pub struct Prepare {
    side: u32,
    fit: Fit,
    planes: [Plane; 3],
    /// The mean level that frames are brought to, 0 to 1; `None`: they stay as they are.
    exposure: Option<f32>,
    /// What `planes` hold the values for.
    gain: f32,
    square: Shrink,
    motion: Option<Motion>,
    /// Of the last frame.
    last: Last,
    /// Working memory of a view.
    scratch: Vec<f32>,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    window: Option<Window>,
    /// Part of the window or the frame that was resized.
    region: Region,
    /// Sum of the resized pixels.
    sum: u64,
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
            square: Shrink::new(card.size, card.size),
            motion: card.motion_crop.map(|secs| Motion::new(secs, card.exposure)),
            last: Last::default(),
            scratch: Vec::new(),
        })
    }

    /// Goes on with the background `background` of a fixed camera (`None`: that which it has); `learns`: which goes on
    /// changing with every frame. Without `prepare.motion_crop` this does nothing.
    pub fn start(&mut self, background: Option<Background>, learns: bool) {
        if let Some(motion) = &mut self.motion {
            motion.start(background, learns);
        }
    }

    /// The background, where windows are cut.
    pub fn background(&self) -> Option<&Background> {
        self.motion.as_ref().map(Motion::background)
    }

    /// The background, where the last frame has changed it.
    pub fn updated(&self) -> Option<&Background> {
        self.motion.as_ref().filter(|motion| motion.updated).map(Motion::background)
    }

    /// The window of the last frame; `None`: it was the whole frame.
    pub fn window(&self) -> Option<Window> {
        self.last.window
    }

    /// Left, top, width and height of the part of the last frame (or of its window) that was resized, in its pixels.
    pub fn region(&self) -> [f64; 4] {
        self.last.region
    }

    /// Fills `tensor` (`3 * side * side` values, planes one after the other) from `frame`.
    ///
    /// # Errors
    /// The frame is empty or has not `width * height * 3` bytes, or `tensor` has another length.
    pub fn run(&mut self, frame: &Frame, tensor: &mut [f32]) -> Result<()> {
        self.check(frame, tensor)?;
        let failed = |e: Error| Error::work(format!("frame {}", frame.index)).because(e);
        let window = match &mut self.motion {
            Some(motion) => motion.look(frame).map_err(failed)?,
            None => None,
        };
        self.last = match (&mut self.motion, window) {
            (Some(motion), Some(window)) => {
                let (pixels, width, height) = motion.cut(frame, window);
                let region = [0.0, 0.0, f64::from(width), f64::from(height)];
                self.square.run(pixels, width, height, region).map_err(failed)?;
                Last { window: Some(window), region, sum: 0 }
            }
            _ => {
                let (width, height) = (f64::from(frame.width), f64::from(frame.height));
                let ((left, wide), (top, high)) = match self.fit {
                    Fit::Stretch => ((0.0, width), (0.0, height)),
                    Fit::Crop => {
                        (kept(frame.width, frame.height, self.side), kept(frame.height, frame.width, self.side))
                    }
                };
                let region = [left, top, wide, high];
                self.square.run(&frame.pixels, frame.width, frame.height, region).map_err(failed)?;
                Last { window: None, region, sum: 0 }
            }
        };
        self.last.sum = sum(self.square.pixels());
        if let Some(level) = self.exposure {
            let gain = match (&self.motion, window) {
                (Some(motion), Some(_)) => motion.gain,
                _ => gain(level, self.square.pixels()),
            };
            self.expose(gain);
        }
        self.fill(tensor);
        Ok(())
    }

    /// Fills `tensor` from `view` of the frame that [`Prepare::run`] had last, `frame`.
    ///
    /// A brighter view is exposed as a brighter frame would be.
    ///
    /// # Errors
    /// As [`Prepare::run`].
    pub fn view(&mut self, frame: &Frame, view: &View, tensor: &mut [f32]) -> Result<()> {
        self.check(frame, tensor)?;
        // The square still shows the frame, unless another part of it is wanted.
        if let Some([r, x, y]) = view.crop {
            let [left, top, wide, high] = self.last.region;
            let region = [left + x * (1.0 - r) * wide, top + y * (1.0 - r) * high, r * wide, r * high];
            let (pixels, width, height) = match (&self.motion, self.last.window) {
                (Some(motion), Some([x0, y0, x1, y1])) => (motion.last(), (x1 - x0) as u32, (y1 - y0) as u32),
                _ => (frame.pixels.as_slice(), frame.width, frame.height),
            };
            self.square.run(pixels, width, height, region)?;
        }
        view.apply(self.side as usize, self.square.pixels_mut(), &mut self.scratch);
        if let Some(level) = self.exposure {
            let gain = match (&self.motion, self.last.window) {
                // The frame around the window would be as much brighter as the window is.
                (Some(motion), Some(_)) => {
                    let ratio = self.last.sum as f64 / sum(self.square.pixels()).max(1) as f64;
                    (f64::from(motion.gain) * ratio).min(f64::from(MAX_GAIN)) as f32
                }
                _ => gain(level, self.square.pixels()),
            };
            self.expose(gain);
        }
        self.fill(tensor);
        Ok(())
    }

    fn check(&self, frame: &Frame, tensor: &[f32]) -> Result<()> {
        let (side, values) = (self.side, 3 * self.side as usize * self.side as usize);
        if tensor.len() != values {
            let found = tensor.len();
            return Err(Error::work(format!("the input tensor has {found} values; {side} x {side} needs {values}")));
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
        Ok(())
    }

    /// The square into `tensor`.
    fn fill(&self, tensor: &mut [f32]) {
        let pixels = self.square.pixels();
        for (plane, out) in self.planes.iter().zip(tensor.chunks_exact_mut(pixels.len() / 3)) {
            for (out, pixel) in out.iter_mut().zip(pixels.chunks_exact(3)) {
                *out = plane.levels[usize::from(pixel[plane.channel])];
            }
        }
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
mod tests;
