//! The capture thread: pulls frames and prepares them for the encoder, so that the hot path never waits for a decoder
//! while it could encode.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::encoder::{LUMA_LEN, Prepare, luma};
use crate::error::Result;
use crate::frame::{Frame, Stamp};
use crate::source::{Pull, Source, SourceCounts};

/// How long a pull waits before it looks whether to stop.
const WAIT: Duration = Duration::from_millis(50);

/// A prepared frame.
pub(super) struct Slot {
    /// `[3, side, side]`, what the encoder eats.
    pub(super) tensor: Vec<f32>,
    /// Luma thumbnail, for scene cuts.
    pub(super) luma: [f32; LUMA_LEN],
    /// Position in the source.
    pub(super) index: u64,
    /// Capture time.
    pub(super) stamp: Stamp,
    /// Its camera.
    pub(super) camera: u16,
    /// The source says that a shot begins here.
    pub(super) cut: bool,
    /// It marks every cut.
    pub(super) marks_cuts: bool,
    /// When the frame was there to be taken.
    pub(super) arrived: Instant,
}

impl Slot {
    pub(super) fn new(side: u32) -> Self {
        let tensor = vec![0.0; 3 * side as usize * side as usize];
        let (luma, stamp, arrived) = ([0.0; LUMA_LEN], Stamp(0), Instant::now());
        Self { tensor, luma, index: 0, stamp, camera: 0, cut: false, marks_cuts: false, arrived }
    }
}

/// Why to stop.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    /// From outside: a signal.
    pub(super) stop: &'a AtomicBool,
    /// From inside: another worker has ended.
    pub(super) halt: &'a AtomicBool,
}

impl Ends<'_> {
    pub(super) fn now(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.halt.load(Ordering::Relaxed)
    }
}

/// The ways to and from the hot path.
pub(super) struct Ways {
    pub(super) filled: Sender<Slot>,
    pub(super) empty: Receiver<Slot>,
}

/// Pulls and prepares until the source ends, or until it should stop; returns the source's counts. `first`: position of
/// the source's frame 0 in the run.
pub(super) fn run(
    mut source: Box<dyn Source>,
    mut prepare: Prepare,
    ways: &Ways,
    first: u64,
    ends: Ends<'_>,
) -> Result<SourceCounts> {
    let mut frame = Frame::default();
    while !ends.now() {
        // An empty slot first and a frame then: a live source keeps its newest frame until the hot path can take it.
        let mut slot = match ways.empty.recv_timeout(WAIT) {
            Ok(slot) => slot,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        loop {
            match source.next(&mut frame, WAIT)? {
                Pull::Frame => break,
                Pull::Idle if ends.now() => return Ok(source.counts()),
                Pull::Idle => {}
                Pull::End => return Ok(source.counts()),
            }
        }
        slot.arrived = frame.arrived.unwrap_or_else(Instant::now);
        prepare.run(&frame, &mut slot.tensor)?;
        luma(&frame, &mut slot.luma);
        (slot.index, slot.stamp, slot.camera) = (first + frame.index, frame.stamp, frame.camera);
        (slot.cut, slot.marks_cuts) = (frame.cut, source.marks_cuts_of(frame.camera));
        if ways.filled.send(slot).is_err() {
            break;
        }
    }
    Ok(source.counts())
}
