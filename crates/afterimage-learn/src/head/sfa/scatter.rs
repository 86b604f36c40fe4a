//! The running statistics of linear slow feature analysis.
mod views;

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, s};

use super::{SfaFit, slow_from};
use crate::error::{Error, Result};
use crate::linalg::matmul;
use crate::sampling::Block;
use views::ViewScatter;

/// Rows of a matrix processed at a time, so that their products stay in the cache.
const PANEL: usize = 64;

/// Sums over latents and over pairs of latents close in time, in `f64`. They only grow, can be merged (over blocks,
/// runs or machines), and are all that [`ScatterStats::fit`] needs.
///
/// - `sum = sum of f`, `[d]`, and `total = sum of f f'`, `[d, d]`, over all frames;
/// - `within = sum of (fa - fb)(fa - fb)'`, `[d, d]`, over all pairs;
/// - `view = sum of (f - v)(f - v)'`, `[d, d]`, over all augmented views `v` of frames `f`, if there are any.
///
/// The matrices are symmetric, so only their upper triangles are kept, row by row: `(0,0)` to `(0,d-1)`, `(1,1)` to
/// `(1,d-1)`, and so on.
#[derive(Debug, Clone, PartialEq)]
pub struct ScatterStats {
    dim: usize,
    frames: u64,
    pairs: u64,
    sum: Vec<f64>,
    total: Vec<f64>,
    within: Vec<f64>,
    view: ViewScatter,
}

/// The contents of [`ScatterStats`], for saving.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScatterBuffers<'a> {
    /// `d`
    pub dim: usize,
    /// Number of latents added.
    pub frames: u64,
    /// Number of pairs added.
    pub pairs: u64,
    /// `[d]`
    pub sum: &'a [f64],
    /// Upper triangle row by row, `[d (d + 1) / 2]`.
    pub total: &'a [f64],
    /// Upper triangle row by row, `[d (d + 1) / 2]`.
    pub within: &'a [f64],
    /// Number of augmented views added.
    pub views: u64,
    /// Upper triangle row by row, `[d (d + 1) / 2]`; empty while there are no views.
    pub view: &'a [f64],
}

impl ScatterStats {
    /// Empty statistics for latents of `dim` entries.
    pub fn new(dim: usize) -> Self {
        let packed = dim * (dim + 1) / 2;
        let (total, within, view) = (vec![0.0; packed], vec![0.0; packed], ViewScatter::default());
        Self { dim, frames: 0, pairs: 0, sum: vec![0.0; dim], total, within, view }
    }

    /// `d`
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of latents added.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Number of pairs added.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// Number of augmented views added.
    pub fn views(&self) -> u64 {
        self.view.views
    }

    /// Adds a block `F: [n, d]`: its frames, their augmented views, and the given pairs `[a, b]` of its rows
    /// ([`crate::sampling::PairSampler::pairs`]).
    ///
    /// This does not need a product per pair: with `h_t = sum over partners p of t of (f_t - f_p)`, `[n, d]`,
    ///
    /// `sum over pairs of (fa - fb)(fa - fb)' = F' H`
    ///
    /// (`H = L F`, where `L` is the Laplacian of the graph of pairs). The columns of `H` sum to zero, so `F` can be
    /// centred first, which keeps `f32` products accurate enough: their error is 1e-6 of what is added. They are
    /// summed in `f64`.
    ///
    /// # Errors
    /// A block of another dimension, or a pair with rows that do not exist; nothing is added then.
    pub fn add(&mut self, block: &Block, pairs: &[[usize; 2]]) -> Result<()> {
        let (n, d) = block.latents.dim();
        if d != self.dim || pairs.iter().flatten().any(|&row| row >= n) {
            return Err(Error::runtime(format!(
                "a block of {n} latents of {d} does not fit statistics of {} dimensions, or has not the rows of its pairs",
                self.dim
            )));
        }
        ViewScatter::fits(block.latents.view(), &block.views)?;
        if n == 0 || d == 0 {
            return Ok(());
        }
        self.view.add(block.latents.view(), &block.views);
        let latents = block.latents.as_standard_layout();
        let mut sum = vec![0.0f64; d];
        for row in latents.rows() {
            sum.iter_mut().zip(row).for_each(|(sum, &f)| *sum += f64::from(f));
        }
        let mean: Array1<f32> = sum.iter().map(|sum| (sum / n as f64) as f32).collect();
        let centred = &latents - &mean;
        let differences = differences(&centred, pairs);

        let mut panel = Array2::zeros((PANEL.min(d), d));
        add_product(&mut self.total, latents.view(), latents.view(), panel.view_mut());
        if !pairs.is_empty() {
            add_product(&mut self.within, centred.view(), differences.view(), panel.view_mut());
        }
        self.sum.iter_mut().zip(&sum).for_each(|(all, sum)| *all += sum);
        self.frames += n as u64;
        self.pairs += pairs.len() as u64;
        Ok(())
    }

    /// Adds the statistics of `other`.
    ///
    /// # Errors
    /// Another dimension; nothing is added then.
    pub fn merge(&mut self, other: &ScatterStats) -> Result<()> {
        if other.dim != self.dim {
            return Err(Error::runtime(format!(
                "statistics of {} and {} dimensions cannot be added",
                self.dim, other.dim
            )));
        }
        let add = |all: &mut [f64], other: &[f64]| all.iter_mut().zip(other).for_each(|(all, x)| *all += x);
        add(&mut self.sum, &other.sum);
        add(&mut self.total, &other.total);
        add(&mut self.within, &other.within);
        self.view.merge(&other.view);
        self.frames += other.frames;
        self.pairs += other.pairs;
        Ok(())
    }

    /// The statistics of the entries `range` of the latents alone, `[n]`: exactly the rows and columns of these.
    ///
    /// # Errors
    /// A range that is empty or out of bounds.
    pub fn part(&self, range: Range<usize>) -> Result<ScatterStats> {
        if range.is_empty() || range.end > self.dim {
            let (Range { start, end }, dim) = (range, self.dim);
            return Err(Error::runtime(format!("entries {start} to {end} are no part of latents of {dim}")));
        }
        let square = |packed: &[f64]| -> Vec<f64> {
            let row = |i: usize| start_of_row(self.dim, i)..start_of_row(self.dim, i) + range.end - i;
            range.clone().flat_map(|i| packed[row(i)].iter().copied()).collect()
        };
        let packed = if self.view.packed.is_empty() { Vec::new() } else { square(&self.view.packed) };
        Ok(Self {
            dim: range.len(),
            frames: self.frames,
            pairs: self.pairs,
            sum: self.sum[range.clone()].to_vec(),
            total: square(&self.total),
            within: square(&self.within),
            view: ViewScatter { views: self.view.views, packed },
        })
    }

    /// Fits the slow head with `keep` directions ([`slow_from`]), using `T = total / frames - mean mean'` and `S =
    /// within / (2 pairs)`. The same statistics give the same bits.
    ///
    /// # Errors
    /// Fewer than 2 frames, no pairs, statistics that are not finite, and those of [`slow_from`].
    pub fn fit(&self, keep: usize, shrinkage: f64) -> Result<SfaFit> {
        self.fit_with_views(keep, shrinkage, 0.0)
    }

    /// [`ScatterStats::fit`] with `S + weight (tr S / tr V) V` in place of `S`, where `V = view / (2 views)`.
    /// `weight` is the weight of the augmented views relative to the pairs, whatever their number and strength.
    /// Without views this is [`ScatterStats::fit`].
    ///
    /// # Errors
    /// As [`ScatterStats::fit`].
    pub fn fit_with_views(&self, keep: usize, shrinkage: f64, weight: f64) -> Result<SfaFit> {
        if self.frames < 2 {
            return Err(Error::runtime(format!(
                "a fit needs at least 2 frames, found {}; learn from more",
                self.frames
            )));
        }
        if self.pairs == 0 {
            return Err(Error::runtime(format!(
                "no pair among {} frames: widen learn.sampling.gap_min_secs to learn.sampling.gap_max_secs, or raise learn.frames_per_sec",
                self.frames
            )));
        }
        let mean: Array1<f64> = self.sum.iter().map(|sum| sum / self.frames as f64).collect();
        let (frames, twice) = (self.frames as f64, 2.0 * self.pairs as f64);
        let at = |i, j| start_of_row(self.dim, i) + j - i;
        let total = |i, j| self.total[at(i, j)] / frames - mean[i] * mean[j];
        let trace = |packed: &[f64]| (0..self.dim).map(|i| packed[at(i, i)]).sum::<f64>();
        // Each is divided by its own count, so that the counts of pairs and views cancel out of the ratio.
        let loudness = match self.view.packed.as_slice() {
            [] => 0.0,
            packed if weight > 0.0 && trace(packed) > 0.0 => weight * trace(&self.within) / trace(packed),
            _ => 0.0,
        };
        let within = |i, j| {
            let pairs = self.within[at(i, j)];
            let both = if loudness > 0.0 { pairs + loudness * self.view.packed[at(i, j)] } else { pairs };
            both / twice
        };
        slow_from(mean.clone(), total, within, keep, shrinkage)
    }

    /// Returns all contents, for saving.
    pub fn parts(&self) -> ScatterBuffers<'_> {
        let Self { dim, frames, pairs, sum, total, within, view } = self;
        let (views, view) = (view.views, view.packed.as_slice());
        ScatterBuffers { dim: *dim, frames: *frames, pairs: *pairs, sum, total, within, views, view }
    }

    /// The inverse of [`ScatterStats::parts`], without views.
    ///
    /// # Errors
    /// Lengths that do not match `dim`, or values that are not finite.
    pub fn from_parts(
        dim: usize,
        frames: u64,
        pairs: u64,
        sum: Vec<f64>,
        total: Vec<f64>,
        within: Vec<f64>,
    ) -> Result<Self> {
        let packed = dim.checked_add(1).and_then(|next| next.checked_mul(dim)).map(|twice| twice / 2);
        if sum.len() != dim || Some(total.len()) != packed || Some(within.len()) != packed {
            return Err(Error::runtime(format!(
                "statistics of {dim} dimensions come with {}, {} and {} numbers",
                sum.len(),
                total.len(),
                within.len()
            )));
        }
        if !sum.iter().chain(&total).chain(&within).all(|x| x.is_finite()) {
            return Err(Error::runtime("the saved statistics hold numbers that are not finite"));
        }
        Ok(Self { dim, frames, pairs, sum, total, within, view: ViewScatter::default() })
    }

    /// Adds the statistics of `views` views, as [`ScatterStats::parts`] returns them.
    ///
    /// # Errors
    /// A length that does not match, or values that are not finite.
    pub fn with_views(mut self, views: u64, packed: Vec<f64>) -> Result<Self> {
        let wanted = if views == 0 { 0 } else { self.total.len() };
        if packed.len() != wanted || !packed.iter().all(|x| x.is_finite()) {
            return Err(Error::runtime(format!(
                "the saved statistic of {views} views has {} numbers, {wanted} finite ones expected",
                packed.len()
            )));
        }
        self.view = ViewScatter { views, packed };
        Ok(self)
    }
}

/// Position of `(i, i)` in a packed upper triangle.
fn start_of_row(dim: usize, i: usize) -> usize {
    i * (2 * dim + 1 - i) / 2
}

/// `h_t = sum over partners p of t of (f_t - f_p)`.
fn differences(f: &Array2<f32>, pairs: &[[usize; 2]]) -> Array2<f32> {
    let mut out = Array2::zeros(f.dim());
    for &[a, b] in pairs.iter().filter(|[a, b]| a != b) {
        let (mut at_a, mut at_b) = out.multi_slice_mut((s![a, ..], s![b, ..]));
        ndarray::Zip::from(&mut at_a).and(&mut at_b).and(f.row(a)).and(f.row(b)).for_each(|at_a, at_b, &a, &b| {
            *at_a += a - b;
            *at_b += b - a;
        });
    }
    out
}

/// Adds the upper triangle of `a' b` (symmetric) to a packed one; `a`, `b: [n, d]`; `panel: [.., d]` is working
/// memory.
fn add_product(packed: &mut [f64], a: ArrayView2<f32>, b: ArrayView2<f32>, mut panel: ArrayViewMut2<f32>) {
    let dim = a.ncols();
    for from in (0..dim).step_by(PANEL) {
        let rows = PANEL.min(dim - from);
        let mut panel = panel.slice_mut(s![..rows, from..]);
        matmul(1.0, a.slice(s![.., from..from + rows]).t(), b.slice(s![.., from..]), 0.0, panel.view_mut());
        for (i, row) in panel.rows().into_iter().enumerate() {
            let start = start_of_row(dim, from + i);
            let packed = &mut packed[start..start + dim - from - i];
            packed.iter_mut().zip(row.iter().skip(i)).for_each(|(all, &x)| *all += f64::from(x));
        }
    }
}

#[cfg(test)]
mod tests;
