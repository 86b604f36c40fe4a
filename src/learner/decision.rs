//! What a fit came to; goes into the journal as it is.
use serde::Serialize;

use crate::health::Health;
use crate::judge::Verdict;
use crate::judge::probe::ProbeVerdict;

/// What the judge said: without labels, or by the labelled probe.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Judgement {
    /// By near and far retrieval on held-out blocks.
    LabelFree(Verdict),
    /// By the labelled probe.
    Labelled(ProbeVerdict),
}

impl Judgement {
    /// The candidate may take the place of the reference.
    pub fn passed(&self) -> bool {
        match self {
            Self::LabelFree(verdict) => verdict.passed,
            Self::Labelled(verdict) => verdict.passed,
        }
    }

    /// Why, in one line with figures.
    pub fn reason(&self) -> &str {
        match self {
            Self::LabelFree(verdict) => &verdict.reason,
            Self::Labelled(verdict) => &verdict.reason,
        }
    }
}

/// The outcome of one fit: which heads were tried, what the judge said of each, and what is exported from now on.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// The last frame that the fit knows of.
    pub frame: u64,
    /// Samples learned from or held out so far.
    pub samples: u64,
    /// Pairs in the scatter.
    pub pairs: u64,
    /// Blocks and frames that were judged on.
    pub held_blocks: usize,
    /// Frames that were judged on.
    pub held_frames: usize,
    /// Gradient steps that the residual MLP had.
    pub steps: u64,
    /// Candidates in the order tried; the first that passes is promoted and ends the trial.
    pub candidates: Vec<Candidate>,
    /// Version of the head that was promoted, or `None`: the exported head stays.
    pub promoted: Option<u64>,
    /// Version of the head exported from now on.
    pub exported: u64,
    /// In one line: why.
    pub reason: String,
    /// Health of the frozen latents on the held-out frames.
    pub frozen_health: Option<Health>,
    /// Health of the exported head on the same frames.
    pub exported_health: Option<Health>,
    /// The exported head against the frozen latents on the same frames; `None` while the frozen ones are exported.
    pub gain: Option<Judgement>,
}

impl Decision {
    /// In one line: what was promoted, or why nothing was.
    pub(super) fn tell(&self) -> String {
        let Some(tried) = self.candidates.last() else { return "no candidate".to_owned() };
        let (name, dim) = (&tried.name, tried.dim);
        if let Some(number) = self.promoted {
            return format!("head {number} ({name}, {dim} dimensions) promoted: {}", tried.against_frozen.reason());
        }
        let stays = if self.exported == 0 {
            "the frozen latents stay".to_owned()
        } else {
            format!("head {} stays", self.exported)
        };
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

impl Candidate {
    /// What spoke against it first, and against which head.
    fn objection(&self) -> Option<(&'static str, &Judgement)> {
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
pub struct Candidate {
    /// `slow`, `slow+mlp`, `frozen+slow`.
    pub name: String,
    /// Dimensions of its embedding.
    pub dim: usize,
    /// Against the frozen latents.
    pub against_frozen: Judgement,
    /// Against the exported head, where that is a learned one and the first gate passed.
    pub against_exported: Option<Judgement>,
    /// `slow+mlp` only: against the slow head of the same fit.
    pub against_slow: Option<Judgement>,
}
