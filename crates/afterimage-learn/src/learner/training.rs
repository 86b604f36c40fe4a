//! From a closed block to gradient steps, with the collapse guard's checks.
use ndarray::{Array2, Axis, concatenate};

use super::Learner;
use super::collapse_guard::{LearnerEvent, LearnerStatus};
use super::trainer::StepLimits;
use crate::error::Result;
use crate::gate::Holdout;
use crate::head::Head;
use crate::health::EmbeddingHealth;
use crate::linalg::{dot, slices};
use crate::sampling::Block;
use crate::sampling::block_builder::held;

/// Health is measured on the newest blocks with this many frames. A broken head falls through its floor with no more
/// frames than these, and measuring on all held-out frames would cost more than the fit itself.
const HEALTH_FRAMES: usize = 512;
/// The oldest held-out blocks, up to this many frames, are kept for good to measure forgetting.
pub(super) const REFERENCE_FRAMES: usize = 512;
/// A check needs this many frames from at least two blocks.
const LEAST_FRAMES: usize = 32;
/// A block teaches nothing new if no frame of it is further than this cosine distance from what was seen before.
const NOVELTY: f32 = 0.002;
/// After this many samples of a static scene in a row, training pauses.
const STILL_SAMPLES: u64 = 64;

impl Learner {
    /// Takes a closed block: holds it out, or adds it to the statistics and the replay buffer and takes gradient steps.
    pub(super) fn take(&mut self, block: Block) -> Result<()> {
        let len = block.stamps.len() as u64;
        self.counts.blocks += 1;
        self.counts.samples += len;
        if held(block.camera_block_index, self.config.promotion.holdout_every) {
            self.counts.held_out += len;
            self.data.holdout_scatter.add(&self.form.pooled(&block), &self.data.replay.gaps().pairs(&block))?;
            let block = self.form.held(block, &self.selection.promotion_config);
            if self.data.reference.frames() + block.stamps.len()
                <= self.form.reference_frames(&self.selection.promotion_config)
            {
                self.data.reference.push(block.clone());
            }
            self.data.holdout.push(block);
            // The cause of a warning may have passed.
            if self.trained.guard.memory.state == LearnerStatus::Holding {
                self.check();
            }
            return Ok(());
        }
        let frames = self.form.pooled(&block);
        let novel = self.novel(&frames);
        self.data.replay.insert(&block);
        self.data.scatter.add(&frames, &self.data.replay.gaps().pairs(&block))?;
        if self.config.learn.optimizer.frames_per_step == 0 || self.trained.residual.is_none() {
            return Ok(());
        }
        if !novel {
            self.hold(format!("no frame of block {} lies {NOVELTY} from what was seen before", block.number));
            return Ok(());
        }
        self.trained.credit += len;
        while self.trained.credit >= self.config.learn.optimizer.frames_per_step {
            self.trained.credit -= self.config.learn.optimizer.frames_per_step;
            let begun = self.governor.used();
            self.step();
            self.spent.steps += self.governor.used().saturating_sub(begun);
            self.governor.rest();
        }
        Ok(())
    }

    /// Takes one gradient step, and checks the residual if a check is due. Values that are not finite and gradients out
    /// of all proportion are not applied: the residual rolls back to its last sound weights.
    fn step(&mut self) {
        if self.trained.guard.memory.state == LearnerStatus::Holding && self.trained.warned {
            return;
        }
        let pace = StepLimits {
            rate: self.trained.guard.memory.rate,
            most_norm: self.trained.guard.most_norm(self.config.learn.optimizer.clip_norm),
        };
        let Some(residual) = &mut self.trained.residual else { return };
        match residual.step(
            &mut self.data.replay,
            &self.spaces.exported.head,
            &self.config,
            pace,
            &mut self.trained.rng,
        ) {
            Ok(None) => {}
            Ok(Some(stepped)) => {
                self.counts.steps += 1;
                self.counts.last_loss = Some(stepped.loss);
                if self.trained.guard.memory.state == LearnerStatus::Holding {
                    self.changed(LearnerStatus::Learning, "there is something new to learn from".into());
                }
                if self.trained.guard.stepped(stepped.norm, self.config.promotion.guard_steps) {
                    self.check();
                }
            }
            Err(fault) => {
                self.counts.rollbacks += 1;
                let from = self.trained.guard.roll_back(residual);
                self.tell(from, fault.chain());
            }
        }
    }

    /// Compares the residual with the slow head under it on the newest held-out blocks.
    fn check(&mut self) {
        let Some((latents, blocks)) = newest(&self.data.holdout, LEAST_FRAMES) else { return };
        let Some(mut residual) = self.trained.residual.take() else { return };
        let health = |head: &Head| EmbeddingHealth::floors(head.embed_rows(latents.view()).view(), &blocks);
        let (now, slow) = (health(&residual.live()), health(&self.form.head(Head::Learned(residual.base.clone()))));
        let (steps, rate) = (residual.steps(), self.trained.guard.memory.rate);
        let (loss, norm) = (self.counts.last_loss, self.trained.guard.norm());
        let before = self.trained.guard.memory.state;
        let change = self.trained.guard.check(&mut residual, &now, &slow);
        self.trained.residual = Some(residual);
        let frame = self.frame;
        self.events.push(LearnerEvent::Health { frame, steps, loss, norm, rate, residual: now, slow });
        let to = self.trained.guard.memory.state;
        self.trained.warned = to == LearnerStatus::Holding
            && (change.is_some() || (before == LearnerStatus::Holding && self.trained.warned));
        if to == LearnerStatus::RolledBack {
            self.counts.rollbacks += u64::from(change.is_some());
        }
        if let Some((from, reason)) = change {
            self.tell(from, reason);
        }
        self.governor.rest();
    }

    /// Counts a sample that was skipped as static. Training pauses until something moves.
    pub(super) fn count_still(&mut self) {
        let still = self.data.blocks.counts().still;
        self.data.still_run = if still > self.data.still_seen { self.data.still_run + 1 } else { 0 };
        self.data.still_seen = still;
        if self.data.still_run == STILL_SAMPLES && self.trained.residual.is_some() {
            self.hold(format!("{STILL_SAMPLES} samples of a still scene in a row"));
        }
    }

    fn hold(&mut self, reason: String) {
        self.changed(LearnerStatus::Holding, reason);
    }

    fn changed(&mut self, to: LearnerStatus, reason: String) {
        if let Some(from) = self.trained.guard.go(to) {
            self.tell(from, reason);
        }
    }

    /// Records that the guard's state has changed from `from`.
    pub(super) fn tell(&mut self, from: LearnerStatus, reason: String) {
        let (to, rate) = (self.trained.guard.memory.state, self.trained.guard.memory.rate);
        let steps = self.trained.steps();
        self.events.push(LearnerEvent::State { frame: self.frame, steps, from, to, reason, rate });
    }

    /// Whether some frame of the block differs from all references of the exported snapshot.
    fn novel(&self, block: &Block) -> bool {
        let references = &self.spaces.exported.references;
        let nearest = |row: &[f32]| slices(references).map(|seen| dot(row, seen)).fold(f32::NEG_INFINITY, f32::max);
        references.nrows() == 0 || slices(&block.latents).any(|row| 1.0 - nearest(row) > NOVELTY)
    }

    /// Health of `head` on the newest held-out blocks; `None` while there are none.
    pub(super) fn health(&self, head: &Head) -> Option<EmbeddingHealth> {
        let (latents, blocks) = newest(&self.data.holdout, 2)?;
        let health = EmbeddingHealth::of(head.embed_rows(latents.view()).view(), &blocks);
        self.governor.rest();
        Some(health)
    }
}

/// The newest blocks with [`HEALTH_FRAMES`] frames, `[n, d]`, and the block of every row; `None` if there are fewer
/// than `least` frames.
pub(super) fn newest(held: &Holdout, least: usize) -> Option<(Array2<f32>, Vec<u64>)> {
    let mut frames = 0;
    let newest = held.blocks().iter().rev().take_while(|block| {
        let enough = frames >= HEALTH_FRAMES;
        frames += block.latents.nrows();
        !enough
    });
    let mut blocks: Vec<_> = newest.collect();
    blocks.reverse();
    let views: Vec<_> = blocks.iter().map(|block| block.latents.view()).collect();
    let latents = concatenate(Axis(0), &views).ok()?;
    let of: Vec<u64> = blocks.iter().flat_map(|block| block.stamps.iter().map(|_| block.number)).collect();
    (of.len() >= least).then_some((latents, of))
}
