//! The replay buffer as plain values, for a checkpoint.
use std::collections::BTreeSet;

use half::f16;
use serde::{Deserialize, Serialize};

use super::Replay;
use super::min_redundancy::Nearest;
use super::replay_block::ReplayBlock;
use crate::config::Training;
use crate::error::{Error, Result};
use crate::sampling::ViewBufferState;
use crate::sampling::pair_sampler::PairSamplerState;

/// The state of a [`Replay`], without its rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplayState {
    /// Length of a latent.
    pub dim: usize,
    /// The newest blocks, oldest first.
    pub fresh: Vec<ReplayBlockState>,
    /// The long-term blocks, in memory order.
    pub long: Vec<ReplayBlockState>,
    /// The nearest neighbour of each long-term block: the bits of its cosine and its number; empty for a reservoir.
    pub nearest: Vec<(u32, Option<u64>)>,
    /// Free rows, in the order in which they became free.
    pub free: Vec<u32>,
    /// Rows taken in so far.
    pub taken: u64,
    /// Frames with augmented views.
    pub viewed: ViewBufferState,
    /// State of the pair sampler: how fast latents move.
    pub gaps: PairSamplerState,
    /// Position of the random number generator, in words.
    pub word_pos: u64,
}

/// One block of a [`ReplayState`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayBlockState {
    /// Random priority in a reservoir.
    pub priority: u64,
    /// Number of the block in the stream.
    pub number: u64,
    /// The block's camera.
    pub camera: u16,
    /// The block's segment.
    pub segment: u64,
    /// How often it was drawn, and the turnover of the memory that this count refers to.
    pub uses: (u32, u32),
    /// Capture times, in nanoseconds.
    pub stamps: Vec<i64>,
    /// Its rows in the arena.
    pub slots: Vec<u32>,
}

impl Replay {
    /// The state to save, and the rows `[rows, d]` one after another.
    pub fn save(&self) -> (ReplayState, &[f16]) {
        let state = |s: &ReplayBlock| ReplayBlockState {
            priority: s.priority,
            number: s.number,
            camera: s.camera,
            segment: s.segment,
            uses: (s.uses, s.use_round),
            stamps: s.stamps.to_vec(),
            slots: s.slots.to_vec(),
        };
        let nearest = self.long.table.iter().flat_map(|t| &t.nearest).map(|n| (n.cosine.to_bits(), n.of));
        let state = ReplayState {
            dim: self.arena.dim,
            fresh: self.fresh.iter().map(state).collect(),
            long: self.long.blocks.iter().map(state).collect(),
            nearest: nearest.collect(),
            free: self.arena.free.clone(),
            taken: self.taken,
            viewed: self.viewed.save().0,
            gaps: self.gaps.save().clone(),
            word_pos: self.rng.get_word_pos() as u64,
        };
        (state, &self.arena.rows)
    }

    /// The rows of the frames with augmented views, to save together with [`Replay::save`].
    pub fn view_rows(&self) -> &[f16] {
        self.viewed.save().1
    }

    /// Restores the frames with augmented views, in addition to [`Replay::restore`].
    ///
    /// # Errors
    /// Same as [`ViewBuffer::restore`](crate::sampling::ViewBuffer::restore).
    pub fn restore_views(&mut self, state: ViewBufferState, rows: Vec<f16>) -> Result<()> {
        self.viewed.restore(state, rows)
    }

    /// Restores a saved `state` and `rows`; `config` is that of the run. A min-redundancy buffer takes over what a
    /// reservoir has kept, and vice versa.
    ///
    /// # Errors
    /// The parts do not fit together, or not into `learn.replay.megabytes`.
    pub fn restore(config: &Training, state: ReplayState, rows: &[f16]) -> Result<Self> {
        let mut replay = Self::new(config, state.dim)?;
        let count = rows.len() / state.dim.max(1);
        let places = Places { free: vec![true; count] };
        if rows.len() != count * state.dim {
            return Err(broken(&format!("{} numbers are no whole rows of {}", rows.len(), state.dim)));
        }
        if count > replay.capacity {
            return Err(Error::config(format!(
                "learn.replay.megabytes = {}: room for {} latents, the saved memory has {count}; go on with the value \
                 of the run that saved it, or begin a new one",
                config.replay.megabytes, replay.capacity
            )));
        }
        let (fresh, long) = places.take_all(&state)?;
        if fresh > replay.fresh_capacity || long > replay.capacity - replay.fresh_capacity {
            return Err(broken("its two parts are larger than the memory allows"));
        }
        let known = neighbours(&state)?;
        let stored = |s: ReplayBlockState| ReplayBlock {
            priority: s.priority,
            number: s.number,
            camera: s.camera,
            segment: s.segment,
            uses: s.uses.0,
            use_round: s.uses.1,
            stamps: s.stamps.into(),
            slots: s.slots.into(),
        };
        replay.arena.rows.extend_from_slice(rows);
        replay.arena.free.extend_from_slice(&state.free);
        replay.fresh.extend(state.fresh.into_iter().map(stored));
        for (block, nearest) in state.long.into_iter().zip(known) {
            replay.long.push(stored(block), Some(nearest), &replay.arena);
        }
        (replay.fresh_rows, replay.long.rows) = (fresh, long);
        replay.taken = state.taken;
        replay.gaps.restore(state.gaps);
        replay.rng.set_word_pos(state.word_pos.into());
        Ok(replay)
    }
}

/// The saved nearest neighbours; unknown ones if a reservoir was saved.
fn neighbours(state: &ReplayState) -> Result<Vec<Nearest>> {
    if state.nearest.is_empty() {
        return Ok(vec![Nearest::UNKNOWN; state.long.len()]);
    }
    if state.nearest.len() != state.long.len() {
        return Err(broken(&format!("{} neighbours for {} blocks", state.nearest.len(), state.long.len())));
    }
    let numbers: BTreeSet<u64> = state.long.iter().map(|b| b.number).collect();
    let nearest = |&(bits, of): &(u32, Option<u64>)| {
        let nearest = Nearest { cosine: f32::from_bits(bits), of };
        let known = of.is_none_or(|of| numbers.contains(&of)) || nearest == Nearest::NONE;
        if known && !nearest.cosine.is_nan() { Ok(nearest) } else { Err(broken("a neighbour is no block of it")) }
    };
    state.nearest.iter().map(nearest).collect()
}

/// The rows of the arena that are not assigned yet.
struct Places {
    free: Vec<bool>,
}

impl Places {
    /// Checks that every row is used exactly once. Returns the number of rows of the newest blocks and of the long-term
    /// ones.
    fn take_all(mut self, state: &ReplayState) -> Result<(usize, usize)> {
        let fresh = self.take_blocks(&state.fresh)?;
        let long = self.take_blocks(&state.long)?;
        self.take(&state.free)?;
        match self.free.iter().position(|&free| free) {
            Some(row) => Err(broken(&format!("row {row} is in no block and not free"))),
            None => Ok((fresh, long)),
        }
    }

    fn take_blocks(&mut self, blocks: &[ReplayBlockState]) -> Result<usize> {
        let mut rows = 0;
        for block in blocks {
            if block.stamps.len() != block.slots.len() || block.slots.is_empty() {
                return Err(broken(&format!("block {} has no rows, or not as many stamps as rows", block.number)));
            }
            self.take(&block.slots)?;
            rows += block.slots.len();
        }
        Ok(rows)
    }

    fn take(&mut self, slots: &[u32]) -> Result<()> {
        for &slot in slots {
            match self.free.get_mut(slot as usize) {
                Some(free) if *free => *free = false,
                _ => return Err(broken(&format!("row {slot} does not exist or is in two places"))),
            }
        }
        Ok(())
    }
}

fn broken(what: &str) -> Error {
    Error::runtime(format!("saved replay memory: {what}"))
}
