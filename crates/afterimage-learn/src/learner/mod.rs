//! The learner: samples in, judged heads out. No I/O and no clock: the same samples give the same bits.
//!
//! Samples gather into blocks. A held-out block goes to the judge; any other to the scatter of the slow head, to replay
//! and to gradient steps of the residual MLP. On a growing schedule a fit is made: closed-form slow heads and the
//! trained residual are candidates, the judge says which (if any) is promoted, and a new [`Snapshot`] is handed out.
mod columns;
mod data_set;
mod governor;
mod head_selection;
mod residual_trainer;
mod space_tracker;
mod fit_report;
mod latent_layout;
mod candidates;
mod evaluate;
mod merge;
mod trainer;
mod space_transition;
mod fit_cache;
mod snapshot;
mod state;
mod training;
mod promotion;
mod bench_candidates;
mod collapse_guard;

use std::sync::Arc;

use ndarray::Array2;

pub use crate::LatentSpec;
use crate::Timestamp;
use crate::config::LearnerConfig;
use crate::error::{Error, Result};
use crate::gate::probe::Probe;
use crate::head::{Grid, Head, MAX_DIM, ScatterStats};
use crate::sampling::Sample;
use crate::spaces::space_of;

pub use bench_candidates::CandidateReport;
pub use collapse_guard::{LearnerEvent, LearnerStatus};
use data_set::DataSet;
pub use fit_cache::SharedFitCache;
pub use fit_report::{CandidateOutcome, FitReport, GateOutcome};
use governor::NoThrottle;
pub use governor::{CpuGovernor, CpuTime};
use head_selection::HeadSelection;
use latent_layout::{LatentLayout, fits};
use residual_trainer::ResidualTrainer;
pub use snapshot::Snapshot;
use space_tracker::SpaceTracker;
pub use space_transition::SpaceTransition;
pub use trainer::StepBench;

/// Latents that novelty is measured against.
const REFERENCES: usize = 256;

/// What was done so far.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LearnerCounts {
    /// Samples in closed blocks, learned from or held out.
    pub samples: u64,
    /// Those that were held out.
    pub held_out: u64,
    /// Blocks closed.
    pub blocks: u64,
    /// Gradient steps.
    pub steps: u64,
    /// Loss of the last gradient step, nats.
    pub last_loss: Option<f32>,
    /// Fits made.
    pub fits: u64,
    /// Heads promoted.
    pub promotions: u64,
    /// Times the residual MLP was put back to its last sound weights.
    pub rollbacks: u64,
}

/// What a fit brought.
#[derive(Debug, Clone)]
pub struct FitOutcome {
    /// What is exported from `activate_at` on; the head is the one before where nothing was promoted.
    pub snapshot: Arc<Snapshot>,
    /// The figures.
    pub report: FitReport,
    /// From the space before to that of a promoted head.
    pub transition: Option<SpaceTransition>,
}

/// See the module. A copy measures nothing and never rests, until it gets a governor.
#[derive(Debug, Clone)]
pub struct Learner {
    config: LearnerConfig,
    origin: LatentSpec,
    form: LatentLayout,
    /// What was seen.
    data: DataSet,
    /// The residual MLP.
    trained: ResidualTrainer,
    /// Which head is tried, tested and promoted, and when.
    selection: HeadSelection,
    /// What is exported, and was.
    spaces: SpaceTracker,
    counts: LearnerCounts,
    /// Capture time of the newest sample.
    now: Timestamp,
    /// Newest frame.
    frame: u64,
    /// What happened since it was last asked.
    events: Vec<LearnerEvent>,
    governor: Box<dyn CpuGovernor>,
    spent: CpuTime,
    shared: Option<SharedFitCache>,
}

impl Learner {
    /// A learner that has seen nothing; the frozen latents are exported.
    ///
    /// # Errors
    /// `learn.replay.megabytes` is too small for latents of this size, or `head.candidates` does not fit them, or
    /// `learn.objective.name` is none, or does not fit the latents.
    pub fn new(config: &LearnerConfig, origin: LatentSpec, probe: Option<Probe>) -> Result<Self> {
        let form = LatentLayout::new(&origin, config.learn.has_cpc());
        if form.dim() > MAX_DIM {
            return Err(Error::config(format!(
                "latents of {} numbers: at most {MAX_DIM} are learned from, since the statistics of the slow head grow with \
                 the square of it; read fewer or shorter encoder.taps, or an output that is pooled",
                form.dim()
            )));
        }
        fits(config, form)?;
        let judge = form.judge(config)?;
        let head = Arc::new(form.head(Head::Identity { dim: form.dim() }));
        let space = space_of(&origin.encoder_sha256, &origin.card_hash, &head).into();
        let references = Array2::zeros((0, form.dim()));
        let exported = Arc::new(Snapshot { number: 0, head: head.clone(), space, references, activate_at: 0 });
        let parts = origin.ranges();
        Ok(Self {
            data: DataSet::new(config, form, &judge)?,
            trained: ResidualTrainer::new(config.learn.seed),
            selection: HeadSelection {
                probe: probe.map(|probe| form.probe(probe)),
                candidates: candidates::candidates(config, &parts)?,
                parts,
                promotion_config: judge,
                judged: head,
                promoted_at: None,
                reference_gain: None,
                last: None,
                next_fit: config.learn.first_fit_frames,
                fitted_samples: 0,
            },
            spaces: SpaceTracker { handed_out: vec![exported.clone()], exported },
            counts: LearnerCounts::default(),
            now: Timestamp(0),
            frame: 0,
            events: Vec::new(),
            governor: Box::new(NoThrottle),
            spent: CpuTime::default(),
            shared: None,
            config: config.clone(),
            origin,
            form,
        })
    }

    /// Learns from one sample; sometimes a fit falls due and brings an outcome.
    ///
    /// # Errors
    /// The latent has not the encoder's dimension.
    pub fn learn(&mut self, sample: &Sample) -> Result<Option<FitOutcome>> {
        (self.now, self.frame) = (sample.stamp, sample.index);
        let blocks = self.data.blocks.push(&self.form.sample(sample));
        self.count_still();
        if blocks.is_empty() {
            return Ok(None);
        }
        blocks.into_iter().try_for_each(|block| self.take(block))?;
        if self.counts.samples < self.selection.next_fit {
            return Ok(None);
        }
        self.fit(sample.index, false)
    }

    /// The end of a bounded source: the open block is closed and a last fit made, if there is anything new.
    ///
    /// # Errors
    /// As [`Learner::learn`].
    pub fn finish(&mut self, last_index: u64) -> Result<Option<FitOutcome>> {
        self.data.blocks.finish().into_iter().try_for_each(|block| self.take(block))?;
        if self.counts.samples == self.selection.fitted_samples {
            return Ok(None);
        }
        self.fit(last_index, true)
    }

    /// Fits, judges, perhaps promotes; the schedule moves on. `None`, and nothing has changed, where it was broken off.
    fn fit(&mut self, index: u64, last: bool) -> Result<Option<FitOutcome>> {
        let begun = self.governor.used();
        let trial = self.trial(index, last);
        self.spent.fits += self.governor.used().saturating_sub(begun);
        let Some((mut decision, promoted)) = trial else { return Ok(None) };
        self.counts.fits += 1;
        self.selection.fitted(self.counts.samples, &self.config.learn);
        let (head, passage) = match promoted {
            Some(promoted) => {
                self.counts.promotions += 1;
                self.selection.promoted_at = Some(self.now);
                self.selection.judged = promoted.judged;
                let (head, passage) = self.passage_to(promoted.head);
                let fault = |e: crate::error::Error| decision.faults.push(format!("no map: {}", e.chain()));
                (head, passage.map_err(fault).ok())
            }
            None => (self.spaces.exported.head.clone(), None),
        };
        let number = decision.exported;
        let space = space_of(&self.origin.encoder_sha256, &self.origin.card_hash, &head).into();
        let references = self.form.latents(self.data.replay.references(REFERENCES).view());
        let activate_at = index + self.config.learn.promote_lag_frames;
        let snapshot = Arc::new(Snapshot { number, head, space, references, activate_at });
        self.spaces.push(&snapshot);
        self.selection.last = Some(decision.clone());
        Ok(Some(FitOutcome { snapshot, report: decision, transition: passage }))
    }

    /// Sets the CPU governor.
    pub fn set_governor(&mut self, governor: Box<dyn CpuGovernor>) {
        self.governor = governor;
    }

    /// The place to sleep after work.
    pub fn rest(&self) {
        self.governor.rest();
    }

    /// What long work took so far.
    pub fn cpu_time(&self) -> CpuTime {
        self.spent
    }

    /// Samples that the next fit still waits for, those of the open block counted in: at 0 the end of that block brings
    /// the fit.
    pub fn samples_to_fit(&self) -> u64 {
        self.selection.next_fit.saturating_sub(self.counts.samples + self.data.blocks.open())
    }

    /// What was done so far.
    pub fn counts(&self) -> &LearnerCounts {
        &self.counts
    }

    /// Where the residual stands.
    pub fn state(&self) -> LearnerStatus {
        self.trained.guard.state()
    }

    /// Pairs in the scatter.
    pub fn pairs(&self) -> u64 {
        self.data.scatter.pairs()
    }

    /// Augmented views in the scatter.
    pub fn views(&self) -> u64 {
        self.data.scatter.views()
    }

    /// Samples left out: still scenes, and those above `learn.frames_per_sec`.
    pub fn left_out(&self) -> (u64, u64) {
        let counts = self.data.blocks.counts();
        (counts.still, counts.rate_limited)
    }

    /// The last decision, where there was one.
    pub fn last(&self) -> Option<&FitReport> {
        self.selection.last.as_ref()
    }

    /// What is exported now.
    pub fn exported(&self) -> &Arc<Snapshot> {
        &self.spaces.exported
    }

    /// Bytes of replay memory in use.
    pub fn replay_bytes(&self) -> usize {
        self.data.replay.bytes()
    }

    /// A snapshot of each promoted head that the state keeps, oldest first.
    pub fn promoted(&self) -> Vec<Arc<Snapshot>> {
        self.spaces.promoted()
    }

    /// It learns from whole grids: its heads and its samples' latents are over grids, not over pooled latents.
    pub fn takes_grids(&self) -> bool {
        self.form.whole().is_some()
    }

    /// Latents that may wait for it: `learn.queue_latents`, of whole grids no more than `learn.replay.megabytes` hold.
    pub fn queue(&self) -> usize {
        let learn = &self.config.learn;
        let fit = |grid: Grid| ((learn.replay.megabytes * 1e6) as usize / (4 * grid.numbers())).max(8);
        self.form.whole().map_or(learn.queue_latents, |grid| learn.queue_latents.min(fit(grid)))
    }

    /// The configuration.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// The snapshots that a stream going on at `next_index` needs, oldest first: the one in use there, and those to come.
    /// A live stream takes the newest at once.
    pub fn snapshots_from(&self, next_index: u64, live: bool) -> Vec<Arc<Snapshot>> {
        self.spaces.from(next_index, live)
    }

    /// Takes over a head that was promoted after the state was saved (a live run that was cut off).
    pub fn adopt(&mut self, number: u64, head: Arc<Head>) {
        let head = Arc::new(self.form.head((*head).clone()));
        let space = space_of(&self.origin.encoder_sha256, &self.origin.card_hash, &head).into();
        let references = self.spaces.exported.references.clone();
        // Its judged twin is lost; the head itself stands in, which makes it the harder to replace.
        self.selection.judged = head.clone();
        self.spaces.exported = Arc::new(Snapshot { number, head, space, references, activate_at: 0 });
        self.spaces.handed_out = vec![self.spaces.exported.clone()];
    }

    /// Bytes that the file of a head may have, for the reserve on the disk.
    pub fn head_bytes(&self) -> u64 {
        let (d, head) = (self.form.dim() as u64, &self.config.head);
        let k =
            self.selection.candidates.iter().filter_map(|candidate| candidate.dim).fold(head.dim, usize::max) as u64;
        let weights = 4 * (d + d * k + head.hidden as u64 * (2 * k + 3) + k);
        // The largest map leads to a head beside the frozen latents, or comes from one.
        let map = 4 * (d + k) * (k + 1);
        let views = if self.config.learn.augmentation.share > 0.0 { d * (d + 1) / 2 } else { 0 };
        let scatter = 8 * (d + d * (d + 1) + views);
        // Names, shapes and text, and a line in the journal.
        weights + map + self.form.context_bytes(k, &self.config) + scatter + 65536
    }

    /// What happened since this was last called, oldest first.
    pub fn take_events(&mut self) -> Vec<LearnerEvent> {
        std::mem::take(&mut self.events)
    }

    /// The slow-head statistics so far, held-out blocks left out.
    pub fn scatter(&self) -> &ScatterStats {
        &self.data.scatter
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod space_transition_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
