//! Which heads are tried at a fit, and when the next one comes.
use std::ops::Range;
use std::sync::Arc;

use super::FitReport;
use crate::Timestamp;
use crate::config::{HeadSpec, Promotion, Training};
use crate::gate::probe::Probe;
use crate::head::Head;

/// Candidates, the head that they must beat, and the schedule of fits.
#[derive(Debug, Clone)]
pub(super) struct HeadSelection {
    pub(super) probe: Option<Probe>,
    /// The parts that a latent is made of, one after the other.
    pub(super) parts: Vec<Range<usize>>,
    pub(super) candidates: Vec<HeadSpec>,
    /// `[promotion]`, with as many frames as whole grids leave room for.
    pub(super) promotion_config: Promotion,
    /// What the gate knows of the exported head: the same, fitted without the held-out blocks.
    pub(super) judged: Arc<Head>,
    /// Capture time of the newest sample at the last promotion.
    pub(super) promoted_at: Option<Timestamp>,
    /// The best gain over the frozen latents on the reference blocks so far.
    pub(super) reference_gain: Option<f64>,
    pub(super) last: Option<FitReport>,
    /// Samples at which the next fit is due.
    pub(super) next_fit: u64,
    /// Samples that the last fit knew of.
    pub(super) fitted_samples: u64,
}

impl HeadSelection {
    /// A fit of `samples` is done; the next comes on a growing schedule.
    pub(super) fn fitted(&mut self, samples: u64, learn: &Training) {
        self.fitted_samples = samples;
        let grown = (samples as f64 * learn.refit_growth) as u64;
        self.next_fit = grown.min(samples.saturating_add(learn.refit_max_frames));
    }

    /// Stream time at `now` until the next promotion may come, seconds; `None`: it may. So it may where the last one lies
    /// in the future: the clock was set back by years, and nobody is to wait for them.
    pub(super) fn secs_to_wait(&self, now: Timestamp) -> Option<f64> {
        let since = now.secs_since(self.promoted_at?);
        let rest = self.promotion_config.min_interval_secs - since;
        (rest > 0.0 && since >= 0.0).then_some(rest)
    }
}
