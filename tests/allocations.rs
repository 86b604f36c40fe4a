//! What the way from a frame to a latent allocates once it is warm: nothing of ours.
#![allow(unsafe_code, reason = "counting allocations needs an allocator")]
#![allow(clippy::unwrap_used, reason = "tests")]
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use afterimage::config;
use afterimage::encoder::{Encoder, LUMA_LEN, ModelCard, Preprocessor, luma, runtime};
use afterimage::frame::Frame;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
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
