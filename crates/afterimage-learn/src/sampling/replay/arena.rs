//! Storage of replayed latents: rows of f16 in memory that is reserved once.
use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::Array2;

use crate::error::{Error, Result};
use crate::linalg::{normalise, slices_mut};

/// Rows `[d]` of f16, taken and released one by one.
#[derive(Debug, Clone)]
pub(super) struct Arena {
    pub(super) dim: usize,
    /// `[rows, d]`, row after row; never more than were reserved.
    pub(super) rows: Vec<f16>,
    /// Indices of free rows.
    pub(super) free: Vec<u32>,
}

impl Arena {
    /// Reserves space for `capacity` rows of `dim` values.
    ///
    /// # Errors
    /// The memory cannot be allocated.
    pub(super) fn reserve(dim: usize, capacity: usize) -> Result<Self> {
        let (mut rows, mut free) = (Vec::new(), Vec::new());
        rows.try_reserve_exact(capacity.saturating_mul(dim))
            .and_then(|()| free.try_reserve_exact(capacity))
            .map_err(|e| Error::config("learn.replay.megabytes: cannot allocate the replay memory").with_source(e))?;
        Ok(Self { dim, rows, free })
    }

    /// Writes a latent into a free row or a new one, and returns its index.
    pub(super) fn place(&mut self, latent: impl Iterator<Item = f32>) -> u32 {
        let row = latent.map(f16::from_f32);
        match self.free.pop() {
            Some(slot) => {
                let start = slot as usize * self.dim;
                self.rows[start..start + self.dim].iter_mut().zip(row).for_each(|(to, from)| *to = from);
                slot
            }
            None => {
                let slot = self.rows.len() / self.dim.max(1);
                self.rows.extend(row);
                slot as u32
            }
        }
    }

    /// Releases these rows.
    pub(super) fn release(&mut self, slots: &[u32]) {
        self.free.extend_from_slice(slots);
    }

    /// Reads one latent `[d]` and normalises it to unit length again after its storage as f16.
    pub(super) fn read(&self, slot: u32, row: &mut [f32]) {
        let start = slot as usize * self.dim;
        self.rows[start..start + self.dim].convert_to_f32_slice(row);
        normalise(row);
    }

    /// Reads several latents as `[n, d]`, each as [`Arena::read`] does.
    pub(super) fn gather(&self, slots: impl ExactSizeIterator<Item = u32>) -> Array2<f32> {
        let mut out = Array2::zeros((slots.len(), self.dim));
        slices_mut(&mut out).zip(slots).for_each(|(row, slot)| self.read(slot, row));
        out
    }

    /// The key of a block: the unit mean of its latents, `[d]`. `row` is a scratch buffer of the same length.
    pub(super) fn key(&self, slots: &[u32], key: &mut [f32], row: &mut [f32]) {
        let Some((first, others)) = slots.split_first() else { return key.fill(0.0) };
        self.read(*first, key);
        for slot in others {
            self.read(*slot, row);
            key.iter_mut().zip(&*row).for_each(|(sum, x)| *sum += x);
        }
        if !others.is_empty() {
            normalise(key);
        }
    }
}
