#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::frame::Timestamp;

const SIDE: i32 = 96;

/// A striped wall with a bright square of `size` pixels at `(x, y)`; `light` scales the brightness.
fn scene(x: i32, y: i32, size: i32, light: f32, number: i64) -> Frame {
    let mut pixels = Vec::new();
    for at in 0..SIDE * SIDE {
        let (px, py) = (at % SIDE, at / SIDE);
        let inside = (x..x + size).contains(&px) && (y..y + size).contains(&py);
        let level = if inside { 200.0 } else { 60.0 + (px / 8 % 2 * 20) as f32 };
        pixels.extend([(level * light) as u8; 3]);
    }
    let (width, height) = (SIDE as u32, SIDE as u32);
    Frame { width, height, pixels, stamp: Timestamp(number * 1_000_000_000), ..Frame::default() }
}

/// A cropper that has learned the wall as background.
fn warm() -> MotionCropper {
    let mut motion = MotionCropper::new(600.0, Some(0.45), Size::square(32));
    for i in 0..40 {
        assert_eq!(motion.look(&scene(0, 0, 0, 1.0, i)).unwrap(), None);
    }
    motion
}

#[test]
fn the_window_lies_around_what_moves_whatever_the_light() {
    for light in [1.0, 0.5, 1.2] {
        let mut motion = warm();
        let [left, top, right, bottom] = motion.look(&scene(60, 30, 12, light, 50)).unwrap().unwrap();
        // Blocks are 3 pixels wide; 4 x 4 blocks differ, so s = sqrt(1.25), and half the side is at least 6 blocks.
        let half = 3.0 * (2.2 * 1.25f32.sqrt() + 1.0).max(6.0);
        for (edge, right) in [(left, 66.0 - half), (right, 66.0 + half), (top, 36.0 - half), (bottom, 36.0 + half)] {
            assert!((edge as f32 - right).abs() <= 1.5, "{light}: {edge}, not {right}");
        }
    }
}

#[test]
fn too_little_and_too_much_change_is_no_window() {
    let mut motion = warm();
    for size in [0, 3, 80] {
        assert_eq!(motion.look(&scene(3, 3, size, 1.0, 50)).unwrap(), None, "{size}");
    }
    // Frames of another size have no background yet.
    let small = Frame { width: 48, height: 192, ..scene(30, 30, 15, 1.0, 60) };
    assert_eq!(motion.look(&small).unwrap(), None);
    assert!(!motion.background().usable());
}

#[test]
fn a_camera_that_moves_is_never_cropped() {
    let mut motion = MotionCropper::new(600.0, None, Size::square(32));
    for i in 0..100 {
        let mut frame = scene(40, 40, 20, 1.0, i);
        // The wall moves past the camera.
        frame.pixels.rotate_left(3 * (i as usize * 29 % 96));
        frame.pixels.iter_mut().step_by(2).for_each(|v| *v = v.wrapping_mul(3));
        assert_eq!(motion.look(&frame).unwrap(), None);
    }
    assert!(motion.background().warm() && !motion.background().usable());
}

#[test]
fn a_background_that_does_not_learn_stays_as_it_is() {
    let mut motion = warm();
    let known = motion.background().clone();
    motion.start(Some(known.clone()), false);
    assert!(motion.look(&scene(60, 30, 12, 1.0, 90)).unwrap().is_some());
    assert!(!motion.updated && *motion.background() == known);
    motion.start(None, true);
    motion.look(&scene(60, 30, 12, 1.0, 91)).unwrap();
    assert!(motion.updated && *motion.background() != known);
}

#[test]
fn windows_beyond_the_frame_show_its_reflection() {
    let mut motion = warm();
    let pixels: Vec<u8> = (0..5 * 4).flat_map(|i| [i, i, i]).collect();
    let frame = Frame { width: 5, height: 4, pixels, ..Frame::default() };
    let (cut, width, height) = motion.cut(&frame, [-2, -1, 7, 6]);
    assert_eq!((width, height, cut.len()), (9, 7, 3 * 63));
    let row = |y: usize| cut.iter().skip(27 * y).step_by(3).take(9).copied().collect::<Vec<u8>>();
    assert_eq!(row(1), [2, 1, 0, 1, 2, 3, 4, 3, 2]);
    assert_eq!((row(0)[2], row(2)[2], row(4)[2], row(5)[2], row(6)[2]), (5, 5, 15, 10, 5));
    // A one-pixel frame reflects to itself everywhere.
    let dot = Frame { width: 1, height: 1, pixels: vec![1, 2, 3], ..Frame::default() };
    assert_eq!(motion.cut(&dot, [-1, 0, 1, 1]).0, [1, 2, 3, 1, 2, 3]);
}
