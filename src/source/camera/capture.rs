//! The thread that owns the camera: opens it, picks a format, and puts each raw frame into the mailbox.
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use nokhwa::Camera;
use nokhwa::NokhwaError;
use nokhwa::utils::{CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType, Resolution};

use super::device;
use super::format::{Offer, Pixels, nearest};
use super::mailbox::Mailbox;
use crate::error::{Error, Result};

/// A frame as the camera gave it.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) bytes: Vec<u8>,
    /// Counted from the opening, dropped ones too.
    pub(super) number: u64,
    pub(super) arrived: Option<Instant>,
}

const FORMATS: [FrameFormat; 6] = [
    FrameFormat::RAWRGB,
    FrameFormat::RAWBGR,
    FrameFormat::NV12,
    FrameFormat::YUYV,
    FrameFormat::MJPEG,
    FrameFormat::GRAY,
];

/// The thread's work: says on `ready` what the camera granted (or why it did not open), then captures until the camera
/// fails or nobody takes frames any more.
pub(super) fn capture(
    device: &Path,
    number: u32,
    wish: (u32, u32, u32),
    mailbox: Arc<Mailbox<Raw>>,
    ready: &Sender<Result<Offer>>,
) {
    // The library has places that panic; then, too, the taker must learn that nothing more comes.
    let closer = Closer(mailbox);
    let (mut camera, granted) = match open(device, number, wish) {
        Ok(opened) => opened,
        Err(error) => {
            drop(ready.send(Err(error)));
            return;
        }
    };
    if ready.send(Ok(granted)).is_err() {
        return;
    }
    let mut raw = Raw::default();
    let mut number = 0;
    loop {
        match camera.frame_raw() {
            Ok(buffer) => {
                raw.bytes.clear();
                raw.bytes.extend_from_slice(granted.trim(&buffer));
                raw.arrived = Some(Instant::now());
                raw.number = number;
                number += 1;
            }
            Err(error) => return closer.0.close(&error.to_string()),
        }
        if !closer.0.put(&mut raw) {
            return;
        }
    }
}

struct Closer(Arc<Mailbox<Raw>>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close("the capture thread ended");
    }
}

/// Lists what the camera offers, asks for exactly the nearest of it and starts the stream.
///
/// The library's own "closest" fails for a size that is not offered, hence the choice here.
fn open(device: &Path, number: u32, wish: (u32, u32, u32)) -> Result<(Camera, Offer)> {
    let failed = |error: NokhwaError| explain(device, error);
    let any = RequestedFormat::with_formats(RequestedFormatType::None, &FORMATS);
    let mut camera = Camera::new(CameraIndex::Index(number), any).map_err(failed)?;
    let offers: Vec<Offer> =
        camera.compatible_camera_formats().map_err(failed)?.iter().map(|format| offer(*format)).collect();
    let (width, height, rate) = wish;
    let Some(chosen) = nearest(&offers, width, height, rate) else {
        return Err(no_format(device));
    };
    let resolution = Resolution::new(chosen.width, chosen.height);
    let exact = CameraFormat::new(resolution, frame_format(chosen.pixels), chosen.rate);
    let exact = RequestedFormat::with_formats(RequestedFormatType::Exact(exact), &FORMATS);
    camera.set_camera_requset(exact).map_err(failed)?;
    camera.open_stream().map_err(failed)?;
    let granted = offer(camera.camera_format());
    tracing::info!(
        "camera {}: asked for {width}x{height} at {rate} frames per second, granted {granted}",
        device.display()
    );
    Ok((camera, granted))
}

fn explain(device: &Path, error: NokhwaError) -> Error {
    let text = error.to_string();
    if text.contains("os error 16") || text.to_lowercase().contains("busy") {
        return device::busy(device).because(error);
    }
    if text.contains("Failed to Fufill") {
        return no_format(device).because(error);
    }
    let shown = device.display();
    Error::work(format!(
        "cannot open the camera {shown}. If another program left it in an unusual mode, `v4l2-ctl -d {shown} -v \
         pixelformat=YUYV -p 30` may help"
    ))
    .because(error)
}

fn no_format(device: &Path) -> Error {
    let shown = device.display();
    Error::work(format!(
        "the camera {shown} offers no format that can be read here (RGB3, BGR3, NV12, YUYV, MJPG); see `v4l2-ctl -d \
         {shown} --list-formats-ext`. A sensor that gives raw Bayer frames needs its vendor's image processor"
    ))
}

fn offer(format: CameraFormat) -> Offer {
    let pixels = match format.format() {
        FrameFormat::RAWRGB => Pixels::Rgb,
        FrameFormat::RAWBGR => Pixels::Bgr,
        FrameFormat::NV12 => Pixels::Nv12,
        FrameFormat::YUYV => Pixels::Yuyv,
        FrameFormat::MJPEG => Pixels::Mjpeg,
        FrameFormat::GRAY => Pixels::Grey,
    };
    Offer { pixels, width: format.width(), height: format.height(), rate: format.frame_rate() }
}

fn frame_format(pixels: Pixels) -> FrameFormat {
    match pixels {
        Pixels::Rgb => FrameFormat::RAWRGB,
        Pixels::Bgr => FrameFormat::RAWBGR,
        Pixels::Nv12 => FrameFormat::NV12,
        Pixels::Yuyv => FrameFormat::YUYV,
        Pixels::Mjpeg => FrameFormat::MJPEG,
        Pixels::Grey => FrameFormat::GRAY,
    }
}
