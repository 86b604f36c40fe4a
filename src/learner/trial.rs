//! Candidates before the judge.
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Axis, concatenate};

use super::method::Residual;
use super::{Candidate, Decision, Judgement, Learner};
use crate::config::Judge;
use crate::error::Result;
use crate::head::{Head, Learned, Scatter, SlowFit};
use crate::health::Health;
use crate::judge::{Scores, Verdict, gate, replaces, scores};

/// At most so many training frames stand as distractors in the near measure.
const MAX_DISTRACTORS: usize = 2048;
/// One in so many training frames is a distractor.
const DISTRACTOR_STEP: usize = 5;

/// Health is measured on the newest blocks with so many frames: a floor that a broken head falls through needs no more,
/// and on all held-out frames it would cost more than the fit itself.
const HEALTH_FRAMES: usize = 512;

/// What a head measures.
struct Measured {
    label_free: Scores,
    /// On the labelled probe, where there is one.
    labelled: Option<Vec<f64>>,
}

/// A head on the ladder.
struct Rung {
    name: &'static str,
    /// Fitted without the held-out blocks: what is judged.
    judged: Head,
    /// How to fit the same on all blocks, once it has passed; `None`: exported as judged.
    refit: Option<Shape>,
}

/// Size of a slow head.
#[derive(Clone, Copy)]
struct Shape {
    dim: usize,
    beside_frozen: bool,
}

/// What a trial promotes.
pub(super) struct Promoted {
    /// Exported from now on.
    pub(super) head: Arc<Head>,
    /// The same without the held-out blocks, for later comparisons on them.
    pub(super) judged: Arc<Head>,
}

impl Learner {
    /// The figures of a fit at `frame`, and what it promotes. The residual starts anew on the new slow head.
    pub(super) fn trial(&mut self, frame: u64) -> (Decision, Option<Promoted>) {
        let mut decision = Decision {
            frame,
            samples: self.counts.samples,
            pairs: self.scatter.pairs(),
            held_blocks: self.held.blocks().len(),
            held_frames: self.held.frames(),
            steps: self.residual.as_ref().map_or(0, Residual::steps),
            candidates: Vec::new(),
            promoted: None,
            exported: self.exported.number,
            reason: String::new(),
            frozen_health: None,
            exported_health: None,
            gain: None,
        };
        let fit = match self.fit_slow(&self.scatter) {
            Ok(fit) => fit,
            Err(e) => {
                decision.reason = format!("no fit: {}", e.chain());
                return (decision, None);
            }
        };
        let head = &self.config.head;
        let [first, second] = [head.dim, head.dim_second].map(|dim| dim.min(self.origin.dim));
        let slow = |dim, beside_frozen| {
            let shape = Shape { dim, beside_frozen };
            Rung {
                name: if beside_frozen { "frozen+slow" } else { "slow" },
                judged: slow(&fit, shape),
                refit: Some(shape),
            }
        };
        let mut ladder = vec![slow(first, false)];
        if second != first {
            ladder.push(slow(second, false));
        }
        if let Some(residual) = self.residual.as_ref().filter(|r| r.steps() > 0) {
            ladder.push(Rung { name: "slow+mlp", judged: residual.head(), refit: None });
        }
        ladder.push(slow(first, true));
        let promoted = self.judge(ladder, &mut decision);
        self.credit = 0;
        if self.config.learn.frames_per_step > 0 {
            let base = learned(&fit, Shape { dim: first, beside_frozen: false }, head.alpha);
            self.residual = Some(Residual::start(base, &self.config, &mut self.rng));
        }
        (decision, promoted)
    }

    fn fit_slow(&self, scatter: &Scatter) -> Result<SlowFit> {
        let head = &self.config.head;
        let fit = scatter.fit_with_views(
            head.dim.max(head.dim_second).min(self.origin.dim),
            head.shrinkage,
            self.config.learn.view_weight,
        );
        self.conduct.rest();
        fit
    }

    /// The first head of the ladder that passes; `decision` gets the figures.
    fn judge(&self, ladder: Vec<Rung>, decision: &mut Decision) -> Option<Promoted> {
        let distractors = self.replay.references((self.replay.len() / DISTRACTOR_STEP).min(MAX_DISTRACTORS));
        let identity = Head::Identity { dim: self.origin.dim };
        let frozen = self.measure(&identity, distractors.view());
        let before = (self.exported.number > 0).then(|| self.measure(&self.judged, distractors.view()));
        let (mut promoted, mut slow) = (None, None);
        for rung in ladder.into_iter().filter(|rung| rung.judged.finite()) {
            let measured = self.measure(&rung.judged, distractors.view());
            let against_frozen = self.against_frozen(&measured, &frozen);
            let against_exported = before
                .as_ref()
                .filter(|_| against_frozen.passed())
                .map(|before| self.against_exported(&measured, before));
            // Gradient steps have to add to the closed form, surely and on both sides, or stay unchosen.
            let against_slow = slow
                .as_ref()
                .filter(|_| against_frozen.passed() && rung.refit.is_none())
                .map(|slow| self.against_frozen(&measured, slow));
            let passed = against_frozen.passed()
                && [&against_exported, &against_slow].into_iter().flatten().all(Judgement::passed);
            let (name, dim) = (rung.name.into(), rung.judged.dim_out());
            decision.candidates.push(Candidate { name, dim, against_frozen, against_exported, against_slow });
            if passed {
                promoted = Some((self.refit(rung, &frozen, distractors.view()), measured));
                break;
            }
            slow.get_or_insert(measured);
        }
        let (promoted, measured) = promoted.unzip();
        if promoted.is_some() {
            decision.promoted = Some(self.exported.number + 1);
            decision.exported = self.exported.number + 1;
        }
        // Health and gain are measured with the judged head: the exported one has seen the held-out blocks.
        let judged = promoted.as_ref().map_or(&*self.judged, |p: &Promoted| &*p.judged);
        decision.gain = measured.or(before).map(|measured| self.against_frozen(&measured, &frozen));
        (decision.frozen_health, decision.exported_health) = (self.health(&identity), self.health(judged));
        decision.reason = decision.tell();
        promoted
    }

    /// The same head fitted on all blocks, the held-out ones too: a fourth more data. It is exported if it passes as
    /// well (no proof any more, since it has seen the blocks, but a guard against a bad solve); else the judged one.
    fn refit(&self, rung: Rung, frozen: &Measured, distractors: ArrayView2<f32>) -> Promoted {
        let judged = Arc::new(rung.judged);
        let fitted = rung.refit.and_then(|shape| {
            let mut all = self.scatter.clone();
            all.merge(&self.held_scatter).ok()?;
            let head = slow(&self.fit_slow(&all).ok()?, shape);
            drop(all);
            (head.finite() && self.against_frozen(&self.measure(&head, distractors), frozen).passed()).then_some(head)
        });
        Promoted { head: fitted.map_or_else(|| judged.clone(), Arc::new), judged }
    }

    fn measure(&self, head: &Head, distractors: ArrayView2<f32>) -> Measured {
        let measured = Measured {
            label_free: scores(&self.held, distractors, self.config.learn.gap_max_secs, head),
            labelled: self.probe.as_ref().map(|probe| probe.scores(head)),
        };
        self.conduct.rest();
        measured
    }

    /// Labels decide where there are some; else `label_free` does.
    fn judgement(
        &self,
        candidate: &Measured,
        reference: &Measured,
        label_free: fn(&Scores, &Scores, &Judge, u64) -> Verdict,
    ) -> Judgement {
        let (config, seed) = (&self.config.judge, self.config.learn.seed);
        match (&self.probe, &candidate.labelled, &reference.labelled) {
            (Some(probe), Some(c), Some(r)) => Judgement::Labelled(probe.gate(c, r, config, seed)),
            _ => Judgement::LabelFree(label_free(&candidate.label_free, &reference.label_free, config, seed)),
        }
    }

    fn against_frozen(&self, candidate: &Measured, frozen: &Measured) -> Judgement {
        self.judgement(candidate, frozen, gate)
    }

    fn against_exported(&self, candidate: &Measured, exported: &Measured) -> Judgement {
        self.judgement(candidate, exported, replaces)
    }

    /// Health of `head` on the newest held-out blocks; `None` while there are none.
    fn health(&self, head: &Head) -> Option<Health> {
        let mut frames = 0;
        let newest = self.held.blocks().iter().rev().take_while(|block| {
            let enough = frames >= HEALTH_FRAMES;
            frames += block.latents.nrows();
            !enough
        });
        let mut blocks: Vec<_> = newest.collect();
        blocks.reverse();
        let views: Vec<_> = blocks.iter().map(|block| block.latents.view()).collect();
        let latents = concatenate(Axis(0), &views).ok()?;
        let of = blocks.iter().flat_map(|block| block.stamps.iter().map(|_| block.number)).collect::<Vec<_>>();
        let health = (of.len() > 1).then(|| Health::of(head.embed_rows(latents.view()).view(), &of));
        self.conduct.rest();
        health
    }
}

/// The slow head of a fit, scaled so that the mean squared length of `y = W'(f - mu)` over the stream is the number of
/// its dimensions: the residual then starts from inputs of the usual size, whatever the encoder's scale. (Over all
/// latents the variance of `y` along direction `j` is the eigenvalue `lambda_j`.)
fn learned(fit: &SlowFit, shape: Shape, alpha: f64) -> Learned {
    let variance = fit.eigenvalues.iter().take(shape.dim).sum::<f64>() / shape.dim as f64;
    let scale = if variance > 0.0 { variance.sqrt().recip() } else { 1.0 };
    let slow = Array2::from_shape_fn((fit.mean.len(), shape.dim), |(i, j)| (fit.directions[[i, j]] * scale) as f32);
    let mean = fit.mean.mapv(|m| m as f32);
    Learned { mean, slow, mlp: None, alpha: alpha as f32, beside_frozen: shape.beside_frozen }
}

fn slow(fit: &SlowFit, shape: Shape) -> Head {
    Head::Learned(learned(fit, shape, 1.0))
}
