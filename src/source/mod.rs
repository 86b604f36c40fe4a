//! Video sources. Every source is opened from a URI and implements the trait [`Source`].
pub mod address;
pub mod camera;
pub mod subprocess;
pub mod clock;
pub mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod reconnect;
pub mod multi;
mod latest_slot;
pub mod looped_clip;
pub mod synthetic;
pub mod image_decode;
mod stdin;
pub mod unreadable;
pub mod uri;
mod yuv;

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::address::Address;
use self::folder::Skipped;
use self::image_decode::PictureFormat;
use self::reconnect::ReconnectingSource;
pub use self::reconnect::SourceEvent;
use self::uri::{CameraSelector, Uri};
use crate::config;
use crate::error::{Error, Result};
use crate::frame::{Frame, Timestamp};

/// Result of one pull from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// A frame was written into the caller's buffer.
    Frame,
    /// No frame within the wait; try again.
    Idle,
    /// The source has ended; no frame will follow.
    End,
}

/// Statistics of a source, for the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct SourceCounts {
    /// Frames handed out.
    pub frames: u64,
    /// Live only: frames replaced by a newer one before they were taken.
    pub dropped: u64,
    /// Live only: frames that the camera's driver counted but had no buffer for.
    pub lost: u64,
    /// Files or frames that could not be read and were skipped.
    pub unreadable: u64,
    /// Videos only: frames without a time in the file, or with an earlier time than the frame before.
    pub untimed: u64,
    /// Live only: how often no frame came for `source.stall_secs`.
    pub stalls: u64,
    /// Live only: how often the source failed in another way.
    pub failures: u64,
    /// Live only: how often the source was reopened.
    pub reopens: u64,
    /// Live only: age of the last frame when it was taken, in milliseconds.
    pub age_ms: u64,
    /// Folders only: files that are not read.
    pub left_out: Skipped,
}

impl SourceCounts {
    /// Adds the counts of another source, or of another opening of this source; takes the age from `other`.
    pub fn add(&mut self, other: &SourceCounts) {
        let SourceCounts { frames, dropped, lost, unreadable, untimed, stalls, failures, reopens, age_ms, left_out } =
            other;
        self.frames += frames;
        self.dropped += dropped;
        self.lost += lost;
        self.unreadable += unreadable;
        self.untimed += untimed;
        self.stalls += stalls;
        self.failures += failures;
        self.reopens += reopens;
        self.age_ms = *age_ms;
        self.left_out.add(left_out);
    }
}

/// A stream of frames.
pub trait Source: Send {
    /// Fills `frame` (its buffer is reused) with the next frame, waiting at most `wait`.
    ///
    /// Live sources return the newest frame, count the frames that it replaced, and set [`Frame::arrived`]; files
    /// return every frame in order and leave it `None`. The content of `frame` is only valid after [`Pull::Frame`].
    /// # Errors
    /// The source has failed permanently; the message names the source, the problem, and what to do.
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull>;
    /// For bounded sources: makes the next frame the first readable one whose `index` is at least `index`, with the
    /// same index, timestamp and `cut` as in a run from the start. Call it before the first `next`. `index` may be one
    /// past the last frame: the source is then at its end.
    /// # Errors
    /// The source is live, or ends before `index`.
    fn skip_to(&mut self, index: u64) -> Result<()>;
    /// True for a live source (the newest frame wins); false for a bounded one (every frame, with back pressure,
    /// reproducible).
    fn live(&self) -> bool;
    /// Total number of frames, if the source knows it in advance; for progress messages.
    fn length(&self) -> Option<u64> {
        None
    }
    /// True if the source itself marks every cut (`Frame::cut`), so that no shot detector is needed.
    fn marks_cuts(&self) -> bool {
        false
    }
    /// [`Source::marks_cuts`] for one camera of a multi-camera source.
    fn marks_cuts_of(&self, _camera: u16) -> bool {
        self.marks_cuts()
    }
    /// The statistics so far.
    fn counts(&self) -> SourceCounts;
    /// The statistics of each camera of a multi-camera source.
    fn counts_of_each(&self) -> Vec<SourceCounts> {
        vec![self.counts()]
    }
    /// Live only: the events since the last call.
    fn take_events(&mut self) -> Vec<SourceEvent> {
        Vec::new()
    }
}

/// Opens the source that `address` names.
/// # Errors
/// A usage error: the name is invalid. A runtime error: nothing is there, or it cannot be opened; the message says what
/// to do.
pub fn open(address: impl Into<Address>, config: &config::Source) -> Result<Box<dyn Source>> {
    open_address(&address.into(), config)
}

fn open_address(address: &Address, config: &config::Source) -> Result<Box<dyn Source>> {
    match Uri::parse(address.reveal())? {
        Uri::Camera(wanted) => open_camera(wanted, config),
        Uri::Csi(_) | Uri::Rtsp(_) | Uri::Http(_) | Uri::Gst(_) => open_live(address, config),
        Uri::Folder(path) => Ok(Box::new(folder::Folder::open(&path, config.frame_rate)?)),
        Uri::Video(path) => open_file(&path, config),
        Uri::Input => stdin::open_input(config),
        Uri::Pattern(recipe) => Ok(Box::new(synthetic::SyntheticSource::open(recipe)?)),
        Uri::Path(path) => {
            let found = std::fs::metadata(&path).map_err(|e| nothing_at(address).with_source(e))?.file_type();
            if found.is_dir() {
                Ok(Box::new(folder::Folder::open(&path, config.frame_rate)?))
            } else if found.is_file() {
                open_file(&path, config)
            } else if found.is_char_device() {
                open_camera(CameraSelector::Path(path), config)
            } else {
                let path = path.display();
                Err(Error::runtime(format!(
                    "the source {path} is neither a folder nor a video file nor a camera device"
                )))
            }
        }
    }
}

/// Opens the sources of one or more cameras, joined into one source.
/// # Errors
/// Those of [`open`] and [`multi::MultiSource::new`].
pub fn open_all(addresses: &[Address], config: &config::Source) -> Result<Box<dyn Source>> {
    match addresses {
        [one] => open_address(one, config),
        _ => {
            let sources = addresses.iter().map(|one| open_address(one, config)).collect::<Result<_>>()?;
            Ok(Box::new(multi::MultiSource::new(sources)?))
        }
    }
}

fn nothing_at(path: &Address) -> Error {
    Error::runtime(format!(
        "cannot open the source {path}; name a folder of images, a video file, an image, a camera or pattern://SEED"
    ))
}

/// Opens an image, detected by its content (or its name, so that a damaged image gets the right message), or else a
/// video; an animated GIF is a video.
fn open_file(path: &Path, config: &config::Source) -> Result<Box<dyn Source>> {
    match image_decode::Sniffed::at(path) {
        Some(image_decode::Sniffed::Picture | image_decode::Sniffed::Animated(PictureFormat::WebP)) => {}
        Some(image_decode::Sniffed::Animated(_)) => return Ok(Box::new(subprocess::VideoSource::open(path, config)?)),
        None if image_decode::is_image_name(path) => {}
        None => return Ok(Box::new(subprocess::VideoSource::open(path, config)?)),
    }
    Ok(Box::new(folder::Folder::one(path, config.frame_rate)))
}

fn open_camera(wanted: CameraSelector, config: &config::Source) -> Result<Box<dyn Source>> {
    let name = format!("the camera {wanted}");
    let mut opener = camera::CameraOpener::new(wanted, config);
    let open = move || opener.open().map(|camera| Box::new(camera) as Box<dyn Source>);
    Ok(Box::new(ReconnectingSource::open(&name, Box::new(open), config)?))
}

/// Opens a live source that reads from a child process.
fn open_live(address: &Address, config: &config::Source) -> Result<Box<dyn Source>> {
    let (parsed, own) = (Uri::parse(address.reveal())?, config.clone());
    let open = move || subprocess::PipelineSource::open(&parsed, &own).map(|live| Box::new(live) as Box<dyn Source>);
    Ok(Box::new(ReconnectingSource::open(&format!("the source {}", address), Box::new(open), config)?))
}

/// Maximum width and height of a frame in pixels.
pub const MAX_SIDE: u32 = 16_384;
/// Maximum number of pixels in a frame (402 MB as RGB).
const MAX_PIXELS: u64 = 1 << 27;

/// Size in bytes of an RGB frame; check it before allocating anything.
/// # Errors
/// A runtime error: no pixels, or more than a frame may have.
pub(crate) fn frame_bytes(width: u32, height: u32) -> Result<usize> {
    let pixels = u64::from(width) * u64::from(height);
    if width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS {
        return Err(Error::runtime(format!(
            "{width}x{height} pixels are too many; at most {MAX_SIDE} a side and {MAX_PIXELS} in all are read"
        )));
    }
    match usize::try_from(pixels * 3) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(Error::runtime(format!("{width}x{height} pixels make no frame"))),
    }
}

/// `source.stall_secs` as a duration. Checks the bounds, because the configuration may not have been validated.
/// # Errors
/// A configuration error: not between zero and one day.
pub(crate) fn stall_time(config: &config::Source) -> Result<Duration> {
    let secs = config.stall_secs;
    if secs > 0.0 && secs <= 86_400.0 {
        return Ok(Duration::from_secs_f64(secs));
    }
    Err(Error::config(format!("source.stall_secs = {secs} is out of range (more than 0, at most 86400)")))
}

/// Timestamp of position `index` at `rate` frames per second, to the nearest nanosecond.
pub(crate) fn stamp_at(index: u64, rate: f64) -> Timestamp {
    Timestamp((index as f64 * 1e9 / rate).round() as i64)
}

/// Nanoseconds since 1970; 0 on a machine whose clock is before that.
pub(crate) fn wall_clock_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Reads every frame to the end.
    pub(crate) fn all_frames(source: &mut dyn Source) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut frame = Frame::default();
        loop {
            match source.next(&mut frame, Duration::from_secs(5)).unwrap() {
                Pull::Frame => frames.push(frame.clone()),
                Pull::Idle => {}
                Pull::End => return frames,
            }
        }
    }

    fn failure(uri: &str) -> String {
        match open(uri, &config::Source::default()) {
            Ok(_) => panic!("{uri} must not open"),
            Err(error) => error.chain(),
        }
    }

    #[test]
    fn a_bare_path_is_what_lies_there() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        assert!(failure(name).contains("JPEG, PNG"), "an empty folder is a folder without images");
        let missing = format!("{name}/missing");
        assert!(failure(&missing).contains(&missing));
        assert!(failure(&missing).contains("No such file"));
        assert!(failure("/dev/null").contains("/dev/null"));
        let socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        assert!(failure(&format!("{name}/socket")).contains("neither a folder"));
        drop(socket);
    }

    #[test]
    fn a_pattern_opens() {
        let mut source = open("pattern://3?frames=4&segments=2", &config::Source::default()).unwrap();
        assert_eq!((source.length(), source.marks_cuts(), source.live()), (Some(4), true, false));
        assert_eq!(all_frames(source.as_mut()).len(), 4);
        assert_eq!(source.counts(), SourceCounts { frames: 4, ..SourceCounts::default() });
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(frame_bytes(4, 2).unwrap(), 24);
        assert!(frame_bytes(0, 2).is_err());
        assert!(frame_bytes(16_385, 1).is_err());
        assert!(frame_bytes(16_384, 16_384).is_err());
        assert!(frame_bytes(16_384, 8_192).is_ok());
    }

    #[test]
    fn stall_times_are_bounded() {
        for stall_secs in [f64::NAN, f64::INFINITY, 0.0, -1.0, 1e18] {
            assert!(stall_time(&config::Source { stall_secs, ..config::Source::default() }).is_err(), "{stall_secs}");
        }
        assert_eq!(stall_time(&config::Source::default()).unwrap(), Duration::from_secs(10));
    }
}
