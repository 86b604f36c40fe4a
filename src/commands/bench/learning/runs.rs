//! Runs learners on the latents of a data set.
//!
//! Each fit restarts the residual on the new slow head. Before that, nothing learned depends on the objective or the
//! seed, except for trained heads promoted on the way. So one learner processes the whole stream, and those of the
//! other objectives and seeds branch off after the second-to-last fit.
use serde::Serialize;

use super::dataset::{Accuracy, DataSet};
use crate::config::Config;
use afterimage_learn::config::Objective;

use crate::error::{Error, Result};
use crate::health::EmbeddingHealth;
use crate::learner::{CandidateReport, LatentSpec, Learner, SharedFitCache};
use crate::process_stats::thread_cpu_time;

/// A candidate, measured with and without labels.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) label: String,
    #[serde(flatten)]
    pub(super) accuracy: Accuracy,
    pub(super) next_frame: f64,
    pub(super) auc: f64,
    pub(super) health: Option<EmbeddingHealth>,
}

impl Row {
    fn of(set: &DataSet, tried: CandidateReport) -> Result<Self> {
        let CandidateReport { label, head, next_frame: near, auc: far, health, .. } = tried;
        Ok(Self { label, accuracy: set.accuracy(&head)?, next_frame: near, auc: far, health })
    }
}

/// The result of one objective with one seed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    pub(super) objective: String,
    pub(super) seed: u64,
    /// Candidates made with the trained residual.
    pub(super) trained: Vec<Row>,
    /// The head exported at the end: its candidate, or the head from before the last fit.
    pub(super) chosen: String,
    pub(super) adapted: Accuracy,
    /// Accuracy of the best candidate by labels minus that of the exported head, mean of 1-NN and 5-NN, in points.
    pub(super) regret: f64,
    /// Gradient steps since the second-to-last fit.
    pub(super) steps: u64,
    /// CPU time of the learner since then, in seconds.
    pub(super) secs: f64,
    /// The reason given by the promotion gate.
    pub(super) reason: String,
}

/// An objective that does not fit.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Skipped {
    pub(super) objective: String,
    pub(super) why: String,
}

/// All runs on one set.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Runs {
    /// The frozen latents and the closed-form candidates.
    pub(super) closed_form: Vec<Row>,
    pub(super) trials: Vec<Run>,
    /// Skipped objectives, with reasons.
    pub(super) left_out: Vec<Skipped>,
    /// CPU time of the learner that processed the whole stream, in seconds.
    pub(super) whole_secs: f64,
    /// Number of its fits.
    pub(super) fits: u64,
}

/// `jobs` has a configuration for each objective and seed. One learner processes the whole stream: that of the first
/// job, or of the first with `instance`, because only then are frames stored with their views.
pub(super) fn run(set: &DataSet, origin: &LatentSpec, jobs: &[Config]) -> Result<Runs> {
    let viewed = jobs.iter().find(|job| job.learn.objective.name.has(Objective::Instance));
    let Some(first) = viewed.or(jobs.first()) else { return Err(Error::usage("no objective fits this configuration")) };
    let began = thread_cpu_time();
    let shared = SharedFitCache::default();
    let mut learner = Learner::new(&first.learner(), origin.clone(), None)?;
    learner.share_fits(shared);
    let (mut fork, mut from) = (learner.clone(), 0);
    for (i, sample) in set.samples.iter().enumerate() {
        if learner.learn(sample)?.is_some() {
            (fork, from) = (learner.clone(), i + 1);
        }
    }
    let last = set.samples.last().map_or(0, |sample| sample.index);
    let (_, tried) = learner.finish_with_candidates(last, true)?;
    let fits = learner.counts().fits;
    drop(learner);
    let whole_secs = (thread_cpu_time() - began).as_secs_f64();
    let closed_form: Vec<Row> =
        tried.into_iter().filter(|t| !t.trained).map(|t| Row::of(set, t)).collect::<Result<_>>()?;
    tracing::info!("{}: {fits} fits over the whole stream in {whole_secs:.0} s", set.name);
    let mut trials = Vec::new();
    for (done, config) in jobs.iter().enumerate() {
        let trial = trial(set, &fork, from, config, &closed_form)?;
        tracing::info!(
            "{}: {} of {}: {} seed {}: {:.3} ({}) in {:.0} s",
            set.name,
            done + 1,
            jobs.len(),
            trial.objective,
            trial.seed,
            trial.adapted.mean(),
            trial.chosen,
            trial.secs
        );
        trials.push(trial);
    }
    Ok(Runs { closed_form, trials, left_out: Vec::new(), whole_secs, fits })
}

fn trial(set: &DataSet, fork: &Learner, from: usize, config: &Config, closed_form: &[Row]) -> Result<Run> {
    let began = thread_cpu_time();
    let mut learner = fork.fork(&config.learner());
    let before = learner.counts().steps;
    for sample in &set.samples[from..] {
        learner.learn(sample)?;
    }
    let last = set.samples.last().map_or(0, |sample| sample.index);
    let (outcome, tried) = learner.finish_with_candidates(last, false)?;
    let secs = (thread_cpu_time() - began).as_secs_f64();
    let trained: Vec<Row> = tried.into_iter().map(|t| Row::of(set, t)).collect::<Result<_>>()?;
    let adapted = set.accuracy(&learner.exported().head)?;
    let best = closed_form.iter().chain(&trained).map(|row| row.accuracy.mean()).fold(adapted.mean(), f64::max);
    let decision = outcome.as_ref().map(|outcome| &outcome.report);
    let promoted = decision.filter(|d| d.promoted.is_some());
    let chosen = match promoted {
        Some(decision) => {
            let of = decision.chosen.and_then(|chosen| decision.candidates.get(chosen));
            of.map_or_else(|| "frozen (again)".to_owned(), crate::learner::CandidateOutcome::label)
        }
        None if learner.exported().number == 0 => "frozen".to_owned(),
        None => "head of an earlier fit".to_owned(),
    };
    Ok(Run {
        objective: config.learn.objective.name.to_string(),
        seed: config.learn.seed,
        trained,
        chosen,
        adapted,
        regret: 100.0 * (best - adapted.mean()),
        steps: learner.counts().steps - before,
        secs,
        reason: decision.map_or_else(String::new, |d| d.reason.clone()),
    })
}
