//! Momentum contrast on a frozen encoder.
use ndarray::{Array2, ArrayView2, s};

use super::queue::Queue;
use super::{BatchKind, ForwardBatch, LossGrad, TrainingObjective, same_size};
use crate::config::{FalseNegativeRule, Training, objective::QueueKind};
use crate::error::Result;
use crate::head::Mlp;
use crate::objective::moco;
use crate::optimizer::average;
use crate::state_dict::{LoadedTensors, StateDict};

/// MoCo (He et al. 2020, algorithm 1) with the head in place of the encoder. Queries are the earlier frames through the
/// trained head; keys are the later frames through a slower head, `slower = m slower + (1 - m) head`. Each step updates
/// the slower head, computes the keys, computes the loss against the queue, and then pushes the keys into the queue.
/// One direction only, as in the paper.
///
/// The encoder is frozen, so a queue can hold the latents behind the keys instead of the keys (`learn.objective.queue =
/// "latents"`). The slower head projects these again, each once, halfway through the queue. Entries of a query's block
/// (with `learn.sampling.false_negatives = "segment"`: of its segment) are not its negatives; the rules `window` and
/// `similar` apply within a batch only.
/// hold within a batch only.
#[derive(Debug, Clone)]
pub(super) struct Moco {
    temperature: f64,
    momentum: f64,
    by_segment: bool,
    slower: Mlp<f32>,
    queue: Queue,
}

impl Moco {
    pub(super) fn start(learn: &Training, head: &Mlp<f32>) -> Self {
        let queue = Queue::new(learn.objective.queue_len, head.b2.len(), learn.objective.queue == QueueKind::Latents);
        Self {
            temperature: learn.objective.temperature,
            momentum: learn.objective.momentum,
            by_segment: learn.sampling.false_negatives == FalseNegativeRule::Segment,
            slower: head.clone(),
            queue,
        }
    }
}

impl TrainingObjective for Moco {
    fn name(&self) -> &'static str {
        "moco"
    }

    fn need(&self) -> BatchKind {
        BatchKind::Pairs
    }

    fn one_way(&self) -> bool {
        true
    }

    fn turn(&mut self, rows: &ForwardBatch<'_>) -> LossGrad {
        let n = rows.slow.nrows() / 2;
        average(&mut self.slower, rows.head, self.momentum);
        let project = |slow: ArrayView2<f32>| -> Array2<f32> { self.slower.rows(slow) * rows.alpha + slow };
        self.queue.refresh(n, project);
        let slow = rows.slow.slice(s![n.., ..]);
        let keys = project(slow);
        let groups = if self.by_segment { &rows.drawn.segments } else { &rows.drawn.blocks };
        let masked = self.queue.of_groups(groups);
        let loss = moco(rows.out.slice(s![..n, ..]), keys.view(), self.queue.keys(), &masked, self.temperature);
        self.queue.push(&keys, slow, groups);
        let mut grad = Array2::zeros(rows.out.dim());
        grad.slice_mut(s![..n, ..]).assign(&loss.grad);
        LossGrad { value: loss.value, grad }
    }

    fn save<'a>(&'a self, contents: &mut StateDict<'a>, prefix: &str) {
        contents.mlp(&format!("{prefix}slower."), &self.slower);
        self.queue.save(contents, &format!("{prefix}queue."));
    }

    fn restore(&mut self, stored: &mut LoadedTensors, prefix: &str) -> Result<()> {
        self.slower = same_size(stored, &format!("{prefix}slower."), &self.slower)?;
        self.queue.restore(stored, &format!("{prefix}queue."))
    }

    fn boxed(&self) -> Box<dyn TrainingObjective> {
        Box::new(self.clone())
    }
}
