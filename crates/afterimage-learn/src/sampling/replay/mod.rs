//! Past latents in fixed memory, so that every batch mixes recent and long-past frames. See [`Replay`].
mod arena;
mod sampling;
mod min_redundancy;
mod top_k;
mod state;
mod replay_block;

use std::collections::VecDeque;

use half::f16;
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::false_negative_mask::{FalseNegativeMask, PairAnchor};
use super::{Batch, Block, PairSampler, SequenceBatch, ViewBuffer};
use crate::config::{ReplayPolicy, Training};
use crate::error::{Error, Result};
use crate::linalg::random::uniform_below;
use arena::Arena;
use min_redundancy::MinRedundancyBuffer;
use replay_block::ReplayBlock;
use sampling::{SampledRows, choose, pick};
pub use state::{ReplayBlockState, ReplayState};
use top_k::Sketcher;

/// The replay buffer: blocks of f16 latents in `learn.replay.megabytes` (a megabyte is 10^6 bytes), bookkeeping
/// included.
///
/// The memory is counted in rows and fixed at the start: a row costs its latent, its timestamp, its index, and a
/// block's bookkeeping, as if every block had one row. Everything is reserved at once and touched as it fills; nothing
/// grows beyond that. A quarter of the rows holds the newest blocks. A block that leaves this quarter competes for the
/// rest by `learn.replay.policy`:
///
/// - `min-redundancy` (Purushwalkam, Morgado, Gupta 2022, arXiv 2203.12710): drops the block whose nearest neighbour is
///   nearest, by the cosine of their keys; of the two, the older. The key of a block is the unit mean of its latents;
///   the encoder is frozen, so keys never become stale. A scene that stays the same for hours thus fills the memory
///   only once. The neighbours are a table that is updated with each block: a new block is compared with all others by
///   64-byte sketches, and exactly with the best 16. If a neighbour is dropped, its replacement is looked up only when
///   it matters. *Strata* (one per camera and hour of the day) have equal claims: only those above an even share give
///   up blocks, and the long-term half of a batch is drawn evenly over strata, so that the days around a night do not
///   squeeze it out.
/// - `reservoir`: every block draws a random priority on arrival, and the blocks with the largest priorities stay.
///   Every past block is kept with the same probability (Efraimidis & Spirakis 2006 with equal weights).
///
/// *Reuse is bounded*: a block that was drawn `learn.replay.max_uses` times per row rests until the memory has taken in
/// as many rows as it holds. If all blocks rest, there is no batch: nothing is left to learn until something new
/// arrives.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Number of rows in total, and of those for the newest blocks.
    capacity: usize,
    fresh_capacity: usize,
    arena: Arena,
    /// The newest blocks, oldest first.
    fresh: VecDeque<ReplayBlock>,
    fresh_rows: usize,
    long: MinRedundancyBuffer,
    /// Frames with augmented views; they share the memory.
    viewed: ViewBuffer,
    gaps: PairSampler,
    false_negatives: FalseNegativeMask,
    positives: usize,
    /// How often a block may be drawn per row in one turnover.
    uses: u32,
    /// Rows taken in so far; every `capacity` rows are one turnover.
    taken: u64,
    /// Generator of the priorities.
    rng: ChaCha8Rng,
}

/// The random streams of the run for the priorities and the sketches.
const STREAMS: [u64; 2] = [0x7265_706c_6179, 0x736b_6574_6368];
/// Bytes of a block: its record, once among the newest and once among the others, and two small allocations.
const BLOCK_BYTES: usize = MinRedundancyBuffer::BLOCK_BYTES + size_of::<ReplayBlock>() / 4 + 32;
/// Bytes of a row besides its latent: timestamp, index, and an entry in the list of free rows.
const ROW_BYTES: usize = size_of::<i64>() + size_of::<u32>() + size_of::<u32>();
/// Fewer rows than this make no batch.
const LEAST_ROWS: usize = 16;

impl Replay {
    /// Creates an empty buffer for latents of length `dim`.
    ///
    /// # Errors
    /// The memory holds fewer than 16 latents, or cannot be allocated.
    pub fn new(config: &Training, dim: usize) -> Result<Self> {
        let bytes = (config.replay.megabytes * 1e6 * (1.0 - ViewBuffer::share(config))) as usize;
        let row = dim.saturating_mul(size_of::<f16>()).saturating_add(ROW_BYTES + BLOCK_BYTES);
        // The sketches' own table takes one byte per coordinate.
        let capacity = (bytes.saturating_sub(dim) / row).min(u32::MAX as usize);
        if capacity < LEAST_ROWS {
            return Err(Error::config(format!(
                "learn.replay.megabytes = {}: room for {capacity} latents of {dim} numbers; at least {LEAST_ROWS} are \
                 needed, that is {:.3} megabytes",
                config.replay.megabytes,
                row.saturating_mul(LEAST_ROWS).saturating_add(dim) as f64 * 1e-6
            )));
        }
        let fresh_capacity = capacity / 4;
        let sketcher =
            (config.replay.policy == ReplayPolicy::MinRedundancy).then(|| Sketcher::new(dim, config.seed, STREAMS[1]));
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(STREAMS[0]);
        Ok(Self {
            capacity,
            fresh_capacity,
            arena: Arena::reserve(dim, capacity)?,
            fresh: VecDeque::with_capacity(fresh_capacity),
            fresh_rows: 0,
            long: MinRedundancyBuffer::new(capacity - fresh_capacity, sketcher),
            viewed: ViewBuffer::new(config, dim),
            gaps: PairSampler::new(&config.sampling),
            false_negatives: FalseNegativeMask::new(&config.sampling),
            positives: config.sampling.positives.max(1),
            uses: config.replay.max_uses,
            taken: 0,
            rng,
        })
    }

    /// Adds a training block and drops older ones as needed.
    ///
    /// Of a block with more rows than a quarter of the memory, the first rows that fit are kept. A block whose latents
    /// have another length is skipped.
    pub fn insert(&mut self, block: &Block) {
        let rows = block.stamps.len().min(block.latents.nrows()).min(self.fresh_capacity);
        if rows == 0 || block.latents.ncols() != self.arena.dim {
            return;
        }
        self.gaps.learn(block);
        self.viewed.insert(block);
        while self.fresh_rows + rows > self.fresh_capacity {
            let Some(oldest) = self.fresh.pop_front() else { break };
            self.fresh_rows -= oldest.slots.len();
            self.long.admit(oldest, &mut self.arena);
        }
        let latents = block.latents.rows().into_iter().take(rows);
        let slots = latents.map(|row| self.arena.place(row.iter().copied())).collect();
        self.fresh.push_back(ReplayBlock {
            priority: self.rng.next_u64(),
            number: block.number,
            camera: block.camera,
            segment: block.segment,
            uses: 0,
            use_round: self.turn(),
            stamps: block.stamps.iter().take(rows).map(|s| s.0).collect(),
            slots,
        });
        self.fresh_rows += rows;
        self.taken += rows as u64;
    }

    /// Draws pairs of latents for one step. Returns `None` if fewer than two blocks contain a pair and do not rest.
    ///
    /// Half of the pairs come from the newest blocks and half from the long-term ones (evenly over strata); if one half
    /// has too few blocks, the other provides more. Every anchor comes from a different block, if possible from a
    /// different segment; with fewer blocks than anchors, the blocks are used repeatedly. The earlier frame of a pair
    /// (the anchor) is drawn uniformly from those that have a partner. It gets `learn.sampling.positives` partners,
    /// chosen by [`PairSampler`]; if it has fewer, it gets all of them, and another anchor of the block gets the rest.
    ///
    /// The same state and `rng` give the same batch.
    pub fn batch(&mut self, pairs: usize, rng: &mut ChaCha8Rng) -> Option<Batch> {
        let turn = self.turn();
        let blocks: Vec<&ReplayBlock> = self.fresh.iter().chain(&self.long.blocks).collect();
        let fit =
            |b: &ReplayBlock| !self.rests(b, turn) && self.gaps.partners(&b.stamps).any(|(_, from, to)| from < to);
        let chosen = choose(&blocks, self.halves(), pairs.div_ceil(self.positives), &fit, rng);
        if chosen.len() < 2 {
            return None;
        }
        let mut picks: Vec<(SampledRows, usize, usize)> = Vec::with_capacity(pairs);
        for &at in chosen.iter().cycle() {
            let wanted = self.positives.min(pairs - picks.len());
            if wanted == 0 {
                break;
            }
            let block = blocks[at];
            let drawn = SampledRows { at, number: block.number };
            let found = pick(block, wanted, &self.gaps, &self.arena, rng);
            picks.extend(found.into_iter().map(|(a, b)| (drawn, a, b)));
        }
        let slot = |side: fn(&(SampledRows, usize, usize)) -> usize| {
            picks
                .iter()
                .map(move |p| (p.0.at, side(p)))
                .collect::<Vec<_>>()
                .into_iter()
                .map(|(at, i)| blocks[at].slots[i])
        };
        let a = self.arena.gather(slot(|p| p.1));
        let b = self.arena.gather(slot(|p| p.2));
        let frames: Vec<PairAnchor> = picks
            .iter()
            .map(|&(SampledRows { at, number }, a, _)| {
                let block = blocks[at];
                PairAnchor { block: number, camera: block.camera, segment: block.segment, stamp: block.stamp(a) }
            })
            .collect();
        let negatives = self.false_negatives.mask(&frames, a.view(), b.view());
        let blocks = frames.iter().map(|f| f.block).collect();
        let segments = frames.iter().map(|f| f.segment).collect();
        picks.iter().for_each(|p| self.used(p.0.at, turn));
        Some(Batch { a, b, negatives, blocks, segments })
    }

    /// Draws at most `count` frames with their augmented views, for `instance`; `None` while there are fewer than two.
    /// See [`ViewBuffer::batch`].
    pub fn views(&self, count: usize, rng: &mut ChaCha8Rng) -> Option<Batch> {
        self.viewed.batch(count, rng)
    }

    /// Draws sequences for predictive objectives: `count` sequences of `len` consecutive kept frames of one block.
    /// Returns `None` if no block is that long (and does not rest).
    ///
    /// Half of the sequences come from the newest blocks and half from the long-term ones, each from a different block
    /// if there are enough; the first frame of a sequence is drawn uniformly. The same state and `rng` give the same
    /// sequences.
    pub fn sequences(&mut self, count: usize, len: usize, rng: &mut ChaCha8Rng) -> Option<SequenceBatch> {
        let turn = self.turn();
        let blocks: Vec<&ReplayBlock> = self.fresh.iter().chain(&self.long.blocks).collect();
        let fit = |b: &ReplayBlock| !self.rests(b, turn) && b.slots.len() >= len;
        let chosen = choose(&blocks, self.halves(), count, &fit, rng);
        if chosen.is_empty() || len == 0 {
            return None;
        }
        let mut slots = Vec::with_capacity(count * len);
        for &at in chosen.iter().cycle().take(count) {
            let from = uniform_below(rng, blocks[at].slots.len() - len + 1);
            slots.extend_from_slice(&blocks[at].slots[from..from + len]);
        }
        let segments = chosen.iter().cycle().take(count).map(|&at| blocks[at].segment).collect();
        let latents = self.arena.gather(slots.into_iter()).into_shape_with_order((count, len, self.arena.dim)).ok()?;
        chosen.iter().cycle().take(count).for_each(|&at| self.used(at, turn));
        Some(SequenceBatch { latents, segments })
    }

    /// At most `count` latents, spread evenly over everything in memory in stream order: `[n, d]`, unit rows.
    pub fn references(&self, count: usize) -> Array2<f32> {
        let mut blocks: Vec<&ReplayBlock> = self.long.blocks.iter().chain(&self.fresh).collect();
        blocks.sort_unstable_by_key(|b| b.number);
        let all: Vec<u32> = blocks.iter().flat_map(|b| b.slots.iter().copied()).collect();
        let count = count.min(all.len());
        self.arena.gather((0..count).map(|k| all[k * all.len() / count]))
    }

    /// Everything in memory as blocks in stream order, without the frames' indices and views.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<&ReplayBlock> = self.long.blocks.iter().chain(&self.fresh).collect();
        blocks.sort_unstable_by_key(|b| b.number);
        let block = |stored: &&ReplayBlock| Block {
            camera: stored.camera,
            number: stored.number,
            segment: stored.segment,
            index: vec![0; stored.stamps.len()],
            stamps: stored.stamps.iter().map(|stamp| crate::Timestamp(*stamp)).collect(),
            latents: self.arena.gather(stored.slots.iter().copied()),
            ..Block::default()
        };
        blocks.iter().map(block).collect()
    }

    /// The sampler that decides which frames make a pair.
    pub fn gaps(&self) -> &PairSampler {
        &self.gaps
    }

    /// Number of latents in memory.
    pub fn len(&self) -> usize {
        self.fresh_rows + self.long.rows
    }

    /// Whether no block has been added yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of latents that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The maximum memory that this ever takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.capacity * (self.arena.dim * size_of::<f16>() + ROW_BYTES + BLOCK_BYTES) + self.arena.dim
    }

    /// The blocks as [`choose`] expects them: the newest, then the long-term ones by stratum.
    fn halves(&self) -> [Vec<Vec<usize>>; 2] {
        let fresh = (0..self.fresh.len()).collect();
        let mut strata = std::collections::BTreeMap::<u32, Vec<usize>>::new();
        for (i, block) in self.long.blocks.iter().enumerate() {
            let stratum = if self.long.table.is_some() { block.stratum() } else { 0 };
            strata.entry(stratum).or_default().push(self.fresh.len() + i);
        }
        [vec![fresh], strata.into_values().collect()]
    }

    /// How often the memory has been refilled.
    fn turn(&self) -> u32 {
        (self.taken / self.capacity as u64) as u32
    }

    fn rests(&self, block: &ReplayBlock, turn: u32) -> bool {
        block.uses_in(turn) as usize >= (self.uses as usize).saturating_mul(block.slots.len())
    }

    /// Records that block `at` (counting the newest blocks first, then the long-term ones) was drawn.
    fn used(&mut self, at: usize, turn: u32) {
        let block = match at.checked_sub(self.fresh.len()) {
            None => self.fresh.get_mut(at),
            Some(at) => self.long.blocks.get_mut(at),
        };
        if let Some(block) = block {
            block.used(turn);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
