use super::*;
use crate::Timestamp;
use crate::config::SamplingSettings;
use crate::sampling::Views;

const MILLI: i64 = 1_000_000;

fn blocks(still_distance: f64, block_secs: f64) -> BlockBuilder {
    // Latents that move in a circle would count as a flicker.
    let sampling = SamplingSettings { still_distance, still_frames: 0, ..SamplingSettings::default() };
    let learn = Training { frames_per_sec: 10.0, sampling, ..Training::default() };
    BlockBuilder::new(&learn, &Promotion { block_secs, ..Promotion::default() })
}

/// The one open block at the end.
fn rest(b: &mut BlockBuilder) -> Option<Block> {
    let mut blocks = b.finish();
    assert!(blocks.len() < 2);
    blocks.pop()
}

/// A sample whose latent lies at `angle` radians.
fn sample(index: u64, stamp: i64, segment: u64, angle: f32) -> Sample {
    Sample { index, stamp: Timestamp(stamp), segment, latent: vec![angle.cos(), angle.sin()], ..Sample::default() }
}

/// Indices kept from moving frames with these timestamps, in one segment.
fn kept(stamps: impl IntoIterator<Item = i64>) -> Vec<u64> {
    let mut b = blocks(1e-5, 1e6);
    for (i, stamp) in stamps.into_iter().enumerate() {
        assert_eq!(b.push(&sample(i as u64, stamp, 0, 0.1 * i as f32)), []);
    }
    rest(&mut b).unwrap().index
}

fn at_rate(rate: f64, n: usize) -> impl Iterator<Item = i64> {
    (0..n).map(move |i| (i as f64 / rate * 1e9).round() as i64)
}

#[test]
fn the_rate_is_limited_evenly() {
    let thirds: Vec<u64> = (0..3000).step_by(3).collect();
    assert_eq!(kept(at_rate(30.0, 3000)), thirds);
    assert_eq!(kept(at_rate(10.0, 1000)).len(), 1000);
    assert_eq!(kept(at_rate(3.0, 100)).len(), 100);
    let of_25 = kept(at_rate(25.0, 2500));
    assert_eq!(&of_25[..6], &[0, 2, 5, 7, 10, 12]);
    assert_eq!(of_25.len(), 1000);
    for rate in [11.0, 12.5, 14.0, 17.3, 24.0, 29.97, 47.0, 120.0] {
        let n = kept(at_rate(rate, (rate * 100.0) as usize)).len();
        assert!((800..=1003).contains(&n), "{rate} frames a second: {n} kept in 100 s");
    }
}

#[test]
fn jitter_and_pauses_cost_no_frames_and_bring_no_burst() {
    let jitter = |i: usize| [0, 19, -20, 7, -12][i % 5] * MILLI;
    assert_eq!(kept((0..1000).map(|i| i as i64 * 100 * MILLI + jitter(i))).len(), 1000);
    // Ten seconds, a pause of a minute, one second: about ten samples are kept after the pause, without a burst.
    let frames = (0..400).chain(2800..2840).map(|i| i * 25 * MILLI);
    let kept = kept(frames);
    assert!(kept.iter().filter(|&&i| i >= 400).count() <= 12, "{kept:?}");
}

#[test]
fn still_frames_are_skipped_until_something_moves() {
    let mut b = blocks(1e-3, 4.0);
    for i in 0..100 {
        // One step at frame 50; before and after it the scene is static.
        assert_eq!(
            b.push(&sample(i, i as i64 * 100 * MILLI, 0, if i < 50 { 0.0 } else { 1.0 })).len(),
            usize::from(i == 50)
        );
    }
    assert_eq!(rest(&mut b).unwrap().index, [50]);
    assert_eq!(b.counts(), BlockCounts { kept: 2, still: 98, ..BlockCounts::default() });
    // Slow drift is compared with the last kept sample, so it is not skipped forever.
    let mut b = blocks(1e-3, 1e6);
    for i in 0..100 {
        b.push(&sample(i, i as i64 * 100 * MILLI, 0, 0.01 * i as f32));
    }
    let n = rest(&mut b).unwrap().index.len();
    assert!((15..=25).contains(&n), "{n}: one in five steps of 0.01 moves by 0.045 radians");
}

#[test]
fn blocks_end_at_cuts_lengths_pauses_and_steps_back() {
    let mut b = blocks(1e-5, 4.0);
    let mut closed = Vec::new();
    let mut i = 0;
    let mut feed = |b: &mut BlockBuilder, stamp: i64, segment: u64| {
        i += 1;
        closed.extend(b.push(&sample(i, stamp * MILLI, segment, i as f32)));
    };
    (0..100).for_each(|k| feed(&mut b, k * 100, 0)); // 10 s: 40, 40 and 20
    feed(&mut b, 9950, 1); // a cut: kept although it is too soon
    feed(&mut b, 30_000, 1); // a pause
    feed(&mut b, 29_000, 1); // a step back, the same segment
    closed.extend(b.finish());
    let lengths: Vec<usize> = closed.iter().map(|b| b.index.len()).collect();
    assert_eq!(lengths, [40, 40, 20, 1, 1, 1]);
    assert_eq!(closed.iter().map(|b| b.number).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(closed.iter().map(|b| b.segment).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
    assert_eq!(closed[1].stamps[0], Timestamp(4000 * MILLI));
    assert_eq!(closed[0].latents.dim(), (40, 2));
    assert_eq!(closed[0].latents[[3, 0]], 4f32.cos());
    assert_eq!(b.finish(), []);
}

#[test]
fn odd_stamps_and_lengths_do_no_harm() {
    let mut b = blocks(1e-5, 4.0);
    let stamps = [i64::MIN, i64::MAX, 0, i64::MAX, i64::MIN];
    let mut n = 0;
    for (i, &stamp) in stamps.iter().enumerate() {
        n += b.push(&sample(i as u64, stamp, 0, i as f32)).len();
    }
    let long = Sample { index: 9, stamp: Timestamp(0), latent: vec![1.0; 3], ..Sample::default() };
    assert_eq!(b.push(&long)[0].latents.ncols(), 2);
    assert_eq!((n, rest(&mut b).unwrap().latents.dim()), (4, (1, 3)));
}

#[test]
fn views_stay_with_their_frames() {
    let mut b = blocks(1e-5, 4.0);
    for i in 0..20u64 {
        // Every second frame exceeds the rate limit and is dropped together with its view.
        let view = if i % 4 < 2 { vec![i as f32, -1.0] } else { Vec::new() };
        b.push(&Sample { view, ..sample(i, i as i64 * 50 * MILLI, 0, i as f32) });
    }
    b.push(&Sample { view: vec![1.0; 3], ..sample(20, 1000 * MILLI, 0, 0.5) });
    let block = rest(&mut b).unwrap();
    assert_eq!(block.index, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
    assert_eq!(block.views.rows, [0, 2, 4, 6, 8], "a view of another length is no view");
    assert_eq!(block.views.latents.column(0).to_vec(), [0.0, 4.0, 8.0, 12.0, 16.0]);
    b.push(&sample(21, 2000 * MILLI, 0, 0.5));
    assert_eq!(rest(&mut b).unwrap().views, Views::default());
}

#[test]
fn goes_on_from_a_saved_state() {
    let stream = |i: u64| {
        let view = if i % 3 == 1 { vec![i as f32, 1.0] } else { Vec::new() };
        // Two cameras, cuts, and flashes.
        let (camera, segment) = ((i % 2) as u16, if i % 31 > 28 { 1000 + i } else { i / 70 });
        Sample { view, camera, ..sample(i, i as i64 * 33 * MILLI, 2 * segment + i % 2, (i as f32 * 0.3).sin()) }
    };
    for stop in [0, 1, 35, 70, 199] {
        let mut b = blocks(1e-5, 1.5);
        let mut left: Vec<Block> = (0..stop).flat_map(|i| b.push(&stream(i))).collect();
        let (state, rows, views) = b.save();
        let text = serde_json::to_string(&state).unwrap();
        let mut other = blocks(1e-5, 1.5);
        other.restore(serde_json::from_str(&text).unwrap(), rows.to_vec(), views.to_vec()).unwrap();
        left.extend((stop..200).flat_map(|i| other.push(&stream(i))));
        left.extend(other.finish());
        let mut whole = blocks(1e-5, 1.5);
        let mut right: Vec<Block> = (0..200).flat_map(|i| whole.push(&stream(i))).collect();
        right.extend(whole.finish());
        assert!(right.iter().any(|block| block.views.rows.len() > 5));
        assert_eq!(left, right);
        assert_eq!(other.counts(), whole.counts());
    }
    let one = |open: OpenBlockState| BlockBuilderState {
        cameras: vec![(0, 0, None, Some(open))],
        ..BlockBuilderState::default()
    };
    let broken = one(OpenBlockState { index: vec![1], dim: 2, ..OpenBlockState::default() });
    assert!(blocks(0.0, 1.0).restore(broken, vec![0.0; 2], vec![]).is_err());
    for views in [vec![1], vec![0, 0]] {
        let rows = vec![0.0; 2 * views.len()];
        let broken =
            one(OpenBlockState { index: vec![1], stamps: vec![2], views, dim: 2, ..OpenBlockState::default() });
        assert!(blocks(0.0, 1.0).restore(broken, vec![0.0; 2], rows).unwrap_err().to_string().contains("views"));
    }
    let left_over = one(OpenBlockState { index: vec![1], stamps: vec![2], dim: 2, ..OpenBlockState::default() });
    assert!(
        blocks(0.0, 1.0).restore(left_over, vec![0.0; 3], vec![]).unwrap_err().to_string().contains("belong to none")
    );
}

#[test]
fn a_flash_is_left_out_and_the_block_goes_on() {
    let mut b = blocks(1e-5, 4.0);
    let mut closed = Vec::new();
    // Segment 0 with flashes of one and of two frames, then segment 4 for good.
    for (i, segment) in [0, 0, 1, 0, 0, 2, 2, 0, 4, 4, 4, 4, 4, 4].into_iter().enumerate() {
        closed.extend(b.push(&sample(i as u64, i as i64 * 100 * MILLI, segment, i as f32)));
        assert_eq!(closed.len(), usize::from(i >= 11), "held until segment 4 has lasted a quarter of a second");
    }
    closed.extend(b.finish());
    let told: Vec<_> = closed.iter().map(|b| (b.segment, b.index.clone())).collect();
    assert_eq!(told, [(0, vec![0, 1, 3, 4, 7]), (4, (8..14).collect())]);
    assert_eq!(b.counts(), BlockCounts { kept: 11, flashes: 3, ..BlockCounts::default() });
}

#[test]
fn short_shots_are_no_flashes() {
    let mut b = blocks(1e-5, 4.0);
    let mut closed: Vec<Block> = (0..6).flat_map(|i| b.push(&sample(i, i as i64 * 100 * MILLI, i, i as f32))).collect();
    assert_eq!(closed.len(), 4, "one may still be a flash, one is open");
    closed.extend(b.finish());
    let told: Vec<_> = closed.iter().map(|b| (b.number, b.segment, b.index.clone())).collect();
    assert_eq!(told, (0..6).map(|i| (i, i, vec![i])).collect::<Vec<_>>());
}

#[test]
fn cameras_gather_and_are_held_out_by_themselves() {
    let mut b = blocks(1e-5, 1.0);
    let mut closed = Vec::new();
    for i in 0..100 {
        for camera in [0, 1, 4] {
            // Camera 1 is static half of the time; camera 4 delivers every second frame.
            if camera < 4 || i % 2 == 0 {
                let angle = if camera == 1 && i >= 50 { 50.0 } else { i as f32 };
                let sample = sample(3 * i + u64::from(camera), i as i64 * 100 * MILLI, u64::from(camera), angle);
                closed.extend(b.push(&Sample { camera, ..sample }));
            }
        }
    }
    closed.extend(b.finish());
    assert_eq!(closed.iter().map(|b| b.number).collect::<Vec<_>>(), (0..closed.len() as u64).collect::<Vec<_>>());
    for (camera, lengths) in [(0, vec![10; 10]), (1, vec![10, 10, 10, 10, 10, 1]), (4, vec![5; 10])] {
        let of: Vec<&Block> = closed.iter().filter(|b| b.camera == camera).collect();
        assert_eq!(of.iter().map(|b| b.index.len()).collect::<Vec<_>>(), lengths, "camera {camera}");
        assert_eq!(
            of.iter().map(|b| b.camera_block_index).collect::<Vec<_>>(),
            (0..lengths.len() as u64).collect::<Vec<_>>()
        );
        assert!(of.iter().all(|b| b.segment == u64::from(camera)));
    }
}

#[test]
fn one_block_in_so_many_is_held() {
    assert_eq!((0..12).filter(|&n| held(n, 5)).collect::<Vec<_>>(), [0, 5, 10]);
    assert!(!held(0, 0));
}
