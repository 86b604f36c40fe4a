//! Which pairs make a batch.
use std::collections::BTreeSet;

use ndarray::Array2;
use rand_chacha::ChaCha8Rng;

use super::stored::Stored;
use crate::linalg::random::below;

/// Pairs of latents for one step of a contrastive objective. Row `i` of `a` and row `i` of `b` are a pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `[n, d]`, unit rows, the earlier frames.
    pub a: Array2<f32>,
    /// `[n, d]`, unit rows, the later frames.
    pub b: Array2<f32>,
    /// `[n, n]`: pairs `i` and `j` are of different blocks, so each may be the other's negative.
    pub negatives: Array2<bool>,
    /// `[n]`, the segment that both frames of a pair lie in; no two cameras share one.
    pub segments: Vec<u64>,
}

/// One pair: the number of its block and where its two latents lie in the arena.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pick {
    pub(super) number: u64,
    pub(super) segment: u64,
    pub(super) a: u32,
    pub(super) b: u32,
}

/// Seconds to whole nanoseconds, a microsecond wider at both ends: stamps are rounded.
pub(super) fn gap_range(gap_min: f64, gap_max: f64) -> (i64, i64) {
    (((gap_min - 1e-6) * 1e9).ceil() as i64, ((gap_max + 1e-6) * 1e9).floor() as i64)
}

/// Draws `pairs` pairs as [`super::Replay::batch`] says; `None` where fewer than two blocks hold one.
pub(super) fn draw(
    fresh: Vec<&Stored>,
    long: Vec<&Stored>,
    pairs: usize,
    gap: (i64, i64),
    rng: &mut ChaCha8Rng,
) -> Option<Vec<Pick>> {
    let holds_pair = |block: &Stored| partners(&block.stamps, gap).any(|(_, from, to)| from < to);
    let blocks = choose(fresh, long, pairs, &holds_pair, rng);
    if blocks.len() < 2 {
        return None;
    }
    (0..pairs).map(|k| pick(blocks[k % blocks.len()], gap, rng)).collect()
}

/// At most `count` different blocks that are `fit`: half `fresh` and half `long` while both have enough, of different
/// segments while there are enough.
pub(super) fn choose<'a>(
    fresh: Vec<&'a Stored>,
    long: Vec<&'a Stored>,
    count: usize,
    fit: &dyn Fn(&Stored) -> bool,
    rng: &mut ChaCha8Rng,
) -> Vec<&'a Stored> {
    let mut decks = [Deck::new(fresh), Deck::new(long)];
    let mut chosen = Chosen::default();
    for (deck, quota) in decks.iter_mut().zip([count.div_ceil(2), count / 2]) {
        deck.fill(&mut chosen, quota, fit, rng);
    }
    for deck in &mut decks {
        let missing = count - chosen.blocks.len();
        deck.fill(&mut chosen, missing, fit, rng);
    }
    chosen.blocks
}

/// What a batch has so far: one block a pair.
#[derive(Default)]
struct Chosen<'a> {
    blocks: Vec<&'a Stored>,
    segments: BTreeSet<u64>,
}

/// Blocks that are drawn one by one without putting back.
struct Deck<'a> {
    blocks: Vec<&'a Stored>,
    /// So many of `blocks` were drawn.
    drawn: usize,
    /// Drawn, fit, and were left for want of another segment.
    left: Vec<&'a Stored>,
}

impl<'a> Deck<'a> {
    fn new(blocks: Vec<&'a Stored>) -> Self {
        Self { blocks, drawn: 0, left: Vec::new() }
    }

    /// Chooses `quota` more blocks that are `fit`: of segments not chosen yet while there are any, then of the others.
    fn fill(&mut self, chosen: &mut Chosen<'a>, quota: usize, fit: &dyn Fn(&Stored) -> bool, rng: &mut ChaCha8Rng) {
        let goal = chosen.blocks.len() + quota;
        while chosen.blocks.len() < goal && self.drawn < self.blocks.len() {
            let at = self.drawn + below(rng, self.blocks.len() - self.drawn);
            self.blocks.swap(self.drawn, at);
            let block = self.blocks[self.drawn];
            self.drawn += 1;
            if !fit(block) {
                continue;
            }
            if chosen.segments.insert(block.segment) {
                chosen.blocks.push(block);
            } else {
                self.left.push(block);
            }
        }
        while chosen.blocks.len() < goal {
            let Some(block) = self.left.pop() else { break };
            chosen.blocks.push(block);
        }
    }
}

/// For every frame `i` the range `from..to` of the later frames that are its partners.
fn partners(stamps: &[i64], (least, most): (i64, i64)) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
    let (mut from, mut to) = (0, 0);
    (0..stamps.len()).map(move |i| {
        let gap = |j: usize| stamps[j].saturating_sub(stamps[i]);
        from = from.max(i + 1);
        while from < stamps.len() && gap(from) < least {
            from += 1;
        }
        to = to.max(from);
        while to < stamps.len() && gap(to) <= most {
            to += 1;
        }
        (i, from, to)
    })
}

/// A frame that has partners, and one of these.
fn pick(block: &Stored, gap: (i64, i64), rng: &mut ChaCha8Rng) -> Option<Pick> {
    let ranges = || partners(&block.stamps, gap).filter(|(_, from, to)| from < to);
    let (i, from, to) = ranges().nth(below(rng, ranges().count()))?;
    let j = from + below(rng, to - from);
    Some(Pick { number: block.number, segment: block.segment, a: *block.slots.get(i)?, b: *block.slots.get(j)? })
}
