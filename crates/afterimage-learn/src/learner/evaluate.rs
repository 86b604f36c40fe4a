//! Scores heads on the held-out blocks and on the labelled probe, and compares two heads.
use ndarray::ArrayView2;

use super::{GateOutcome, Learner};
use crate::config::Promotion;
use crate::gate::{GateResult, Scores, gate, non_inferior, regression, scores};
use crate::head::Head;

/// The scores of a head.
pub(super) struct HeadScores {
    label_free: Scores,
    /// Scores on the labelled probe, if there is one.
    labelled: Option<Vec<f64>>,
}

impl Learner {
    pub(super) fn measure(&self, head: &Head, distractors: ArrayView2<f32>) -> HeadScores {
        let measured = HeadScores {
            label_free: scores(&self.data.holdout, distractors, self.config.learn.sampling.gap_max_secs, head),
            labelled: self.selection.probe.as_ref().map(|probe| probe.scores(head)),
        };
        self.governor.rest();
        measured
    }

    /// Is the candidate significantly better on both tests and on the probe?
    pub(super) fn better(&self, candidate: &HeadScores, reference: &HeadScores) -> GateOutcome {
        self.judgement(candidate, reference, gate, |side| (side.lower_bound > 0.0, "not significantly better"))
    }

    /// May a candidate that is better than the frozen latents replace an exported head that also is?
    pub(super) fn replaces(&self, candidate: &HeadScores, exported: &HeadScores) -> GateOutcome {
        self.judgement(candidate, exported, non_inferior, |side| (side.gain() >= 0.0, "worse"))
    }

    /// Why the frozen latents should replace the exported head: it is significantly worse on one of the tests or on the
    /// probe.
    pub(super) fn harmful(&self, exported: &HeadScores, frozen: &HeadScores) -> Option<String> {
        let (config, seed) = (&self.config.promotion, self.config.learn.seed);
        let label_free = regression(&exported.label_free, &frozen.label_free, config, seed);
        let labelled = self.labelled(exported, frozen, |side| (side.upper_bound >= 0.0, "significantly worse"));
        let labelled = labelled.filter(|probe| !probe.passed).map(|probe| probe.reason);
        let reasons: Vec<String> = label_free.into_iter().chain(labelled).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Mean reciprocal rank on the probe: the mean of the class means. `None` without a probe.
    pub(super) fn on_probe(&self, measured: &HeadScores) -> Option<f64> {
        let (probe, scores) = (self.selection.probe.as_ref()?, measured.labelled.as_ref()?);
        Some(probe.mean(scores))
    }

    /// The held-out blocks and the probe, if there is one, must both agree.
    fn judgement(
        &self,
        candidate: &HeadScores,
        reference: &HeadScores,
        label_free: fn(&Scores, &Scores, &Promotion, u64) -> GateResult,
        agrees: fn(&crate::gate::PairedBootstrap) -> (bool, &'static str),
    ) -> GateOutcome {
        let (config, seed) = (&self.config.promotion, self.config.learn.seed);
        let verdict = label_free(&candidate.label_free, &reference.label_free, config, seed);
        GateOutcome::new(verdict, self.labelled(candidate, reference, agrees))
    }

    fn labelled(
        &self,
        candidate: &HeadScores,
        reference: &HeadScores,
        agrees: fn(&crate::gate::PairedBootstrap) -> (bool, &'static str),
    ) -> Option<crate::gate::probe::ProbeResult> {
        let probe = self.selection.probe.as_ref()?;
        let (candidate, reference) = (candidate.labelled.as_ref()?, reference.labelled.as_ref()?);
        Some(probe.compare(candidate, reference, &self.config.promotion, self.config.learn.seed, agrees))
    }
}
