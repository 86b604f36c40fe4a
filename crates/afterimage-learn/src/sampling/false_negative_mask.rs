//! Decides which pairs of a batch may be each other's negatives. See [`FalseNegativeMask`].
use ndarray::{Array2, ArrayView2};

use crate::Timestamp;
use crate::config::{FalseNegativeRule, SamplingSettings};
use crate::linalg::product;

/// Two frames count as the same thing above this share of the median cosine of positive pairs.
const OF_POSITIVES: f32 = 0.9;

/// Excludes pairs that show the same thing: as negatives, they would push apart what belongs together. By
/// `learn.sampling.false_negatives`, it excludes:
///
/// - `block`: only pairs of the same block;
/// - `window`: also pairs of the same camera within `learn.sampling.false_negative_secs` of each other;
/// - `segment`: also pairs of the same segment;
/// - `similar`: also pairs with `f . f'` above `learn.sampling.false_negative_similarity`, measured on the *frozen*
///   latents (with the head's own output, a mistake would reinforce itself). At 0, the threshold is 0.9 times the
///   median cosine of the batch's pairs.
///
/// In measurements, no rule is reliably better than another for NT-Xent (docs/design/009-false-negative-mask.md), so
/// the simplest is the default.
#[derive(Debug, Clone)]
pub(super) struct FalseNegativeMask {
    rule: Rule,
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    Block,
    Window(f64),
    Segment,
    Similar(f32),
}

/// Where the anchor of a pair comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairAnchor {
    pub(super) block: u64,
    pub(super) camera: u16,
    pub(super) segment: u64,
    pub(super) stamp: Timestamp,
}

impl FalseNegativeMask {
    pub(super) fn new(config: &SamplingSettings) -> Self {
        let rule = match config.false_negatives {
            FalseNegativeRule::Window => Rule::Window(config.false_negative_secs),
            FalseNegativeRule::Segment => Rule::Segment,
            FalseNegativeRule::Similar => Rule::Similar(config.false_negative_similarity as f32),
            FalseNegativeRule::Block => Rule::Block,
        };
        Self { rule }
    }

    /// `[n, n]`, symmetric: whether pairs `i` and `j` may be each other's negatives. `a` and `b`, both `[n, d]` with
    /// unit rows, are the pairs.
    pub(super) fn mask(&self, frames: &[PairAnchor], a: ArrayView2<f32>, b: ArrayView2<f32>) -> Array2<bool> {
        let different = |rule: &dyn Fn(usize, usize) -> bool| {
            Array2::from_shape_fn((frames.len(), frames.len()), |(i, j)| {
                frames[i].block != frames[j].block && rule(i, j)
            })
        };
        match self.rule {
            Rule::Block => different(&|_, _| true),
            Rule::Segment => different(&|i, j| frames[i].segment != frames[j].segment),
            Rule::Window(secs) => different(&|i, j| {
                let (x, y) = (&frames[i], &frames[j]);
                x.camera != y.camera || x.stamp.secs_since(y.stamp).abs() >= secs
            }),
            Rule::Similar(threshold) => {
                let threshold = if threshold > 0.0 { threshold } else { OF_POSITIVES * median_cosine(a, b) };
                let [aa, ab, bb] = [(a, a), (a, b), (b, b)].map(|(x, y)| product(x, y.t()));
                let nearest = |i, j| [aa[[i, j]], bb[[i, j]], ab[[i, j]], ab[[j, i]]].into_iter().fold(-1.0, f32::max);
                different(&|i, j| nearest(i.min(j), i.max(j)) <= threshold)
            }
        }
    }
}

/// Median of `a . b` over the pairs.
fn median_cosine(a: ArrayView2<f32>, b: ArrayView2<f32>) -> f32 {
    let mut cosines: Vec<f32> = a.rows().into_iter().zip(b.rows()).map(|(a, b)| a.dot(&b)).collect();
    cosines.sort_unstable_by(f32::total_cmp);
    cosines.get(cosines.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, arr2};

    use super::*;

    /// Pairs of blocks 0, 1, ... with the given (camera, segment, seconds), and latents at these angles in degrees and
    /// 10 further.
    fn mask(rule: &str, of: &[(u16, u64, i64)], angles: &[f32]) -> Array2<bool> {
        let config = SamplingSettings { false_negatives: rule.parse().unwrap(), ..SamplingSettings::default() };
        let latents = |more: f32| {
            let rows: Vec<[f32; 2]> = angles.iter().map(|a| (a + more).to_radians().sin_cos().into()).collect();
            arr2(&rows)
        };
        let frame = |(block, &(camera, segment, secs)): (usize, &(u16, u64, i64))| PairAnchor {
            block: block as u64 / 2,
            camera,
            segment,
            stamp: Timestamp(secs * 1_000_000_000),
        };
        let frames: Vec<PairAnchor> = of.iter().enumerate().map(frame).collect();
        FalseNegativeMask::new(&config).mask(&frames, latents(0.0).view(), latents(10.0).view())
    }

    /// The pairs that are not negatives of the first one.
    fn of_the_first(mask: &Array2<bool>) -> Vec<usize> {
        assert!(mask.indexed_iter().all(|((i, j), &negative)| negative == mask[[j, i]]), "symmetric");
        (0..mask.nrows()).filter(|&j| !mask[[0, j]]).collect()
    }

    #[test]
    fn each_rule_leaves_out_what_it_says() {
        // Two pairs per block. The third is of the same segment; the fifth is near in time; the sixth is of another
        // camera.
        let of = [(0, 0, 0), (0, 0, 1), (0, 0, 50), (0, 1, 90), (0, 1, 29), (1, 2, 0), (0, 3, 900), (0, 3, 901)];
        let angles = [0.0, 5.0, 90.0, 100.0, 110.0, 120.0, 30.0, 60.0];
        for (rule, right) in [
            ("block", vec![0, 1]),
            ("window", vec![0, 1, 4]),
            ("segment", vec![0, 1, 2]),
            // The pairs have cosine .985; the threshold is .886, or 27.6 degrees: 10 and 30 are 20 apart, 10 and 60 are
            // further.
            ("similar", vec![0, 1, 6]),
        ] {
            assert_eq!(of_the_first(&mask(rule, &of, &angles)), right, "{rule}");
        }
    }
}
