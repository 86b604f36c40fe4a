use ndarray::{Array1, Array2, array, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::config::Promotion;
use crate::head::{EmbeddingKind, HeadParams};
use crate::linalg::random::uniform;
use crate::linalg::unit_rows;
use crate::sampling::Block;

/// Blocks of the given sizes. Each has random unit latents, 0.1 s between frames, that drift from the block's own
/// centre.
fn held(sizes: &[usize], dim: usize, seed: u64) -> Holdout {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut held = Holdout::new(&Promotion { max_frames: 4096, ..Promotion::default() });
    for (number, &n) in sizes.iter().enumerate() {
        let mut row = Array1::from_shape_fn(dim, |_| uniform(&mut rng) as f32 - 0.5);
        let mut latents = Array2::zeros((n, dim));
        for mut out in latents.rows_mut() {
            row.mapv_inplace(|x| x + 0.3 * (uniform(&mut rng) as f32 - 0.5));
            out.assign(&row);
        }
        held.push(Block {
            number: 5 * number as u64,
            segment: 0,
            index: (0..n as u64).collect(),
            stamps: (0..n as i64).map(|i| Timestamp(i * 100_000_000)).collect(),
            latents: unit_rows(&latents).0,
            ..Block::default()
        });
    }
    held
}

fn random(n: usize, dim: usize, seed: u64) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    unit_rows(&Array2::from_shape_fn((n, dim), |_| uniform(&mut rng) as f32 - 0.5)).0
}

/// The formulas as documented, frame by frame. `gap` is in frames of 0.1 s.
fn by_definition(held: &Holdout, distractors: &Array2<f32>, gap: i64, head: &Head) -> Scores {
    let rows: Vec<(usize, usize, Array1<f32>)> = held
        .blocks()
        .iter()
        .enumerate()
        .flat_map(|(b, block)| {
            let e = head.embed_rows(block.latents.view());
            (0..e.nrows()).map(|i| (b, i, e.row(i).to_owned())).collect::<Vec<_>>()
        })
        .collect();
    let others = head.embed_rows(distractors.view());
    let mut out = Scores { next_frame: vec![], auc: vec![] };
    for (b, block) in held.blocks().iter().enumerate() {
        let n = block.stamps.len() as i64;
        let (mut near, mut far) = (vec![], vec![]);
        for (_, i, e) in rows.iter().filter(|r| r.0 == b) {
            let cosine = |j: i64| rows.iter().find(|r| r.0 == b && r.1 as i64 == j).unwrap().2.dot(e);
            let outside: Vec<f32> = rows.iter().filter(|r| r.0 != b).map(|r| r.2.dot(e)).collect();
            for sign in [-1, 1] {
                let p = *i as i64 + sign;
                if (0..n).contains(&p) {
                    let v = cosine(p);
                    let beat = outside.iter().filter(|&&x| x >= v).count();
                    let also = others.rows().into_iter().filter(|t| t.dot(e) >= v).count();
                    near.push(1.0 / (1.0 + (beat + also) as f64));
                }
                let p = (*i as i64 + sign * gap).clamp(0, n - 1);
                if (p - *i as i64).abs() * 2 >= gap {
                    let v = cosine(p);
                    far.push(1.0 - outside.iter().filter(|&&x| x >= v).count() as f64 / outside.len() as f64);
                }
            }
        }
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        out.next_frame.push(mean(&near));
        out.auc.push(mean(&far));
    }
    out
}

fn agree(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a.is_nan() && b.is_nan()) || (a - b).abs() < 1e-12)
}

#[test]
fn scores_are_the_formulas() {
    let sizes = [15, 24, 1, 5, 7, 150, 2, 40];
    let held = held(&sizes, 12, 1);
    let distractors = random(33, 12, 2);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let head = Head::Learned(HeadParams {
        mean: Array1::from_elem(12, 0.05),
        slow: Array2::from_shape_fn((12, 5), |_| uniform(&mut rng) as f32 - 0.5),
        mlp: None,
        alpha: 0.0,
        form: EmbeddingKind::Single,
    });
    for head in [Head::Identity { dim: 12 }, head] {
        let found = scores(&held, distractors.view(), 1.2, &head);
        let right = by_definition(&held, &distractors, 12, &head);
        assert!(agree(&found.next_frame, &right.next_frame), "{found:?}\n{right:?}");
        assert!(agree(&found.auc, &right.auc), "{found:?}\n{right:?}");
        // One frame has no score; 0.4 s has no far frame; 0.6 s is half the gap and therefore long enough.
        let near: Vec<bool> = found.next_frame.iter().map(|x| !x.is_nan()).collect();
        let far: Vec<bool> = found.auc.iter().map(|x| !x.is_nan()).collect();
        assert_eq!(near, [true, true, false, true, true, true, true, true]);
        assert_eq!(far, [true, true, false, false, true, true, false, true]);
        assert!(found.next_frame.iter().chain(&found.auc).all(|x| x.is_nan() || (0.0..=1.0).contains(x)));
        let without = scores(&held, distractors.slice(s![..0, ..]), 1.2, &head);
        let right = by_definition(&held, &distractors.slice(s![..0, ..]).to_owned(), 12, &head);
        assert!(agree(&without.next_frame, &right.next_frame) && agree(&without.auc, &found.auc));
    }
}

#[test]
fn a_tie_counts_against_the_head() {
    // Two blocks of two equal frames each; all four frames are the same.
    let mut same = Holdout::new(&Promotion::default());
    for number in 0..2 {
        let latents = array![[1.0, 0.0], [1.0, 0.0]];
        let stamps = vec![Timestamp(0), Timestamp(1_200_000_000)];
        same.push(Block { number, index: vec![0, 1], stamps, latents, ..Block::default() });
    }
    let found = scores(&same, array![[1.0, 0.0]].view(), 1.2, &Head::Identity { dim: 2 });
    assert_eq!(found, Scores { next_frame: vec![0.25; 2], auc: vec![0.0; 2] });
    // A head that maps everything to one point.
    let collapsed = Head::Learned(HeadParams {
        mean: Array1::from_elem(12, -9.0),
        slow: Array2::from_elem((12, 3), 1e-3),
        mlp: None,
        alpha: 0.0,
        form: EmbeddingKind::Single,
    });
    let found = scores(&held(&[20; 6], 12, 4), random(8, 12, 5).view(), 1.2, &collapsed);
    assert!(found.next_frame.iter().all(|&x| x < 0.05) && found.auc.iter().all(|&x| x < 0.1), "{found:?}");
}

#[test]
fn what_cannot_be_scored_is_nan() {
    let nan = |s: &Scores, n: usize| s.next_frame.len() == n && s.next_frame.iter().chain(&s.auc).all(|x| x.is_nan());
    let two = held(&[20, 20], 4, 6);
    let none = Array2::zeros((0, 4));
    let head = |slow: f32| {
        let slow = Array2::from_elem((4, 2), slow);
        Head::Learned(HeadParams { mean: Array1::zeros(4), slow, mlp: None, alpha: 0.0, form: EmbeddingKind::Single })
    };
    assert!(!nan(&scores(&two, none.view(), 1.2, &head(1.0)), 2));
    assert!(nan(&scores(&two, none.view(), 1.2, &head(f32::NAN)), 2), "not finite");
    assert!(nan(&scores(&two, none.view(), 1.2, &head(0.0)), 2), "no direction");
    assert!(nan(&scores(&two, none.view(), 1.2, &Head::Identity { dim: 5 }), 2), "another length");
    assert!(nan(&scores(&two, random(3, 5, 7).view(), 1.2, &Head::Identity { dim: 4 }), 2), "another length");
    assert!(
        nan(&scores(&held(&[20], 4, 8), none.view(), 1.2, &Head::Identity { dim: 4 }), 1),
        "nothing to tell it from"
    );
    assert!(nan(&scores(&held(&[], 4, 9), none.view(), 1.2, &Head::Identity { dim: 4 }), 0));
}

#[test]
fn far_frames_lie_about_the_gap_away() {
    let at = |secs: &[f64]| secs.iter().map(|s| Timestamp((s * 1e9) as i64)).collect::<Vec<_>>();
    let stamps = at(&[0.0, 0.5, 1.0, 1.1, 2.0, 4.0]);
    let gap = 1_200_000_000;
    assert_eq!(far_frames(&stamps, 0, gap), [None, Some(3)]);
    assert_eq!(far_frames(&stamps, 3, gap), [Some(0), Some(4)]);
    assert_eq!(far_frames(&stamps, 4, gap), [Some(2), None], "1.0 s is nearer to 0.8 s than 0.5 s; 2 s is too far");
    assert_eq!(far_frames(&stamps, 5, gap), [None, None]);
    let odd = [Timestamp(i64::MIN), Timestamp(0), Timestamp(i64::MAX)];
    assert_eq!((0..4).map(|i| far_frames(&odd, i, gap)).collect::<Vec<_>>(), vec![[None, None]; 4]);
}
