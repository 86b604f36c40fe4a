//! Which pixels of an axis make one of the resized axis, and how much of each.
use std::ops::Range;

/// Bits of a weight behind the point: `PRECISION_BITS` of Pillow.
pub(super) const BITS: u32 = 22;
/// Taps are kept in groups of so many, the last one filled up with zeros.
pub(super) const GROUP: usize = 8;
/// Bits of the lower part of a weight; both parts fit 16 bits.
pub(super) const LOW_BITS: u32 = 11;

/// `length` pixels from `first` on become `total`, of which `count` from `start` on are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::encoder::prepare) struct Span {
    pub(in crate::encoder::prepare) first: f64,
    pub(in crate::encoder::prepare) length: f64,
    pub(in crate::encoder::prepare) total: u32,
    pub(in crate::encoder::prepare) start: u32,
    pub(in crate::encoder::prepare) count: u32,
}

impl Span {
    /// A whole axis of `from` pixels to `to` pixels.
    pub(in crate::encoder::prepare) fn whole(from: u32, to: u32) -> Self {
        Self { first: 0.0, length: f64::from(from), total: to, start: 0, count: to }
    }

    /// `length` pixels from `first` on to `to` pixels.
    pub(in crate::encoder::prepare) fn part(first: f64, length: f64, to: u32) -> Self {
        Self { first, length, ..Self::whole(0, to) }
    }

    /// Start and length, in pixels of the source, of what becomes the wanted pixels.
    pub(in crate::encoder::prepare) fn source(self) -> (f64, f64) {
        let scale = self.length / f64::from(self.total.max(1));
        let first = self.first + f64::from(self.start) * scale;
        (first, (f64::from(self.count) * scale).min(self.first + self.length - first))
    }

    /// Lies in an axis of `from` pixels, and `to` pixels are wanted.
    pub(super) fn fits(self, from: u32, to: u32) -> bool {
        let within = self.first >= 0.0 && self.length > 0.0 && self.first + self.length <= f64::from(from) + 1e-6;
        within && self.count == to && to > 0 && self.start.checked_add(to).is_some_and(|end| end <= self.total)
    }
}

/// The taps of every wanted pixel.
#[derive(Debug, Default)]
pub(super) struct Weights {
    of: Option<(Span, u32)>,
    /// First pixel and number of taps.
    places: Vec<(usize, usize)>,
    /// Taps of one pixel begin at its number times this.
    step: usize,
    taps: Vec<i32>,
    /// Of each group of taps the upper parts, then the lower ones, with the place in the source that the group begins at
    /// moved so that it lies within. Empty where the axis is shorter than a group.
    groups: Vec<[i16; 2 * GROUP]>,
    /// For each pixel its first source pixel, first group and number of groups.
    grouped: Vec<(usize, usize, usize)>,
    shares: Vec<f64>,
}

impl Weights {
    /// Makes them for `span` of an axis of `size` pixels, unless they are.
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
            // The conversion cuts off what is behind the point, and what is below zero.
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
        self.group(size as usize);
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
            self.grouped.push((start, self.groups.len(), groups));
            let taps = &self.taps[place * self.step..][..count];
            for group in 0..groups {
                let mut parts = [0i16; 2 * GROUP];
                for i in 0..GROUP {
                    let tap = (start + group * GROUP + i).checked_sub(first).and_then(|at| taps.get(at));
                    let tap = tap.copied().unwrap_or(0);
                    parts[i] = (tap >> LOW_BITS) as i16;
                    parts[GROUP + i] = (tap & ((1 << LOW_BITS) - 1)) as i16;
                }
                self.groups.push(parts);
            }
        }
    }

    /// Pixels that they are for.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// First pixel and taps of the pixel `place`.
    pub(super) fn of(&self, place: usize) -> (usize, &[i32]) {
        let (start, count) = self.places[place];
        (start, &self.taps[place * self.step..][..count])
    }

    /// For each pixel its first source pixel and its groups of taps; none where the axis is too short for a group.
    pub(super) fn groups(&self) -> impl Iterator<Item = (usize, &[[i16; 2 * GROUP]])> {
        self.grouped.iter().map(|&(start, first, count)| (start, &self.groups[first..first + count]))
    }

    /// Whether [`Weights::groups`] has every pixel.
    pub(super) fn is_grouped(&self) -> bool {
        !self.grouped.is_empty()
    }

    /// Source pixels that are used.
    pub(super) fn needed(&self) -> Range<usize> {
        let first = self.places.first().map_or(0, |(start, _)| *start);
        first..self.places.last().map_or(0, |(start, count)| start + count)
    }
}
