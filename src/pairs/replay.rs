//! Latents of the past in fixed memory, so that every batch mixes what is new with what was long ago. See [`Replay`].
use std::collections::{BinaryHeap, VecDeque};

use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::{Array2, Array3};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Block;
use super::batch::{Batch, choose, draw, gap_range};
use super::stored::Stored;
use crate::config::Learn;
use crate::error::{Error, Result};
use crate::linalg::random::below;
use crate::linalg::{normalise, slices_mut};

/// Blocks of f16 latents in `learn.replay_megabytes` (a megabyte is 10^6 bytes), bookkeeping included.
///
/// The memory is counted in rows and decided at the start: a row costs its latent, its stamp, its place, and a block's
/// bookkeeping, as if every block had one row. The rows are reserved at once and touched as they fill; nothing grows
/// beyond. A quarter of the rows holds the newest blocks. A block that leaves it competes for the rest, a *reservoir*:
/// every block draws a random priority when it comes, and the reservoir is the blocks with the largest priorities that
/// fit. So every block of the past is there with the same chance (Efraimidis & Spirakis 2006 with equal weights), not
/// only the recent ones, and a row is free the moment its block goes.
#[derive(Debug, Clone)]
pub struct Replay {
    pub(super) dim: usize,
    /// Rows in all, and of these for the newest blocks.
    pub(super) capacity: usize,
    pub(super) fresh_capacity: usize,
    /// `[rows, d]`, row after row.
    pub(super) arena: Vec<f16>,
    /// Rows of the arena that hold nothing.
    pub(super) free: Vec<u32>,
    /// The newest blocks, oldest first.
    pub(super) fresh: VecDeque<Stored>,
    /// The reservoir; the least priority is at the top.
    pub(super) long: BinaryHeap<Stored>,
    pub(super) fresh_rows: usize,
    pub(super) long_rows: usize,
    /// Draws the priorities.
    pub(super) rng: ChaCha8Rng,
}

/// Which of the run's random streams draws the priorities.
const STREAM: u64 = 0x7265_706c_6179;

/// Bytes of a block beside its rows: its record in a container that may be half empty, and two small allocations.
const BLOCK_BYTES: usize = 2 * size_of::<Stored>() + 32;
/// Bytes of a row beside its latent: stamp, place, and an entry among the free rows (in a list that may be half empty).
const ROW_BYTES: usize = size_of::<i64>() + size_of::<u32>() + 2 * size_of::<u32>();
/// Fewer rows than this make no batches.
const LEAST_ROWS: usize = 16;

impl Replay {
    /// Empty, for latents of length `dim`.
    ///
    /// # Errors
    /// The memory holds fewer than 16 latents, or cannot be had.
    pub fn new(config: &Learn, dim: usize) -> Result<Self> {
        let bytes = (config.replay_megabytes * 1e6) as usize;
        let row = dim.saturating_mul(size_of::<f16>()).saturating_add(ROW_BYTES + BLOCK_BYTES);
        let capacity = (bytes / row).min(u32::MAX as usize);
        if capacity < LEAST_ROWS {
            return Err(Error::config(format!(
                "learn.replay_megabytes = {}: room for {capacity} latents of {dim} numbers; at least {LEAST_ROWS} are \
                 needed, that is {:.3} megabytes",
                config.replay_megabytes,
                row.saturating_mul(LEAST_ROWS) as f64 * 1e-6
            )));
        }
        let mut arena = Vec::new();
        arena.try_reserve_exact(capacity * dim).map_err(|e| {
            Error::config(format!("learn.replay_megabytes = {}: no such memory to be had", config.replay_megabytes))
                .because(e)
        })?;
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(STREAM);
        Ok(Self {
            dim,
            capacity,
            fresh_capacity: capacity / 4,
            arena,
            free: Vec::new(),
            fresh: VecDeque::new(),
            long: BinaryHeap::new(),
            fresh_rows: 0,
            long_rows: 0,
            rng,
        })
    }

    /// Takes a training block; older ones go as needed. Costs its rows, and the logarithm of the number of blocks.
    ///
    /// Of a block with more rows than a quarter of the memory, the first that fit are kept. A block whose latents have
    /// another length is left out.
    pub fn insert(&mut self, block: &Block) {
        let rows = block.stamps.len().min(block.latents.nrows()).min(self.fresh_capacity);
        if rows == 0 || block.latents.ncols() != self.dim {
            return;
        }
        while self.fresh_rows + rows > self.fresh_capacity {
            let Some(oldest) = self.fresh.pop_front() else { break };
            self.fresh_rows -= oldest.slots.len();
            self.retire(oldest);
        }
        let slots = block.latents.rows().into_iter().take(rows).map(|row| self.place(row.iter().copied())).collect();
        self.fresh.push_back(Stored {
            priority: self.rng.next_u64(),
            number: block.number,
            camera: block.camera,
            segment: block.segment,
            stamps: block.stamps.iter().take(rows).map(|s| s.0).collect(),
            slots,
        });
        self.fresh_rows += rows;
    }

    /// Pairs of latents for one step, or `None` where fewer than two blocks hold a pair.
    ///
    /// Half of the pairs are of the newest blocks and half of the reservoir; where one has too few blocks, the other
    /// gives more. Every pair is of another block, if possible of another segment; with fewer blocks than pairs the
    /// blocks are gone through again. The earlier frame of a pair is drawn evenly from those that have a partner, the
    /// later evenly from its partners: frames of the block `gap_min` to `gap_max` seconds later (to the microsecond).
    ///
    /// The same state and `rng` give the same batch.
    pub fn batch(&self, pairs: usize, gap_min: f64, gap_max: f64, rng: &mut ChaCha8Rng) -> Option<Batch> {
        let fresh: Vec<&Stored> = self.fresh.iter().collect();
        let long: Vec<&Stored> = self.long.iter().collect();
        let picks = draw(fresh, long, pairs, gap_range(gap_min, gap_max), rng)?;
        let same = |i: usize, j: usize| picks[i].number == picks[j].number;
        Some(Batch {
            a: self.gather(picks.iter().map(|p| p.a)),
            b: self.gather(picks.iter().map(|p| p.b)),
            negatives: Array2::from_shape_fn((picks.len(), picks.len()), |(i, j)| !same(i, j)),
            segments: picks.iter().map(|p| p.segment).collect(),
        })
    }

    /// Runs of frames for objectives that predict the future: `[count, len, d]`, unit rows; run `i` is `len` consecutive
    /// kept frames of one block. `None` where no block is that long.
    ///
    /// Half of the runs are of the newest blocks and half of the long-term ones, each of another block as far as there
    /// are enough; the first frame of a run is drawn evenly. The same state and `rng` give the same runs.
    pub fn sequences(&self, count: usize, len: usize, rng: &mut ChaCha8Rng) -> Option<Array3<f32>> {
        if len == 0 {
            return None;
        }
        let fresh: Vec<&Stored> = self.fresh.iter().collect();
        let long: Vec<&Stored> = self.long.iter().collect();
        let blocks = choose(fresh, long, count, &|block| block.slots.len() >= len, rng);
        if blocks.is_empty() {
            return None;
        }
        let mut slots = Vec::with_capacity(count * len);
        for k in 0..count {
            let block = blocks[k % blocks.len()];
            let from = below(rng, block.slots.len() - len + 1);
            slots.extend_from_slice(&block.slots[from..from + len]);
        }
        self.gather(slots.into_iter()).into_shape_with_order((count, len, self.dim)).ok()
    }

    /// At most `count` latents, evenly spread over everything in memory in the order of the stream: `[n, d]`, unit rows.
    pub fn references(&self, count: usize) -> Array2<f32> {
        let mut blocks: Vec<&Stored> = self.long.iter().chain(&self.fresh).collect();
        blocks.sort_unstable_by_key(|b| b.number);
        let all: Vec<u32> = blocks.iter().flat_map(|b| b.slots.iter().copied()).collect();
        let count = count.min(all.len());
        self.gather((0..count).map(|k| all[k * all.len() / count]))
    }

    /// Latents in memory.
    pub fn len(&self) -> usize {
        self.fresh_rows + self.long_rows
    }

    /// True before the first block.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Latents that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The most memory this ever takes, bytes.
    pub fn bytes(&self) -> usize {
        self.capacity * (self.dim * size_of::<f16>() + ROW_BYTES + BLOCK_BYTES)
    }

    /// A block leaves the newest: into the reservoir, where its priority is large enough.
    fn retire(&mut self, block: Stored) {
        let rows = block.slots.len();
        while self.long_rows + rows > self.capacity - self.fresh_capacity {
            match self.long.peek() {
                Some(least) if (least.priority, least.number) < (block.priority, block.number) => {
                    if let Some(gone) = self.long.pop() {
                        self.long_rows -= gone.slots.len();
                        self.free.extend_from_slice(&gone.slots);
                    }
                }
                _ => {
                    self.free.extend_from_slice(&block.slots);
                    return;
                }
            }
        }
        self.long_rows += rows;
        self.long.push(block);
    }

    /// Writes a latent into a free row of the arena, or a new one; which.
    fn place(&mut self, latent: impl Iterator<Item = f32>) -> u32 {
        let row = latent.map(f16::from_f32);
        match self.free.pop() {
            Some(slot) => {
                let start = slot as usize * self.dim;
                self.arena[start..start + self.dim].iter_mut().zip(row).for_each(|(to, from)| *to = from);
                slot
            }
            None => {
                let slot = self.arena.len() / self.dim.max(1);
                self.arena.extend(row);
                slot as u32
            }
        }
    }

    /// `[n, d]`, made unit again after their time as f16.
    fn gather(&self, slots: impl ExactSizeIterator<Item = u32>) -> Array2<f32> {
        let mut out = Array2::zeros((slots.len(), self.dim));
        for (row, slot) in slices_mut(&mut out).zip(slots) {
            let start = slot as usize * self.dim;
            self.arena[start..start + self.dim].convert_to_f32_slice(row);
            normalise(row);
        }
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "replay_tests.rs"]
mod tests;
