//! The health of a pipeline, in a line for people.
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Counter, Metrics, STATES};
use crate::process_stats;

impl Metrics {
    /// The learner's state, as the journal names it, or `paused`; `None` without learning.
    pub fn learner_state(&self) -> Option<&'static str> {
        let learns = self.learns.load(Ordering::Relaxed);
        if learns && self.paused.load(Ordering::Relaxed) {
            return Some("paused");
        }
        STATES.get(self.state.load(Ordering::Relaxed)).filter(|_| learns).map(|(_, name)| *name)
    }

    /// The health of the pipeline in one line: `Ok`, or the reason why it is not well.
    ///
    /// # Errors
    /// The encoder is not open yet, or a live source has given no frame for too long.
    pub fn health(&self) -> Result<String, String> {
        let last = self.last_frame.load(Ordering::Relaxed);
        if last == 0 {
            return Err(format!("starting for {} s: the encoder is not open yet", self.started.elapsed().as_secs()));
        }
        let since = self.started.elapsed().saturating_sub(Duration::from_millis(last - 1));
        let patience = self.patience.load(Ordering::Relaxed);
        if patience > 0 && since > Duration::from_millis(patience) {
            return Err(format!("no frame for {:.1} s", since.as_secs_f64()));
        }
        Ok(format!("ok: {} frames", self.frames.get()))
    }

    /// Health and the main metrics, in one line.
    pub fn summary(&self) -> String {
        let health = self.health().unwrap_or_else(|reason| reason);
        let [_, dropped, unreadable, _, stalls, failures, reopens] = self.source.each_ref().map(Counter::get);
        let mut line = format!(
            "{health}, {} segments; dropped {dropped}, unreadable {unreadable}; stalls {stalls}, failures {failures}, \
             reopened {reopens}",
            self.segments.get()
        );
        if let Some(state) = self.learner_state() {
            let [samples, _, _, fits, promotions, _] = self.learner.each_ref().map(Counter::get);
            line += &format!("; learner {state}: {samples} samples, {fits} fits, {promotions} promotions");
        }
        if let Some(megabytes) = process_stats::resident_megabytes() {
            line += &format!("; {megabytes:.0} MB");
        }
        line
    }
}
