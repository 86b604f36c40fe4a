//! Watches the residual while it learns: does it still stand where the slow head under it stands?
//!
//! ```text
//! warming ──> learning <──> holding
//!    ^           │
//!    └─ a fit    v
//!            rolled-back ──> learning
//! ```
//!
//! Every `promotion.guard_steps` gradient steps it is measured on the newest held-out blocks, which it never learns from. What
//! collapses goes back to the last weights that were sound, at a lower rate; the exported head is never touched by it.
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::trainer::Residual;
use crate::health::EmbeddingHealth;

/// A gradient longer than so many times the median of the last ones, and than what clipping lets pass, is not followed.
/// (Near a loss of zero lengths jump by as much all the time, and do no harm.)
const NORM_JUMP: f64 = 10.0;
/// So many gradients make that median.
const NORMS: usize = 64;
/// Learning rate after a rollback, of that before.
const RATE_CUT: f64 = 0.3;
/// So many steps with sound checks double it again, up to the configured one.
const RECOVERY_STEPS: u64 = 1000;
/// Retrieval so far below the slow head's is doubtful.
const RETRIEVAL_LOSS: f64 = 0.05;
/// So many checks in a row with a doubt or a warning are a collapse.
const MISSES: u32 = 3;

/// What the learner does with the residual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LearnerStatus {
    /// Before the first sound check on this slow head.
    #[default]
    Warming,
    /// Gradient steps are made.
    Learning,
    /// No steps: the stream teaches nothing new, or a measure warns.
    Holding,
    /// The weights were put back; until the next sound check.
    RolledBack,
}

/// What happened, for the journal.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum LearnerEvent {
    /// A check.
    Health {
        /// Newest frame learned from.
        frame: u64,
        /// Steps on this slow head.
        steps: u64,
        /// Of the last step.
        loss: Option<f32>,
        /// Length of its gradient before clipping.
        norm: Option<f64>,
        /// Learning rate in use, of the configured one.
        rate: f64,
        /// The residual ...
        residual: EmbeddingHealth,
        /// ... and the slow head under it, on the same frames.
        slow: EmbeddingHealth,
    },
    /// A change of state.
    State {
        /// Newest frame learned from.
        frame: u64,
        /// Steps on this slow head.
        steps: u64,
        /// Before.
        from: LearnerStatus,
        /// From now on.
        to: LearnerStatus,
        /// Why, with figures.
        reason: String,
        /// Learning rate from now on, of the configured one.
        rate: f64,
    },
}

/// What the watch remembers, for a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct GuardState {
    pub(super) state: LearnerStatus,
    /// Of the configured learning rate.
    pub(super) rate: f64,
    /// Lengths of the last gradients.
    norms: VecDeque<f64>,
    misses: u32,
    /// Steps since the last check, and sound ones since the last doubling of the rate.
    since_check: u64,
    sound_steps: u64,
}

/// The watch with the last sound weights.
#[derive(Debug, Clone)]
pub(super) struct CollapseGuard {
    pub(super) memory: GuardState,
    pub(super) sound: Option<Residual>,
}

/// What a check says.
#[derive(Debug, Clone, PartialEq)]
enum GuardFinding {
    Sound,
    /// Perhaps the next checks will say.
    Doubtful(String),
    Warning(String),
    Collapse(String),
}

impl CollapseGuard {
    pub(super) fn new() -> Self {
        let memory = GuardState {
            state: LearnerStatus::Warming,
            rate: 1.0,
            norms: VecDeque::new(),
            misses: 0,
            since_check: 0,
            sound_steps: 0,
        };
        Self { memory, sound: None }
    }

    /// Where it stands.
    pub(super) fn state(&self) -> LearnerStatus {
        self.memory.state
    }

    /// A new residual: its gradients are others, and its start is sound. The lower rate after a collapse stays.
    pub(super) fn begin(&mut self, residual: &Residual) -> Option<(LearnerStatus, &'static str)> {
        self.memory.norms.clear();
        (self.memory.misses, self.memory.since_check) = (0, 0);
        self.sound = Some(residual.clone());
        self.go(LearnerStatus::Warming).map(|from| (from, "the residual begins anew on the slow head of a fit"))
    }

    /// Gradients longer than this are not followed.
    pub(super) fn most_norm(&self, clip_norm: f64) -> f64 {
        if self.memory.norms.len() < NORMS / 4 { f64::INFINITY } else { (NORM_JUMP * self.median()).max(clip_norm) }
    }

    fn median(&self) -> f64 {
        let mut sorted: Vec<f64> = self.memory.norms.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
    }

    /// A step was made; true when a check is due.
    pub(super) fn stepped(&mut self, norm: f64, every: u64) -> bool {
        if self.memory.norms.len() == NORMS {
            self.memory.norms.pop_front();
        }
        self.memory.norms.push_back(norm);
        self.memory.since_check += 1;
        self.memory.since_check >= every
    }

    /// Length of the last gradient.
    pub(super) fn norm(&self) -> Option<f64> {
        self.memory.norms.back().copied()
    }

    /// Judges a check; the state before and why, where it changed. `residual` is put back where it has collapsed.
    pub(super) fn check(
        &mut self,
        residual: &mut Residual,
        now: &EmbeddingHealth,
        slow: &EmbeddingHealth,
    ) -> Option<(LearnerStatus, String)> {
        let steps = std::mem::take(&mut self.memory.since_check);
        match self.finding(now, slow) {
            GuardFinding::Sound => {
                self.sound = Some(residual.clone());
                self.memory.sound_steps += steps;
                if self.memory.sound_steps >= RECOVERY_STEPS {
                    self.memory.sound_steps = 0;
                    self.memory.rate = (2.0 * self.memory.rate).min(1.0);
                }
                self.go(LearnerStatus::Learning).map(|from| (from, "sound".to_owned()))
            }
            GuardFinding::Doubtful(_) => None,
            GuardFinding::Warning(why) => self.go(LearnerStatus::Holding).map(|from| (from, why)),
            GuardFinding::Collapse(why) => Some((self.roll_back(residual), why)),
        }
    }

    /// Puts the last sound weights back and lowers the rate; the state before.
    pub(super) fn roll_back(&mut self, residual: &mut Residual) -> LearnerStatus {
        if let Some(sound) = &self.sound {
            *residual = sound.clone();
        }
        self.memory.rate *= RATE_CUT;
        self.memory.norms.clear();
        (self.memory.misses, self.memory.since_check, self.memory.sound_steps) = (0, 0, 0);
        std::mem::replace(&mut self.memory.state, LearnerStatus::RolledBack)
    }

    /// Changes the state; the one before, where it was another.
    pub(super) fn go(&mut self, to: LearnerStatus) -> Option<LearnerStatus> {
        let from = std::mem::replace(&mut self.memory.state, to);
        (from != to).then_some(from)
    }

    fn finding(&mut self, now: &EmbeddingHealth, slow: &EmbeddingHealth) -> GuardFinding {
        let finding = self.measured(now, slow);
        let (doubt, why) = match finding {
            GuardFinding::Doubtful(ref why) | GuardFinding::Warning(ref why) => (true, why.clone()),
            _ => (false, String::new()),
        };
        self.memory.misses = if doubt { self.memory.misses + 1 } else { 0 };
        // What does not come right by itself is put right.
        if self.memory.misses >= MISSES {
            GuardFinding::Collapse(format!("{why}, in {MISSES} checks"))
        } else {
            finding
        }
    }

    fn measured(&self, now: &EmbeddingHealth, slow: &EmbeddingHealth) -> GuardFinding {
        if !now.finite {
            return GuardFinding::Collapse("embeddings that are not finite".into());
        }
        let spread = now.spread / slow.spread;
        let rank = now.rank / slow.rank;
        // A slow head that is itself uneven is no collapse of the residual.
        let uneven = |limit: f64| now.uniformity > limit && now.uniformity > slow.uniformity + 0.5;
        let figures = |what: &str, slow: f64, now: f64| format!("{what} {now:.3}, of the slow head {slow:.3}");
        if spread < 0.5 {
            return GuardFinding::Collapse(figures("spread", slow.spread, now.spread));
        }
        if rank < 0.25 {
            return GuardFinding::Collapse(figures("rank", slow.rank, now.rank));
        }
        if uneven(-1.0) {
            return GuardFinding::Collapse(figures("uniformity", slow.uniformity, now.uniformity));
        }
        if spread < 0.7 {
            return GuardFinding::Warning(figures("spread", slow.spread, now.spread));
        }
        if rank < 0.5 {
            return GuardFinding::Warning(figures("rank", slow.rank, now.rank));
        }
        if uneven(-1.5) {
            return GuardFinding::Warning(figures("uniformity", slow.uniformity, now.uniformity));
        }
        if slow.retrieval - now.retrieval > RETRIEVAL_LOSS {
            return GuardFinding::Doubtful(figures("TR@1", slow.retrieval, now.retrieval));
        }
        GuardFinding::Sound
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "collapse_guard_tests.rs"]
mod tests;
