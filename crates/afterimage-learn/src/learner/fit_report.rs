//! What a fit came to; goes into the journal as it is.
use serde::Serialize;

use super::Learner;
use crate::gate::GateResult;
use crate::gate::probe::ProbeResult;
use crate::health::EmbeddingHealth;

/// What the judge said: the held-out blocks without labels, and the labelled probe where there is one. Both must agree.
#[derive(Debug, Clone, Serialize)]
pub struct GateOutcome {
    /// By near and far retrieval on held-out blocks; `passed` and `reason` speak for the probe, too.
    #[serde(flatten)]
    result: GateResult,
    /// By the labelled probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<ProbeResult>,
}

impl GateOutcome {
    /// Of the two together.
    pub(super) fn new(mut result: GateResult, probe: Option<ProbeResult>) -> Self {
        if let Some(probe) = &probe {
            result.reason = match (result.passed, probe.passed) {
                // Only what speaks against it.
                (false, true) => result.reason,
                (true, false) => probe.reason.clone(),
                _ => format!("{}; {}", result.reason, probe.reason),
            };
            result.passed &= probe.passed;
        }
        Self { result, probe }
    }

    /// The candidate may take the place of the reference.
    pub fn passed(&self) -> bool {
        self.result.passed
    }

    /// Why, in one line with figures.
    pub fn reason(&self) -> &str {
        &self.result.reason
    }
}

/// The outcome of one fit: which heads were tried, what the judge said of each, and what is exported from now on.
#[derive(Debug, Clone, Serialize)]
pub struct FitReport {
    /// The last frame that the fit knows of.
    pub frame: u64,
    /// Samples learned from or held out so far.
    pub samples: u64,
    /// Pairs in the scatter.
    pub pairs: u64,
    /// Blocks and frames that were judged on.
    pub holdout_blocks: usize,
    /// Frames that were judged on.
    pub holdout_frames: usize,
    /// Gradient steps that the residual MLP had.
    pub steps: u64,
    /// Candidates in the order tried. Without a probe the first that passes ends the trial.
    pub candidates: Vec<CandidateOutcome>,
    /// Candidates that could not be made, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// Which of the candidates passed and was chosen, from 0.
    pub chosen: Option<usize>,
    /// It was not promoted: `promotion.min_interval_secs` were not over, and these are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_secs: Option<f64>,
    /// The exported head was found harmful: the frozen latents are promoted in its place, and this is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demotion: Option<String>,
    /// Version of the head that was promoted, or `None`: the exported head stays.
    pub promoted: Option<u64>,
    /// Version of the head exported from now on.
    pub exported: u64,
    /// In one line: why.
    pub reason: String,
    /// Health of the frozen latents on the held-out frames.
    pub frozen_health: Option<EmbeddingHealth>,
    /// Health of the exported head on the same frames.
    pub exported_health: Option<EmbeddingHealth>,
    /// How much what is exported from now on differs from what was, see [`crate::health::drift`]; `None`: the same.
    pub drift: Option<f64>,
    /// TR@1 of the exported head on the oldest held-out blocks, less that of the frozen latents ...
    pub reference_gain: Option<f64>,
    /// ... and how much less it is than the best so far: what was forgotten.
    pub forgetting: Option<f64>,
    /// The exported head against the frozen latents on the same frames; `None` while the frozen ones are exported.
    pub gain: Option<GateOutcome>,
}

impl FitReport {
    /// Before any candidate.
    pub(super) fn begin(learner: &Learner, frame: u64) -> Self {
        Self {
            frame,
            samples: learner.counts.samples,
            pairs: learner.data.scatter.pairs(),
            holdout_blocks: learner.data.holdout.blocks().len(),
            holdout_frames: learner.data.holdout.frames(),
            steps: learner.trained.steps(),
            candidates: Vec::new(),
            faults: Vec::new(),
            chosen: None,
            waits_secs: None,
            demotion: None,
            promoted: None,
            exported: learner.spaces.exported.number,
            reason: String::new(),
            frozen_health: None,
            exported_health: None,
            drift: None,
            reference_gain: None,
            forgetting: None,
            gain: None,
        }
    }

    /// In one line: what was promoted, or why nothing was.
    pub(super) fn tell(&self) -> String {
        if let (Some(why), Some(number)) = (&self.demotion, self.promoted) {
            let before = number - 1;
            return format!("the frozen latents take the place of head {before}, as head {number}: {why}");
        }
        let Some(tried) = self.candidates.last() else {
            return if self.faults.is_empty() { "no candidate".to_owned() } else { self.faults.join("; ") };
        };
        let chosen = self.chosen.and_then(|chosen| self.candidates.get(chosen));
        let stays = if self.exported == 0 {
            "the frozen latents stay".to_owned()
        } else {
            format!("head {} stays", self.exported)
        };
        if let Some(CandidateOutcome { name, dim, against_frozen, .. }) = chosen {
            let reason = against_frozen.reason();
            return match (self.promoted, self.waits_secs) {
                (Some(number), _) => format!("head {number} ({name}, {dim} dimensions) promoted: {reason}"),
                (None, secs) => format!(
                    "{stays} for {:.1} s more (promotion.min_interval_secs); {name} ({dim} dimensions) passed: {reason}",
                    secs.unwrap_or_default()
                ),
            };
        }
        // The candidate that came furthest says most.
        let furthest = self.candidates.iter().find(|c| c.against_frozen.passed()).unwrap_or(tried);
        let (name, dim) = (&furthest.name, furthest.dim);
        match furthest.objection() {
            Some((what, judgement)) => {
                format!("{stays}; against {what}, {name} ({dim} dimensions): {}", judgement.reason())
            }
            None => stays,
        }
    }
}

/// Kind, dimensions and options in one.
pub(super) fn label(name: &str, dim: usize, options: &str) -> String {
    let words = [name, &dim.to_string(), options];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

impl CandidateOutcome {
    /// Kind, dimensions and options in one.
    pub fn label(&self) -> String {
        label(&self.name, self.dim, &self.options)
    }

    /// What spoke against it first, and against which head.
    fn objection(&self) -> Option<(&'static str, &GateOutcome)> {
        [
            ("the frozen latents", Some(&self.against_frozen)),
            ("the exported head", self.against_exported.as_ref()),
            ("the slow head", self.against_slow.as_ref()),
        ]
        .into_iter()
        .find_map(|(what, judgement)| judgement.filter(|j| !j.passed()).map(|j| (what, j)))
    }
}

/// One head that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct CandidateOutcome {
    /// `slow`, `slow+mlp`, `mean` or `frozen+slow`.
    pub name: String,
    /// Dimensions of its embedding.
    pub dim: usize,
    /// What else `head.candidates` says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub options: String,
    /// Against the frozen latents.
    pub against_frozen: GateOutcome,
    /// Against the exported head, where that is a learned one and the first gate passed.
    pub against_exported: Option<GateOutcome>,
    /// `slow+mlp` and `mean` only, where no probe chooses: against the slow head of the same fit.
    pub against_slow: Option<GateOutcome>,
}
