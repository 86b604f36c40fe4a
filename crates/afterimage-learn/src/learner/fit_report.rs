//! The report of a fit, written to the journal as it is.
use serde::Serialize;

use super::Learner;
use crate::gate::GateResult;
use crate::gate::probe::ProbeResult;
use crate::health::EmbeddingHealth;

/// The gate's outcome: label-free scores on the held-out blocks and, if there is one, the labelled probe. Both must
/// agree.
#[derive(Debug, Clone, Serialize)]
pub struct GateOutcome {
    /// Result of next-frame retrieval and AUC on held-out blocks; `passed` and `reason` also cover the probe.
    #[serde(flatten)]
    result: GateResult,
    /// Result of the labelled probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<ProbeResult>,
}

impl GateOutcome {
    /// Combines the two results.
    pub(super) fn new(mut result: GateResult, probe: Option<ProbeResult>) -> Self {
        if let Some(probe) = &probe {
            result.reason = match (result.passed, probe.passed) {
                // Keep only the objections.
                (false, true) => result.reason,
                (true, false) => probe.reason.clone(),
                _ => format!("{}; {}", result.reason, probe.reason),
            };
            result.passed &= probe.passed;
        }
        Self { result, probe }
    }

    /// Whether the candidate may replace the reference.
    pub fn passed(&self) -> bool {
        self.result.passed
    }

    /// The reason in one line, with values.
    pub fn reason(&self) -> &str {
        &self.result.reason
    }
}

/// The report of one fit: which heads were tried, how the gate decided on each, and what is exported from now on.
#[derive(Debug, Clone, Serialize)]
pub struct FitReport {
    /// Index of the last frame that the fit includes.
    pub frame: u64,
    /// Training and held-out samples so far.
    pub samples: u64,
    /// Number of pairs in the scatter statistics.
    pub pairs: u64,
    /// Number of held-out blocks that the gate used.
    pub holdout_blocks: usize,
    /// Number of held-out frames that the gate used.
    pub holdout_frames: usize,
    /// Gradient steps of the residual MLP.
    pub steps: u64,
    /// Candidates in the order tried. Without a probe, the trial ends with the first one that passes.
    pub candidates: Vec<CandidateOutcome>,
    /// Candidates that could not be built, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// Index (from 0) of the candidate that passed and was chosen.
    pub chosen: Option<usize>,
    /// Seconds left of `promotion.min_interval_secs`, if the chosen candidate was not promoted for that reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_secs: Option<f64>,
    /// Why the exported head was found harmful, if it was. The frozen latents are then promoted in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demotion: Option<String>,
    /// Version of the promoted head, or `None` if the exported head stays.
    pub promoted: Option<u64>,
    /// Version of the head exported from now on.
    pub exported: u64,
    /// The reason, in one line.
    pub reason: String,
    /// Health of the frozen latents on the held-out frames.
    pub frozen_health: Option<EmbeddingHealth>,
    /// Health of the exported head on the same frames.
    pub exported_health: Option<EmbeddingHealth>,
    /// How far the newly exported head has moved from the previous one, see [`crate::health::drift`]; `None` if it is
    /// the same.
    pub drift: Option<f64>,
    /// TR@1 of the exported head on the oldest held-out blocks, minus that of the frozen latents.
    pub reference_gain: Option<f64>,
    /// How far that gain is below the best one so far: what was forgotten.
    pub forgetting: Option<f64>,
    /// The exported head against the frozen latents on the same frames; `None` while the frozen latents are exported.
    pub gain: Option<GateOutcome>,
}

impl FitReport {
    /// The report before any candidate is tried.
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

    /// What was promoted, or why nothing was, in one line.
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
        // The candidate that came furthest is the most informative.
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

/// Joins kind, dimensions and options.
pub(super) fn label(name: &str, dim: usize, options: &str) -> String {
    let words = [name, &dim.to_string(), options];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

impl CandidateOutcome {
    /// Kind, dimensions and options as one string.
    pub fn label(&self) -> String {
        label(&self.name, self.dim, &self.options)
    }

    /// The first gate that the candidate failed, with the name of the head it was compared with.
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

/// One tried head.
#[derive(Debug, Clone, Serialize)]
pub struct CandidateOutcome {
    /// `slow`, `slow+mlp`, `mean` or `frozen+slow`.
    pub name: String,
    /// Dimensions of its embedding.
    pub dim: usize,
    /// Its other options in `head.candidates`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub options: String,
    /// Comparison with the frozen latents.
    pub against_frozen: GateOutcome,
    /// Comparison with the exported head, if that is a learned one and the first gate passed.
    pub against_exported: Option<GateOutcome>,
    /// Comparison with the slow head of the same fit; only for `slow+mlp` and `mean`, and only if no probe chooses.
    pub against_slow: Option<GateOutcome>,
}
