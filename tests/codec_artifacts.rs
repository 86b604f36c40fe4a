//! Artifacts stamped on every frame must not be learned: the pulse of a video codec's key frames, and the seconds of a
//! burned-in clock. In the synthetic latents here, these artifacts help to tell frames apart; the learned head must not
//! follow them more than the frozen latents do.
#![allow(clippy::unwrap_used, reason = "tests")]

use afterimage::frame::Timestamp;
use afterimage::head::ScatterStats;
use afterimage::linalg::random::uniform;
use afterimage::linalg::unit_rows;
use afterimage::sampling::{Block, PairSampler};
use afterimage_learn::config::SamplingSettings;
use ndarray::{Array1, Array2, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const DIM: usize = 40;
/// What the scene shows: constant in a block, up to noise.
const SCENE: std::ops::Range<usize> = 0..12;
/// Where the artefact is.
const STAMP: std::ops::Range<usize> = 12..22;

/// 300 blocks of 30 frames, 10 a second; `artefact`: what is added at a frame (its number in the stream).
fn blocks(artefact: impl Fn(u64) -> Array1<f64>) -> Vec<Block> {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut noise = |len: usize, size: f64| Array1::from_shape_simple_fn(len, || size * (uniform(&mut rng) - 0.5));
    (0..300u64)
        .map(|number| {
            let scene = noise(SCENE.len(), 1.0);
            let mut latents = Array2::zeros((30, DIM));
            for (i, mut row) in latents.rows_mut().into_iter().enumerate() {
                row.fill(0.3);
                row += &noise(DIM, 0.15);
                let mut part = row.slice_mut(s![SCENE]);
                part += &scene;
                let mut part = row.slice_mut(s![STAMP]);
                part += &artefact(30 * number + i as u64);
            }
            Block {
                number,
                segment: number,
                index: (0..30).map(|i| 30 * number + i).collect(),
                stamps: (0..30).map(|i| Timestamp((30 * number as i64 + i) * 100_000_000)).collect(),
                latents: unit_rows(&latents.mapv(|x: f64| x as f32)).0,
                ..Block::default()
            }
        })
        .collect()
}

/// Share of the variance of embeddings that lies in the artefact's part of the latents: frozen, and of the slow head.
fn shares(gap: &str, blocks: &[Block]) -> [f64; 2] {
    let mut gaps = PairSampler::new(&SamplingSettings { gap: gap.parse().unwrap(), ..SamplingSettings::default() });
    let mut scatter = ScatterStats::new(DIM);
    for block in blocks {
        gaps.learn(block);
        scatter.add(block, &gaps.pairs(block)).unwrap();
    }
    let fit = scatter.fit(8, 0.2).unwrap();
    let rows: Vec<Array1<f64>> = blocks
        .iter()
        .flat_map(|b| b.latents.rows().into_iter().map(|r| r.mapv(f64::from) - &fit.mean).collect::<Vec<_>>())
        .collect();
    let share = |embed: &dyn Fn(&Array1<f64>) -> Array1<f64>| {
        let (mut artefact, mut all) = (0.0, 0.0);
        for row in &rows {
            let mut part = Array1::zeros(DIM);
            part.slice_mut(s![STAMP]).assign(&row.slice(s![STAMP]));
            artefact += embed(&part).mapv(|x| x * x).sum();
            all += embed(row).mapv(|x| x * x).sum();
        }
        artefact / all
    };
    [share(&|x| x.clone()), share(&|x| fit.directions.t().dot(x))]
}

#[test]
fn key_frames_of_a_codec_are_not_followed() {
    for every in [3, 10, 12] {
        // A pulse at every key frame that fades until the next.
        let pulse = |frame: u64| Array1::from_elem(STAMP.len(), 0.5 * 0.4f64.powi((frame % every) as i32));
        for gap in ["range", "adaptive"] {
            let [frozen, learned] = shares(gap, &blocks(pulse));
            assert!(frozen > 0.05 && learned < 0.5 * frozen, "{gap}, every {every}: {learned:.3} of {frozen:.3}");
        }
    }
}

#[test]
fn seconds_of_a_burned_in_clock_are_not_followed() {
    // Each second has a look of its own, the same in every minute.
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let looks = Array2::from_shape_simple_fn((60, STAMP.len()), || uniform(&mut rng) - 0.5);
    let clock = |frame: u64| looks.row((frame / 10 % 60) as usize).to_owned();
    for gap in ["range", "adaptive"] {
        let [frozen, learned] = shares(gap, &blocks(clock));
        assert!(frozen > 0.2 && learned < frozen, "{gap}: {learned:.3} of {frozen:.3}");
    }
}
