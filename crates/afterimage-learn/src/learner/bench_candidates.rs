//! For benchmarks: every candidate of a last fit, whatever the gate decides, and learners that fork at one point of a
//! stream.
use ndarray::ArrayView2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::candidates::FitCache;
use super::fit_cache::SharedFitCache;
use super::{FitOutcome, Learner, fit_report};
use crate::config::LearnerConfig;
use crate::error::Result;
use crate::gate::scores;
use crate::head::Head;
use crate::health::EmbeddingHealth;

/// A candidate with its label-free scores.
#[derive(Debug, Clone)]
pub struct CandidateReport {
    /// Kind, dimensions and options; `frozen` for the latents themselves.
    pub label: String,
    /// Whether it uses the trained residual.
    pub trained: bool,
    /// The head as it would be exported: a closed-form head is fitted on all blocks.
    pub head: Head,
    /// Mean next-frame retrieval score of the head that the gate scores, fitted without the held-out blocks.
    pub next_frame: f64,
    /// Mean within-segment AUC of the same head.
    pub auc: f64,
    /// Its health on held-out frames.
    pub health: Option<EmbeddingHealth>,
}

impl Learner {
    /// Forks the learner: the copy is at the same point of the stream, with the same statistics, memory and exported
    /// head, but trains a new residual from here on with the objective, optimizer and seed of `config`. All settings
    /// that affect statistics, blocks and memory must be the same in `config` as before.
    #[must_use]
    pub fn fork(&self, config: &LearnerConfig) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(config.learn.seed);
        let mut fork = Self { config: config.clone(), ..self.clone() };
        fork.trained.rng = rng;
        if let Some(residual) = &self.trained.residual {
            fork.begin_residual(residual.base.clone());
        }
        fork
    }

    /// Shares fits with other learners of the same stream.
    pub fn share_fits(&mut self, shared: SharedFitCache) {
        self.shared = Some(shared);
    }

    /// Like [`Learner::finish`], but returns every candidate of the last fit. Closed-form candidates are included only
    /// if `closed_form` is true (the frozen latents then come first).
    ///
    /// # Errors
    /// Same as [`Learner::finish`], or the statistics allow no fit.
    pub fn finish_with_candidates(
        &mut self,
        last_index: u64,
        closed_form: bool,
    ) -> Result<(Option<FitOutcome>, Vec<CandidateReport>)> {
        self.data.blocks.finish().into_iter().try_for_each(|block| self.take(block))?;
        let tried = self.tried(closed_form)?;
        Ok((self.finish(last_index)?, tried))
    }

    fn tried(&self, closed_form: bool) -> Result<Vec<CandidateReport>> {
        let distractors = self.data.distractors();
        let all = self.data.all_blocks()?;
        let (mut fits, mut fits_of_all) = (FitCache::new(self, &self.data.scatter), FitCache::new(self, &all));
        let mut tried = Vec::new();
        if closed_form {
            let frozen = self.form.head(Head::Identity { dim: self.form.dim() });
            tried.push(self.look_at("frozen".into(), false, frozen.clone(), &frozen, distractors.view()));
        }
        for candidate in &self.selection.candidates {
            let trained = candidate.kind.trained();
            if !(trained || closed_form) {
                continue;
            }
            let Some(rung) = self.rung(candidate, &mut fits)? else { continue };
            let label = fit_report::label(rung.kind.as_str(), rung.judged.dim_out(), &rung.options(self));
            if tried.iter().any(|other: &CandidateReport| other.label == label) {
                continue;
            }
            let head = rung.refit(&mut fits_of_all)?.unwrap_or_else(|| rung.judged.clone());
            tried.push(self.look_at(label, trained, head, &rung.judged, distractors.view()));
        }
        Ok(tried)
    }

    fn look_at(
        &self,
        label: String,
        trained: bool,
        head: Head,
        judged: &Head,
        distractors: ArrayView2<f32>,
    ) -> CandidateReport {
        let scores = scores(&self.data.holdout, distractors, self.config.learn.sampling.gap_max_secs, judged);
        let mean = |side: &[f64]| {
            let (sum, n) = side.iter().filter(|x| x.is_finite()).fold((0.0, 0.0), |(sum, n), x| (sum + x, n + 1.0));
            sum / n
        };
        let (near, far, health) = (mean(&scores.next_frame), mean(&scores.auc), self.health(judged));
        CandidateReport { label, trained, head, next_frame: near, auc: far, health }
    }
}
