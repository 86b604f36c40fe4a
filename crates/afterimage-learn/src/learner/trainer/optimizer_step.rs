//! From gradients to steps, as configured: clipping, orthogonal gradients, optimizer and schedule.
use super::StepLimits;
use crate::config::{OptimizerKind, ScheduleKind, Training};
use crate::error::Result;
use crate::optimizer::{
    AdamW, AdamWState, Lars, LarsState, Orthogonal, ParamGroup, Schedule, Sgd, SgdState, clip_norm,
};
use crate::state_dict::{LoadedTensors, StateDict, TensorView};

/// The optimizer's state between steps.
#[derive(Debug, Clone)]
pub(super) struct OptimizerState {
    steps: u64,
    rule: Rule,
    orthogonal: Option<Orthogonal<f32>>,
}

#[derive(Debug, Clone)]
enum Rule {
    AdamW(AdamWState<f32>),
    Sgd(SgdState<f32>),
    Lars(LarsState<f32>),
}

impl OptimizerState {
    /// The state before the first step of `params`.
    pub(super) fn new(learn: &Training, params: &ParamGroup<'_, f32>) -> Self {
        let rule = match learn.optimizer.name {
            OptimizerKind::Sgd => Rule::Sgd(SgdState::new(params)),
            OptimizerKind::Lars => Rule::Lars(LarsState::new(params)),
            OptimizerKind::AdamW => Rule::AdamW(AdamWState::new(params)),
        };
        let beta = learn.optimizer.orthogonal_gradient;
        Self { steps: 0, rule, orthogonal: (beta > 0.0).then(|| Orthogonal::new(beta, params)) }
    }

    /// Number of steps taken.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes one step of `params`. Returns the norm of the gradient before clipping, and whether the step was taken. If
    /// the norm is not finite or exceeds the limit of `pace`, the step is skipped and leaves no trace in the state.
    pub(super) fn step<'a>(
        &mut self,
        learn: &Training,
        pace: StepLimits,
        params: &mut ParamGroup<'a, f32>,
        grads: &mut ParamGroup<'a, f32>,
    ) -> (f64, bool) {
        let whole = clip_norm(grads, f64::INFINITY);
        // Written so that a NaN on either side counts as too large.
        let followed = whole.is_finite() && whole <= pace.most_norm;
        if !followed {
            return (whole, false);
        }
        if let Some(orthogonal) = &mut self.orthogonal {
            orthogonal.apply(grads);
        }
        let length = clip_norm(grads, learn.optimizer.clip_norm);
        if !length.is_finite() {
            return (length, false);
        }
        let rate = pace.rate
            * learn.optimizer.learning_rate
            * schedule(learn).factor(self.steps, learn.optimizer.warmup_steps);
        self.steps += 1;
        match &mut self.rule {
            Rule::AdamW(state) => AdamW::new(rate, learn.optimizer.weight_decay).step(params, grads, state),
            Rule::Sgd(state) => {
                let sgd = Sgd {
                    learning_rate: rate,
                    momentum: learn.optimizer.momentum,
                    weight_decay: learn.optimizer.weight_decay,
                };
                sgd.step(params, grads, state);
            }
            Rule::Lars(state) => {
                Lars::new(rate, learn.optimizer.momentum, learn.optimizer.weight_decay).step(params, grads, state);
            }
        }
        (length, true)
    }

    pub(super) fn save<'a>(&'a self, contents: &mut StateDict<'a>, prefix: &str) {
        contents.text(format!("{prefix}steps"), self.steps);
        for (name, values) in self.moments() {
            contents.tensors.push((format!("{prefix}{name}"), TensorView::new(&[values.len()], values)));
        }
    }

    /// Restores a saved state. `self` must have been created with the same configuration.
    ///
    /// # Errors
    /// Parts are missing or do not fit.
    pub(super) fn restore(&mut self, stored: &mut LoadedTensors, prefix: &str) -> Result<()> {
        let mut take = |name: &str, values: &mut Vec<f32>| -> Result<()> {
            *values = stored.take(&format!("{prefix}{name}"), &[values.len()])?;
            Ok(())
        };
        match &mut self.rule {
            Rule::AdamW(state) => {
                take("first", &mut state.first)?;
                take("second", &mut state.second)?;
            }
            Rule::Sgd(SgdState { momentum }) | Rule::Lars(LarsState { momentum }) => take("momentum", momentum)?,
        }
        if let Some(orthogonal) = &mut self.orthogonal {
            take("history", &mut orthogonal.history)?;
        }
        self.steps = stored.parse(&format!("{prefix}steps"))?;
        if let Rule::AdamW(state) = &mut self.rule {
            state.step = self.steps;
        }
        Ok(())
    }

    fn moments(&self) -> Vec<(&'static str, &[f32])> {
        let mut moments: Vec<(&'static str, &[f32])> = match &self.rule {
            Rule::AdamW(state) => vec![("first", &state.first), ("second", &state.second)],
            Rule::Sgd(SgdState { momentum }) | Rule::Lars(LarsState { momentum }) => vec![("momentum", momentum)],
        };
        moments.extend(self.orthogonal.iter().map(|orthogonal| ("history", orthogonal.history.as_slice())));
        moments
    }
}

/// The configured schedule.
pub(super) fn schedule(learn: &Training) -> Schedule {
    match learn.optimizer.schedule {
        ScheduleKind::Cosine => Schedule::Cosine { steps: learn.optimizer.schedule_steps },
        ScheduleKind::Constant => Schedule::Constant,
    }
}
