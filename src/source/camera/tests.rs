//! Everything about cameras that needs no camera: formats, negotiation, the newest frame, stalls.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::format::Pixels;
use super::*;
use crate::frame::Timestamp;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

fn offer(pixels: Pixels, width: u32, height: u32, stride: u32) -> PixelLayout {
    PixelLayout::new(pixels, width, height, stride).unwrap()
}

/// BT.601 with limited range, in floating point.
fn exact(y: u8, u: u8, v: u8) -> [f64; 3] {
    let y = 255.0 / 219.0 * (f64::from(y) - 16.0);
    let (u, v) = ((f64::from(u) - 128.0) * 255.0 / 224.0, (f64::from(v) - 128.0) * 255.0 / 224.0);
    let green = y - 2.0 * 0.114 * 0.886 / 0.587 * u - 2.0 * 0.299 * 0.701 / 0.587 * v;
    [y + 1.402 * v, green, y + 1.772 * u].map(|c| c.clamp(0.0, 255.0))
}

fn assert_near(rgb: &[u8], yuv: [u8; 3]) {
    for (found, wanted) in rgb.iter().zip(exact(yuv[0], yuv[1], yuv[2])) {
        assert!((f64::from(*found) - wanted).abs() <= 1.5, "{yuv:?}: {rgb:?}");
    }
}

#[test]
fn yuyv_and_nv12_agree_with_floating_point() {
    let mut frame = Frame::default();
    let steps = [0u8, 16, 17, 60, 128, 129, 200, 235, 255];
    for (i, y) in steps.into_iter().enumerate() {
        for u in steps {
            for v in steps {
                let other = steps[(i + 1) % steps.len()];
                offer(Pixels::Yuyv, 2, 1, 0).to_rgb(&[y, u, other, v], &mut frame).unwrap();
                assert_near(&frame.pixels[..3], [y, u, v]);
                assert_near(&frame.pixels[3..], [other, u, v]);
                offer(Pixels::Nv12, 2, 2, 0).to_rgb(&[y, other, other, y, u, v], &mut frame).unwrap();
                for (rgb, y) in frame.pixels.chunks(3).zip([y, other, other, y]) {
                    assert_near(rgb, [y, u, v]);
                }
            }
        }
    }
}

#[test]
fn every_pixel_lands_in_its_place_odd_sizes_too() {
    let (width, height) = (5u32, 3u32);
    let y = |x: u32, row: u32| (20 + 40 * x + 7 * row) as u8;
    let (u, v) =
        (|x: u32, row: u32| (60 + 30 * (x / 2) + 9 * row) as u8, |x: u32, row: u32| (90 + 40 * (x / 2) + row) as u8);
    let mut yuyv = Vec::new();
    for row in 0..height {
        for x in (0..6).step_by(2) {
            yuyv.extend([y(x.min(4), row), u(x, row), y((x + 1).min(4), row), v(x, row)]);
        }
    }
    let mut frame = Frame::default();
    let yuyv_offer = offer(Pixels::Yuyv, width, height, 0);
    let mut padded = yuyv.clone();
    padded.extend([1; 100]);
    assert_eq!(yuyv_offer.trim(&padded), yuyv);
    yuyv_offer.to_rgb(&yuyv, &mut frame).unwrap();
    assert_eq!((frame.width, frame.height, frame.pixels.len()), (5, 3, 45));
    for (i, rgb) in frame.pixels.chunks(3).enumerate() {
        let (x, row) = (i as u32 % 5, i as u32 / 5);
        assert_near(rgb, [y(x, row), u(x, row), v(x, row)]);
    }
    let mut nv12: Vec<u8> = (0..height).flat_map(|row| (0..width).map(move |x| y(x, row))).collect();
    for row in 0..2 {
        nv12.extend((0..6).step_by(2).flat_map(|x| [u(x, row), v(x, row)]));
    }
    offer(Pixels::Nv12, width, height, 0).to_rgb(&nv12, &mut frame).unwrap();
    for (i, rgb) in frame.pixels.chunks(3).enumerate() {
        let (x, row) = (i as u32 % 5, i as u32 / 5);
        assert_near(rgb, [y(x, row), u(x, row / 2), v(x, row / 2)]);
    }
}

#[test]
fn other_formats_and_short_buffers() {
    let mut frame = Frame::default();
    offer(Pixels::Rgb, 2, 1, 0).to_rgb(&[1, 2, 3, 4, 5, 6, 99], &mut frame).unwrap();
    assert_eq!(frame.pixels, [1, 2, 3, 4, 5, 6]);
    offer(Pixels::Bgr, 2, 1, 0).to_rgb(&[1, 2, 3, 4, 5, 6], &mut frame).unwrap();
    assert_eq!(frame.pixels, [3, 2, 1, 6, 5, 4]);
    offer(Pixels::Grey, 2, 1, 0).to_rgb(&[7, 8], &mut frame).unwrap();
    assert_eq!(frame.pixels, [7, 7, 7, 8, 8, 8]);
    for pixels in [Pixels::Rgb, Pixels::Bgr, Pixels::Nv12, Pixels::Yuyv, Pixels::Grey, Pixels::Mjpeg] {
        assert!(offer(pixels, 3, 3, 0).to_rgb(&[0; 8], &mut frame).is_err(), "{pixels:?}");
    }
    assert!(PixelLayout::new(Pixels::Rgb, 0, 3, 0).is_err());
    // Rows with padding.
    offer(Pixels::Rgb, 1, 2, 8).to_rgb(&[1, 2, 3, 0, 0, 0, 0, 0, 4, 5, 6], &mut frame).unwrap();
    assert_eq!(frame.pixels, [1, 2, 3, 4, 5, 6]);
    offer(Pixels::Grey, 2, 2, 3).to_rgb(&[1, 2, 0, 3, 4], &mut frame).unwrap();
    assert_eq!(frame.pixels, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
    let nv12 = [16, 235, 9, 9, 235, 16, 9, 9, 128, 128];
    offer(Pixels::Nv12, 2, 2, 4).to_rgb(&nv12, &mut frame).unwrap();
    assert_eq!(frame.pixels, [0, 0, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0]);
}

fn jpeg() -> Vec<u8> {
    let mut out = Vec::new();
    JpegEncoder::new(&mut out).write_image(&[150; 16 * 8 * 3], 16, 8, ExtendedColorType::Rgb8).unwrap();
    out
}

#[test]
fn mjpeg_is_cut_at_its_end_and_broken_ones_are_errors() {
    let whole = jpeg();
    let mut buffer = whole.clone();
    buffer.extend([0; 5000]);
    let offer = offer(Pixels::Mjpeg, 16, 8, 0);
    assert_eq!(offer.trim(&buffer), whole);
    let mut frame = Frame::default();
    offer.to_rgb(offer.trim(&buffer), &mut frame).unwrap();
    assert_eq!((frame.width, frame.height), (16, 8));
    assert!(frame.pixels.iter().all(|v| v.abs_diff(150) <= 2));
    for broken in [vec![0; 5000], whole[..whole.len() / 2].to_vec(), whole[..20].to_vec(), Vec::new()] {
        assert!(offer.to_rgb(offer.trim(&broken), &mut frame).is_err());
    }
}

/// A camera whose frames come from the test.
fn fed(stall: Duration) -> (LiveCamera, Arc<LatestSlot<Raw>>) {
    let mailbox = Arc::new(LatestSlot::new());
    let granted = offer(Pixels::Mjpeg, 16, 8, 0);
    (LiveCamera::over(mailbox.clone(), None, Path::new("/dev/video7"), granted, stall), mailbox)
}

fn put(mailbox: &LatestSlot<Raw>, number: u64, bytes: Vec<u8>) -> bool {
    mailbox.put(&mut Raw { bytes, number, at: Some(Instant::now()), ..Raw::default() })
}

#[test]
fn newest_frame_stamps_and_counts() {
    let (mut camera, mailbox) = fed(Duration::from_secs(60));
    let mut frame = Frame::default();
    assert_eq!(camera.next(&mut frame, Duration::from_millis(5)).unwrap(), Pull::Idle);
    put(&mailbox, 0, jpeg());
    put(&mailbox, 1, jpeg());
    assert_eq!(camera.next(&mut frame, Duration::ZERO).unwrap(), Pull::Frame);
    assert!(
        frame.index == 1 && frame.stamp > Timestamp(1_600_000_000_000_000_000) && frame.arrived.is_some() && !frame.cut
    );
    let first = frame.stamp;
    put(&mailbox, 2, b"no jpeg".to_vec());
    assert_eq!(camera.next(&mut frame, Duration::from_millis(5)).unwrap(), Pull::Idle);
    put(&mailbox, 3, jpeg());
    assert_eq!(camera.next(&mut frame, Duration::ZERO).unwrap(), Pull::Frame);
    assert!(frame.index == 3 && frame.stamp > first);
    assert_eq!(
        camera.counts(),
        SourceCounts {
            frames: 2,
            dropped: 1,
            unreadable: 1,
            age_ms: camera.counts().age_ms,
            ..SourceCounts::default()
        }
    );
    assert!(camera.live() && camera.skip_to(1).is_err());
    drop(camera);
    assert!(!put(&mailbox, 4, jpeg()), "the capture thread learns that nobody takes frames");
}

#[test]
fn stalls_and_failures_name_the_camera() {
    let (mut camera, mailbox) = fed(Duration::from_millis(200));
    let mut frame = Frame::default();
    put(&mailbox, 0, jpeg());
    assert_eq!(camera.next(&mut frame, Duration::ZERO).unwrap(), Pull::Frame);
    assert_eq!(camera.next(&mut frame, Duration::from_millis(20)).unwrap(), Pull::Idle);
    let error = camera.next(&mut frame, Duration::from_secs(60)).unwrap_err().chain();
    assert!(error.contains("/dev/video7 stalled") && error.contains("after 1 frames"), "{error}");
    let (mut camera, mailbox) = fed(Duration::from_secs(60));
    mailbox.close("No such device (os error 19)");
    let error = camera.next(&mut frame, Duration::from_secs(60)).unwrap_err().chain();
    assert!(error.contains("/dev/video7 failed") && error.contains("os error 19"), "{error}");
}

#[test]
fn a_camera_that_is_not_there_is_named() {
    let error = LiveCamera::open(Path::new("/dev/video9999"), &config::Source::default()).unwrap_err().chain();
    assert!(error.contains("no camera at /dev/video9999"), "{error}");
}
