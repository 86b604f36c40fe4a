//! Statistics of augmented views: instance discrimination (Wu et al. 2018) in closed form.
use ndarray::{Array2, ArrayView2};

use super::{PANEL, add_product};
use crate::error::{Error, Result};
use crate::sampling::Views;

/// `sum over views v of (f - v)(f - v)'`, where `f` is the latent of the frame that `v` is a view of; `[d, d]`,
/// packed as in [`super::ScatterStats`]. It allocates memory with the first view.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ViewScatter {
    pub(super) views: u64,
    /// Empty until there is a view.
    pub(super) packed: Vec<f64>,
}

impl ViewScatter {
    /// Checks that `views` match the rows of `latents`.
    ///
    /// # Errors
    /// Says what does not match.
    pub(super) fn fits(latents: ArrayView2<f32>, views: &Views) -> Result<()> {
        let (m, d) = views.latents.dim();
        let rows = latents.nrows();
        if views.rows.len() != m || (m > 0 && d != latents.ncols()) || views.rows.iter().any(|i| *i as usize >= rows) {
            return Err(Error::runtime(format!(
                "{m} views of {d} numbers, of {} rows, do not fit a block of {rows} latents of {}",
                views.rows.len(),
                latents.ncols()
            )));
        }
        Ok(())
    }

    /// Adds views that have been checked.
    pub(super) fn add(&mut self, latents: ArrayView2<f32>, views: &Views) {
        let (m, d) = views.latents.dim();
        if m == 0 || d == 0 {
            return;
        }
        let mut differences = views.latents.clone();
        for (mut view, row) in differences.rows_mut().into_iter().zip(&views.rows) {
            view -= &latents.row(*row as usize);
        }
        self.packed.resize(d * (d + 1) / 2, 0.0);
        let mut panel = Array2::zeros((PANEL.min(d), d));
        add_product(&mut self.packed, differences.view(), differences.view(), panel.view_mut());
        self.views += m as u64;
    }

    /// Adds the statistics of `other`, which has the same dimension.
    pub(super) fn merge(&mut self, other: &Self) {
        self.packed.resize(self.packed.len().max(other.packed.len()), 0.0);
        self.packed.iter_mut().zip(&other.packed).for_each(|(all, x)| *all += x);
        self.views += other.views;
    }
}
