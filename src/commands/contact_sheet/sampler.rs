//! Samples the frames of a source: a first pass for their latents, and a second for the few images that are shown.
//!
//! There are two passes because a bounded source yields the same frames every time, whereas keeping thousands of images
//! would take more memory than everything else.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use ndarray::Array2;

use super::canvas::RgbImage;
use crate::commands::common::{FrameEncoder, LoadedEncoder, Progress};
use crate::config::Config;
use crate::encoder::{LUMA_LEN, luma};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Frame, Timestamp};
use crate::sampling::{ShotDetector, ShotInput};
use crate::source::address::Address;
use crate::source::{self, Pull, Source, SourceCounts};

/// Maximum number of latents kept; from a longer source, every second, fourth, ... frame.
const MAX_KEPT: usize = 5000;
/// Maximum wait for one frame.
const WAIT: Duration = Duration::from_secs(1);

/// Position of a frame in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameRef {
    pub(super) index: u64,
    pub(super) stamp: Timestamp,
    pub(super) segment: u64,
}

/// The frames of a source, evenly thinned if there are many.
pub(super) struct SampledFrames {
    /// `[n, d]`, unit rows.
    pub(super) latents: Array2<f32>,
    /// Positions of the `n` frames.
    pub(super) places: Vec<FrameRef>,
    /// Whether the source marks its cuts, so that each segment is a separate visit.
    pub(super) marks_cuts: bool,
    /// Frames in the source.
    pub(super) frames: u64,
    /// Segments in the source.
    pub(super) segments: u64,
    /// Counters of the source.
    pub(super) source: SourceCounts,
}

/// Keeps every `stride`th item and doubles `stride` whenever there would be more than `most`.
struct EvenSampler {
    places: Vec<FrameRef>,
    latents: Vec<f32>,
    dim: usize,
    most: usize,
    stride: u64,
    seen: u64,
}

impl EvenSampler {
    fn new(dim: usize, most: usize) -> Self {
        Self { places: Vec::new(), latents: Vec::new(), dim, most, stride: 1, seen: 0 }
    }

    fn push(&mut self, place: FrameRef, latent: &[f32]) {
        let due = self.seen.is_multiple_of(self.stride);
        self.seen += 1;
        if !due {
            return;
        }
        if self.places.len() == self.most {
            let left = self.most.div_ceil(2);
            for to in 1..left {
                self.places[to] = self.places[2 * to];
                self.latents.copy_within(2 * to * self.dim..(2 * to + 1) * self.dim, to * self.dim);
            }
            self.places.truncate(left);
            self.latents.truncate(left * self.dim);
            self.stride *= 2;
            if !(self.seen - 1).is_multiple_of(self.stride) {
                return;
            }
        }
        self.places.push(place);
        self.latents.extend_from_slice(latent);
    }
}

/// Embeds every frame of the bounded source `uri`. Skips frames without a usable latent, as `learn` does.
///
/// # Errors
/// The source is live or yields no frame, or the source or the encoder fails.
pub(super) fn gather(opened: &mut LoadedEncoder, config: &Config, uri: &Address) -> Result<SampledFrames> {
    let mut source = source::open(uri, &config.source)?;
    if source.live() {
        return Err(Error::usage(format!(
            "{uri} is live; a contact sheet looks for neighbours in the whole of a source: record the camera to a \
             folder or a video file and name that"
        )));
    }
    let marks_cuts = source.marks_cuts();
    let mut thin = EvenSampler::new(opened.origin.dim, MAX_KEPT);
    let mut single = FrameEncoder::new(opened)?;
    let mut segmenter = ShotDetector::new(&config.learn.sampling);
    let mut progress = Progress::new("contact-sheet", source.length());
    let (mut segments, mut left_out) = (0, 0_u64);
    let mut thumbnail = [0.0; LUMA_LEN];
    let mut each = |frame: &Frame| -> Result<bool> {
        luma(frame, &mut thumbnail);
        match single.latent(opened, frame) {
            Ok(latent) => {
                let segment = segmenter.step(ShotInput {
                    camera: frame.camera,
                    stamp: frame.stamp,
                    latent,
                    luma: &thumbnail,
                    source_cut: frame.cut,
                    marks_cuts,
                });
                segments = segments.max(segment + 1);
                thin.push(FrameRef { index: frame.index, stamp: frame.stamp, segment }, latent);
            }
            // Zero or not finite, because of the frame.
            Err(error) if error.kind() == ErrorKind::CheckFailed => left_out += 1,
            Err(error) => return Err(error),
        }
        progress.set(frame.index + 1);
        Ok(true)
    };
    for_each(source.as_mut(), &mut each)?;
    drop(progress);
    if left_out > 0 {
        tracing::warn!("{left_out} frames of {uri} have no usable latent and are left out");
    }
    if thin.places.is_empty() {
        return Err(Error::runtime(format!(
            "{uri} gave no frame that can be embedded; check it with `afterimage embed`"
        )));
    }
    let latents = Array2::from_shape_vec((thin.places.len(), thin.dim), thin.latents)
        .map_err(|e| Error::runtime("the latents of the source").with_source(e))?;
    let source = source.counts();
    Ok(SampledFrames { latents, places: thin.places, marks_cuts, frames: thin.seen, segments, source })
}

/// The frames of `uri` numbered `wanted`, scaled to `width` pixels, or less if they would be higher than `max_height`.
///
/// # Errors
/// The source fails, or no longer has these frames.
pub(super) fn pictures(
    uri: &Address,
    config: &Config,
    wanted: &BTreeSet<u64>,
    width: usize,
    max_height: usize,
) -> Result<BTreeMap<u64, RgbImage>> {
    let mut source = source::open(uri, &config.source)?;
    let mut pictures = BTreeMap::new();
    for_each(source.as_mut(), &mut |frame| {
        if wanted.contains(&frame.index) {
            pictures.insert(frame.index, scaled(frame, width, max_height)?);
        }
        Ok(pictures.len() < wanted.len())
    })?;
    if pictures.len() < wanted.len() {
        let (found, wanted) = (pictures.len(), wanted.len());
        return Err(Error::runtime(format!(
            "{uri} gave {found} of {wanted} frames a second time; did it change meanwhile? Try again"
        )));
    }
    Ok(pictures)
}

/// Passes the frames of a source to `each` until it returns false.
pub(in crate::commands) fn for_each(
    source: &mut dyn Source,
    each: &mut dyn FnMut(&Frame) -> Result<bool>,
) -> Result<()> {
    let mut frame = Frame::default();
    loop {
        match source.next(&mut frame, WAIT)? {
            Pull::Frame if !each(&frame)? => return Ok(()),
            Pull::Frame | Pull::Idle => {}
            Pull::End => return Ok(()),
        }
    }
}

/// `frame` scaled to `width` pixels, or less if it would be higher than `max_height`.
pub(in crate::commands) fn scaled(frame: &Frame, width: usize, max_height: usize) -> Result<RgbImage> {
    let failed = |e: String| Error::runtime(format!("frame {}: cannot resize: {e}", frame.index));
    let (wide, high) = (f64::from(frame.width), f64::from(frame.height));
    let scale = (width as f64 / wide).min(max_height as f64 / high);
    let side = |length: f64| ((length * scale).round() as u32).max(1);
    let image = ImageRef::new(frame.width, frame.height, &frame.pixels, PixelType::U8x3);
    let image = image.map_err(|e| failed(e.to_string()))?;
    let mut small = Image::new(side(wide), side(high), PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    Resizer::new().resize(&image, &mut small, &options).map_err(|e| failed(e.to_string()))?;
    Ok(RgbImage { width: small.width() as usize, height: small.height() as usize, pixels: small.into_vec() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_long_source_is_thinned_evenly_in_bounded_memory() {
        for (count, most) in [(3, 8), (8, 8), (9, 8), (1000, 8), (1001, 7), (64, 1)] {
            let mut thin = EvenSampler::new(2, most);
            for index in 0..count {
                let place = FrameRef { index, stamp: Timestamp(0), segment: 0 };
                thin.push(place, &[index as f32, -(index as f32)]);
            }
            let kept: Vec<u64> = thin.places.iter().map(|p| p.index).collect();
            let expected: Vec<u64> = (0..count).step_by(thin.stride as usize).collect();
            assert_eq!(kept, expected, "{count} of {most}");
            assert!(kept.len() <= most && 2 * kept.len() + 1 >= most.min(count as usize));
            let rows: Vec<f32> = kept.iter().flat_map(|i| [*i as f32, -(*i as f32)]).collect();
            assert_eq!(thin.latents, rows);
        }
    }

    #[test]
    fn pictures_keep_their_shape() {
        let frame = Frame { width: 200, height: 100, pixels: vec![50; 200 * 100 * 3], ..Frame::default() };
        let small = scaled(&frame, 120, 90).unwrap();
        assert_eq!((small.width, small.height, small.pixels.len()), (120, 60, 120 * 60 * 3));
        assert!(small.pixels.iter().all(|v| *v == 50));
        let tall = Frame { width: 1, height: 300, pixels: vec![50; 900], ..Frame::default() };
        let small = scaled(&tall, 120, 90).unwrap();
        assert_eq!((small.width, small.height), (1, 90));
    }

    #[test]
    fn the_second_pass_finds_the_same_frames_and_says_when_they_are_gone() {
        let config = Config::default();
        let uri = Address::new("pattern://3?frames=6&segments=2");
        let found = pictures(&uri, &config, &BTreeSet::from([1, 4]), 60, 60).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 4]);
        assert_ne!(found[&1], found[&4]);
        let error = pictures(&uri, &config, &BTreeSet::from([1, 40]), 60, 60).unwrap_err();
        assert!(error.chain().contains("1 of 2 frames"), "{}", error.chain());
    }
}
