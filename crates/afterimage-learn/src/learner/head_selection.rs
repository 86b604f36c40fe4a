//! Which heads a fit tries, and when the next fit is due.
use std::ops::Range;
use std::sync::Arc;

use super::FitReport;
use crate::Timestamp;
use crate::config::{HeadSpec, Promotion, Training};
use crate::gate::probe::Probe;
use crate::head::Head;

/// The candidates, the head that they must beat, and the schedule of fits.
#[derive(Debug, Clone)]
pub(super) struct HeadSelection {
    pub(super) probe: Option<Probe>,
    /// The parts of a latent, in order.
    pub(super) parts: Vec<Range<usize>>,
    pub(super) candidates: Vec<HeadSpec>,
    /// `[promotion]`, with the number of frames limited to the memory for whole grids.
    pub(super) promotion_config: Promotion,
    /// The gate's version of the exported head: the same head, fitted without the held-out blocks.
    pub(super) judged: Arc<Head>,
    /// Capture time of the newest sample when the last head was promoted.
    pub(super) promoted_at: Option<Timestamp>,
    /// The best gain over the frozen latents on the reference blocks so far.
    pub(super) reference_gain: Option<f64>,
    pub(super) last: Option<FitReport>,
    /// Number of samples at which the next fit is due.
    pub(super) next_fit: u64,
    /// Number of samples that the last fit included.
    pub(super) fitted_samples: u64,
}

impl HeadSelection {
    /// Records a fit over `samples` samples; the next one is due on a growing schedule.
    pub(super) fn fitted(&mut self, samples: u64, learn: &Training) {
        self.fitted_samples = samples;
        let grown = (samples as f64 * learn.refit_growth) as u64;
        self.next_fit = grown.min(samples.saturating_add(learn.refit_max_frames));
    }

    /// Seconds of stream time between `now` and the next allowed promotion; `None` if it is allowed now. It is also
    /// allowed if the last promotion lies in the future: then the clock was set back, possibly by years, and waiting
    /// would take too long.
    pub(super) fn secs_to_wait(&self, now: Timestamp) -> Option<f64> {
        let since = now.secs_since(self.promoted_at?);
        let rest = self.promotion_config.min_interval_secs - since;
        (rest > 0.0 && since >= 0.0).then_some(rest)
    }
}
