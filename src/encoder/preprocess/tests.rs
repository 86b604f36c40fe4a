#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn card() -> ModelCard {
    ModelCard::beside(&folder().join("tiny.onnx")).unwrap()
}

fn frame(width: u32, height: u32, value: impl Fn(usize) -> u8) -> Frame {
    Frame { width, height, pixels: (0..(width * height * 3) as usize).map(value).collect(), ..Frame::default() }
}

fn triple(value: &Value) -> [f32; 3] {
    [0, 1, 2].map(|i| value[i].as_f64().unwrap() as f32)
}

#[test]
fn agrees_with_pillow() {
    let folder = folder().join("prepare");
    let cases: Value = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let image = image::open(folder.join(format!("{name}.png"))).unwrap().to_rgb8();
        let frame =
            Frame { width: image.width(), height: image.height(), pixels: image.into_raw(), ..Frame::default() };
        let side = case["side"].as_u64().unwrap() as u32;
        let card = ModelCard {
            fit: if case["fit"] == "crop" { ResizeMode::Crop } else { ResizeMode::Stretch },
            channels: if case["channels"] == "bgr" { ChannelOrder::Bgr } else { ChannelOrder::Rgb },
            mean: triple(&case["mean"]),
            std: triple(&case["std"]),
            ..card()
        };
        let bytes = std::fs::read(folder.join(format!("{name}.f32"))).unwrap();
        let expected: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let mut tensor = vec![f32::NAN; expected.len()];
        Preprocessor::new(&card, Size::square(side)).unwrap().run(&frame, &mut tensor).unwrap();
        let area = (side * side) as usize;
        let mut sum = 0.0;
        for (i, (ours, pillow)) in tensor.iter().zip(&expected).enumerate() {
            let levels = (ours - pillow).abs() * card.std[i / area] * 255.0;
            assert!(levels < 1e-3, "{name}: value {i} is {levels} levels off");
            sum += levels;
        }
        let mean = sum / tensor.len() as f32;
        assert!(mean < 1e-4, "{name}: {mean} levels off in the mean");
    }
}

#[test]
fn sizes_may_change_and_nothing_is_left_behind() {
    let mut prepare = Preprocessor::new(&card(), Size::square(32)).unwrap();
    let (mut one, mut two) = (vec![0.0; 3 * 32 * 32], vec![0.0; 3 * 32 * 32]);
    let small = frame(32, 32, |i| (i % 251) as u8);
    prepare.run(&small, &mut one).unwrap();
    for (width, height) in [(640, 480), (1, 1), (3, 500), (500, 3), (4000, 1), (33, 31)] {
        prepare.run(&frame(width, height, |i| (i / 7) as u8), &mut two).unwrap();
        assert!(two.iter().all(|v| v.is_finite()));
    }
    prepare.run(&small, &mut two).unwrap();
    assert_eq!(one, two);
    // A frame of the input's size passes through unchanged.
    assert_eq!(one[32 * 32], (1.0 / 255.0 - 0.456) / 0.224);
}

#[test]
fn exposure_is_the_formula_for_every_frame_anew() {
    let card = ModelCard { exposure: Some(0.45), ..card() };
    let mut prepare = Preprocessor::new(&card, Size::square(32)).unwrap();
    let mut tensor = vec![0.0; 3 * 32 * 32];
    // Dark, bright, nearly black (the gain is bounded), black, dark again.
    for (scale, bounded) in [(90, false), (250, false), (9, true), (0, true), (90, false)] {
        let frame = frame(32, 32, |i| (i * 37 % (scale + 1)) as u8);
        prepare.run(&frame, &mut tensor).unwrap();
        let mean = frame.pixels.iter().map(|v| f64::from(*v) / 255.0).sum::<f64>() / frame.pixels.len() as f64;
        let gain = (0.45 / mean).min(8.0);
        assert_eq!(gain == 8.0, bounded, "{scale}");
        for (i, &value) in tensor.iter().enumerate() {
            let (plane, pixel) = (i / 1024, i % 1024);
            let x = (gain * f64::from(frame.pixels[3 * pixel + plane]) / 255.0).min(1.0);
            let right = (x - f64::from(card.mean[plane])) / f64::from(card.std[plane]);
            assert!((f64::from(value) - right).abs() < 1e-5, "{scale}: value {i} is {value}, not {right}");
        }
    }
}

#[test]
fn every_shape_can_be_cropped() {
    let mut prepare = Preprocessor::new(&ModelCard { fit: ResizeMode::Crop, ..card() }, Size::square(32)).unwrap();
    let mut tensor = vec![0.0; 3 * 32 * 32];
    for width in (1..40).chain([63, 64, 65, 97, 1000, 5001]) {
        for height in [1, 2, 31, 32, 33, 64, 65, 720] {
            prepare.run(&frame(width, height, |_| 255), &mut tensor).unwrap();
            assert!((tensor[0] - (1.0 - 0.485) / 0.229).abs() < 1e-6, "{width} x {height}");
        }
    }
}

#[test]
fn bad_frames_are_refused() {
    let mut prepare = Preprocessor::new(&card(), Size::square(32)).unwrap();
    let mut tensor = vec![0.0; 3 * 32 * 32];
    let mut short = frame(8, 8, |_| 1);
    short.pixels.pop();
    let huge = Frame { width: u32::MAX, height: u32::MAX, ..Frame::default() };
    for bad in [Frame::default(), short, frame(0, 5, |_| 1), huge] {
        let text = prepare.run(&bad, &mut tensor).unwrap_err().to_string();
        assert!(text.contains(&format!("{} x {} pixels with {} bytes", bad.width, bad.height, bad.pixels.len())));
    }
    assert!(prepare.run(&frame(8, 8, |_| 1), &mut tensor[1..]).is_err());
    assert!(Preprocessor::new(&card(), Size::square(33)).is_err());
}

/// A wall of one colour with a square in front of it.
fn fixed_camera(number: i64, square: bool) -> Frame {
    let inside = |i: usize| (30..60).contains(&(i / 3 % 96)) && (10..40).contains(&(i / 288));
    let value = |i: usize| if square && inside(i) { [250, 120, 40][i % 3] } else { [70, 90, 80][i % 3] };
    Frame { stamp: crate::frame::Timestamp(number * 1_000_000_000), ..frame(96, 96, value) }
}

#[test]
fn the_window_is_encoded_with_the_gain_of_the_frame() {
    let card = ModelCard { exposure: Some(0.45), motion_crop: Some(600.0), ..card() };
    let mut prepare = Preprocessor::new(&card, Size::square(32)).unwrap();
    let (mut tensor, mut right) = (vec![0.0; 3 * 32 * 32], vec![0.0; 3 * 32 * 32]);
    for i in 0..30 {
        prepare.run(&fixed_camera(i, false), &mut tensor).unwrap();
        assert_eq!(prepare.window(), None);
    }
    let seen = fixed_camera(40, true);
    prepare.run(&seen, &mut tensor).unwrap();
    let [left, top, x1, y1] = prepare.window().unwrap();
    assert!(left < 30 && top < 10 && x1 > 60 && y1 > 40 && x1 - left < 70, "{:?}", prepare.window());
    assert!(prepare.updated().is_some());
    // The same window, cut by hand, with its gain.
    let mean = seen.pixels.iter().map(|v| f64::from(*v) / 255.0).sum::<f64>() / seen.pixels.len() as f64;
    let at = |edge: i32| (if edge < 0 { -edge } else { edge.min(190 - edge) }) as usize;
    let (width, height) = ((x1 - left) as u32, (y1 - top) as u32);
    let window = frame(width, height, |i| {
        let (x, y) = (i / 3 % width as usize, i / (3 * width as usize));
        seen.pixels[3 * (at(top + y as i32) * 96 + at(left + x as i32)) + i % 3]
    });
    let plain = ModelCard { exposure: None, motion_crop: None, ..card.clone() };
    Preprocessor::new(&plain, Size::square(32)).unwrap().run(&window, &mut right).unwrap();
    for (i, (value, plain)) in tensor.iter().zip(&right).enumerate() {
        let (mean_of, std) = (card.mean[i / 1024], card.std[i / 1024]);
        let x = (f64::from(plain * std + mean_of) * 0.45 / mean).min(1.0) as f32;
        assert!((value - (x - mean_of) / std).abs() < 2e-2, "{i}: {value}");
    }
}

#[test]
fn views_are_of_the_frame_and_exposed_like_frames() {
    for motion in [false, true] {
        let exposed = ModelCard { exposure: Some(0.45), motion_crop: motion.then_some(600.0), ..card() };
        let mut prepare = Preprocessor::new(&exposed, Size::square(32)).unwrap();
        let mut tensor = [0.0f32; 3 * 32 * 32];
        (0..30).for_each(|i| prepare.run(&fixed_camera(i, false), &mut tensor).unwrap());
        let frame = fixed_camera(40, true);
        prepare.run(&frame, &mut tensor).unwrap();
        assert_eq!(prepare.window().is_some(), motion);
        let again = |prepare: &mut Preprocessor, change: Augmentation| {
            let mut view = [0.0f32; 3 * 32 * 32];
            prepare.run(&frame, &mut view).unwrap();
            prepare.view(&frame, &change, &mut view).unwrap();
            view
        };
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        prepare.start(None, false);
        assert_eq!(again(&mut prepare, Augmentation::default()), tensor);
        // Exposure normalisation removes a change of light alone, up to rounding; without it the change stays.
        let dim = Augmentation { colour: Some([0.7, 1.0, 1.0]), ..Augmentation::default() };
        assert!(near(&again(&mut prepare, dim), &tensor) < 0.06);
        let mut off = Preprocessor::new(&ModelCard { exposure: None, ..card() }, Size::square(32)).unwrap();
        assert!(near(&again(&mut off, dim), &again(&mut off, Augmentation::default())) > 0.5);
        // The whole frame as its own window, and a window of the upper left quarter.
        let crop = |r: f64| Augmentation { crop: Some([r, 0.0, 0.0]), ..Augmentation::default() };
        assert_eq!(again(&mut prepare, crop(1.0)), tensor);
        assert!(near(&again(&mut prepare, crop(0.5)), &tensor) > 0.3);
        let flipped = again(&mut prepare, Augmentation { flip: true, ..Augmentation::default() });
        assert!(motion || near(&flipped, &tensor) > 0.3);
        assert!(flipped.chunks(32).zip(tensor.chunks(32)).all(|(a, b)| a.iter().eq(b.iter().rev())));
    }
}
