//! The long-term part of the replay buffer: decides which past blocks to keep. See [`MinRedundancyBuffer`].
use std::collections::BTreeMap;

use super::arena::Arena;
use super::replay_block::ReplayBlock;
use super::top_k::{LEN, Sketch, Sketcher, TopK, similarity};
use crate::linalg::dot;

/// Number of candidates for the nearest neighbour that are found by their sketches and compared exactly.
pub(super) const FINALISTS: usize = 16;
/// The scale of [`similarity`].
const SKETCH_UNIT: f32 = 127.0 * 127.0;

/// Blocks that have left the newest part, in at most `capacity` rows.
#[derive(Debug, Clone)]
pub(super) struct MinRedundancyBuffer {
    pub(super) blocks: Vec<ReplayBlock>,
    pub(super) rows: usize,
    capacity: usize,
    /// For min-redundancy, the table of neighbours; `None` for a reservoir.
    pub(super) table: Option<Table>,
}

/// The nearest neighbour of each block, parallel to [`MinRedundancyBuffer::blocks`].
#[derive(Debug, Clone)]
pub(super) struct Table {
    sketcher: Sketcher,
    sketches: Vec<Sketch>,
    pub(super) nearest: Vec<Nearest>,
    /// The stratum of each block, and the number of rows in each stratum.
    strata: Vec<u32>,
    rows_of: BTreeMap<u32, usize>,
    /// Number of candidates compared exactly.
    pub(super) finalists: usize,
}

/// A block's nearest neighbour: the block whose key has the largest cosine with its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Nearest {
    /// That cosine; if the neighbour has been dropped, an upper bound on the cosine with the next one.
    pub(super) cosine: f32,
    /// Number of the neighbour; `None` if it was dropped and must be searched when this block may be dropped itself.
    pub(super) of: Option<u64>,
}

impl Nearest {
    /// Not searched yet.
    pub(super) const UNKNOWN: Self = Self { cosine: f32::INFINITY, of: None };
    /// There is no other block.
    pub(super) const NONE: Self = Self { cosine: f32::NEG_INFINITY, of: Some(u64::MAX) };
}

impl MinRedundancyBuffer {
    /// Bytes per block besides what [`ReplayBlock`] points to.
    pub(super) const BLOCK_BYTES: usize = size_of::<ReplayBlock>() + LEN + size_of::<Nearest>() + size_of::<u32>();

    /// Creates an empty buffer; min-redundancy with a `sketcher`, a reservoir with `None`.
    pub(super) fn new(capacity: usize, sketcher: Option<Sketcher>) -> Self {
        // Space for blocks of one row each, plus one that arrives before another is dropped.
        let room = capacity + 1;
        let table = sketcher.map(|sketcher| Table {
            sketcher,
            sketches: Vec::with_capacity(room),
            nearest: Vec::with_capacity(room),
            strata: Vec::with_capacity(room),
            rows_of: BTreeMap::new(),
            finalists: FINALISTS,
        });
        Self { blocks: Vec::with_capacity(room), rows: 0, capacity, table }
    }

    /// Adds a block and drops others (or this one) until all fit; their rows in `arena` become free.
    pub(super) fn admit(&mut self, block: ReplayBlock, arena: &mut Arena) {
        self.rows += block.slots.len();
        self.push(block, None, arena);
        while self.rows > self.capacity {
            let Some(gone) = self.worst(arena).map(|at| self.remove(at)) else { return };
            self.rows -= gone.slots.len();
            arena.release(&gone.slots);
        }
    }

    /// Appends a block; `known` is its nearest neighbour if that was saved.
    pub(super) fn push(&mut self, block: ReplayBlock, known: Option<Nearest>, arena: &Arena) {
        if let Some(table) = &mut self.table {
            let key = Key::of(&block, arena);
            let sketch = table.sketcher.sketch(&key.key);
            let nearest = known.unwrap_or_else(|| table.meet(&self.blocks, &block, key, &sketch, arena));
            table.sketches.push(sketch);
            table.nearest.push(nearest);
            table.strata.push(block.stratum());
            *table.rows_of.entry(block.stratum()).or_default() += block.slots.len();
        }
        self.blocks.push(block);
    }

    fn remove(&mut self, at: usize) -> ReplayBlock {
        let gone = self.blocks.swap_remove(at);
        if let Some(table) = &mut self.table {
            table.sketches.swap_remove(at);
            table.nearest.swap_remove(at);
            let stratum = table.strata.swap_remove(at);
            if let Some(rows) = table.rows_of.get_mut(&stratum) {
                *rows -= gone.slots.len();
            }
            table.rows_of.retain(|_, rows| *rows > 0);
            for nearest in table.nearest.iter_mut().filter(|n| n.of == Some(gone.number)) {
                nearest.of = None;
            }
        }
        gone
    }

    /// Index of the block to drop next; among equals, the oldest.
    fn worst(&mut self, arena: &Arena) -> Option<usize> {
        let Some(table) = &mut self.table else {
            return (0..self.blocks.len()).min_by_key(|&i| (self.blocks[i].priority, self.blocks[i].number));
        };
        let share = self.capacity / table.rows_of.len().max(1);
        let above: Vec<u32> = table.rows_of.iter().filter(|&(_, &rows)| rows > share).map(|(&s, _)| s).collect();
        let all = above.len() == table.rows_of.len();
        loop {
            let in_question = (0..self.blocks.len()).filter(|&i| all || above.contains(&table.strata[i]));
            let worst = in_question.max_by(|&a, &b| {
                let by_cosine = table.nearest[a].cosine.total_cmp(&table.nearest[b].cosine);
                by_cosine.then_with(|| self.blocks[b].number.cmp(&self.blocks[a].number))
            })?;
            if table.nearest[worst].of.is_some() {
                return Some(worst);
            }
            // Its cosine was an upper bound, so only a block that is the worst by this bound needs a search.
            table.nearest[worst] = table.search(&self.blocks, worst, arena);
        }
    }
}

/// The key of a block, and scratch buffers.
struct Key {
    key: Vec<f32>,
    other: Vec<f32>,
    row: Vec<f32>,
}

impl Key {
    fn of(block: &ReplayBlock, arena: &Arena) -> Self {
        let [mut key, other, mut row] = [(); 3].map(|()| vec![0.0; arena.dim]);
        arena.key(&block.slots, &mut key, &mut row);
        Self { key, other, row }
    }

    fn cosine(&mut self, other: &ReplayBlock, arena: &Arena) -> f32 {
        arena.key(&other.slots, &mut self.other, &mut self.row);
        dot(&self.key, &self.other)
    }
}

impl Table {
    /// Compares a new block with all others: returns its nearest neighbour, and updates the blocks that it is nearest
    /// to.
    fn meet(
        &mut self,
        blocks: &[ReplayBlock],
        new: &ReplayBlock,
        mut key: Key,
        sketch: &Sketch,
        arena: &Arena,
    ) -> Nearest {
        let (mut to_new, mut to_them) = (TopK::new(self.finalists), TopK::new(self.finalists));
        for (i, (other, nearest)) in self.sketches.iter().zip(&self.nearest).enumerate() {
            let like = similarity(sketch, other);
            to_new.offer(like, i);
            let nearer = like.saturating_sub((nearest.cosine * SKETCH_UNIT) as i32);
            if nearer >= 0 || self.finalists == usize::MAX {
                to_them.offer(nearer, i);
            }
        }
        let mut at: Vec<usize> = to_new.list.iter().chain(&to_them.list).map(|&(_, i)| i).collect();
        at.sort_unstable();
        at.dedup();
        let mut nearest = Nearest::NONE;
        for i in at {
            let cosine = key.cosine(&blocks[i], arena);
            nearest.meet(cosine, blocks[i].number);
            self.nearest[i].meet(cosine, new.number);
        }
        nearest
    }

    /// Searches the nearest neighbour of the block at `at`.
    fn search(&self, blocks: &[ReplayBlock], at: usize, arena: &Arena) -> Nearest {
        let mut best = TopK::new(self.finalists);
        for (i, other) in self.sketches.iter().enumerate().filter(|(i, _)| *i != at) {
            best.offer(similarity(&self.sketches[at], other), i);
        }
        let mut key = Key::of(&blocks[at], arena);
        let mut nearest = Nearest::NONE;
        for (_, i) in best.list {
            nearest.meet(key.cosine(&blocks[i], arena), blocks[i].number);
        }
        nearest
    }
}

impl Nearest {
    /// Takes block `number` as the neighbour if its cosine is larger; among equals, the oldest wins.
    fn meet(&mut self, cosine: f32, number: u64) {
        let nearer = match self.of {
            Some(of) => cosine > self.cosine || (cosine == self.cosine && number < of),
            None => cosine >= self.cosine,
        };
        if nearer {
            *self = Self { cosine, of: Some(number) };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "min_redundancy_tests.rs"]
mod tests;
