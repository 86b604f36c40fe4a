//! Stores frames with an augmented view, for instance discrimination. See [`ViewBuffer`].
use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::false_negative_mask::{FalseNegativeMask, PairAnchor};
use super::{Batch, Block};
use crate::Timestamp;
use crate::config::Objective;
use crate::config::Training;
use crate::error::{Error, Result};
use crate::linalg::random::uniform_below;
use crate::linalg::{normalise, slices_mut};

/// Its share of `learn.replay.megabytes` if `learn.objective.name` contains `instance`; otherwise it takes nothing.
const SHARE: f64 = 0.125;

/// A ring buffer of the newest latents that came with the latent of an augmented view, together with these views.
/// Stores f16 in an eighth of `learn.replay.megabytes`.
#[derive(Debug, Clone)]
pub struct ViewBuffer {
    dim: usize,
    capacity: usize,
    /// Latent and view, `[2 d]` per row.
    rows: Vec<f16>,
    frames: Vec<PairAnchor>,
    /// Index of the next row to overwrite once the ring is full.
    next: usize,
    false_negatives: FalseNegativeMask,
}

/// The state of a [`ViewBuffer`], without its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewBufferState {
    /// Block, camera, segment and capture time (in nanoseconds) of each frame.
    pub frames: Vec<(u64, u16, u64, i64)>,
    /// Index of the next row to write.
    pub next: usize,
}

impl ViewBuffer {
    /// Creates an empty buffer for latents of length `dim`.
    pub fn new(config: &Training, dim: usize) -> Self {
        let bytes = config.replay.megabytes * 1e6 * Self::share(config);
        let entry = 2 * dim * size_of::<f16>() + size_of::<PairAnchor>();
        let capacity = (bytes / entry.max(1) as f64) as usize;
        let false_negatives = FalseNegativeMask::new(&config.sampling);
        Self { dim, capacity, rows: Vec::new(), frames: Vec::new(), next: 0, false_negatives }
    }

    /// The share of `learn.replay.megabytes` that is reserved for it.
    pub fn share(config: &Training) -> f64 {
        if config.objective.name.has(Objective::Instance) { SHARE } else { 0.0 }
    }

    /// Adds the frames of a block that have views; the oldest ones are dropped.
    pub fn insert(&mut self, block: &Block) {
        if block.latents.ncols() != self.dim || block.views.latents.ncols() != self.dim || self.capacity == 0 {
            return;
        }
        for (&row, view) in block.views.rows.iter().zip(block.views.latents.rows()) {
            let row = row as usize;
            let Some(&stamp) = block.stamps.get(row).filter(|_| row < block.latents.nrows()) else { continue };
            let frame = PairAnchor { block: block.number, camera: block.camera, segment: block.segment, stamp };
            let values = block.latents.row(row).into_iter().chain(view).map(|x| f16::from_f32(*x));
            if self.frames.len() < self.capacity {
                self.rows.extend(values);
                self.frames.push(frame);
            } else {
                let from = self.next * 2 * self.dim;
                self.rows[from..].iter_mut().zip(values).for_each(|(to, x)| *to = x);
                self.frames[self.next] = frame;
            }
            self.next = (self.next + 1) % self.capacity;
        }
    }

    /// At most `count` different frames (`a`) and their views (`b`); `None` while there are fewer than two.
    ///
    /// Frames of the same block are not each other's negatives, nor are frames that `learn.sampling.false_negatives`
    /// considers the same.
    pub fn batch(&self, count: usize, rng: &mut ChaCha8Rng) -> Option<Batch> {
        let mut order: Vec<usize> = (0..self.frames.len()).collect();
        let n = count.min(order.len());
        if n < 2 {
            return None;
        }
        for i in 0..n {
            let other = i + uniform_below(rng, order.len() - i);
            order.swap(i, other);
        }
        order.truncate(n);
        let side = |offset: usize| {
            let mut out = Array2::zeros((n, self.dim));
            for (row, &entry) in slices_mut(&mut out).zip(&order) {
                let from = (2 * entry + offset) * self.dim;
                self.rows[from..from + self.dim].convert_to_f32_slice(row);
                normalise(row);
            }
            out
        };
        let (a, b) = (side(0), side(1));
        let frames: Vec<PairAnchor> = order.iter().map(|&entry| self.frames[entry]).collect();
        let negatives = self.false_negatives.mask(&frames, a.view(), b.view());
        let (blocks, segments) = frames.iter().map(|f| (f.block, f.segment)).unzip();
        Some(Batch { a, b, negatives, blocks, segments })
    }

    /// The state to save, and the rows, each a latent followed by its view.
    pub fn save(&self) -> (ViewBufferState, &[f16]) {
        let frames = self.frames.iter().map(|f| (f.block, f.camera, f.segment, f.stamp.0)).collect();
        (ViewBufferState { frames, next: self.next }, &self.rows)
    }

    /// Restores a saved `state` and `rows`. Rows that no longer fit (under another configuration) are dropped.
    ///
    /// # Errors
    /// The parts do not fit together.
    pub fn restore(&mut self, state: ViewBufferState, rows: Vec<f16>) -> Result<()> {
        let count = state.frames.len();
        if rows.len() != count * 2 * self.dim || state.next > count {
            return Err(Error::runtime(format!(
                "saved views: {count} frames and place {} with {} numbers of latents of {}",
                state.next,
                rows.len(),
                self.dim
            )));
        }
        // In a ring of another size, the next row is elsewhere.
        let filling = count < self.capacity && state.next == count;
        let full = count == self.capacity && state.next < count;
        if !filling && !full {
            return Ok(());
        }
        let frame = |(block, camera, segment, stamp)| PairAnchor { block, camera, segment, stamp: Timestamp(stamp) };
        self.frames = state.frames.into_iter().map(frame).collect();
        (self.rows, self.next) = (rows, state.next);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::super::Views;
    use super::*;
    use crate::config::{ObjectiveSettings, ReplaySettings};

    const DIM: usize = 4;

    /// Frames along axis `number % 4`; every second one has a view along the next axis.
    fn block(number: u64) -> Block {
        let axis = |shift: usize, n: usize| {
            Array2::from_shape_fn((n, DIM), |(_, j)| f32::from(u8::from(j == (number as usize + shift) % DIM)))
        };
        Block {
            number,
            segment: number / 2,
            index: (0..6).collect(),
            stamps: (0..6).map(|i| Timestamp(i * 100)).collect(),
            latents: axis(0, 6),
            views: Views { rows: vec![0, 2, 4], latents: axis(1, 3) },
            ..Block::default()
        }
    }

    fn viewed(objective: &str) -> ViewBuffer {
        // An eighth of a megabyte; rows of 16 bytes plus their frame.
        let objective = ObjectiveSettings { name: objective.parse().unwrap(), ..ObjectiveSettings::default() };
        let replay = ReplaySettings { megabytes: 0.008, ..ReplaySettings::default() };
        let learn = Training { objective, replay, ..Training::default() };
        ViewBuffer::new(&learn, DIM)
    }

    #[test]
    fn frames_come_with_their_own_views_and_the_oldest_go() {
        let mut ring = viewed("nt-xent + instance");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!(ring.batch(8, &mut rng).is_none() && (10..30).contains(&ring.capacity), "{}", ring.capacity);
        (0..20).for_each(|n| ring.insert(&block(n)));
        assert_eq!((ring.frames.len(), ring.rows.len()), (ring.capacity, ring.capacity * 2 * DIM));
        let oldest = ring.frames.iter().map(|f| f.block).min().unwrap();
        assert_eq!(oldest, (60 - ring.capacity as u64) / 3);
        let batch = ring.batch(8, &mut rng).unwrap();
        for (i, &number) in batch.blocks.iter().enumerate() {
            assert_eq!(batch.a[[i, number as usize % DIM]], 1.0);
            assert_eq!(batch.b[[i, (number as usize + 1) % DIM]], 1.0);
            assert_eq!(batch.segments[i], number / 2);
            for (j, other) in batch.blocks.iter().enumerate() {
                assert_eq!(batch.negatives[[i, j]], number != *other);
            }
        }
        assert_eq!(ring.batch(1000, &mut rng).unwrap().a.nrows(), ring.capacity, "each once");
    }

    #[test]
    fn without_the_objective_it_takes_nothing() {
        let mut ring = viewed("nt-xent");
        ring.insert(&block(0));
        assert!(ring.frames.is_empty() && ring.rows.is_empty());
    }

    #[test]
    fn goes_on_from_a_saved_state() {
        let mut ring = viewed("instance");
        (0..9).for_each(|n| ring.insert(&block(n)));
        let (state, rows) = ring.save();
        let rows = rows.to_vec();
        let mut other = viewed("instance");
        other.restore(state.clone(), rows.clone()).unwrap();
        for ring in [&mut ring, &mut other] {
            (9..12).for_each(|n| ring.insert(&block(n)));
        }
        let batch = |ring: &ViewBuffer| ring.batch(7, &mut ChaCha8Rng::seed_from_u64(5)).unwrap();
        assert_eq!(batch(&ring), batch(&other));
        let why = viewed("instance").restore(state.clone(), vec![f16::ZERO; 3]).unwrap_err().to_string();
        assert!(why.contains("3 numbers"), "{why}");
        let mut none = viewed("nt-xent");
        none.restore(state, rows).unwrap();
        assert!(none.frames.is_empty(), "there is no room for them any more");
    }
}
