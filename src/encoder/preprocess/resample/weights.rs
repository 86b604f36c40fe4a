//! Computes which source pixels contribute to each resized pixel of an axis, and with which weights.
use std::ops::Range;

/// Fractional bits of a weight: `PRECISION_BITS` of Pillow.
pub(super) const BITS: u32 = 22;
/// Half of the last bit that is kept, for rounding.
pub(super) const HALF: i32 = 1 << (BITS - 1);
/// Taps are stored in groups of this many; the last group is padded with zeros.
pub(super) const GROUP: usize = 8;
/// Bits of the lower part of a weight; both parts fit in 16 bits.
pub(super) const LOW_BITS: u32 = 11;

/// Eight taps as 16-bit numbers, in three forms:
pub(super) type Group = [[i16; GROUP]; 3];
/// rounded to 16 bits, without the lowest [`Weights::shift`] bits,
pub(super) const NEAR: usize = 0;
/// the upper bits of each weight,
pub(super) const HIGH: usize = 1;
/// and the lower ones.
pub(super) const LOW: usize = 2;

/// The groups of one pixel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grouped<'a> {
    /// First source pixel; as many pixels from here as the groups have taps are within the axis.
    pub(super) start: usize,
    pub(super) groups: &'a [Group],
    pub(super) off: Off,
}

/// Bounds on the exact sum minus the shifted approximate sum (including the rounding half).
pub(super) type Off = [i32; 2];

/// Position of the groups of a pixel.
#[derive(Debug, Clone, Copy)]
struct WeightSpan {
    start: usize,
    first: usize,
    count: usize,
}

/// Maps `length` pixels from `first` on to `total` pixels, and selects `count` of them from `start` on.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::encoder::preprocess) struct Span {
    pub(in crate::encoder::preprocess) first: f64,
    pub(in crate::encoder::preprocess) length: f64,
    pub(in crate::encoder::preprocess) total: u32,
    pub(in crate::encoder::preprocess) start: u32,
    pub(in crate::encoder::preprocess) count: u32,
}

impl Span {
    /// Maps a whole axis of `from` pixels to `to` pixels.
    pub(in crate::encoder::preprocess) fn whole(from: u32, to: u32) -> Self {
        Self { first: 0.0, length: f64::from(from), total: to, start: 0, count: to }
    }

    /// Maps `length` pixels from `first` on to `to` pixels.
    pub(in crate::encoder::preprocess) fn part(first: f64, length: f64, to: u32) -> Self {
        Self { first, length, ..Self::whole(0, to) }
    }

    /// Start and length, in source pixels, of the part that the selected pixels cover.
    pub(in crate::encoder::preprocess) fn source(self) -> (f64, f64) {
        let scale = self.length / f64::from(self.total.max(1));
        let first = self.first + f64::from(self.start) * scale;
        (first, (f64::from(self.count) * scale).min(self.first + self.length - first))
    }

    /// True if the span is within an axis of `from` pixels and selects `to` pixels.
    pub(super) fn fits(self, from: u32, to: u32) -> bool {
        let within = self.first >= 0.0 && self.length > 0.0 && self.first + self.length <= f64::from(from) + 1e-6;
        within && self.count == to && to > 0 && self.start.checked_add(to).is_some_and(|end| end <= self.total)
    }
}

/// The taps of every selected pixel.
#[derive(Debug, Default)]
pub(super) struct Weights {
    of: Option<(Span, u32)>,
    /// First source pixel and number of taps of each pixel.
    places: Vec<(usize, usize)>,
    /// Offset between the taps of consecutive pixels.
    step: usize,
    taps: Vec<i32>,
    /// Each group starts where all of its source pixels are within the axis. Empty if the axis is shorter than a
    /// group.
    groups: Vec<Group>,
    grouped: Vec<WeightSpan>,
    /// The rounded taps of every pixel in pairs, for vertically adjacent rows, and the number of pairs per pixel.
    pairs: Vec<[i16; 2]>,
    pair_step: usize,
    off: Vec<Off>,
    /// Number of bits that the rounded taps drop.
    shift: u32,
    shares: Vec<f64>,
}

impl Weights {
    /// Computes the weights for `span` of an axis of `size` pixels, unless they are already cached.
    pub(super) fn prepare(&mut self, span: Span, size: u32) {
        if self.of.replace((span, size)) == Some((span, size)) {
            return;
        }
        let scale = span.length / f64::from(span.total);
        let filter_scale = scale.max(1.0);
        self.step = 2 * filter_scale.ceil() as usize + 1;
        self.places.clear();
        self.taps.clear();
        for place in span.start..span.start + span.count {
            let centre = span.first + (f64::from(place) + 0.5) * scale;
            // The conversion truncates the fraction and clamps negative values to zero.
            let first = (centre - filter_scale + 0.5) as usize;
            let end = ((centre + filter_scale + 0.5) as usize).min(size as usize);
            self.shares.clear();
            let share = |i: usize| {
                let distance = ((i as f64 - centre + 0.5) * filter_scale.recip()).abs();
                if distance < 1.0 { 1.0 - distance } else { 0.0 }
            };
            self.shares.extend((first..end).map(share));
            let sum: f64 = self.shares.iter().sum();
            let sum = if sum == 0.0 { 1.0 } else { sum };
            let begin = self.taps.len();
            let whole = f64::from(1u32 << BITS);
            self.taps.extend(self.shares.iter().map(|share| (0.5 + share / sum * whole) as i32));
            self.places.push((first, self.shares.len()));
            self.taps.resize(begin + self.step, 0);
        }
        self.near();
        self.group(size as usize);
    }

    /// Computes the rounded taps and their error bounds.
    fn near(&mut self) {
        let largest = self.taps.iter().fold(1, |most, tap| (*tap).max(most));
        // Chosen so that the largest tap has at most 15 bits.
        self.shift = (i32::BITS - largest.leading_zeros()).saturating_sub(i16::BITS - 1);
        self.pair_step = self.step.div_ceil(2);
        self.pairs.clear();
        self.off.clear();
        for taps in self.taps.chunks_exact(self.step) {
            let mut off = [HALF; 2];
            for tap in taps {
                let left = 255 * (tap - (i32::from(near(*tap, self.shift)) << self.shift));
                off[usize::from(left > 0)] += left;
            }
            self.off.push(off);
            let pair = |taps: &[i32]| [taps[0], taps.get(1).copied().unwrap_or(0)].map(|tap| near(tap, self.shift));
            self.pairs.extend(taps.chunks(2).map(pair));
        }
    }

    fn group(&mut self, size: usize) {
        self.groups.clear();
        self.grouped.clear();
        for (place, &(first, count)) in self.places.iter().enumerate() {
            let groups = count.div_ceil(GROUP).max(1);
            let Some(last) = size.checked_sub(groups * GROUP) else {
                self.groups.clear();
                self.grouped.clear();
                return;
            };
            let start = first.min(last);
            self.grouped.push(WeightSpan { start, first: self.groups.len(), count: groups });
            let taps = &self.taps[place * self.step..][..count];
            for group in 0..groups {
                let mut parts = Group::default();
                for i in 0..GROUP {
                    let tap = (start + group * GROUP + i).checked_sub(first).and_then(|at| taps.get(at));
                    let tap = tap.copied().unwrap_or(0);
                    let (high, low) = (tap >> LOW_BITS, tap & ((1 << LOW_BITS) - 1));
                    let ways = [near(tap, self.shift), high as i16, low as i16];
                    parts.iter_mut().zip(ways).for_each(|(part, value)| part[i] = value);
                }
                self.groups.push(parts);
            }
        }
    }

    /// Number of selected pixels.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// First source pixel and taps of the pixel `place`.
    pub(super) fn of(&self, place: usize) -> (usize, &[i32]) {
        let (start, count) = self.places[place];
        (start, &self.taps[place * self.step..][..count])
    }

    /// The groups of each pixel; none if the axis is too short for a group.
    pub(super) fn groups(&self) -> impl Iterator<Item = Grouped<'_>> {
        self.grouped.iter().zip(&self.off).map(|(&WeightSpan { start, first, count }, &off)| Grouped {
            start,
            groups: &self.groups[first..first + count],
            off,
        })
    }

    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "others add columns without vectors of their own")
    )]
    /// For the pixel `place`: first source pixel, number of taps, the rounded taps in pairs, and their error bounds.
    pub(super) fn pairs(&self, place: usize) -> (usize, usize, &[[i16; 2]], Off) {
        let (start, count) = self.places[place];
        (start, count, &self.pairs[place * self.pair_step..][..count.div_ceil(2)], self.off[place])
    }

    /// Number of bits that the rounded taps drop.
    pub(super) fn shift(&self) -> u32 {
        self.shift
    }

    /// True if [`Weights::groups`] covers every pixel.
    pub(super) fn is_grouped(&self) -> bool {
        !self.grouped.is_empty()
    }

    /// Range of the source pixels in use.
    pub(super) fn needed(&self) -> Range<usize> {
        let first = self.places.first().map_or(0, |(start, _)| *start);
        first..self.places.last().map_or(0, |(start, count)| start + count)
    }
}

/// Drops the last `shift` bits of `tap`, with rounding.
fn near(tap: i32, shift: u32) -> i16 {
    let half = if shift == 0 { 0 } else { 1 << (shift - 1) };
    i16::try_from((tap + half) >> shift).unwrap_or(i16::MAX)
}
