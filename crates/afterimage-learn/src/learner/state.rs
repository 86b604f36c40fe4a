//! Saves the learner as text and arrays, and restores it exactly.
use std::sync::Arc;

use half::f16;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use super::collapse_guard::{CollapseGuard, GuardState};
use super::columns::{put_held, put_open, put_replay, take_held, take_open, take_replay};
use super::data_set::reference_size;
use super::latent_layout::LatentLayout;
use super::trainer::Residual;
use super::{Learner, LearnerCounts, Snapshot};
use crate::Timestamp;
use crate::error::Result;
use crate::gate::{Holdout, HoldoutState};
use crate::head::Head;
use crate::sampling::{BlockBuilderState, Replay, ReplayState};
use crate::state_dict::{LoadedTensors, StateDict, TensorView};

/// The part of the state that does not grow with the stream.
#[derive(Debug, Serialize, Deserialize)]
struct Small {
    counts: LearnerCounts,
    next_fit: u64,
    credit: u64,
    fitted_samples: u64,
    now: i64,
    promoted_at: Option<i64>,
    rng_word: u64,
    blocks: BlockBuilderState,
    replay: ReplayState,
    held: HoldoutState,
    /// Whether there is a residual.
    residual: bool,
    /// Whether there are sound weights to roll back to.
    sound: bool,
    watch: GuardState,
    warned: bool,
    frame: u64,
    still: (u64, u64),
    reference: HoldoutState,
    reference_gain: Option<f64>,
    snapshots: Vec<SmallSnapshot>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SmallSnapshot {
    number: u64,
    space: String,
    activate_at: u64,
    references: usize,
}

impl Learner {
    /// Saves the learner with `write`, together with the arrays in `more`. `next_index` is the first frame that the
    /// learner has not seen; whatever the stream no longer needs before that frame is dropped.
    ///
    /// # Errors
    /// Any error of `write`.
    pub fn save(
        &mut self,
        next_index: u64,
        more: Vec<(String, TensorView<'_>)>,
        mut write: impl FnMut(&mut StateDict<'_>) -> Result<()>,
    ) -> Result<()> {
        self.spaces.handed_out = self.snapshots_from(next_index, false);
        let mut contents = StateDict::default();
        let (mut blocks, open_rows, open_views) = self.data.blocks.save();
        let (mut replay, replay_rows) = self.data.replay.save();
        let (mut held, held_rows) = self.data.holdout.save();
        let (mut reference, reference_rows) = self.data.reference.save();
        put_open(&mut contents, &mut blocks);
        put_replay(&mut contents, &mut replay);
        put_held(&mut contents, "held", &mut held);
        put_held(&mut contents, "reference", &mut reference);
        let small = Small {
            counts: self.counts.clone(),
            next_fit: self.selection.next_fit,
            credit: self.trained.credit,
            fitted_samples: self.selection.fitted_samples,
            now: self.now.0,
            promoted_at: self.selection.promoted_at.map(|stamp| stamp.0),
            // A seeded stream stays far below 2^64 words.
            rng_word: self.trained.rng.get_word_pos() as u64,
            blocks,
            replay,
            held,
            residual: self.trained.residual.is_some(),
            sound: self.trained.guard.sound.is_some(),
            watch: self.trained.guard.memory.clone(),
            warned: self.trained.warned,
            frame: self.frame,
            still: (self.data.still_seen, self.data.still_run),
            reference,
            reference_gain: self.selection.reference_gain,
            snapshots: self.spaces.handed_out.iter().map(|s| small_snapshot(s)).collect(),
        };
        contents.json("learner", &small)?;
        contents.scatter("scatter.", &self.data.scatter);
        contents.scatter("held_scatter.", &self.data.holdout_scatter);
        let flat = |name: &str, values| (name.to_owned(), values);
        contents.tensors.extend([
            flat("open.rows", TensorView::new(&[open_rows.len()], &open_rows)),
            flat("open.view_rows", TensorView::new(&[open_views.len()], &open_views)),
            flat("replay.rows", TensorView::new(&[replay_rows.len()], replay_rows)),
            flat("replay.views", TensorView::new(&[self.data.replay.view_rows().len()], self.data.replay.view_rows())),
            flat("held.rows", TensorView::new(&[held_rows.len()], &held_rows)),
            flat("reference.rows", TensorView::new(&[reference_rows.len()], &reference_rows)),
        ]);
        contents.head("holdout_head.", &self.selection.judged);
        if let Some(residual) = &self.trained.residual {
            residual.save(&mut contents, "residual.");
        }
        if let Some(sound) = &self.trained.guard.sound {
            sound.save(&mut contents, "sound.");
        }
        for (i, snapshot) in self.spaces.handed_out.iter().enumerate() {
            contents.head(&format!("snapshot{i}.head."), &snapshot.head);
            contents.array(format!("snapshot{i}.references"), &snapshot.references);
        }
        contents.tensors.extend(more);
        write(&mut contents)
    }

    /// Restores a saved state. On an error, the learner is unchanged.
    ///
    /// # Errors
    /// Parts are missing, or do not fit together or the configuration.
    pub fn restore(&mut self, stored: &mut LoadedTensors) -> Result<()> {
        let (form, dim) = (self.form, self.form.dim());
        let mut small: Small = stored.take_json("learner")?;
        take_open(stored, &mut small.blocks)?;
        take_replay(stored, &mut small.replay)?;
        take_held(stored, "held", &mut small.held)?;
        take_held(stored, "reference", &mut small.reference)?;
        fits(stored, form, &small)?;
        let scatter = stored.take_scatter("scatter.", dim)?;
        let held_scatter = stored.take_scatter("held_scatter.", dim)?;
        let mut blocks = self.data.blocks.clone();
        let [len] = stored.shape("open.rows")?;
        let [views_len] = stored.shape("open.view_rows")?;
        let view_rows = stored.take("open.view_rows", &[views_len])?;
        blocks.restore(small.blocks, stored.take("open.rows", &[len])?, view_rows)?;
        let [len] = stored.shape("replay.rows")?;
        let rows: Vec<f16> = stored.take("replay.rows", &[len])?;
        let [len] = stored.shape("replay.views")?;
        let views = stored.take("replay.views", &[len])?;
        let viewed = small.replay.viewed.clone();
        let mut replay = Replay::restore(&self.config.learn, small.replay, &rows)?;
        replay.restore_views(viewed, views)?;
        drop(rows);
        let [len] = stored.shape("held.rows")?;
        let held =
            Holdout::restore(&self.selection.promotion_config, small.held, &stored.take::<f32>("held.rows", &[len])?)?;
        let [len] = stored.shape("reference.rows")?;
        let rows = stored.take::<f32>("reference.rows", &[len])?;
        let reference = Holdout::restore(&reference_size(&self.config.promotion), small.reference, &rows)?;
        let judged = Arc::new(own_head(stored, form, "holdout_head.")?);
        let residual = small
            .residual
            .then(|| Residual::restore(stored, &self.config, form.whole(), dim, "residual."))
            .transpose()?;
        let sound =
            small.sound.then(|| Residual::restore(stored, &self.config, form.whole(), dim, "sound.")).transpose()?;
        let mut handed_out = Vec::new();
        for (i, saved) in small.snapshots.into_iter().enumerate() {
            let head = own_head(stored, form, &format!("snapshot{i}.head."))?;
            handed_out.push(Arc::new(Snapshot {
                number: saved.number,
                head: Arc::new(head),
                space: saved.space.into(),
                references: stored.take_matrix(&format!("snapshot{i}.references"), saved.references, dim)?,
                activate_at: saved.activate_at,
            }));
        }
        let Some(exported) = handed_out.last().cloned() else { return Err(stored.wrong("has no head in use")) };
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.learn.seed);
        rng.set_word_pos(u128::from(small.rng_word));
        (self.data.scatter, self.data.holdout_scatter, self.data.blocks) = (scatter, held_scatter, blocks);
        (self.data.replay, self.data.holdout, self.selection.judged) = (replay, held, judged);
        (self.trained.residual, self.trained.rng, self.counts) = (residual, rng, small.counts);
        (self.selection.next_fit, self.trained.credit, self.selection.fitted_samples) =
            (small.next_fit, small.credit, small.fitted_samples);
        (self.data.reference, self.selection.reference_gain) = (reference, small.reference_gain);
        (self.trained.warned, self.frame) = (small.warned, small.frame);
        (self.data.still_seen, self.data.still_run) = small.still;
        self.trained.guard = CollapseGuard { memory: small.watch, sound };
        (self.now, self.selection.promoted_at) = (Timestamp(small.now), small.promoted_at.map(Timestamp));
        (self.spaces.handed_out, self.spaces.exported) = (handed_out, exported);
        Ok(())
    }
}

/// Loads a head of the state. It must take the run's latents and be valid before anything is embedded with it.
fn own_head(stored: &mut LoadedTensors, form: LatentLayout, prefix: &str) -> Result<Head> {
    let head = form.head(stored.take_head(prefix)?);
    if (head.latent_dim(), head.dim_in()) != (form.dim(), form.numbers()) {
        let found = (head.latent_dim(), head.dim_in());
        return Err(stored.wrong(format!(
            "has a head {prefix:?} for latents of {} ({} numbers), the run's have {} ({})",
            found.0,
            found.1,
            form.dim(),
            form.numbers()
        )));
    }
    head.check().map_err(|e| stored.wrong(format!("has a head {prefix:?} that makes no sense")).with_source(e))?;
    Ok(head)
}

/// Checks that every part with a latent length has the length of the run's latents. Any other length would look like
/// the end of a block, or would panic.
fn fits(stored: &LoadedTensors, form: LatentLayout, small: &Small) -> Result<()> {
    let numbers = form.numbers();
    let open = small.blocks.cameras.iter().flat_map(|(_, _, before, open)| before.iter().chain(open));
    let open = open.map(|open| ("an open block", open.dim, false));
    let still = small.blocks.still.iter().map(|still| ("a still scene", still.dim(), still.dim() == 0));
    let held = [("held-out blocks", &small.held), ("reference blocks", &small.reference)];
    let held = held.map(|(what, held)| (what, held.dim, held.blocks.is_empty()));
    let all = open.chain(still).chain(held).chain([("replay", small.replay.dim, false)]);
    match all.into_iter().find(|&(_, dim, none)| dim != numbers && !none) {
        None => Ok(()),
        Some((what, dim, _)) => Err(stored.wrong(format!("has {what} of latents of {dim}, the run's have {numbers}"))),
    }
}

fn small_snapshot(snapshot: &Snapshot) -> SmallSnapshot {
    SmallSnapshot {
        number: snapshot.number,
        space: snapshot.space.to_string(),
        activate_at: snapshot.activate_at,
        references: snapshot.references.nrows(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#[path = "state_tests.rs"]
mod tests;
