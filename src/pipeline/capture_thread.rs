//! The capture thread: pulls frames and prepares them for the encoder, so that the hot path never waits for a decoder
//! while it could encode.
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

/// How long a pull waits before it looks whether to stop.
const WAIT: Duration = Duration::from_millis(50);

/// A prepared frame.
pub(super) struct PreparedFrame {
    /// `[3, side, side]`, what the encoder eats.
    pub(super) tensor: Vec<f32>,
    /// The same of an augmented view of the frame; empty where there is none.
    pub(super) view: Vec<f32>,
    /// What the tensor shows of the frame; `None`: all of it.
    pub(super) window: Option<CropRect>,
    /// The background after this frame, where it changed.
    pub(super) background: Option<Arc<BackgroundModel>>,
    /// Luma thumbnail, for scene cuts.
    pub(super) luma: [f32; LUMA_LEN],
    /// Position in the source.
    pub(super) index: u64,
    /// The file that it is of.
    pub(super) file: Option<Arc<str>>,
    /// Capture time.
    pub(super) stamp: Timestamp,
    /// What the wall clock said then, nanoseconds since 1970; `None` unless the source is live.
    pub(super) wall_ns: Option<i64>,
    /// Its camera.
    pub(super) camera: u16,
    /// The source says that a shot begins here.
    pub(super) cut: bool,
    /// It marks every cut.
    pub(super) marks_cuts: bool,
    /// When the frame was there to be taken.
    pub(super) arrived: Instant,
    /// The frame itself, where it is kept for boxes ([`BoxInput`]).
    pub(super) frame: Frame,
    /// Left, top, width and height of the part of it that the tensor shows.
    pub(super) region: [f64; 4],
}

/// What boxes need of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BoxInput {
    /// There are none.
    Nothing,
    /// They are pooled out of its grid.
    Size,
    /// They are cut out of it.
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
    /// From outside: a signal.
    pub(super) stop: &'a AtomicBool,
    /// From inside: another worker has ended.
    pub(super) halt: &'a AtomicBool,
}

impl StopFlags<'_> {
    pub(super) fn now(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.halt.load(Ordering::Relaxed)
    }
}

/// The ways to and from the hot path.
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

/// How frames become slots.
pub(super) struct FramePreparer {
    pub(super) prepare: Preprocessor,
    /// Where views are wanted.
    pub(super) views: Option<Augmenter>,
    /// Position of the source's frame 0 in the run.
    pub(super) first: u64,
    pub(super) keep: BoxInput,
}

impl FramePreparer {
    fn fill(&mut self, frame: &Frame, slot: &mut PreparedFrame) -> Result<()> {
        slot.wall_ns = frame.arrived.and_then(wall_ns);
        slot.arrived = frame.arrived.unwrap_or_else(Instant::now);
        (slot.index, slot.stamp) = (self.first + frame.index, frame.stamp);
        (slot.camera, slot.cut) = (frame.camera, frame.cut);
        slot.file.clone_from(&frame.file);
        luma(frame, &mut slot.luma);
        self.prepare.run(frame, &mut slot.tensor)?;
        slot.window = self.prepare.window();
        slot.background = self.prepare.updated().cloned().map(Arc::new);
        slot.view.clear();
        if let Some(view) = self.views.as_ref().and_then(|views| views.of(slot.index)) {
            slot.view.resize(slot.tensor.len(), 0.0);
            self.prepare.view(frame, &view, &mut slot.view)?;
        }
        Ok(())
    }

    /// Leaves in `slot` what boxes need of `frame`; the pixels change places, so that none is copied.
    fn leave(&self, frame: &mut Frame, slot: &mut PreparedFrame) {
        slot.region = self.prepare.region();
        match self.keep {
            BoxInput::Nothing => {}
            BoxInput::Size => (slot.frame.width, slot.frame.height) = (frame.width, frame.height),
            BoxInput::Pixels => std::mem::swap(frame, &mut slot.frame),
        }
    }

    /// Says once, and again when it changes, whether the camera stands still enough to crop.
    fn tell(&self, told: &mut Option<bool>) {
        let Some(background) = self.prepare.updated().filter(|background| background.warm()) else { return };
        let usable = background.usable();
        if told.replace(usable) != Some(usable) {
            let deviation = background.deviation();
            if usable {
                tracing::info!("the camera stands still ({deviation:.3} from its background): crops around what moves");
            } else {
                tracing::warn!(
                    "preprocess.motion_crop: the camera moves ({deviation:.3} from its background, a fixed one is below \
                     .05): whole frames are encoded"
                );
            }
        }
    }
}

/// What the wall clock said at `arrived`; `None` before 1970.
fn wall_ns(arrived: Instant) -> Option<i64> {
    let then = SystemTime::now().checked_sub(arrived.elapsed())?;
    i64::try_from(then.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// Counts of a whole source, and of each of its cameras.
pub(super) type Counted = (SourceCounts, Vec<SourceCounts>);

fn counted(source: &dyn Source) -> Counted {
    (source.counts(), source.counts_of_each())
}

/// Pulls and prepares until the source ends, or until it should stop; returns the source's counts.
pub(super) fn run(
    mut source: Box<dyn Source>,
    mut making: FramePreparer,
    ways: &CaptureChannels,
    ends: StopFlags<'_>,
    metrics: &Metrics,
) -> Result<Counted> {
    let (mut frame, mut told) = (Frame::default(), None);
    while !ends.now() {
        // An empty slot first and a frame then: a live source keeps its newest frame until the hot path can take it.
        let mut slot = match ways.empty.recv_timeout(WAIT) {
            Ok(slot) => slot,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        loop {
            let pull = source.next(&mut frame, WAIT)?;
            for event in source.take_events() {
                ways.record(&event)?;
            }
            match pull {
                Pull::Frame => break,
                Pull::Idle if ends.now() => return Ok(counted(&*source)),
                Pull::Idle => metrics.source(&source.counts()),
                Pull::End => {
                    metrics.source(&source.counts());
                    return Ok(counted(&*source));
                }
            }
        }
        metrics.source(&source.counts());
        slot.marks_cuts = source.marks_cuts_of(frame.camera);
        making.fill(&frame, &mut slot)?;
        making.leave(&mut frame, &mut slot);
        making.tell(&mut told);
        if ways.filled.send(slot).is_err() {
            break;
        }
    }
    Ok(counted(&*source))
}

#[cfg(test)]
#[path = "capture_thread_tests.rs"]
mod tests;
