//! The key queue of MoCo.
use ndarray::{Array2, ArrayView2, s};

use crate::error::Result;
use crate::linalg::unit_rows;
use crate::state_dict::{LoadedTensors, StateDict, TensorView};

/// Keys of earlier steps, first in, first out, in a ring buffer: the newest overwrite the oldest, and a batch wraps
/// around at the end.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    /// `[len, k]`, unit rows.
    keys: Array2<f32>,
    /// `[len, k]`, the slow-head outputs that the keys were computed from. `None` in a queue of keys.
    slow: Option<Array2<f32>>,
    /// The block or segment of each entry: entries of a query's own group are not its negatives.
    groups: Vec<u64>,
    /// Number of entries in use.
    filled: usize,
    /// Index of the next entry to write.
    next: usize,
}

impl Queue {
    /// Creates an empty queue.
    pub(super) fn new(len: usize, k: usize, latents: bool) -> Self {
        Self {
            keys: Array2::zeros((len, k)),
            slow: latents.then(|| Array2::zeros((len, k))),
            groups: vec![0; len],
            filled: 0,
            next: 0,
        }
    }

    /// The keys, `[m, k]`, unit rows.
    pub(super) fn keys(&self) -> ArrayView2<'_, f32> {
        self.keys.slice(s![..self.filled, ..])
    }

    /// All entries in the same group as one of `groups`, as `(index into groups, entry)`.
    pub(super) fn of_groups(&self, groups: &[u64]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (i, group) in groups.iter().enumerate() {
            found.extend(
                self.groups[..self.filled].iter().enumerate().filter(|(_, of)| *of == group).map(|(j, _)| (i, j)),
            );
        }
        found
    }

    /// Pushes keys `[n, k]` (normalised to unit length) with the rows they were computed from and their groups. If
    /// there are more than fit, the last ones stay.
    pub(super) fn push(&mut self, keys: &Array2<f32>, slow: ArrayView2<f32>, groups: &[u64]) {
        let len = self.groups.len();
        if len == 0 {
            return;
        }
        let (keys, _) = unit_rows(keys);
        for ((key, slow), &group) in keys.rows().into_iter().zip(slow.rows()).zip(groups) {
            self.keys.row_mut(self.next).assign(&key);
            if let Some(kept) = &mut self.slow {
                kept.row_mut(self.next).assign(&slow);
            }
            self.groups[self.next] = group;
            self.next = (self.next + 1) % len;
            self.filled = (self.filled + 1).min(len);
        }
    }

    /// Projects `count` entries of a queue of latents again: those that are halfway through the queue. `project`
    /// computes keys from slow-head rows.
    ///
    /// Called before each [`Queue::push`] of as many rows, this refreshes every entry once, so that no key is older
    /// than half a pass through the queue (4096 entries, 64 per step: 32 steps, in which a head that averages over 250
    /// hardly moves). Refreshing all entries at every step would cost several times as much as the rest of the step
    /// (4096 through 256 - 512 - 256: 2 GFLOP).
    pub(super) fn refresh(&mut self, count: usize, project: impl Fn(ArrayView2<f32>) -> Array2<f32>) {
        let (len, Some(slow)) = (self.groups.len(), &self.slow) else { return };
        if len == 0 {
            return;
        }
        let from = (self.next + len / 2) % len;
        let end = from + count.min(len);
        for (from, to) in [(from, end.min(self.filled)), (0, end.saturating_sub(len).min(self.filled))] {
            if from >= to {
                continue;
            }
            let (keys, _) = unit_rows(&project(slow.slice(s![from..to, ..])));
            self.keys.slice_mut(s![from..to, ..]).assign(&keys);
        }
    }

    pub(super) fn save<'a>(&'a self, contents: &mut StateDict<'a>, prefix: &str) {
        contents.text(format!("{prefix}places"), format!("{} {}", self.filled, self.next));
        contents.array(format!("{prefix}keys"), &self.keys);
        if let Some(slow) = &self.slow {
            contents.array(format!("{prefix}slow"), slow);
        }
        contents.tensors.push((format!("{prefix}groups"), TensorView::new(&[self.groups.len()], &self.groups)));
    }

    /// Restores a saved state. `self` must have been created with the same configuration.
    ///
    /// # Errors
    /// Parts are missing or do not fit.
    pub(super) fn restore(&mut self, stored: &mut LoadedTensors, prefix: &str) -> Result<()> {
        let (len, k) = self.keys.dim();
        let places = stored.text(&format!("{prefix}places"))?.to_owned();
        let numbers: Vec<usize> = places.split(' ').filter_map(|number| number.parse().ok()).collect();
        let &[filled, next] = numbers.as_slice() else {
            return Err(stored.wrong(format!("has a queue with the places {places:?}")));
        };
        if filled > len || next >= len {
            return Err(stored.wrong(format!("has the places {places:?} of a queue of {len}")));
        }
        self.keys = stored.take_matrix(&format!("{prefix}keys"), len, k)?;
        if let Some(slow) = &mut self.slow {
            *slow = stored.take_matrix(&format!("{prefix}slow"), len, k)?;
        }
        self.groups = stored.take(&format!("{prefix}groups"), &[len])?;
        (self.filled, self.next) = (filled, next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys along the axes 0, 1 and 2 in turn, each with a length of its number plus one.
    fn rows(numbers: std::ops::Range<usize>) -> Array2<f32> {
        let from = numbers.start;
        Array2::from_shape_fn(
            (numbers.len(), 3),
            |(i, j)| if (from + i) % 3 == j { (from + i + 1) as f32 } else { 0.0 },
        )
    }

    fn push(queue: &mut Queue, numbers: std::ops::Range<usize>) {
        let groups: Vec<u64> = numbers.clone().map(|n| n as u64 / 2).collect();
        queue.push(&rows(numbers.clone()), rows(numbers).view(), &groups);
    }

    #[test]
    fn wraps_around_at_any_length() {
        for (len, batch) in [(7, 3), (8, 4), (5, 5), (4, 9), (1, 2)] {
            let mut queue = Queue::new(len, 3, true);
            for step in 0..10 {
                push(&mut queue, step * batch..(step + 1) * batch);
                let seen = (step + 1) * batch;
                let kept = seen.saturating_sub(len)..seen;
                assert_eq!(queue.keys().nrows(), kept.len());
                // Entry `n` is at `n % len`; nothing is lost or duplicated.
                for n in kept {
                    assert_eq!(queue.groups[n % len], n as u64 / 2, "{len} {batch} {step}");
                    assert!((queue.keys()[[n % len, n % 3]] - 1.0).abs() < 1e-6);
                    assert_eq!(queue.slow.as_ref().expect("latents")[[n % len, n % 3]], (n + 1) as f32);
                }
            }
        }
    }

    #[test]
    fn entries_are_found_by_their_group() {
        let mut queue = Queue::new(6, 3, false);
        push(&mut queue, 0..5);
        assert_eq!(queue.of_groups(&[1, 7, 2]), [(0, 2), (0, 3), (2, 4)]);
        // Empty entries belong to no group.
        assert_eq!(queue.of_groups(&[0]), [(0, 0), (0, 1)]);
    }

    #[test]
    fn latents_are_projected_anew_when_their_turn_is_half_over() {
        // Keys are positive when pushed and negative after they were projected again.
        let turned = |slow: ArrayView2<f32>| -> Array2<f32> { -slow.to_owned() };
        for (len, batch) in [(40, 5), (41, 7), (6, 3)] {
            let (mut latents, mut keys) = (Queue::new(len, 3, true), Queue::new(len, 3, false));
            for step in 0..30 {
                for queue in [&mut latents, &mut keys] {
                    queue.refresh(batch, turned);
                    push(queue, step * batch..(step + 1) * batch);
                }
                let seen = (step + 1) * batch;
                for n in seen.saturating_sub(len)..seen {
                    let (age, entry) = (seen - n, n % len);
                    assert_eq!(latents.keys()[[entry, n % 3]] < 0.0, age > len - len / 2, "{len} {batch} {step} {n}");
                    assert!(keys.keys()[[entry, n % 3]] > 0.0);
                }
            }
        }
    }
}
