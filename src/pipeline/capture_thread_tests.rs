//! The age of the frames that the encoder gets.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::Path;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::encoder::ModelCard;
use crate::pipeline::threads::SLOTS_LIVE;

/// A camera that always has the frame of this moment: its clock is the test's.
struct Camera(Arc<AtomicU64>);

impl Source for Camera {
    fn next(&mut self, frame: &mut Frame, _: Duration) -> Result<Pull> {
        (frame.width, frame.height, frame.index) = (8, 8, self.0.load(Ordering::SeqCst));
        frame.pixels.resize(8 * 8 * 3, 100);
        frame.arrived = Some(Instant::now());
        Ok(Pull::Frame)
    }
    fn skip_to(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
    fn live(&self) -> bool {
        true
    }
    fn counts(&self) -> SourceCounts {
        SourceCounts::default()
    }
}

#[test]
fn a_slow_encoder_gets_a_frame_that_is_no_older_than_one_pass() {
    /// Frames of the camera while the encoder is busy with one.
    const PASS: u64 = 10;
    let card = ModelCard::beside(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny.onnx")).unwrap();
    let clock = Arc::new(AtomicU64::new(0));
    let (filled_in, filled) = crossbeam_channel::bounded(SLOTS_LIVE);
    let (empty_in, empty) = crossbeam_channel::bounded(SLOTS_LIVE);
    for _ in 0..SLOTS_LIVE {
        empty_in.send(PreparedFrame::new(Size::square(32))).unwrap();
    }
    let channels = CaptureChannels { filled: filled_in, empty, journal: None };
    let preparer = FramePreparer {
        preprocessor: Preprocessor::new(&card, Size::square(32)).unwrap(),
        augmenter: None,
        first: 0,
        for_boxes: BoxInput::Nothing,
    };
    let (stop, halt, metrics) = (AtomicBool::new(false), AtomicBool::new(false), Metrics::default());
    let flags = StopFlags { stop: &stop, halt: &halt };
    let source = Box::new(Camera(clock.clone()));
    std::thread::scope(|scope| {
        let capture = scope.spawn(|| run(source, preparer, &channels, flags, &metrics));
        let mut ages = Vec::new();
        for _ in 0..20 {
            let slot: PreparedFrame = filled.recv().unwrap();
            ages.push(clock.load(Ordering::SeqCst) - slot.index);
            // Whatever may be taken while the encoder is busy is taken as it begins: the worst case.
            while filled.len() < SLOTS_LIVE - 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
            clock.fetch_add(PASS, Ordering::SeqCst);
            empty_in.send(slot).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        drop((filled, empty_in));
        capture.join().unwrap().unwrap();
        assert_eq!((ages[0], &ages[1..]), (0, [PASS; 19].as_slice()));
    });
}
