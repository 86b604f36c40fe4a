//! Compares the scores of two heads and decides.
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;

use super::Scores;
use crate::config::Promotion;
use crate::linalg::random::uniform_below;

/// The gate's decision, with the values behind it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateResult {
    /// Whether the candidate may replace the reference.
    pub passed: bool,
    /// Number of compared held-out blocks: that of the test with fewer blocks.
    pub blocks: usize,
    /// Next-frame retrieval: does the head keep detail?
    pub next_frame: PairedBootstrap,
    /// Within-segment AUC: does the head gain invariance?
    pub auc: PairedBootstrap,
    /// The reason, in one line.
    pub reason: String,
}

/// A paired bootstrap comparison of one measure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairedBootstrap {
    /// Mean score of the reference.
    pub reference: f64,
    /// Mean score of the candidate.
    pub candidate: f64,
    /// Lower confidence bound of the difference (candidate - reference).
    pub lower_bound: f64,
    /// Upper confidence bound of the difference.
    pub upper_bound: f64,
}

/// Is the candidate significantly better than the reference on both tests? The first head must pass this test against
/// the frozen latents, and so must every later one.
///
/// For each test, the differences are `d_s = candidate_s - reference_s` over the blocks `s` that have a score. A paired
/// bootstrap draws as many blocks with replacement and averages their `d`, `promotion.resamples` (`R`) times. Of the
/// sorted means, number `floor(promotion.quantile * (R - 1))` from below is the lower bound, and the same number from
/// above is the upper bound. The candidate passes if both lower bounds are above 0 and there are at least
/// `promotion.min_blocks` blocks. One test alone is not enough: heads that blur detail raise the AUC, and heads that
/// sharpen noise raise the next-frame score.
///
/// A candidate never passes if scores are not finite or come from different blocks. (NaN for both heads means that the
/// block was too short; it is left out.) The same scores and seed give the same result.
pub fn gate(candidate: &Scores, reference: &Scores, config: &Promotion, seed: u64) -> GateResult {
    decide(candidate, reference, config, seed, |near, far| {
        let side = |name: &str, side: &PairedBootstrap| {
            // Written so that a NaN is an objection.
            let better = side.lower_bound > 0.0;
            (!better).then(|| format!("{name} {}: not significantly better", side.figures()))
        };
        [side("next-frame", near), side("AUC", far)].into_iter().flatten().collect()
    })
}

/// May a candidate that is better than the frozen latents ([`gate`]) replace a head that also is?
///
/// Like [`gate`], but less strict, because a head fitted on more frames is seldom significantly better on both tests.
/// The candidate must not be significantly worse on either test (upper bound not below 0), and the sum of the two mean
/// differences must favour it.
pub fn non_inferior(candidate: &Scores, exported: &Scores, config: &Promotion, seed: u64) -> GateResult {
    decide(candidate, exported, config, seed, |near, far| {
        let side = |name: &str, side: &PairedBootstrap| {
            // Written so that a NaN is an objection.
            let level = side.upper_bound >= 0.0;
            (!level).then(|| format!("{name} {}: significantly worse", side.figures()))
        };
        let sum = near.gain() + far.gain();
        let better = sum > 0.0;
        let together = (!better).then(|| format!("next-frame and AUC together {sum:+.4}: not better"));
        [side("next-frame", near), side("AUC", far), together].into_iter().flatten().collect()
    })
}

/// Is the candidate significantly worse than the reference on either test (upper bound below 0)? Returns the reason, or
/// `None`. Also returns `None` with fewer than `promotion.min_blocks` blocks, or if the scores are not comparable.
pub fn regression(candidate: &Scores, reference: &Scores, config: &Promotion, seed: u64) -> Option<String> {
    let verdict = decide(candidate, reference, config, seed, |_, _| Vec::new());
    if !verdict.passed {
        return None;
    }
    let sides = [("next-frame", &verdict.next_frame), ("AUC", &verdict.auc)];
    let worse = sides.into_iter().filter(|(_, side)| side.upper_bound < 0.0);
    let reasons: Vec<String> =
        worse.map(|(name, side)| format!("{name} {}: significantly worse", side.figures())).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// `objections` lists what speaks against the candidate, given both tests.
fn decide(
    candidate: &Scores,
    reference: &Scores,
    config: &Promotion,
    seed: u64,
    objections: impl Fn(&PairedBootstrap, &PairedBootstrap) -> Vec<String>,
) -> GateResult {
    let near = compare(&candidate.next_frame, &reference.next_frame, config, seed, 0);
    let far = compare(&candidate.auc, &reference.auc, config, seed, 1);
    let blocks = near.blocks.min(far.blocks);
    let mut against = Vec::new();
    for (name, side) in [("next-frame", &near), ("AUC", &far)] {
        against.extend(side.fault.as_ref().map(|fault| format!("{name}: {fault}")));
    }
    if against.is_empty() {
        if blocks < config.min_blocks {
            let least = config.min_blocks;
            against.push(format!("{blocks} held-out blocks that are long enough, at least {least} are needed"));
        } else {
            against.extend(objections(&near.side, &far.side));
        }
    }
    let passed = against.is_empty();
    let reason = if passed {
        format!("next-frame {}, AUC {} on {blocks} held-out blocks", near.side.figures(), far.side.figures())
    } else {
        against.join("; ")
    };
    GateResult { passed, blocks, next_frame: near.side, auc: far.side, reason }
}

impl PairedBootstrap {
    /// Mean difference (candidate - reference).
    pub fn gain(&self) -> f64 {
        self.candidate - self.reference
    }

    /// Formats as `0.8524 -> 0.8749 (+0.0225, from +0.0141 to +0.0311)`.
    pub(super) fn figures(&self) -> String {
        let Self { reference, candidate, lower_bound, upper_bound } = self;
        let gain = self.gain();
        format!("{reference:.4} -> {candidate:.4} ({gain:+.4}, from {lower_bound:+.4} to {upper_bound:+.4})")
    }
}

/// A comparison of two lists of scores.
pub(super) struct PairedComparison {
    /// Number of scores that both lists have.
    pub(super) blocks: usize,
    pub(super) side: PairedBootstrap,
    /// Why no comparison is possible.
    pub(super) fault: Option<String>,
}

/// Compares scores pair by pair; `stream` separates the random numbers of the two tests.
pub(super) fn compare(
    candidate: &[f64],
    reference: &[f64],
    config: &Promotion,
    seed: u64,
    stream: u64,
) -> PairedComparison {
    let pairs: Vec<(f64, f64)> =
        candidate.iter().zip(reference).filter(|(c, r)| !(c.is_nan() && r.is_nan())).map(|(&c, &r)| (c, r)).collect();
    let fault = if candidate.len() != reference.len() {
        Some(format!("scores of {} and of {} blocks cannot be compared", candidate.len(), reference.len()))
    } else if pairs.iter().any(|(c, r)| !c.is_finite() || !r.is_finite()) {
        Some("scores that are not finite".to_owned())
    } else {
        None
    };
    let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
    let differences: Vec<f64> = pairs.iter().map(|(c, r)| c - r).collect();
    let (lower_bound, upper_bound) = bounds(&differences, config, seed, stream);
    let side = PairedBootstrap { reference: mean(|p| p.1), candidate: mean(|p| p.0), lower_bound, upper_bound };
    PairedComparison { blocks: pairs.len(), side, fault }
}

/// Bootstrap bounds of the mean, lower and upper; NaN for an empty list.
fn bounds(differences: &[f64], config: &Promotion, seed: u64, stream: u64) -> (f64, f64) {
    let n = differences.len();
    if n == 0 || config.resamples == 0 {
        return (f64::NAN, f64::NAN);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let mut means: Vec<f64> = (0..config.resamples)
        .map(|_| (0..n).map(|_| differences[uniform_below(&mut rng, n)]).sum::<f64>() / n as f64)
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let last = means.len() - 1;
    let at = ((config.quantile * last as f64) as usize).min(last);
    (means[at], means[last - at])
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
