//! The networks that CPC trains in addition to the head: target map, context network, prediction maps.
use ndarray::{Array2, ArrayView2, s};
use rand_chacha::ChaCha8Rng;

use super::InfoNce;
use crate::head::{Context, GridShape, equalised};
use crate::linalg::random::uniform;
use crate::linalg::{NORM_FLOOR, Scalar, inner, matmul, product, slices, slices_mut};

/// The networks of CPC over cells of `c` channels, predicting offsets `first ..= last` in a space of `p` dimensions.
/// All arrays are in standard layout.
#[derive(Debug, Clone, PartialEq)]
pub struct CpcNetwork<T> {
    /// `W_t: [p, c]`
    pub target: Array2<T>,
    /// The context network.
    pub context: Context<T>,
    /// `W_k: [K p, c]`, `p` rows for each of the `K` offsets.
    pub predict: Array2<T>,
}

/// Dimensions of a [`CpcNetwork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpcSizes {
    /// `c`, channels of a cell.
    pub channels: usize,
    /// `p`, dimensions of the targets.
    pub targets: usize,
    /// Channels inside a block of the context network.
    pub width: usize,
    /// Number of blocks of the context network.
    pub blocks: usize,
    /// `K`, the number of predicted offsets.
    pub offsets: usize,
}

/// The result of a pass over a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct CpcPass<T> {
    /// The loss, nats.
    pub value: f64,
    /// Its gradient with respect to the cells, `[b h w, c]`.
    pub grad: Array2<T>,
}

impl<T: Scalar> CpcNetwork<T> {
    /// Initialises weights and biases uniformly in `+-1 / sqrt(fan in)`.
    pub fn start(sizes: CpcSizes, rng: &mut ChaCha8Rng) -> Self {
        let bound = 1.0 / (sizes.channels.max(1) as f64).sqrt();
        let mut draw =
            |rows| Array2::from_shape_simple_fn((rows, sizes.channels), || T::of((2.0 * uniform(rng) - 1.0) * bound));
        let (target, predict) = (draw(sizes.targets), draw(sizes.offsets * sizes.targets));
        Self { target, context: Context::start(sizes.channels, sizes.width, sizes.blocks, rng), predict }
    }

    /// An all-zero network with the same shapes.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        let context = &self.context;
        Self {
            target: Array2::zeros(self.target.dim()),
            context: Context::zeros(context.channels(), context.width(), context.blocks()),
            predict: Array2::zeros(self.predict.dim()),
        }
    }

    /// `K`, the number of predicted offsets.
    pub fn offsets(&self) -> usize {
        self.predict.nrows() / self.target.nrows().max(1)
    }

    /// Computes the loss over `z: [b h w, c]`, whose rows are first scaled to the same length ([`equalised`]), and
    /// its gradients: those with respect to the parameters go to `grads` (overwritten), that with respect to `z` is
    /// returned. Offsets `first ..= first + K - 1` are predicted as far as there are rows, and their losses have
    /// equal weight.
    ///
    /// # Panics
    /// If the shapes do not match, or no row has one `first` below.
    pub fn pass(
        &self,
        z: ArrayView2<T>,
        cells: GridShape,
        first: usize,
        loss: InfoNce,
        segments: Option<&[u64]>,
        grads: &mut Self,
    ) -> CpcPass<T> {
        assert!(first < cells.rows, "offset {first} of {} rows", cells.rows);
        let used = self.offsets().min(cells.rows - first);
        let p = self.target.nrows();
        let (z, lengths) = equalised(z);
        let targets = product(z.view(), self.target.t());
        let (context, cache) = self.context.forward(z.view(), cells);
        let predictions = product(context.view(), self.predict.t());
        let mut grad_predictions = Array2::zeros(predictions.dim());
        let mut grad_targets = Array2::zeros(targets.dim());
        let weight = 1.0 / used as f64;
        let mut value = 0.0;
        for i in 0..used {
            let of = s![.., i * p..(i + 1) * p];
            let (q, grad) = (predictions.slice(of), grad_predictions.slice_mut(of));
            let t = targets.view();
            value += weight * loss.offset(q, t, cells, first + i, segments, weight, grad, &mut grad_targets);
        }
        matmul(T::one(), grad_predictions.t(), context.view(), T::zero(), grads.predict.view_mut());
        matmul(T::one(), grad_targets.t(), z.view(), T::zero(), grads.target.view_mut());
        let grad_context = product(grad_predictions.view(), self.predict.view());
        let mut grad = self.context.backward(&cache, grad_context.view(), &mut grads.context);
        matmul(T::one(), grad_targets.view(), self.target.view(), T::one(), grad.view_mut());
        // Through the scaling z = sqrt(c) x / |x|: only the component orthogonal to z remains.
        let channels = T::of(z.ncols() as f64);
        for ((grad, z), &length) in slices_mut(&mut grad).zip(slices(&z)).zip(&lengths) {
            let factor = if length < T::of(NORM_FLOOR) { T::zero() } else { channels.sqrt() / length };
            let along = inner(grad, z) / channels;
            grad.iter_mut().zip(z).for_each(|(g, &z)| *g = (*g - z * along) * factor);
        }
        CpcPass { value, grad }
    }
}
