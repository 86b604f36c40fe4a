//! A stateless loss over pairs: of temporal neighbours, or of frames and their augmented views.
use std::sync::Arc;

use ndarray::{Axis, concatenate, s};

use super::{BatchKind, ForwardBatch, LossGrad, TrainingObjective};
use crate::objective::{Objective, PairMask};

/// An [`Objective`] on pairs of the kind `need`.
#[derive(Debug, Clone)]
pub(super) struct Pairwise {
    pub(super) name: &'static str,
    pub(super) need: BatchKind,
    pub(super) objective: Arc<dyn Objective<f32>>,
}

impl TrainingObjective for Pairwise {
    fn name(&self) -> &'static str {
        self.name
    }

    fn need(&self) -> BatchKind {
        self.need
    }

    fn turn(&mut self, rows: &ForwardBatch<'_>) -> LossGrad {
        let n = rows.out.nrows() / 2;
        let (a, b) = (rows.out.slice(s![..n, ..]), rows.out.slice(s![n.., ..]));
        let relations = PairMask { negatives: Some(rows.drawn.negatives.view()), segments: Some(&rows.drawn.segments) };
        let loss = self.objective.loss(a, b, &relations);
        LossGrad { value: loss.value, grad: concatenate![Axis(0), loss.grad_a, loss.grad_b] }
    }

    fn boxed(&self) -> Box<dyn TrainingObjective> {
        Box::new(self.clone())
    }
}
