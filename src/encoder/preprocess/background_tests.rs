#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

const SECOND: i64 = 1_000_000_000;

/// A small image with one value everywhere, except for its first `odd` pixels, which are 0.
fn picture(background: &BackgroundModel, value: f32, odd: usize) -> Vec<f32> {
    let mut y = vec![value; background.mean.len()];
    y[..3 * odd].fill(0.0);
    y
}

#[test]
fn the_small_picture_has_the_aspect_of_the_frame_in_blocks() {
    for (frame, width) in [([128, 128], 96), ([640, 480], 129), ([1920, 1080], 171), ([1, 5000], 3), ([9000, 1], 768)] {
        assert_eq!(BackgroundModel::new(frame).width(), width, "{frame:?}");
    }
}

#[test]
fn is_a_mean_that_forgets_and_takes_a_frame_every_half_second() {
    let mut background = BackgroundModel::new([128, 128]);
    assert!(!background.warm() && !background.usable());
    let memory = 10.0;
    // At ten frames a second, one frame in five counts.
    for i in 0..100 {
        let y = picture(&background, if i % 10 == 0 { 0.2 } else { 0.6 }, 0);
        let due = background.observe(&y, Timestamp(i * SECOND / 10), memory);
        assert_eq!(due, i % 5 == 0, "{i}");
    }
    assert_eq!(background.state.count, 20);
    assert!(background.mean.iter().all(|m| (m - 0.4).abs() < 1e-6), "{}", background.mean[0]);
    // A clock that steps back must not stop the updates.
    let y = picture(&background, 0.4, 0);
    assert!(background.observe(&y, Timestamp(0), memory));
    // What stands still long enough becomes background: 1 - exp(-1) of the way after the time constant.
    let y = picture(&background, 0.9, 0);
    (1..=20).for_each(|i| assert!(background.observe(&y, Timestamp(i * SECOND / 2), memory)));
    let way = (background.mean[0] - 0.4) / 0.5;
    assert!((way - (1.0 - (-1.0f32).exp())).abs() < 0.02, "{way}");
}

#[test]
fn tells_a_camera_that_moves_from_one_that_stands() {
    let (mut fixed, mut moving) = (BackgroundModel::new([96, 96]), BackgroundModel::new([96, 96]));
    for i in 0..40 {
        // A fifth of the pixels changes in front of the fixed camera, all of them in front of the moving one.
        let y = picture(&fixed, 0.5, if i % 2 == 0 { fixed.deviation.len() / 5 } else { 0 });
        fixed.observe(&y, Timestamp(i * SECOND), 600.0);
        let y = picture(&moving, if i % 2 == 0 { 0.3 } else { 0.6 }, 0);
        moving.observe(&y, Timestamp(i * SECOND), 600.0);
        assert_eq!(fixed.usable(), i >= 19, "{i}");
    }
    assert!(fixed.deviation() < 0.01, "{}", fixed.deviation());
    assert!(moving.warm() && !moving.usable() && moving.deviation() > 0.1, "{}", moving.deviation());
}

#[test]
fn goes_on_from_what_was_saved() {
    let mut whole = BackgroundModel::new([64, 48]);
    let y = |i: i64, b: &BackgroundModel| picture(b, 0.4 + 0.01 * (i % 7) as f32, i as usize % 50);
    let mut left = None;
    for i in 0..60 {
        let y = y(i, &whole);
        whole.observe(&y, Timestamp(i * SECOND / 3), 10.0);
        if i == 23 {
            let (state, mean, deviation) = whole.save();
            let state = serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap();
            left = Some(BackgroundModel::restore(state, mean.to_vec(), deviation.to_vec()).unwrap());
            assert_eq!(left.as_ref(), Some(&whole));
        } else if let Some(left) = &mut left {
            left.observe(&y, Timestamp(i * SECOND / 3), 10.0);
        }
    }
    assert_eq!(left, Some(whole.clone()));
    let (state, mean, deviation) = whole.save();
    let restore = |mean: &[f32], deviation: &[f32]| {
        BackgroundModel::restore(state.clone(), mean.to_vec(), deviation.to_vec()).map(drop)
    };
    assert!(restore(&mean[1..], deviation).is_err() && restore(mean, &deviation[1..]).is_err());
    assert!(restore(&vec![f32::NAN; mean.len()], deviation).is_err());
}
