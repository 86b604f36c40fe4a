//! The long-term part of the replay memory: which blocks of the past are kept. See [`MinRedundancyBuffer`].
use std::collections::BTreeMap;

use super::arena::Arena;
use super::replay_block::ReplayBlock;
use super::top_k::{LEN, Sketch, Sketcher, TopK, similarity};
use crate::linalg::dot;

/// Candidates for the nearest neighbour, found by their sketches, that are compared exactly.
pub(super) const FINALISTS: usize = 16;
/// Unit of [`similarity`].
const SKETCH_UNIT: f32 = 127.0 * 127.0;

/// Blocks that were the newest once, in at most `capacity` rows.
#[derive(Debug, Clone)]
pub(super) struct MinRedundancyBuffer {
    pub(super) blocks: Vec<ReplayBlock>,
    pub(super) rows: usize,
    capacity: usize,
    /// Where redundant blocks go first; `None`: a reservoir.
    pub(super) table: Option<Table>,
}

/// What is known of each block's nearest neighbour, side by side with [`MinRedundancyBuffer::blocks`].
#[derive(Debug, Clone)]
pub(super) struct Table {
    sketcher: Sketcher,
    sketches: Vec<Sketch>,
    pub(super) nearest: Vec<Nearest>,
    /// The stratum of each block, and the rows that each stratum holds.
    strata: Vec<u32>,
    rows_of: BTreeMap<u32, usize>,
    /// Candidates compared exactly.
    pub(super) finalists: usize,
}

/// A block's nearest neighbour: the block whose key has the largest cosine with its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Nearest {
    /// That cosine; where the neighbour is gone, no less than the cosine with the next one.
    pub(super) cosine: f32,
    /// Number of the neighbour; `None`: gone, to be looked for when the block comes into question.
    pub(super) of: Option<u64>,
}

impl Nearest {
    /// Not looked for yet.
    pub(super) const UNKNOWN: Self = Self { cosine: f32::INFINITY, of: None };
    /// There is no other block.
    pub(super) const NONE: Self = Self { cosine: f32::NEG_INFINITY, of: Some(u64::MAX) };
}

impl MinRedundancyBuffer {
    /// Bytes of a block beside what [`ReplayBlock`] points to.
    pub(super) const BLOCK_BYTES: usize = size_of::<ReplayBlock>() + LEN + size_of::<Nearest>() + size_of::<u32>();

    /// Empty. `sketcher`: for the least redundant blocks; `None` for a reservoir.
    pub(super) fn new(capacity: usize, sketcher: Option<Sketcher>) -> Self {
        // Room for blocks of one row each, and one that comes before another goes.
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

    /// Takes a block, and lets others go (or the same one) until all fit; their rows in `arena` are free then.
    pub(super) fn admit(&mut self, block: ReplayBlock, arena: &mut Arena) {
        self.rows += block.slots.len();
        self.push(block, None, arena);
        while self.rows > self.capacity {
            let Some(gone) = self.worst(arena).map(|at| self.remove(at)) else { return };
            self.rows -= gone.slots.len();
            arena.release(&gone.slots);
        }
    }

    /// Adds a block at the end; `known`: its nearest neighbour, where that was saved.
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

    /// Where the block lies that goes next; of equal ones the oldest.
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
            // Its cosine was an upper bound, so that a block that is not the worst by it needs no search.
            table.nearest[worst] = table.search(&self.blocks, worst, arena);
        }
    }
}

/// The key of a block, and working memory.
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
    /// A new block meets all others: its nearest neighbour; those that it is nearest to learn of it.
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

    /// The nearest neighbour of the block at `at`.
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
    /// Block `number` with this cosine may be the neighbour; of equal ones the oldest is.
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
