//! `v4l2:`: a live camera. Its thread keeps the newest raw frame; only frames that are taken are decoded.
mod capture;
mod device;
mod format;
mod mailbox;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::capture::{Raw, capture};
pub use self::device::check;
use self::format::Offer;
use self::mailbox::{Mailbox, Taken};
use super::{Pull, Source, SourceCounts, stall_time, wall_clock_nanos};
use crate::config;
use crate::error::{Error, Result};
use crate::frame::{Frame, Stamp};

/// Corrupt frames that are named one by one; the rest is only counted.
const NAMED: u64 = 5;

/// A camera as a source.
#[derive(Debug)]
pub struct LiveCamera {
    device: PathBuf,
    granted: Offer,
    mailbox: Arc<Mailbox<Raw>>,
    raw: Raw,
    stall: Duration,
    /// Where stamps start: one moment on the monotonic clock, and the same on the wall.
    started: (Instant, i64),
    counts: SourceCounts,
}

impl LiveCamera {
    /// Opens `device` in the format nearest to the wish in `config` and starts to capture.
    /// # Errors
    /// Work: no such camera, no permission, in use, no usable format, or no answer within `source.stall_secs`.
    pub fn open(device: &Path, config: &config::Source) -> Result<Self> {
        let number = device::check(device)?;
        let stall = stall_time(config)?;
        let wish = (config.camera_width, config.camera_height, config.camera_frame_rate);
        let mailbox = Arc::new(Mailbox::new());
        let (send, ready) = crossbeam_channel::bounded(1);
        let (thread_device, thread_mailbox) = (device.to_path_buf(), mailbox.clone());
        let work = move || capture(&thread_device, number, wish, thread_mailbox, &send);
        let thread = std::thread::Builder::new().name("camera".into()).spawn(work);
        thread.map_err(|e| Error::work("cannot start the camera's thread").because(e))?;
        let granted = match ready.recv_timeout(stall) {
            Ok(outcome) => outcome?,
            Err(error) => {
                mailbox.abandon();
                return Err(Error::work(format!(
                    "the camera {} did not open within {} s (source.stall_secs); unplug it and plug it in again",
                    device.display(),
                    config.stall_secs
                ))
                .because(error));
            }
        };
        let started = (Instant::now(), wall_clock_nanos());
        Ok(Self::over(mailbox, device, granted, stall, started))
    }

    fn over(
        mailbox: Arc<Mailbox<Raw>>,
        device: &Path,
        granted: Offer,
        stall: Duration,
        started: (Instant, i64),
    ) -> Self {
        let (raw, counts) = (Raw::default(), SourceCounts::default());
        Self { device: device.into(), granted, mailbox, raw, stall, started, counts }
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
}

impl Source for LiveCamera {
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull> {
        let began = Instant::now();
        loop {
            let quiet = self.mailbox.last_put().max(self.started.0).elapsed();
            let left = wait.saturating_sub(began.elapsed());
            match self.mailbox.take(&mut self.raw, left.min(self.stall.saturating_sub(quiet))) {
                Taken::Fresh => {}
                Taken::Closed(reason) => {
                    let device = self.device.display();
                    return Err(Error::work(format!(
                        "the camera {device} failed after {} frames: {reason}. Is it still plugged in?",
                        self.counts.frames
                    )));
                }
                Taken::Nothing if self.mailbox.last_put().max(self.started.0).elapsed() >= self.stall => {
                    return Err(Error::work(format!(
                        "the camera {} stalled: no frame for {} s (source.stall_secs) after {} frames; unplug it and \
                         plug it in again",
                        self.device.display(),
                        self.stall.as_secs_f64(),
                        self.counts.frames
                    )));
                }
                Taken::Nothing if began.elapsed() >= wait => return Ok(Pull::Idle),
                Taken::Nothing => continue,
            }
            match self.granted.to_rgb(&self.raw.bytes, frame) {
                Ok(()) => {
                    let (start, wall) = self.started;
                    let since = self.raw.arrived.unwrap_or(start).saturating_duration_since(start);
                    let since = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
                    frame.stamp = Stamp(wall.saturating_add(since));
                    frame.index = self.raw.number;
                    frame.cut = false;
                    frame.arrived = self.raw.arrived;
                    self.counts.frames += 1;
                    return Ok(Pull::Frame);
                }
                Err(error) => self.corrupt(&error),
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

    fn length(&self) -> Option<u64> {
        None
    }

    fn marks_cuts(&self) -> bool {
        false
    }

    fn counts(&self) -> SourceCounts {
        SourceCounts { dropped: self.mailbox.dropped(), ..self.counts.clone() }
    }
}

impl Drop for LiveCamera {
    fn drop(&mut self) {
        // The thread ends at its next frame. While the camera gives none it is blocked inside the driver, where nothing
        // can reach it, and is left behind.
        self.mailbox.abandon();
    }
}

#[cfg(test)]
mod tests;
