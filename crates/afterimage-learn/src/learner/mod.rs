//! The learner: turns samples into heads that pass the promotion gate. No I/O and no clock: the same samples give the
//! same bits.
//!
//! Samples are grouped into blocks. Held-out blocks go to the promotion gate; all others go to the scatter statistics
//! of the slow head, to the replay buffer and to gradient steps of the residual MLP. The learner fits on a growing
//! schedule: closed-form slow heads and the trained residual are candidates, the gate decides which one (if any) is
//! promoted, and the learner hands out a new [`Snapshot`].
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

/// Number of reference latents for novelty.
const REFERENCES: usize = 256;

/// Counters of the learner's work so far.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LearnerCounts {
    /// Samples in closed blocks, training and held-out.
    pub samples: u64,
    /// Held-out samples.
    pub held_out: u64,
    /// Closed blocks.
    pub blocks: u64,
    /// Gradient steps taken.
    pub steps: u64,
    /// Loss of the last gradient step, in nats.
    pub last_loss: Option<f32>,
    /// Number of fits.
    pub fits: u64,
    /// Number of promoted heads.
    pub promotions: u64,
    /// How often the collapse guard rolled the residual MLP back to its last sound weights.
    pub rollbacks: u64,
}

/// The result of a fit.
#[derive(Debug, Clone)]
pub struct FitOutcome {
    /// What is exported from `activate_at` on. If nothing was promoted, the head is the previous one.
    pub snapshot: Arc<Snapshot>,
    /// The candidates with their scores, and the decision.
    pub report: FitReport,
    /// From the previous space to that of the promoted head.
    pub transition: Option<SpaceTransition>,
}

/// The learner; see the module documentation. A clone measures no CPU time and never rests until it gets a governor.
#[derive(Debug, Clone)]
pub struct Learner {
    config: LearnerConfig,
    origin: LatentSpec,
    form: LatentLayout,
    /// Blocks, statistics, replay buffer and holdout.
    data: DataSet,
    /// The residual MLP and its training state.
    trained: ResidualTrainer,
    /// Candidates, the gate's baseline and the schedule of fits.
    selection: HeadSelection,
    /// Current and earlier snapshots.
    spaces: SpaceTracker,
    counts: LearnerCounts,
    /// Capture time of the newest sample.
    now: Timestamp,
    /// Index of the newest frame.
    frame: u64,
    /// Events since the last call of `take_events`.
    events: Vec<LearnerEvent>,
    governor: Box<dyn CpuGovernor>,
    spent: CpuTime,
    shared: Option<SharedFitCache>,
}

impl Learner {
    /// Creates a learner that has seen nothing and exports the frozen latents.
    ///
    /// # Errors
    /// `learn.replay.megabytes` is too small for latents of this size, `head.candidates` does not fit the latents, or
    /// `learn.objective.name` is unknown or does not fit the latents.
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

    /// Learns from one sample. Returns an outcome if a fit was due.
    ///
    /// # Errors
    /// The latent's length differs from the encoder's dimension.
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

    /// Ends a bounded source: closes the open block and, if there is anything new, makes a last fit.
    ///
    /// # Errors
    /// Same as [`Learner::learn`].
    pub fn finish(&mut self, last_index: u64) -> Result<Option<FitOutcome>> {
        self.data.blocks.finish().into_iter().try_for_each(|block| self.take(block))?;
        if self.counts.samples == self.selection.fitted_samples {
            return Ok(None);
        }
        self.fit(last_index, true)
    }

    /// Fits, runs the gate, promotes a head if one passes, and advances the schedule. Returns `None`, with nothing
    /// changed, if the fit was interrupted.
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

    /// Lets the CPU governor sleep after work.
    pub fn rest(&self) {
        self.governor.rest();
    }

    /// CPU time spent on long work so far.
    pub fn cpu_time(&self) -> CpuTime {
        self.spent
    }

    /// Samples still missing until the next fit, after counting those of the open block. At 0, the fit runs when that
    /// block ends.
    pub fn samples_to_fit(&self) -> u64 {
        self.selection.next_fit.saturating_sub(self.counts.samples + self.data.blocks.open())
    }

    /// Counters of the work so far.
    pub fn counts(&self) -> &LearnerCounts {
        &self.counts
    }

    /// Training state of the residual.
    pub fn state(&self) -> LearnerStatus {
        self.trained.guard.state()
    }

    /// Number of pairs in the scatter statistics.
    pub fn pairs(&self) -> u64 {
        self.data.scatter.pairs()
    }

    /// Number of augmented views in the scatter statistics.
    pub fn views(&self) -> u64 {
        self.data.scatter.views()
    }

    /// Skipped samples: those of static scenes, and those above `learn.frames_per_sec`.
    pub fn left_out(&self) -> (u64, u64) {
        let counts = self.data.blocks.counts();
        (counts.still, counts.rate_limited)
    }

    /// The report of the last fit, if there was one.
    pub fn last(&self) -> Option<&FitReport> {
        self.selection.last.as_ref()
    }

    /// The snapshot that is exported now.
    pub fn exported(&self) -> &Arc<Snapshot> {
        &self.spaces.exported
    }

    /// Bytes of replay memory in use.
    pub fn replay_bytes(&self) -> usize {
        self.data.replay.bytes()
    }

    /// One snapshot for each promoted head in the state, oldest first.
    pub fn promoted(&self) -> Vec<Arc<Snapshot>> {
        self.spaces.promoted()
    }

    /// Whether it learns from whole grids: its heads and its samples' latents are then grids instead of pooled latents.
    pub fn takes_grids(&self) -> bool {
        self.form.whole().is_some()
    }

    /// How many latents may wait in its queue: `learn.queue_latents`, but for whole grids no more than
    /// `learn.replay.megabytes` can hold.
    pub fn queue(&self) -> usize {
        let learn = &self.config.learn;
        let fit = |grid: Grid| ((learn.replay.megabytes * 1e6) as usize / (4 * grid.numbers())).max(8);
        self.form.whole().map_or(learn.queue_latents, |grid| learn.queue_latents.min(fit(grid)))
    }

    /// The learner's configuration.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// The snapshots that a stream resuming at `next_index` needs, oldest first: the one in use there and all later
    /// ones. A live stream needs only the newest.
    pub fn snapshots_from(&self, next_index: u64, live: bool) -> Vec<Arc<Snapshot>> {
        self.spaces.from(next_index, live)
    }

    /// Adopts a head that was promoted after the state was saved (in a live run that was cut off).
    pub fn adopt(&mut self, number: u64, head: Arc<Head>) {
        let head = Arc::new(self.form.head((*head).clone()));
        let space = space_of(&self.origin.encoder_sha256, &self.origin.card_hash, &head).into();
        let references = self.spaces.exported.references.clone();
        // The copy fitted without the held-out blocks is lost. The head itself stands in for it, which makes it harder
        // to replace.
        self.selection.judged = head.clone();
        self.spaces.exported = Arc::new(Snapshot { number, head, space, references, activate_at: 0 });
        self.spaces.handed_out = vec![self.spaces.exported.clone()];
    }

    /// Upper bound on the size of a head file in bytes, for the disk reserve.
    pub fn head_bytes(&self) -> u64 {
        let (d, head) = (self.form.dim() as u64, &self.config.head);
        let k =
            self.selection.candidates.iter().filter_map(|candidate| candidate.dim).fold(head.dim, usize::max) as u64;
        let weights = 4 * (d + d * k + head.hidden as u64 * (2 * k + 3) + k);
        // The largest map leads to or from a head that is concatenated with the frozen latents.
        let map = 4 * (d + k) * (k + 1);
        let views = if self.config.learn.augmentation.share > 0.0 { d * (d + 1) / 2 } else { 0 };
        let scatter = 8 * (d + d * (d + 1) + views);
        // Names, shapes and text, plus a line in the journal.
        weights + map + self.form.context_bytes(k, &self.config) + scatter + 65536
    }

    /// Takes the events since the last call, oldest first.
    pub fn take_events(&mut self) -> Vec<LearnerEvent> {
        std::mem::take(&mut self.events)
    }

    /// The scatter statistics of the slow head so far, without held-out blocks.
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
