//! Contrastive predictive coding over rows: tells the cell `k` rows below from everything else in the batch.
//!
//! CPC (van den Oord et al. 2018, 1807.03748) in the form of CPC v2 (Hénaff et al. 2019, 1905.09272, page 15). With
//! `z` the cells' projected latents, each scaled to the length `sqrt(c)`, `[b, h, w, c]`:
//!
//! - targets `t = W_t z`, `[b, h, w, p]`;
//! - contexts `x = context(z)`, `[b, h, w, c]`, causal by row ([`Context`](crate::head::Context));
//! - predictions `W_k x`, `[b, h, w, p]`, one linear map for each offset `k`;
//! - the loss of [`InfoNce`].
//!
//! Over a grid, a row is a row of patches of one image. Over a sequence (`w = 1`), a row is a time step: the context
//! is causal in time, and latents `k` steps later are predicted.
//!
//! Known implementations differ in ways that are not copied here. PyTorch Lightning Bolts has one prediction map for
//! all `k`, counts offset `k` exactly `k - 1` times in a double loop, begins at `k = 2`, skips the offset without
//! rows only because its loss is NaN, and sums where the paper means a mean. The paper's own listing leaves out the
//! first offsets, because patches that overlap by half share pixels with the row below; here `learn.cpc.first` sets
//! this.
mod loss;
mod network;
#[cfg(test)]
mod tests;

pub use loss::InfoNce;
pub use network::{CpcNetwork, CpcPass, CpcSizes};
