//! Places the neighbours of each cell side by side, so that a convolution becomes one matrix product.
use ndarray::{Array2, ArrayView2, s};

use super::GridShape;
use crate::linalg::Scalar;

/// Offset of a neighbour: rows up, and columns to the right (negative: to the left).
pub(super) type Neighbour = (usize, isize);

/// 1x3: the cell to the left, the cell itself, the cell to the right.
pub(super) const ACROSS: [Neighbour; 3] = [(0, -1), (0, 0), (0, 1)];
/// 2x1: the cell above, the cell itself.
pub(super) const DOWN: [Neighbour; 2] = [(1, 0), (0, 0)];

/// Concatenates the channels of every cell's neighbours, with zeros where there is none: `x: [n, m]` to `[n, taps
/// m]`.
pub(super) fn gather<T: Scalar>(x: ArrayView2<T>, cells: GridShape, neighbours: &[Neighbour]) -> Array2<T> {
    let m = x.ncols();
    let mut out = Array2::zeros((x.nrows(), neighbours.len() * m));
    each(cells, neighbours, |tap, from, to, len| {
        out.slice_mut(s![to..to + len, tap * m..(tap + 1) * m]).assign(&x.slice(s![from..from + len, ..]));
    });
    out
}

/// The transpose of [`gather`]: adds every neighbour's part to the cell that it came from, `[n, taps m]` to `[n, m]`.
pub(super) fn scatter<T: Scalar>(x: ArrayView2<T>, cells: GridShape, neighbours: &[Neighbour]) -> Array2<T> {
    let m = x.ncols() / neighbours.len().max(1);
    let mut out = Array2::zeros((x.nrows(), m));
    each(cells, neighbours, |tap, from, to, len| {
        let mut out = out.slice_mut(s![from..from + len, ..]);
        out += &x.slice(s![to..to + len, tap * m..(tap + 1) * m]);
    });
    out
}

/// Calls `f(tap, from, to, len)` for runs of cells: the neighbours of the `len` cells from `to` on are the cells from
/// `from` on.
fn each(cells: GridShape, neighbours: &[Neighbour], mut f: impl FnMut(usize, usize, usize, usize)) {
    let w = cells.columns;
    for (tap, &(up, right)) in neighbours.iter().enumerate() {
        let beside = right.unsigned_abs();
        if up >= cells.rows || beside >= w {
            continue;
        }
        let (left_of, right_of) = if right < 0 { (beside, 0) } else { (0, beside) };
        for frame in 0..cells.frames {
            for row in up..cells.rows {
                let start = (frame * cells.rows + row) * w;
                f(tap, start - up * w + right_of, start + left_of, w - beside);
            }
        }
    }
}
