//! What heads measure on the held-out blocks and on the labelled probe, and how two compare.
use ndarray::ArrayView2;

use super::{Judgement, Learner};
use crate::config::Judge;
use crate::head::Head;
use crate::judge::{Scores, Verdict, gate, replaces, scores, worse};

/// What a head measures.
pub(super) struct Measured {
    label_free: Scores,
    /// On the labelled probe, where there is one.
    labelled: Option<Vec<f64>>,
}

impl Learner {
    pub(super) fn measure(&self, head: &Head, distractors: ArrayView2<f32>) -> Measured {
        let measured = Measured {
            label_free: scores(&self.held, distractors, self.config.learn.gap_max_secs, head),
            labelled: self.probe.as_ref().map(|probe| probe.scores(head)),
        };
        self.conduct.rest();
        measured
    }

    /// Is a head surely better, on both sides and to the probe?
    pub(super) fn better(&self, candidate: &Measured, reference: &Measured) -> Judgement {
        self.judgement(candidate, reference, gate, |side| (side.lower_bound > 0.0, "not surely better"))
    }

    /// May a head that is better than the frozen latents replace one that is as well?
    pub(super) fn replaces(&self, candidate: &Measured, exported: &Measured) -> Judgement {
        self.judgement(candidate, exported, replaces, |side| (side.gain() >= 0.0, "worse"))
    }

    /// What speaks for the frozen latents in place of the exported head: it is surely worse on a side, or to the probe.
    pub(super) fn harmful(&self, exported: &Measured, frozen: &Measured) -> Option<String> {
        let (config, seed) = (&self.config.judge, self.config.learn.seed);
        let label_free = worse(&exported.label_free, &frozen.label_free, config, seed);
        let labelled = self.labelled(exported, frozen, |side| (side.upper_bound >= 0.0, "surely worse"));
        let labelled = labelled.filter(|probe| !probe.passed).map(|probe| probe.reason);
        let reasons: Vec<String> = label_free.into_iter().chain(labelled).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Mean reciprocal rank on the probe, the mean of its class means; `None` without one.
    pub(super) fn on_probe(&self, measured: &Measured) -> Option<f64> {
        let (probe, scores) = (self.probe.as_ref()?, measured.labelled.as_ref()?);
        Some(probe.mean(scores))
    }

    /// Both the held-out blocks and, where there is one, the probe must agree.
    fn judgement(
        &self,
        candidate: &Measured,
        reference: &Measured,
        label_free: fn(&Scores, &Scores, &Judge, u64) -> Verdict,
        agrees: fn(&crate::judge::Side) -> (bool, &'static str),
    ) -> Judgement {
        let (config, seed) = (&self.config.judge, self.config.learn.seed);
        let verdict = label_free(&candidate.label_free, &reference.label_free, config, seed);
        Judgement::new(verdict, self.labelled(candidate, reference, agrees))
    }

    fn labelled(
        &self,
        candidate: &Measured,
        reference: &Measured,
        agrees: fn(&crate::judge::Side) -> (bool, &'static str),
    ) -> Option<crate::judge::probe::ProbeVerdict> {
        let probe = self.probe.as_ref()?;
        let (candidate, reference) = (candidate.labelled.as_ref()?, reference.labelled.as_ref()?);
        Some(probe.compare(candidate, reference, &self.config.judge, self.config.learn.seed, agrees))
    }
}
