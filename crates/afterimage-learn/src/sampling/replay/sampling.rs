//! Chooses the blocks, and the frames of them, that make a batch.
use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use super::arena::Arena;
use super::replay_block::ReplayBlock;
use crate::linalg::random::uniform_below;
use crate::sampling::PairSampler;

/// A drawn block.
#[derive(Debug, Clone, Copy)]
pub(super) struct SampledRows {
    /// Its index among the blocks.
    pub(super) at: usize,
    pub(super) number: u64,
}

/// Indices of at most `count` different blocks that are `fit`: half from each of the two `halves` while both have
/// enough, evenly over the groups of a half, and from different segments while there are enough.
pub(super) fn choose(
    blocks: &[&ReplayBlock],
    halves: [Vec<Vec<usize>>; 2],
    count: usize,
    fit: &dyn Fn(&ReplayBlock) -> bool,
    rng: &mut ChaCha8Rng,
) -> Vec<usize> {
    let mut decks = halves.map(|groups| Deck::new(groups, rng));
    let mut chosen = Chosen { blocks, places: Vec::new(), segments: BTreeSet::new() };
    for (deck, quota) in decks.iter_mut().zip([count.div_ceil(2), count / 2]) {
        deck.fill(&mut chosen, quota, fit, rng);
    }
    for deck in &mut decks {
        let missing = count - chosen.places.len();
        deck.fill(&mut chosen, missing, fit, rng);
    }
    chosen.places
}

/// The batch so far: one block per anchor.
struct Chosen<'a> {
    blocks: &'a [&'a ReplayBlock],
    places: Vec<usize>,
    segments: BTreeSet<u64>,
}

/// Draws blocks one by one without replacement, from one group after another.
struct Deck {
    /// The groups; none is empty.
    groups: Vec<Vec<usize>>,
    /// Index of the next group to draw from.
    turn: usize,
    /// Fit blocks that were drawn but set aside because their segment was already chosen.
    left: Vec<usize>,
}

impl Deck {
    fn new(groups: Vec<Vec<usize>>, rng: &mut ChaCha8Rng) -> Self {
        let mut groups: Vec<_> = groups.into_iter().filter(|group| !group.is_empty()).collect();
        for i in 1..groups.len() {
            groups.swap(i, uniform_below(rng, i + 1));
        }
        Self { groups, turn: 0, left: Vec::new() }
    }

    fn draw(&mut self, rng: &mut ChaCha8Rng) -> Option<usize> {
        if self.turn >= self.groups.len() {
            self.turn = 0;
        }
        let group = self.groups.get_mut(self.turn)?;
        let drawn = group.swap_remove(uniform_below(rng, group.len()));
        if group.is_empty() {
            self.groups.remove(self.turn);
        } else {
            self.turn += 1;
        }
        Some(drawn)
    }

    /// Chooses `quota` more blocks that are `fit`: from new segments while there are any, then from the others.
    fn fill(
        &mut self,
        chosen: &mut Chosen<'_>,
        quota: usize,
        fit: &dyn Fn(&ReplayBlock) -> bool,
        rng: &mut ChaCha8Rng,
    ) {
        let goal = chosen.places.len() + quota;
        while chosen.places.len() < goal {
            let Some(at) = self.draw(rng) else { break };
            let block = chosen.blocks[at];
            if !fit(block) {
                continue;
            }
            if chosen.segments.insert(block.segment) {
                chosen.places.push(at);
            } else {
                self.left.push(at);
            }
        }
        while chosen.places.len() < goal {
            let Some(at) = self.left.pop() else { break };
            chosen.places.push(at);
        }
    }
}

/// `count` pairs of rows of a block that contains a pair: draws an anchor uniformly from the rows that have partners,
/// with as many partners as are wanted or available; then another anchor.
pub(super) fn pick(
    block: &ReplayBlock,
    count: usize,
    gaps: &PairSampler,
    arena: &Arena,
    rng: &mut ChaCha8Rng,
) -> Vec<(usize, usize)> {
    let anchors: Vec<_> = gaps.partners(&block.stamps).filter(|(_, from, to)| from < to).collect();
    let mut pairs = Vec::with_capacity(count);
    while pairs.len() < count && !anchors.is_empty() {
        let (i, from, to) = anchors[uniform_below(rng, anchors.len())];
        let wanted = (count - pairs.len()).min(to - from);
        match gaps.delta() {
            Some(delta) => {
                let first = first_apart(block, i, from, to, delta, arena).min(to - wanted);
                pairs.extend((first..first + wanted).map(|j| (i, j)));
            }
            None => {
                let mut partners: Vec<usize> = (from..to).collect();
                for _ in 0..wanted {
                    pairs.push((i, partners.swap_remove(uniform_below(rng, partners.len()))));
                }
            }
        }
    }
    pairs
}

/// The first of the rows `from..to` at distance `delta` or more from row `i`; the last one if there is none.
fn first_apart(block: &ReplayBlock, i: usize, from: usize, to: usize, delta: f32, arena: &Arena) -> usize {
    let rows = arena.gather(
        [block.slots[i]].into_iter().chain(block.slots[from..to].iter().copied()).collect::<Vec<_>>().into_iter(),
    );
    let anchor = rows.row(0);
    (from..to).find(|j| 1.0 - anchor.dot(&rows.row(1 + j - from)) >= delta).unwrap_or(to - 1)
}
