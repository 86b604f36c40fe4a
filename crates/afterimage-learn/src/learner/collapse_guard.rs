//! The collapse guard: checks during training that the residual is still at least as sound as the slow head under it.
//!
//! ```text
//! warming ──> learning <──> holding
//!    ^           │
//!    └─ a fit    v
//!            rolled-back ──> learning
//! ```
//!
//! Every `promotion.guard_steps` gradient steps, the guard measures the residual on the newest held-out blocks, which
//! it never learns from. A collapsed residual goes back to its last sound weights, at a lower learning rate. The
//! exported head is never affected.
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::trainer::Residual;
use crate::health::EmbeddingHealth;

/// A gradient is skipped if its norm exceeds both this multiple of the median of the last norms and the clipping
/// threshold. (Near a loss of zero, norms jump by this much all the time and do no harm.)
const NORM_JUMP: f64 = 10.0;
/// Number of gradients in that median.
const NORMS: usize = 64;
/// Factor on the learning rate after a rollback.
const RATE_CUT: f64 = 0.3;
/// After this many steps with sound checks, the rate doubles again, up to the configured one.
const RECOVERY_STEPS: u64 = 1000;
/// Retrieval this far below the slow head's is doubtful.
const RETRIEVAL_LOSS: f64 = 0.05;
/// This many checks in a row with a doubt or a warning count as a collapse.
const MISSES: u32 = 3;

/// Training state of the residual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LearnerStatus {
    /// Before the first sound check on this slow head.
    #[default]
    Warming,
    /// Gradient steps are running.
    Learning,
    /// Paused: the stream teaches nothing new, or a measure warns.
    Holding,
    /// The weights were rolled back; lasts until the next sound check.
    RolledBack,
}

/// An event for the journal.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum LearnerEvent {
    /// A health check.
    Health {
        /// Index of the newest frame learned from.
        frame: u64,
        /// Gradient steps since this slow head became the base.
        steps: u64,
        /// Loss of the last step.
        loss: Option<f32>,
        /// Norm of its gradient before clipping.
        norm: Option<f64>,
        /// Learning rate in use, relative to the configured one.
        rate: f64,
        /// Health of the residual.
        residual: EmbeddingHealth,
        /// Health of the slow head under it, on the same frames.
        slow: EmbeddingHealth,
    },
    /// The training state has changed.
    State {
        /// Index of the newest frame learned from.
        frame: u64,
        /// Gradient steps since this slow head became the base.
        steps: u64,
        /// The previous state.
        from: LearnerStatus,
        /// The new state.
        to: LearnerStatus,
        /// The reason, with values.
        reason: String,
        /// Learning rate from now on, relative to the configured one.
        rate: f64,
    },
}

/// The guard's state for a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct GuardState {
    pub(super) state: LearnerStatus,
    /// Learning rate relative to the configured one.
    pub(super) rate: f64,
    /// Norms of the last gradients.
    norms: VecDeque<f64>,
    misses: u32,
    /// Steps since the last check, and sound steps since the rate last doubled.
    since_check: u64,
    sound_steps: u64,
}

/// The guard's state with the last sound weights.
#[derive(Debug, Clone)]
pub(super) struct CollapseGuard {
    pub(super) memory: GuardState,
    pub(super) sound: Option<Residual>,
}

/// Result of a check.
#[derive(Debug, Clone, PartialEq)]
enum GuardFinding {
    Sound,
    /// Not conclusive; the next checks may decide.
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

    /// The current training state.
    pub(super) fn state(&self) -> LearnerStatus {
        self.memory.state
    }

    /// Starts on a new residual: past gradients no longer count, and its initial weights are sound. A rate lowered
    /// after a collapse stays low.
    pub(super) fn begin(&mut self, residual: &Residual) -> Option<(LearnerStatus, &'static str)> {
        self.memory.norms.clear();
        (self.memory.misses, self.memory.since_check) = (0, 0);
        self.sound = Some(residual.clone());
        self.go(LearnerStatus::Warming).map(|from| (from, "the residual begins anew on the slow head of a fit"))
    }

    /// Gradients with a larger norm are skipped.
    pub(super) fn most_norm(&self, clip_norm: f64) -> f64 {
        if self.memory.norms.len() < NORMS / 4 { f64::INFINITY } else { (NORM_JUMP * self.median()).max(clip_norm) }
    }

    fn median(&self) -> f64 {
        let mut sorted: Vec<f64> = self.memory.norms.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
    }

    /// Records a step. Returns true if a check is due.
    pub(super) fn stepped(&mut self, norm: f64, every: u64) -> bool {
        if self.memory.norms.len() == NORMS {
            self.memory.norms.pop_front();
        }
        self.memory.norms.push_back(norm);
        self.memory.since_check += 1;
        self.memory.since_check >= every
    }

    /// Norm of the last gradient.
    pub(super) fn norm(&self) -> Option<f64> {
        self.memory.norms.back().copied()
    }

    /// Evaluates a check. Returns the previous state and the reason if the state changed. Rolls `residual` back if it
    /// has collapsed.
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

    /// Restores the last sound weights and lowers the rate. Returns the previous state.
    pub(super) fn roll_back(&mut self, residual: &mut Residual) -> LearnerStatus {
        if let Some(sound) = &self.sound {
            *residual = sound.clone();
        }
        self.memory.rate *= RATE_CUT;
        self.memory.norms.clear();
        (self.memory.misses, self.memory.since_check, self.memory.sound_steps) = (0, 0, 0);
        std::mem::replace(&mut self.memory.state, LearnerStatus::RolledBack)
    }

    /// Changes the state. Returns the previous one if it was different.
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
        // A problem that does not go away by itself counts as a collapse.
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
        // If the slow head itself is uneven, the residual has not collapsed.
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
