//! Which modes a camera supports, which one to request, and which one it granted.
use std::fs::File;
use std::io;
use std::path::Path;

use super::format::{PixelLayout, Pixels};
use super::v4l2_sys::{self, DISCRETE, IoctlDirection, ask};
use crate::config;
use crate::error::{Error, Result};
use crate::source::frame_bytes;

/// No driver lists more sizes or rates than this.
const MOST: u32 = 512;
/// Maximum number of modes that a message lists.
const NAMED: usize = 8;
/// Rates that differ by at most this fraction are the same: 29.97 is 30.
const SAME_RATE: f64 = 0.005;

/// A frame rate: `frames / secs` frames per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) frames: u32,
    pub(super) secs: u32,
}

impl Rate {
    pub(super) fn per_sec(self) -> f64 {
        f64::from(self.frames) / f64::from(self.secs.max(1))
    }

    /// True if it counts as `rate` frames per second.
    pub(super) fn same(self, rate: f64) -> bool {
        (self.per_sec() / rate - 1.0).abs() <= SAME_RATE
    }
}

/// A mode that a camera supports or granted. `rate`: `None` if the camera does not report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SupportedMode {
    pub(super) pixels: Pixels,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rate: Option<Rate>,
}

impl std::fmt::Display for SupportedMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}x{}", self.pixels.name(), self.width, self.height)?;
        match self.rate {
            Some(rate) => write!(f, " at {} frames per second", (rate.per_sec() * 100.0).round() / 100.0),
            None => write!(f, " at a rate of its own"),
        }
    }
}

/// The mode that the configuration requests.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RequestedMode {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rate: f64,
    /// `None`: whichever is cheapest to decode.
    pub(super) pixels: Option<Pixels>,
    /// Use the nearest mode if this one is not supported.
    pub(super) nearest: bool,
}

impl RequestedMode {
    pub(super) fn new(config: &config::Source) -> Self {
        Self {
            width: config.camera_width,
            height: config.camera_height,
            rate: config.camera_frame_rate,
            pixels: Pixels::asked(config.camera_pixels),
            nearest: config.camera_nearest,
        }
    }
}

impl std::fmt::Display for RequestedMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pixels = self.pixels.map_or("any pixels", Pixels::name);
        write!(f, "{}x{} at {} frames per second, {pixels}", self.width, self.height, self.rate)
    }
}

/// All usable modes of a camera, and the names of the formats that cannot be read.
#[derive(Debug, Default)]
pub(super) struct SupportedModes {
    pub(super) usable: Vec<SupportedMode>,
    pub(super) others: Vec<String>,
}

impl SupportedModes {
    /// Asks the driver. A range of sizes or rates is represented by its value nearest to `wish`.
    pub(super) fn list(device: &File, wish: &RequestedMode) -> Self {
        let mut all = Self::default();
        let formats = (0..MOST).map_while(|index| {
            let mut asked = v4l2_sys::FormatDescription { index, kind: v4l2_sys::CAPTURE, ..Default::default() };
            ask(device, IoctlDirection::Query, &mut asked).ok().map(|()| asked.fourcc)
        });
        for fourcc in formats {
            let Some(pixels) = Pixels::of(fourcc) else {
                all.others.push(v4l2_sys::text(&fourcc));
                continue;
            };
            for (width, height) in sizes(device, fourcc, wish) {
                let offers = rates(device, fourcc, width, height, wish).into_iter();
                all.usable.extend(offers.map(|rate| SupportedMode { pixels, width, height, rate }));
            }
        }
        all.usable.retain(|offer| frame_bytes(offer.width, offer.height).is_ok());
        all
    }

    /// The mode to request: exactly the wish, or the nearest if that is allowed. Among equally good modes, colour wins
    /// over grey, then the cheapest to decode.
    /// # Errors
    /// A runtime error: no usable mode, or not the wish; the message lists the modes.
    pub(super) fn choose(&self, shown: &Path, wish: &RequestedMode) -> Result<SupportedMode> {
        let pixels = |offer: &&SupportedMode| wish.pixels.is_none_or(|wanted| wanted == offer.pixels);
        let exact = self.usable.iter().filter(pixels).filter(|offer| offer.meets(wish));
        if let Some(offer) = exact.min_by_key(|offer| offer.pixels) {
            return Ok(*offer);
        }
        let mut ranked: Vec<&SupportedMode> = self.usable.iter().filter(pixels).collect();
        ranked.sort_by(|a, b| a.distance(wish).partial_cmp(&b.distance(wish)).unwrap_or(std::cmp::Ordering::Equal));
        match ranked.first() {
            Some(offer) if wish.nearest => Ok(**offer),
            Some(_) => {
                let named: Vec<String> = ranked.iter().take(NAMED).map(ToString::to_string).collect();
                let more = ranked.len().saturating_sub(NAMED);
                let more = if more > 0 { format!("; and {more} more") } else { String::new() };
                Err(Error::runtime(format!(
                    "the camera {} does not offer {wish} (source.camera_*). Nearest that it offers: {}{more}. Ask for \
                     one of these, or set source.camera_nearest = true to take the first",
                    shown.display(),
                    named.join("; ")
                )))
            }
            None => Err(self.nothing(shown, wish)),
        }
    }

    fn nothing(&self, shown: &Path, wish: &RequestedMode) -> Error {
        let others = self.others.join(", ");
        let shown = shown.display();
        if let Some(pixels) = wish.pixels.filter(|_| !self.usable.is_empty()) {
            let name = pixels.name();
            return Error::runtime(format!(
                "the camera {shown} does not offer {name} (source.camera_pixels); \"auto\" takes what it has"
            ));
        }
        if self.others.iter().any(|fourcc| bayer(fourcc)) {
            return Error::runtime(format!(
                "the camera {shown} gives raw Bayer frames only ({others}): a bare sensor, whose picture the board's \
                 image processor makes. On a Jetson use csi://0 in its place; elsewhere the vendor's GStreamer source in \
                 a gst: pipeline"
            ));
        }
        let found = if others.is_empty() { "none at all; is another program feeding it?".into() } else { others };
        Error::runtime(format!(
            "the camera {shown} offers no format that can be read here (RGB, BGR, NV12, YUYV, MJPEG, GREY); found: \
             {found}"
        ))
    }
}

/// Raw sensor formats: `BA81`, `RG10`, `GB12` and so on; packed `pBAA`, `pgCC`, compressed `aRA8`.
fn bayer(fourcc: &str) -> bool {
    let packed = matches!(fourcc.as_bytes(), [b'p' | b'a' | b'b', b'B' | b'G' | b'g' | b'R', b'A' | b'C' | b'E', _]);
    let plain = ["BA", "BG", "GB", "GR", "RG", "BY"].iter().any(|start| fourcc.starts_with(start));
    packed || plain && !["RGB", "BGR", "GREY"].iter().any(|start| fourcc.starts_with(start))
}

impl SupportedMode {
    fn meets(&self, wish: &RequestedMode) -> bool {
        let rate = self.rate.is_none_or(|rate| rate.same(wish.rate));
        (self.width, self.height) == (wish.width, wish.height) && rate
    }

    /// Sort key: colour before grey, then the nearest size (sum of both differences), then the nearest rate, then the
    /// format that is cheapest to decode.
    fn distance(&self, wish: &RequestedMode) -> (bool, u64, f64, Pixels) {
        let size = u64::from(self.width.abs_diff(wish.width)) + u64::from(self.height.abs_diff(wish.height));
        let rate = self.rate.map_or(0.0, |rate| (rate.per_sec() - wish.rate).abs());
        (self.pixels == Pixels::Grey, size, rate, self.pixels)
    }
}

fn sizes(device: &File, fourcc: [u8; 4], wish: &RequestedMode) -> Vec<(u32, u32)> {
    let listed = (0..MOST).map_while(|index| {
        let mut asked = v4l2_sys::FrameSize { index, fourcc, ..Default::default() };
        ask(device, IoctlDirection::Query, &mut asked).ok().map(|()| asked)
    });
    let size = |listed: v4l2_sys::FrameSize| {
        let v = listed.values;
        if listed.kind == DISCRETE {
            (v[0], v[1])
        } else {
            (within(wish.width, v[0], v[1], v[2]), within(wish.height, v[3], v[4], v[5]))
        }
    };
    let sizes: Vec<(u32, u32)> = listed.map(size).collect();
    // If a driver lists no sizes, we request the wish and see what it grants.
    if sizes.is_empty() { vec![(wish.width, wish.height)] } else { sizes }
}

/// The value of a range nearest to `wanted`.
fn within(wanted: u32, least: u32, most: u32, step: u32) -> u32 {
    let step = u64::from(step.max(1));
    let above = u64::from(wanted.clamp(least, most.max(least)) - least);
    let value = u64::from(least) + (above + step / 2) / step * step;
    let value = if value > u64::from(most.max(least)) { value - step } else { value };
    u32::try_from(value).unwrap_or(most)
}

fn rates(device: &File, fourcc: [u8; 4], width: u32, height: u32, wish: &RequestedMode) -> Vec<Option<Rate>> {
    let listed = (0..MOST).map_while(|index| {
        let mut asked = v4l2_sys::FrameInterval { index, fourcc, width, height, ..Default::default() };
        ask(device, IoctlDirection::Query, &mut asked).ok().map(|()| asked)
    });
    let mut rates: Vec<Option<Rate>> = Vec::new();
    for listed in listed {
        let v = listed.values;
        let rate = |secs, frames| Rate { frames, secs };
        rates.push(Some(if listed.kind == DISCRETE {
            rate(v[0], v[1])
        } else {
            // From the shortest interval to the longest; a wish in between is a supported rate.
            let (fast, slow) = (rate(v[0], v[1]), rate(v[2], v[3]));
            if wish.rate > fast.per_sec() {
                fast
            } else if wish.rate < slow.per_sec() {
                slow
            } else {
                rate(1000, (wish.rate * 1000.0).round() as u32)
            }
        }));
    }
    rates.retain(|rate| rate.is_some_and(|rate| rate.frames > 0 && rate.secs > 0));
    if rates.is_empty() { vec![None] } else { rates }
}

/// Sets the mode `offer` on the device, whatever its previous state. Returns the granted mode with the layout of its
/// frames.
/// # Errors
/// The driver refuses; or a runtime error: it granted another mode.
pub(super) fn set(device: &File, shown: &Path, offer: SupportedMode) -> Result<(SupportedMode, PixelLayout)> {
    let refused = |error: io::Error| {
        if error.kind() == io::ErrorKind::ResourceBusy {
            return super::device::busy(shown).with_source(error);
        }
        Error::runtime(format!("the camera {} does not let itself be set to {offer}", shown.display()))
            .with_source(error)
    };
    let mut format = v4l2_sys::Format {
        kind: v4l2_sys::CAPTURE,
        width: offer.width,
        height: offer.height,
        fourcc: offer.pixels.fourcc(),
        // Let the driver choose the field order.
        field: 0,
        ..Default::default()
    };
    ask(device, IoctlDirection::Query, &mut format).map_err(refused)?;
    let mut granted = offer;
    (granted.width, granted.height) = (format.width, format.height);
    let pixels = Pixels::of(format.fourcc);
    if (granted.width, granted.height, pixels) != (offer.width, offer.height, Some(offer.pixels)) {
        let name = pixels.map_or_else(|| v4l2_sys::text(&format.fourcc), |pixels| pixels.name().into());
        return Err(Error::runtime(format!(
            "the camera {} was asked for {offer} and granted {name} {}x{}; does another program hold it?",
            shown.display(),
            granted.width,
            granted.height
        )));
    }
    let interval = offer.rate.map_or([0, 0], |rate| [rate.secs, rate.frames]);
    let mut parameters = v4l2_sys::Parameters { kind: v4l2_sys::CAPTURE, interval, ..Default::default() };
    // A driver with a fixed rate rejects this query.
    if ask(device, IoctlDirection::Query, &mut parameters).is_ok() {
        let [secs, frames] = parameters.interval;
        granted.rate = Some(Rate { frames, secs }).filter(|rate| rate.frames > 0 && rate.secs > 0);
    }
    Ok((granted, PixelLayout::new(offer.pixels, offer.width, offer.height, format.stride)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "negotiate_tests.rs"]
mod tests;
