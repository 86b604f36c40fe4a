//! Forward and backward pass through the blocks.
use ndarray::{Array2, ArrayView2, Axis, Zip};

use super::masked_shift::{ACROSS, DOWN, gather, scatter};
use super::{Context, GridShape};
use crate::linalg::{Scalar, matmul, product};

/// The cache of a forward pass that [`Context::backward`] needs.
#[derive(Debug, Clone)]
pub struct ContextCache<T> {
    cells: GridShape,
    blocks: Vec<BlockCache<T>>,
}

/// The activations of one block, over `N` cells.
#[derive(Debug, Clone)]
struct BlockCache<T> {
    /// The input, `[N, c]`.
    input: Array2<T>,
    /// After the first ReLU, with the neighbours across, `[N, 3 m]`.
    across: Array2<T>,
    /// The input of the downward convolution with its neighbours, `[N, 2 m]`.
    down: Array2<T>,
    /// After the second ReLU, `[N, m]`.
    act: Array2<T>,
}

impl<T: Scalar> Context<T> {
    /// Computes the context of every cell: `x: [N, c]` to `[N, c]`, and the cache for [`Context::backward`].
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn forward(&self, x: ArrayView2<T>, cells: GridShape) -> (Array2<T>, ContextCache<T>) {
        let mut x = x.as_standard_layout().into_owned();
        let mut blocks = Vec::with_capacity(self.blocks());
        for block in 0..self.blocks() {
            let (out, cache) = self.block(block, x, cells);
            x = out;
            blocks.push(cache);
        }
        (x, ContextCache { cells, blocks })
    }

    /// [`Context::forward`] without the cache.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn rows(&self, x: ArrayView2<T>, cells: GridShape) -> Array2<T> {
        (0..self.blocks()).fold(x.as_standard_layout().into_owned(), |x, block| self.block(block, x, cells).0)
    }

    fn block(&self, at: usize, input: Array2<T>, cells: GridShape) -> (Array2<T>, BlockCache<T>) {
        assert_eq!(input.nrows(), cells.count(), "cells of the context network");
        let w = |w: &'_ ndarray::Array3<T>, x: ArrayView2<T>| product(x, w.index_axis(Axis(0), at).t());
        let mut first = w(&self.w_in, input.view()) + self.b_in.row(at);
        first.mapv_inplace(relu);
        let across = gather(first.view(), cells, &ACROSS);
        let flat = w(&self.w_across, across.view()) + self.b_across.row(at);
        let down = gather(flat.view(), cells, &DOWN);
        let mut act = w(&self.w_down, down.view()) + self.b_down.row(at);
        act.mapv_inplace(relu);
        let out = w(&self.w_out, act.view()) + self.b_out.row(at) + &input;
        (out, BlockCache { input, across, down, act })
    }

    /// Computes the gradients of a scalar with respect to the parameters in `grads` (overwritten), and returns that
    /// with respect to the input, `[N, c]`. `grad_out: [N, c]` is its gradient with respect to the output of
    /// [`Context::forward`].
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn backward(&self, cache: &ContextCache<T>, grad_out: ArrayView2<T>, grads: &mut Context<T>) -> Array2<T> {
        let mut grad_out = grad_out.to_owned();
        let m = self.width();
        for (at, block) in cache.blocks.iter().enumerate().rev() {
            let weights = |w: &'_ ndarray::Array3<T>, grad: &Array2<T>| product(grad.view(), w.index_axis(Axis(0), at));
            let keep = |into: &mut ndarray::Array3<T>, bias: &mut Array2<T>, grad: &Array2<T>, x: &Array2<T>| {
                matmul(T::one(), grad.t(), x.view(), T::zero(), into.index_axis_mut(Axis(0), at));
                bias.row_mut(at).assign(&grad.sum_axis(Axis(0)));
            };
            keep(&mut grads.w_out, &mut grads.b_out, &grad_out, &block.act);
            let mut act = weights(&self.w_out, &grad_out);
            through_relu(&mut act, block.act.view());
            keep(&mut grads.w_down, &mut grads.b_down, &act, &block.down);
            let flat = scatter(weights(&self.w_down, &act).view(), cache.cells, &DOWN);
            keep(&mut grads.w_across, &mut grads.b_across, &flat, &block.across);
            let mut first = scatter(weights(&self.w_across, &flat).view(), cache.cells, &ACROSS);
            // The middle third of the gathered neighbours is the output of the first ReLU.
            through_relu(&mut first, block.across.slice(ndarray::s![.., m..2 * m]));
            keep(&mut grads.w_in, &mut grads.b_in, &first, &block.input);
            grad_out += &weights(&self.w_in, &first);
        }
        grad_out
    }
}

fn relu<T: Scalar>(x: T) -> T {
    if x > T::zero() { x } else { T::zero() }
}

/// Zeroes the gradient where the ReLU gave zero.
fn through_relu<T: Scalar>(grad: &mut Array2<T>, given: ArrayView2<T>) {
    Zip::from(grad).and(given).for_each(|grad, &given| {
        if given <= T::zero() {
            *grad = T::zero();
        }
    });
}
