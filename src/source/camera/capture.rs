//! The thread that owns a camera: opens it, negotiates a format, and puts each raw frame into the latest slot.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::device;
use super::discovery::{self, Identity};
use super::format::PixelLayout;
use super::negotiate::{self, RequestedMode, SupportedModes};
use super::stream::CaptureStream;
use crate::error::{Error, Result};
use crate::source::latest_slot::LatestSlot;

/// Maximum wait for a frame before checking whether anybody still takes frames.
const SLICE: Duration = Duration::from_millis(50);

/// A frame as the camera delivered it.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) bytes: Vec<u8>,
    /// Frame number since the camera was opened, including frames that the driver had no buffer for.
    pub(super) number: u64,
    /// Frames so far that the driver had no buffer for or marked as damaged.
    pub(super) lost: u64,
    pub(super) damaged: u64,
    pub(super) at: Option<Instant>,
}

/// An opened camera: its device, identity and frame layout.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) device: PathBuf,
    pub(super) identity: Identity,
    pub(super) layout: PixelLayout,
}

/// The body of the thread: reports on `ready` what the camera granted (or why it did not open), then captures until the
/// camera fails or nobody takes frames any more.
pub(super) fn capture(
    device: &Path,
    wish: &RequestedMode,
    mailbox: Arc<LatestSlot<Raw>>,
    ready: &Sender<Result<Opened>>,
) {
    // However this thread ends, the receiver must learn that no more frames come.
    let closer = Closer(mailbox);
    let (mut stream, layout) = match open(device, wish) {
        Ok((stream, opened)) => {
            let layout = opened.layout;
            if ready.send(Ok(opened)).is_err() {
                return;
            }
            (stream, layout)
        }
        Err(error) => {
            drop(ready.send(Err(error)));
            return;
        }
    };
    let (mut raw, mut bytes) = (Raw::default(), Vec::new());
    let (mut count, mut lost, mut damaged, mut sequence) = (0u64, 0u64, 0u64, None::<u32>);
    while !closer.0.abandoned() {
        let came = match stream.next(&mut bytes, SLICE) {
            Ok(Some(came)) => came,
            Ok(None) => continue,
            Err(error) => return closer.0.close(&error.to_string()),
        };
        // Drivers that do not count leave it 0; then lost frames are unknown.
        let gap = sequence.map_or(0, |last: u32| u64::from(came.sequence.wrapping_sub(last).saturating_sub(1)));
        let gap = if gap < u64::from(u32::MAX / 2) { gap } else { 0 };
        sequence = Some(came.sequence);
        lost += gap;
        count += gap + 1;
        if came.damaged {
            damaged += 1;
            continue;
        }
        let picture = layout.trim(&bytes);
        raw.bytes.clear();
        raw.bytes.extend_from_slice(picture);
        (raw.number, raw.lost, raw.damaged, raw.at) = (count - 1, lost, damaged, Some(came.at));
        if !closer.0.put(&mut raw) {
            return;
        }
    }
}

struct Closer(Arc<LatestSlot<Raw>>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close("the capture thread ended");
    }
}

/// Lists the modes of the camera, requests exactly the chosen one, and starts the stream.
fn open(device: &Path, wish: &RequestedMode) -> Result<(CaptureStream, Opened)> {
    let file = device::open(device)?;
    let failed = |e: std::io::Error| Error::io("cannot ask the camera", device, e);
    let identity = discovery::identify(device, &file).map_err(failed)?;
    let identity = identity.ok_or_else(|| Error::runtime(format!("{} captures no video", device.display())))?;
    let chosen = SupportedModes::list(&file, wish).choose(device, wish)?;
    let (granted, layout) = negotiate::set(&file, device, chosen)?;
    let kept = chosen.rate.zip(granted.rate).is_none_or(|(asked, granted)| asked.same(granted.per_sec()));
    if !kept && !wish.nearest {
        return Err(Error::runtime(format!(
            "the camera {} was asked for {chosen} and granted {granted}; ask for that rate \
             (source.camera_frame_rate), or set source.camera_nearest = true",
            device.display()
        )));
    }
    let stream = CaptureStream::start(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::ResourceBusy => device::busy(device).with_source(error),
        _ => Error::io("cannot start the camera", device, error),
    })?;
    tracing::info!(
        "camera {} ({}, {}): asked for {wish}; granted {granted}",
        device.display(),
        identity.card,
        identity.bus
    );
    Ok((stream, Opened { device: device.into(), identity, layout }))
}
