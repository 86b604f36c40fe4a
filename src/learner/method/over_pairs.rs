//! A loss over pairs that has no state: of neighbours in time, or of frames and their views.
use std::sync::Arc;

use ndarray::{Axis, concatenate, s};

use super::{Method, Need, Rows, Turn};
use crate::objective::{Objective, Relations};

/// An [`Objective`] on pairs of the kind `need`.
#[derive(Debug, Clone)]
pub(super) struct OverPairs {
    pub(super) name: &'static str,
    pub(super) need: Need,
    pub(super) objective: Arc<dyn Objective<f32>>,
}

impl Method for OverPairs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn need(&self) -> Need {
        self.need
    }

    fn turn(&mut self, rows: &Rows<'_>) -> Turn {
        let n = rows.out.nrows() / 2;
        let (a, b) = (rows.out.slice(s![..n, ..]), rows.out.slice(s![n.., ..]));
        let relations =
            Relations { negatives: Some(rows.drawn.negatives.view()), segments: Some(&rows.drawn.segments) };
        let loss = self.objective.loss(a, b, &relations);
        Turn { value: loss.value, grad: concatenate![Axis(0), loss.grad_a, loss.grad_b] }
    }

    fn boxed(&self) -> Box<dyn Method> {
        Box::new(self.clone())
    }
}
