//! `v4l2:`: a live camera. Its thread keeps only the newest raw frame; only frames that are taken get decoded.
mod v4l2_sys;
mod capture;
mod device;
mod discovery;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod negotiate;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::capture::{Opened, Raw, capture};
pub use self::device::check;
use self::discovery::Identity;
use self::format::PixelLayout;
use self::negotiate::{RequestedMode, SupportedModes};
use super::latest_slot::{LatestSlot, Taken};
use super::uri::CameraSelector;
use super::{Pull, Source, SourceCounts, clock, stall_time};
use crate::config;
use crate::error::{Error, Result};
use crate::frame::Frame;

/// Number of corrupt frames that are logged one by one; the rest are only counted.
const NAMED: u64 = 5;
/// How long the capture thread may take to close the camera; it checks every 50 ms.
const CLOSING: Duration = Duration::from_millis(500);

/// Opens one camera again and again, wherever it reappears.
#[derive(Debug)]
pub struct CameraOpener {
    wanted: CameraSelector,
    config: config::Source,
    known: Option<Identity>,
}

impl CameraOpener {
    /// Creates an opener for the camera `wanted`.
    pub fn new(wanted: CameraSelector, config: &config::Source) -> Self {
        Self { wanted, config: config.clone(), known: None }
    }

    /// Opens the camera: the first time as selected, later wherever it is now.
    /// # Errors
    /// Those of [`LiveCamera::open`]; or the camera is not there.
    pub fn open(&mut self) -> Result<LiveCamera> {
        let path = self.place()?;
        let (camera, identity) = LiveCamera::open_known(&path, &self.config)?;
        self.known = Some(identity);
        Ok(camera)
    }

    fn place(&self) -> Result<PathBuf> {
        let asked = discovery::wanted(&self.wanted, discovery::nodes);
        let Some(known) = &self.known else { return asked };
        let same = |path: &Path| discovery::open(path).ok().and_then(|file| discovery::identify(path, &file).ok()?);
        if let Ok(path) = &asked
            && same(path).as_ref() == Some(known)
        {
            return asked;
        }
        discovery::again(known, &discovery::nodes()).ok_or_else(|| {
            Error::runtime(format!("the camera {} ({}, {}) is not there", self.wanted, known.card, known.bus))
        })
    }
}

/// A camera as a source.
#[derive(Debug)]
pub struct LiveCamera {
    device: PathBuf,
    layout: PixelLayout,
    mailbox: Arc<LatestSlot<Raw>>,
    thread: Option<JoinHandle<()>>,
    raw: Raw,
    stall: Duration,
    /// When the last frame was decoded (initially: when the camera was opened).
    last_good: Instant,
    counts: SourceCounts,
}

impl LiveCamera {
    /// Opens `device` in the format that `config` selects, and starts to capture.
    /// # Errors
    /// A runtime error: no such camera, no permission, in use, format not supported, or no answer within
    /// `source.stall_secs`.
    pub fn open(device: &Path, config: &config::Source) -> Result<Self> {
        Self::open_known(device, config).map(|(camera, _)| camera)
    }

    fn open_known(device: &Path, config: &config::Source) -> Result<(Self, Identity)> {
        let stall = stall_time(config)?;
        let mailbox = Arc::new(LatestSlot::new());
        let (send, ready) = crossbeam_channel::bounded(1);
        let (thread_device, thread_mailbox, wish) = (device.to_path_buf(), mailbox.clone(), RequestedMode::new(config));
        let work = move || capture(&thread_device, &wish, thread_mailbox, &send);
        let thread = std::thread::Builder::new().name("camera".into()).spawn(work);
        let thread = thread.map_err(|e| Error::runtime("cannot start the camera's thread").with_source(e))?;
        let opened = ready.recv_timeout(stall).map_err(|error| {
            // The driver does not answer; the thread ends when it does.
            mailbox.abandon();
            Error::runtime(format!(
                "the camera {} did not open within {} s (source.stall_secs); unplug it and plug it in again",
                device.display(),
                config.stall_secs
            ))
            .with_source(error)
        })??;
        let Opened { device, identity, layout } = opened;
        Ok((Self::over(mailbox, Some(thread), &device, layout, stall), identity))
    }

    fn over(
        mailbox: Arc<LatestSlot<Raw>>,
        thread: Option<JoinHandle<()>>,
        device: &Path,
        layout: PixelLayout,
        stall: Duration,
    ) -> Self {
        let (raw, counts, last_good) = (Raw::default(), SourceCounts::default(), Instant::now());
        Self { device: device.into(), layout, mailbox, thread, raw, stall, last_good, counts }
    }

    fn corrupt(&mut self, error: &Error) {
        self.counts.unreadable += 1;
        let device = self.device.display();
        match self.counts.unreadable {
            n if n <= NAMED => tracing::warn!("a frame of the camera {device} was skipped: {}", error.chain()),
            n if n == NAMED + 1 => tracing::warn!("more corrupt frames of {device} follow; they are only counted"),
            _ => {}
        }
    }

    fn stalled(&self) -> Error {
        let corrupt = match self.counts.unreadable {
            0 => String::new(),
            n => format!(" ({n} could not be decoded)"),
        };
        Error::stalled(format!(
            "the camera {} stalled: no frame for {} s (source.stall_secs) after {} frames{corrupt}",
            self.device.display(),
            self.stall.as_secs_f64(),
            self.counts.frames
        ))
    }
}

impl Source for LiveCamera {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        let began = Instant::now();
        loop {
            let left = wait.saturating_sub(began.elapsed());
            match self.mailbox.take(&mut self.raw, left.min(self.stall.saturating_sub(self.last_good.elapsed()))) {
                Taken::Fresh => match self.layout.to_rgb(&self.raw.bytes, frame) {
                    Ok(()) => {
                        let at = self.raw.at.unwrap_or_else(Instant::now);
                        (frame.stamp, frame.arrived) = (clock::stamp(at), Some(at));
                        (frame.index, frame.cut) = (self.raw.number, false);
                        self.counts.frames += 1;
                        self.counts.age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                        self.last_good = Instant::now();
                        return Ok(Pull::Frame);
                    }
                    Err(error) => self.corrupt(&error),
                },
                Taken::Closed(reason) => {
                    let device = self.device.display();
                    return Err(Error::runtime(format!(
                        "the camera {device} failed after {} frames: {reason}",
                        self.counts.frames
                    )));
                }
                Taken::Nothing => {}
            }
            if self.last_good.elapsed() >= self.stall {
                return Err(self.stalled());
            }
            if began.elapsed() >= wait {
                return Ok(Pull::Idle);
            }
        }
    }

    fn skip_to(&mut self, index: u64) -> Result<()> {
        let device = self.device.display();
        Err(Error::usage(format!("the camera {device} is live and cannot go on at frame {index}")))
    }

    fn live(&self) -> bool {
        true
    }

    fn counts(&self) -> SourceCounts {
        SourceCounts {
            dropped: self.mailbox.dropped(),
            lost: self.raw.lost,
            unreadable: self.counts.unreadable + self.raw.damaged,
            ..self.counts.clone()
        }
    }
}

impl Drop for LiveCamera {
    /// Waits for the thread to close the camera, so that it can be reopened at once; abandons a driver that does not
    /// answer.
    fn drop(&mut self) {
        self.mailbox.abandon();
        let Some(thread) = self.thread.take() else { return };
        let began = Instant::now();
        while !thread.is_finished() && began.elapsed() < CLOSING {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Describes the camera at `device` in one line: where it is plugged in, and its modes.
/// # Errors
/// Those of [`check`]; or the camera has no supported mode.
pub fn describe(device: &Path, config: &config::Source) -> Result<String> {
    let file = device::open(device)?;
    let wish = RequestedMode::new(config);
    let offers = SupportedModes::list(&file, &wish);
    let chosen = offers.choose(device, &wish)?;
    let identity = discovery::identify(device, &file).ok().flatten();
    let bus = identity.map(|identity| format!("bus {}, ", identity.bus)).unwrap_or_default();
    Ok(format!("{bus}{} formats, would be read as {chosen}", offers.usable.len()))
}

#[cfg(test)]
mod tests;
