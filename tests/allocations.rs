//! Allocations per frame after warm-up: our code allocates nothing up to the latent, and the inference loop allocates
//! nothing at all.
#![allow(unsafe_code, reason = "counting allocations needs an allocator")]
#![allow(clippy::unwrap_used, reason = "tests")]
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use afterimage::checkpoint::Owner;
use afterimage::config::{self, Config};
use afterimage::encoder::{Encoder, LUMA_LEN, ModelCard, Preprocessor, luma, runtime};
use afterimage::error::Result;
use afterimage::frame::{Frame, Timestamp};
use afterimage::journal::Journal;
use afterimage::learner::Learner;
use afterimage::pipeline::Pipeline;
use afterimage::pipeline::export_thread::{Exporter, FilePositions};
use afterimage::pipeline::run_learner::RunLearner;
use afterimage::source::{Pull, Source, SourceCounts};

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Of the thread that asks.
    static OF_THREAD: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        OF_THREAD.try_with(|calls| calls.set(calls.get() + 1)).ok();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` above with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and bytes of the second run of `work`; the first is warm-up.
fn second(mut work: impl FnMut()) -> (usize, usize) {
    work();
    let before = (CALLS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    work();
    (CALLS.load(Ordering::Relaxed) - before.0, BYTES.load(Ordering::Relaxed) - before.1)
}

// One test, so that nothing else runs beside it in this process.
#[test]
fn a_warm_frame_allocates_next_to_nothing() {
    frame_to_latent();
    for live in [false, true] {
        inference_loop(live);
    }
}

fn frame_to_latent() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny.onnx");
    let card = ModelCard::beside(&model).unwrap();
    let runtime = runtime::load("").map_err(|e| e.chain()).unwrap();
    let config = config::Encoder { threads: 1, ..config::Encoder::default() };
    let mut encoder = Encoder::open(&runtime, &model, &card, &config).unwrap();
    let mut prepare = Preprocessor::new(&card, encoder.size()).unwrap();
    let frame = Frame { width: 640, height: 480, pixels: vec![77; 640 * 480 * 3], ..Frame::default() };
    let (mut tensor, mut latent) = (vec![0.0; 3 * 32 * 32], vec![0.0; encoder.dim()]);
    let mut thumbnail = [0.0; LUMA_LEN];

    assert_eq!(second(|| luma(&frame, &mut thumbnail)), (0, 0));
    // Input and output lie where they were bound.
    assert_eq!(second(|| encoder.encode(&tensor, &mut latent).unwrap()), (0, 0));
    // The resize library's tables of weights; an image of 640 x 480 has 921,600 bytes.
    let (_, bytes) = second(|| prepare.run(&frame, &mut tensor).unwrap());
    assert!(bytes <= 64 * 1024, "prepare: {bytes} bytes");
}

const FRAMES: u64 = 2000;
/// Frames until everything has its size.
const WARM_UP: u64 = 100;
/// Rows and samples that the channels to the exporter and the learner hold, and a few that are being worked on: as many
/// buffers there are at most, each made when it is needed first.
const BUFFERS: usize = 256 + QUEUE + 8;
const QUEUE: usize = 16;

/// The same frame again and again.
struct Still {
    live: bool,
    next: u64,
}

impl Source for Still {
    fn next(&mut self, frame: &mut Frame, _: Duration) -> Result<Pull> {
        if self.next == FRAMES {
            return Ok(Pull::End);
        }
        (frame.width, frame.height, frame.index) = (64, 48, self.next);
        frame.stamp = Timestamp(self.next as i64 * 33_000_000);
        frame.pixels.resize(64 * 48 * 3, 0);
        frame.pixels.iter_mut().zip(0_u64..).for_each(|(pixel, at)| *pixel = (at * 7 + self.next) as u8);
        frame.arrived = self.live.then(Instant::now);
        self.next += 1;
        Ok(Pull::Frame)
    }
    fn skip_to(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
    fn live(&self) -> bool {
        self.live
    }
    fn counts(&self) -> SourceCounts {
        SourceCounts::default()
    }
}

/// Encoder, shot detector, head, learner and exports, as `learn` runs them.
fn inference_loop(live: bool) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny.onnx");
    let card = ModelCard::beside(&model).unwrap();
    let mut config = Config::default();
    config.encoder.threads = 1;
    config.learn.queue_latents = QUEUE;
    // No head comes, which would have another size.
    config.learn.first_fit_frames = 2 * FRAMES;
    config.checkpoint.every_frames = 0;
    let runtime = runtime::load("").map_err(|e| e.chain()).unwrap();
    let mut encoder = Encoder::open(&runtime, &model, &card, &config.encoder).unwrap();
    let latents = encoder.latent_spec(&card);
    let preprocessor = Preprocessor::new(&card, encoder.size()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let next = FilePositions::default();
    let exporter = Exporter::open(run, &config.export, &config.host, &latents, next, None).unwrap();
    let learner = Learner::new(&config.learner(), latents.clone(), None).unwrap();
    let journal = Journal::open(run, 64.0).unwrap();
    let mut learner = RunLearner::open(learner, Owner::new(&latents, "run"), run, journal).unwrap();
    // The number of allocations of this thread after each frame.
    let mut after = Vec::with_capacity(FRAMES as usize);
    let stats = Pipeline::builder(Box::new(Still { live, next: 0 }), preprocessor, &mut encoder, latents, &config)
        .learner(&mut learner)
        .exporter(exporter)
        .on_progress(|_| after.push(OF_THREAD.get()))
        .run()
        .unwrap();
    assert_eq!((stats.frames, stats.bad_latents), (FRAMES, 0));
    let warm = &after[WARM_UP as usize..];
    let frames = warm.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(frames <= BUFFERS, "live {live}: {frames} of {} frames allocated", warm.len());
}
