//! Runs candidates through the promotion gate.
use std::sync::Arc;

use ndarray::{Array2, ArrayView2};

use super::candidates::{CandidateHead, FitCache};
use super::evaluate::HeadScores;
use super::trainer::Residual;
use super::training::newest;
use super::{CandidateOutcome, FitReport, GateOutcome, Learner};
use crate::head::{Head, HeadParams};
use crate::health::{drift, retrieval_at_1};

/// The head that a trial promotes.
pub(super) struct Promoted {
    /// The head exported from now on.
    pub(super) head: Arc<Head>,
    /// The same head fitted without the held-out blocks, for later comparisons on them.
    pub(super) judged: Arc<Head>,
}

/// The scores that candidates are compared with.
struct Baselines {
    distractors: Array2<f32>,
    frozen: HeadScores,
    /// Scores of the exported head, if that is a learned one.
    exported: Option<HeadScores>,
}

/// A candidate that passed.
struct Winner {
    rung: CandidateHead,
    measured: HeadScores,
    /// Its mean reciprocal rank on the probe.
    on_probe: Option<f64>,
}

impl Learner {
    /// Runs a trial at `frame`. Returns its report and what it promotes. The residual restarts on the new slow head.
    /// `last` means that no fit will follow, so the minimum interval does not apply. Returns `None`, with nothing
    /// changed, if the trial was interrupted.
    pub(super) fn trial(&mut self, frame: u64, last: bool) -> Option<(FitReport, Option<Promoted>)> {
        let mut decision = FitReport::begin(self, frame);
        let mut fits = FitCache::new(self, &self.data.scatter);
        let base = match fits.base(self.config.head.alpha) {
            Ok(base) => base,
            Err(e) => {
                decision.reason = format!("no fit: {}", e.chain());
                return Some((decision, None));
            }
        };
        if self.governor.stops() {
            return None;
        }
        let promoted = self.judge(&mut fits, last, &mut decision);
        if self.governor.stops() {
            return None;
        }
        decision.forgetting = self.selection.reference_gain.zip(decision.reference_gain).map(|(best, now)| best - now);
        self.selection.reference_gain =
            decision.reference_gain.into_iter().chain(self.selection.reference_gain).reduce(f64::max);
        self.trained.credit = 0;
        if self.config.learn.optimizer.frames_per_step > 0 {
            self.begin_residual(base);
        }
        Some((decision, promoted))
    }

    /// Restarts the residual on a slow head.
    pub(super) fn begin_residual(&mut self, base: HeadParams) {
        let residual = Residual::start(base, &self.config, self.form.whole(), &mut self.trained.rng);
        let began = self.trained.guard.begin(&residual);
        self.trained.residual = Some(residual);
        self.trained.warned = false;
        if let Some((from, reason)) = began {
            self.tell(from, reason.into());
        }
    }

    /// Returns what is promoted, if anything, and fills in `decision`. If interrupted, returns `None` soon.
    fn judge(&self, fits: &mut FitCache<'_>, last: bool, decision: &mut FitReport) -> Option<Promoted> {
        let distractors = self.data.distractors();
        let identity = self.form.head(Head::Identity { dim: self.form.dim() });
        let learned = !self.selection.judged.is_frozen();
        let ground = Baselines {
            frozen: self.measure(&identity, distractors.view()),
            exported: learned.then(|| self.measure(&self.selection.judged, distractors.view())),
            distractors,
        };
        let winner = self.try_candidates(fits, &ground, decision);
        if self.governor.stops() {
            return None;
        }
        let harm = ground.exported.as_ref().and_then(|exported| self.harmful(exported, &ground.frozen));
        // Leaving a harmful head need not wait.
        let waits = if last || harm.is_some() { None } else { self.selection.secs_to_wait(self.now) };
        let mut measured = ground.exported;
        let promoted = match (winner, waits) {
            (Some(winner), None) => {
                let promoted = self.refit(&winner.rung, &ground.frozen, ground.distractors.view());
                measured = Some(winner.measured);
                Some(promoted)
            }
            (Some(_), Some(secs)) => {
                decision.waits_secs = Some(secs);
                None
            }
            (None, _) => harm.map(|reason| {
                decision.demotion = Some(reason);
                measured = None;
                let head = Arc::new(identity.clone());
                Promoted { head: head.clone(), judged: head }
            }),
        };
        if promoted.is_some() {
            decision.promoted = Some(self.spaces.exported.number + 1);
            decision.exported = self.spaces.exported.number + 1;
        }
        // Health and gain are measured with the head fitted without the held-out blocks: the exported one has seen
        // them.
        let judged = promoted.as_ref().map_or(&*self.selection.judged, |p: &Promoted| &*p.judged);
        decision.gain = measured.map(|measured| self.better(&measured, &ground.frozen));
        (decision.frozen_health, decision.exported_health) = (self.health(&identity), self.health(judged));
        decision.drift = self.drift(judged);
        decision.reference_gain = self.reference_gain(judged);
        decision.reason = decision.tell();
        promoted
    }

    /// Tries the candidates one by one. Without a probe, the first one that passes wins: no label-free measure ranks
    /// heads that pass, so searching among them gains nothing. With a probe, all are tried and the best on the probe
    /// wins.
    fn try_candidates(&self, fits: &mut FitCache<'_>, ground: &Baselines, decision: &mut FitReport) -> Option<Winner> {
        let (mut winner, mut slow, mut tried) = (None::<Winner>, None, Vec::new());
        for candidate in self.selection.candidates.iter().take_while(|_| !self.governor.stops()) {
            let rung = match self.rung(candidate, fits) {
                Ok(Some(rung)) if rung.judged.finite() && !tried.contains(&rung.key()) => rung,
                Ok(_) => continue,
                Err(e) => {
                    decision.faults.push(format!("{}: {}", candidate.kind.as_str(), e.chain()));
                    continue;
                }
            };
            let measured = self.measure(&rung.judged, ground.distractors.view());
            let against_frozen = self.better(&measured, &ground.frozen);
            let against_exported = ground
                .exported
                .as_ref()
                .filter(|_| against_frozen.passed())
                .map(|exported| self.replaces(&measured, exported));
            let on_probe = self.on_probe(&measured);
            // A trained head must improve on the closed form significantly and on both tests, or it is not chosen. A
            // probe compares it like any other head.
            let has_to_add = rung.kind.trained() && against_frozen.passed() && on_probe.is_none();
            if has_to_add && slow.is_none() {
                slow = self.slow_reference(fits).ok().map(|head| self.measure(&head, ground.distractors.view()));
            }
            let against_slow = slow.as_ref().filter(|_| has_to_add).map(|slow| self.better(&measured, slow));
            let passed = against_frozen.passed()
                && [&against_exported, &against_slow].into_iter().flatten().all(GateOutcome::passed);
            decision.candidates.push(CandidateOutcome {
                name: rung.kind.as_str().into(),
                dim: rung.judged.dim_out(),
                options: rung.options(self),
                against_frozen,
                against_exported,
                against_slow,
            });
            let best = winner.as_ref().is_none_or(|winner| on_probe > winner.on_probe);
            tried.push(rung.key());
            if passed && best {
                decision.chosen = Some(decision.candidates.len() - 1);
                winner = Some(Winner { rung, measured, on_probe });
                if on_probe.is_none() {
                    break;
                }
            }
        }
        winner
    }

    /// Refits the head on all blocks, including the held-out ones: a quarter more data. The refitted head is exported
    /// if it passes as well; otherwise the head that the gate scored is. (Passing proves nothing any more, since it has
    /// seen the blocks, but it guards against a bad solve.)
    fn refit(&self, rung: &CandidateHead, frozen: &HeadScores, distractors: ArrayView2<f32>) -> Promoted {
        let judged = Arc::new(rung.judged.clone());
        let all = || {
            let all = self.data.all_blocks().ok()?;
            let head = rung.refit(&mut FitCache::new(self, &all)).ok()??;
            drop(all);
            (head.finite() && self.better(&self.measure(&head, distractors), frozen).passed()).then_some(head)
        };
        let fitted = if rung.kind.trained() { None } else { all() };
        Promoted { head: fitted.map_or_else(|| judged.clone(), Arc::new), judged }
    }

    /// How far `head` is from the exported one on the newest held-out blocks; `None` if it is the exported one.
    fn drift(&self, head: &Head) -> Option<f64> {
        if *head == *self.selection.judged {
            return None;
        }
        let (latents, _) = newest(&self.data.holdout, 3)?;
        let drift =
            drift(head.embed_rows(latents.view()).view(), self.selection.judged.embed_rows(latents.view()).view());
        drift.is_finite().then_some(drift)
    }

    /// TR@1 of `head` on the oldest held-out blocks, minus that of the frozen latents.
    fn reference_gain(&self, head: &Head) -> Option<f64> {
        let (latents, blocks) = newest(&self.data.reference, 2)?;
        let of = |head: &Head| retrieval_at_1(head.embed_rows(latents.view()).view(), &blocks);
        let gain = of(head) - of(&self.form.head(Head::Identity { dim: self.form.dim() }));
        gain.is_finite().then_some(gain)
    }
}
