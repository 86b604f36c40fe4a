//! The capture thread: pulls frames and preprocesses them, so that the inference loop never waits for a decoder while it
//! could encode.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::config::Size;
use crate::encoder::{Augmenter, BackgroundModel, CropRect, LUMA_LEN, Preprocessor, luma};
use crate::error::{Error, Result};
use crate::frame::{Frame, Timestamp};
use crate::journal::SharedJournal;
use crate::metrics::Metrics;
use crate::source::{Pull, Source, SourceCounts, SourceEvent};

/// How long the thread waits for a frame before it looks whether to stop.
const WAIT: Duration = Duration::from_millis(50);

/// A preprocessed frame.
pub(super) struct PreparedFrame {
    /// The encoder's input, `[3, height, width]`.
    pub(super) tensor: Vec<f32>,
    /// The same for an augmented view of the frame; empty where there is none.
    pub(super) view: Vec<f32>,
    /// The part of the frame that was encoded; `None`: all of it.
    pub(super) window: Option<CropRect>,
    /// The background after this frame, where it changed.
    pub(super) background: Option<Arc<BackgroundModel>>,
    /// Luma thumbnail, for scene cuts.
    pub(super) luma: [f32; LUMA_LEN],
    /// Position in the source.
    pub(super) index: u64,
    /// The file that the frame comes from.
    pub(super) file: Option<Arc<str>>,
    /// Capture time.
    pub(super) stamp: Timestamp,
    /// Wall-clock time of the capture, nanoseconds since 1970; `None` unless the source is live.
    pub(super) wall_ns: Option<i64>,
    /// Number of its camera.
    pub(super) camera: u16,
    /// The source says that a shot begins here.
    pub(super) cut: bool,
    /// The source marks every cut.
    pub(super) marks_cuts: bool,
    /// When the frame could be taken first.
    pub(super) arrived: Instant,
    /// The frame itself, as far as boxes need it ([`BoxInput`]).
    pub(super) frame: Frame,
    /// Left, top, width and height of the part of it that was encoded.
    pub(super) region: [f64; 4],
}

/// What boxes need of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BoxInput {
    Nothing,
    /// Its size: they are pooled from its grid.
    Size,
    /// Its pixels: they are cut out of it.
    Pixels,
}

impl PreparedFrame {
    pub(super) fn new(size: Size) -> Self {
        Self {
            tensor: vec![0.0; size.values()],
            view: Vec::new(),
            window: None,
            background: None,
            luma: [0.0; LUMA_LEN],
            index: 0,
            file: None,
            stamp: Timestamp(0),
            wall_ns: None,
            camera: 0,
            cut: false,
            marks_cuts: false,
            arrived: Instant::now(),
            frame: Frame::default(),
            region: [0.0; 4],
        }
    }
}

/// Why to stop.
#[derive(Clone, Copy)]
pub(super) struct StopFlags<'a> {
    /// The process was asked to stop.
    pub(super) stop: &'a AtomicBool,
    /// The inference loop has ended.
    pub(super) halt: &'a AtomicBool,
}

impl StopFlags<'_> {
    pub(super) fn now(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.halt.load(Ordering::Relaxed)
    }
}

/// To the inference loop and back, and to the journal.
pub(super) struct CaptureChannels {
    pub(super) filled: Sender<PreparedFrame>,
    pub(super) empty: Receiver<PreparedFrame>,
    /// Where there is a run, what happens to its live source goes here.
    pub(super) journal: Option<SharedJournal>,
}

impl CaptureChannels {
    /// Writes `event` into the journal, where there is one; the log has it already.
    fn record(&self, event: &SourceEvent) -> Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let fields = serde_json::to_value(event)
            .map_err(|e| Error::runtime("a source event cannot be written to the journal").with_source(e))?;
        journal.write("source", fields)
    }
}

/// Preprocesses frames.
pub(super) struct FramePreparer {
    pub(super) preprocessor: Preprocessor,
    /// Makes augmented views.
    pub(super) augmenter: Option<Augmenter>,
    /// Position of the source's frame 0 in the run.
    pub(super) first: u64,
    pub(super) for_boxes: BoxInput,
}

impl FramePreparer {
    fn fill(&mut self, frame: &Frame, slot: &mut PreparedFrame) -> Result<()> {
        slot.wall_ns = frame.arrived.and_then(wall_ns);
        slot.arrived = frame.arrived.unwrap_or_else(Instant::now);
        (slot.index, slot.stamp) = (self.first + frame.index, frame.stamp);
        (slot.camera, slot.cut) = (frame.camera, frame.cut);
        slot.file.clone_from(&frame.file);
        luma(frame, &mut slot.luma);
        self.preprocessor.run(frame, &mut slot.tensor)?;
        slot.window = self.preprocessor.window();
        slot.background = self.preprocessor.updated().cloned().map(Arc::new);
        slot.view.clear();
        if let Some(view) = self.augmenter.as_ref().and_then(|augmenter| augmenter.of(slot.index)) {
            slot.view.resize(slot.tensor.len(), 0.0);
            self.preprocessor.view(frame, &view, &mut slot.view)?;
        }
        Ok(())
    }

    /// Leaves in `slot` what boxes need of `frame`. Pixels are swapped, not copied.
    fn keep_for_boxes(&self, frame: &mut Frame, slot: &mut PreparedFrame) {
        slot.region = self.preprocessor.region();
        match self.for_boxes {
            BoxInput::Nothing => {}
            BoxInput::Size => (slot.frame.width, slot.frame.height) = (frame.width, frame.height),
            BoxInput::Pixels => std::mem::swap(frame, &mut slot.frame),
        }
    }

    /// Logs whether the camera stands still enough to crop, once and whenever that changes.
    fn log_stillness(&self, logged: &mut Option<bool>) {
        let Some(background) = self.preprocessor.updated().filter(|background| background.warm()) else { return };
        let usable = background.usable();
        if logged.replace(usable) != Some(usable) {
            let deviation = background.deviation();
            if usable {
                tracing::info!(
                    "the camera stands still ({deviation:.3} from its background): encoding crops around what moves"
                );
            } else {
                tracing::warn!(
                    "preprocess.motion_crop: the camera moves ({deviation:.3} from its background; a fixed one stays \
                     below .05): encoding whole frames"
                );
            }
        }
    }
}

/// Wall-clock time of `arrived`; `None` before 1970.
fn wall_ns(arrived: Instant) -> Option<i64> {
    let then = SystemTime::now().checked_sub(arrived.elapsed())?;
    i64::try_from(then.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// Counts of a source, and of each of its cameras.
pub(super) type Counted = (SourceCounts, Vec<SourceCounts>);

fn counted(source: &dyn Source) -> Counted {
    (source.counts(), source.counts_of_each())
}

/// Pulls and preprocesses frames until the source ends or `stop` says so; the source's counts.
///
/// # Errors
/// The source breaks, a frame cannot be preprocessed, or the journal cannot be written.
pub(super) fn run(
    mut source: Box<dyn Source>,
    mut preparer: FramePreparer,
    channels: &CaptureChannels,
    stop: StopFlags<'_>,
    metrics: &Metrics,
) -> Result<Counted> {
    let (mut frame, mut logged) = (Frame::default(), None);
    while !stop.now() {
        // First a free buffer, then a frame: a live source keeps its newest frame until it can be taken.
        let mut slot = match channels.empty.recv_timeout(WAIT) {
            Ok(slot) => slot,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        loop {
            let pull = source.next(&mut frame, WAIT)?;
            for event in source.take_events() {
                channels.record(&event)?;
            }
            match pull {
                Pull::Frame => break,
                Pull::Idle if stop.now() => return Ok(counted(&*source)),
                Pull::Idle => metrics.source(&source.counts()),
                Pull::End => {
                    metrics.source(&source.counts());
                    return Ok(counted(&*source));
                }
            }
        }
        metrics.source(&source.counts());
        slot.marks_cuts = source.marks_cuts_of(frame.camera);
        preparer.fill(&frame, &mut slot)?;
        preparer.keep_for_boxes(&mut frame, &mut slot);
        preparer.log_stillness(&mut logged);
        if channels.filled.send(slot).is_err() {
            break;
        }
    }
    Ok(counted(&*source))
}

#[cfg(test)]
#[path = "capture_thread_tests.rs"]
mod tests;
