//! Where frames come from. Every source is opened from a URI and sits behind one trait.
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

/// What one pull brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// A frame was written into the caller's buffer.
    Frame,
    /// Nothing within the wait; ask again.
    Idle,
    /// The source is at its end; no frame will follow.
    End,
}

/// Counts of a source, for the report.
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
    /// Videos only: frames for which the file names no time, or an earlier one than for the frame before.
    pub untimed: u64,
    /// Live only: times that no frame came for `source.stall_secs`.
    pub stalls: u64,
    /// Live only: times that the source broke in another way.
    pub failures: u64,
    /// Live only: times that it was opened again.
    pub reopens: u64,
    /// Live only: age of the last frame when it was taken, milliseconds.
    pub age_ms: u64,
    /// Folders only: what lies in them and is not read.
    pub left_out: Skipped,
}

impl SourceCounts {
    /// Those of another source, or of another opening of the same, on top; the age is the other's.
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
    /// Live sources hand out the newest frame, count the ones that it replaced, and set [`Frame::arrived`]; files hand
    /// out every frame in order and leave it `None`. After anything but [`Pull::Frame`] the content of `frame` means
    /// nothing.
    /// # Errors
    /// The source is broken for good; the message names the source, what was found, and what to do.
    fn next(&mut self, frame: &mut Frame, wait: Duration) -> Result<Pull>;
    /// Bounded sources: the next frame handed out is the first readable one whose `index` is at least `index`, with the
    /// same index, stamp and `cut` as in a run from the start. Called before the first `next`. An `index` just past the
    /// last frame is allowed: the source is then at its end.
    /// # Errors
    /// The source is live, or ends before `index`.
    fn skip_to(&mut self, index: u64) -> Result<()>;
    /// Live (newest frame wins) or bounded (every frame, back pressure, the same every time).
    fn live(&self) -> bool;
    /// Frames in all, where the source knows it before the end; for progress.
    fn length(&self) -> Option<u64> {
        None
    }
    /// True where the source itself marks every cut (`Frame::cut`), so that none has to be detected.
    fn marks_cuts(&self) -> bool {
        false
    }
    /// The same of one camera, where several are joined.
    fn marks_cuts_of(&self, _camera: u16) -> bool {
        self.marks_cuts()
    }
    /// The counts so far.
    fn counts(&self) -> SourceCounts;
    /// The same of each camera, where several are joined.
    fn counts_of_each(&self) -> Vec<SourceCounts> {
        vec![self.counts()]
    }
    /// Live only: what happened to the source since this was asked last.
    fn take_events(&mut self) -> Vec<SourceEvent> {
        Vec::new()
    }
}

/// Opens the source that `address` names.
/// # Errors
/// Usage: the name makes no sense. Work: nothing is there, or it cannot be opened; the message says what to do.
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

/// Opens the sources of one camera or several, joined into one.
/// # Errors
/// As [`open`], and those of [`multi::MultiSource::new`].
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

/// An image by its content (or its name, so that a broken one is called by what it should be), else a video: an animated GIF
/// is one.
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

/// The live sources that a child process feeds.
fn open_live(address: &Address, config: &config::Source) -> Result<Box<dyn Source>> {
    let (parsed, own) = (Uri::parse(address.reveal())?, config.clone());
    let open = move || subprocess::PipelineSource::open(&parsed, &own).map(|live| Box::new(live) as Box<dyn Source>);
    Ok(Box::new(ReconnectingSource::open(&format!("the source {}", address), Box::new(open), config)?))
}

/// Most pixels along one side of a frame.
pub const MAX_SIDE: u32 = 16_384;
/// Most pixels of a frame (402 MB as RGB).
const MAX_PIXELS: u64 = 1 << 27;

/// Bytes of an RGB frame of this size; to be asked before anything is allocated.
/// # Errors
/// Work: no pixels at all, or more than a frame may have.
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

/// `source.stall_secs` as a span of time; the bounds hold for a config that was never checked, too.
/// # Errors
/// Config: not a time between nothing and a day.
pub(crate) fn stall_time(config: &config::Source) -> Result<Duration> {
    let secs = config.stall_secs;
    if secs > 0.0 && secs <= 86_400.0 {
        return Ok(Duration::from_secs_f64(secs));
    }
    Err(Error::config(format!("source.stall_secs = {secs} is out of range (more than 0, at most 86400)")))
}

/// Stamp of position `index` at `rate` frames per second, to the nearest nanosecond.
pub(crate) fn stamp_at(index: u64, rate: f64) -> Timestamp {
    Timestamp((index as f64 * 1e9 / rate).round() as i64)
}

/// Nanoseconds since 1970; 0 on a machine whose clock stands before that.
pub(crate) fn wall_clock_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Every frame to the end.
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
