//! RoIAlign: pools a box from a grid of cells (He, Gkioxari, Dollar, Girshick: Mask R-CNN, 2017).
use crate::config::Size;
use crate::head::Grid;
use crate::linalg::normalise;

use super::BBox;

/// Positions of the grid cells in the encoder's input, in pixels: the centre of cell `i` along an axis is
/// `first + step i`.
///
/// A convolutional network or a vision transformer divides its input evenly: `step = pixels / cells`,
/// `first = step / 2`. Models with overlapping patches (CPC: 64 pixels, 32 apart) give other values in the model card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridGeometry {
    /// Centre of the first column and of the first row.
    pub first: [f64; 2],
    /// Distance between columns and between rows.
    pub step: [f64; 2],
}

impl GridGeometry {
    /// The geometry of a `grid` that divides an input of `size` evenly.
    pub fn even(grid: Grid, size: Size) -> Self {
        let step = [(size.width, grid.columns), (size.height, grid.rows)]
            .map(|(pixels, cells)| f64::from(pixels) / cells.max(1) as f64);
        Self { first: step.map(|step| step / 2.0), step }
    }

    /// Converts a box of a frame to grid coordinates, in which cell `i` covers `i` to `i + 1`. `region`: left, top,
    /// width and height of the part of the frame that became the input of `size`.
    pub fn of(&self, rect: BBox, region: [f64; 4], size: Size) -> BBox {
        let [left, top, wide, high] = region;
        let (width, height) = (f64::from(size.width), f64::from(size.height));
        let x = |x: f64| ((x - left) * width / wide - self.first[0]) / self.step[0] + 0.5;
        let y = |y: f64| ((y - top) * height / high - self.first[1]) / self.step[1] + 0.5;
        BBox { left: x(rect.left), top: y(rect.top), right: x(rect.right), bottom: y(rect.bottom) }
    }
}

/// Divides the box into `bins` (rows, columns). Each bin is the mean of `samples` x `samples` points (0: as many as the
/// box has cells per bin), interpolated bilinearly between cell centres. Same as `torchvision.ops.roi_align` with
/// `aligned=True`: points up to one cell outside the grid use the nearest cells, points further out are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoiAlign {
    /// Number of bins from top to bottom and from left to right.
    pub bins: [usize; 2],
    /// Sample points per bin along each side.
    pub samples: usize,
}

impl RoiAlign {
    /// The default for one vector per box: 7 x 7 bins of 2 x 2 points, as in Mask R-CNN.
    pub const POOL: Self = Self { bins: [7, 7], samples: 2 };

    /// Pools the bins: `[h, w, d]` to `[bin rows, bin columns, d]`. `rect`: in cells, see [`GridGeometry::of`].
    ///
    /// # Panics
    /// If the length of `latent` does not match `grid`.
    pub fn align(self, grid: Grid, latent: &[f32], rect: BBox) -> Vec<f32> {
        let rows = self.weights(rect.top, rect.bottom, self.bins[0], grid.rows);
        let columns = self.weights(rect.left, rect.right, self.bins[1], grid.columns);
        let pairs = rows.iter().flat_map(|y| columns.iter().map(move |x| (y, x)));
        pairs.flat_map(|(y, x)| weighted(grid, latent, y, x)).map(|v| v as f32).collect()
    }

    /// The mean of the bins scaled to unit length, `[h, w, d]` to `[d]`; `None` if the mean has no direction.
    ///
    /// # Panics
    /// If the length of `latent` does not match `grid`.
    pub fn pool(self, grid: Grid, latent: &[f32], rect: BBox) -> Option<Vec<f32>> {
        let mean = |bins: Vec<Vec<f64>>| -> Vec<f64> {
            let count = bins.len().max(1) as f64;
            let mut bins = bins.into_iter();
            let mut sum = bins.next().unwrap_or_default();
            bins.for_each(|bin| sum.iter_mut().zip(bin).for_each(|(sum, w)| *sum += w));
            sum.iter().map(|w| w / count).collect()
        };
        // A point is outside because of its row or its column alone, so the two means can be computed separately.
        let rows = mean(self.weights(rect.top, rect.bottom, self.bins[0], grid.rows));
        let columns = mean(self.weights(rect.left, rect.right, self.bins[1], grid.columns));
        let mut out: Vec<f32> = weighted(grid, latent, &rows, &columns).into_iter().map(|v| v as f32).collect();
        let length = normalise(&mut out);
        (length > 0.0 && length.is_finite()).then_some(out)
    }

    /// For each bin along an axis, the weight of each of its `cells`.
    fn weights(self, start: f64, end: f64, bins: usize, cells: usize) -> Vec<Vec<f64>> {
        // In coordinates of cell centres: cell i has its centre at i.
        let (start, size) = (start - 0.5, (end - start) / bins.max(1) as f64);
        let samples = match self.samples {
            // A box is clipped to its frame, so this is at most about the number of cells.
            0 => size.ceil().clamp(0.0, 2.0 * cells as f64 + 2.0) as usize,
            samples => samples,
        };
        let of_bin = |bin: usize| {
            let mut weights = vec![0.0; cells];
            for sample in 0..samples {
                let at = start + size * (bin as f64 + (sample as f64 + 0.5) / samples as f64);
                let Some(last) = cells.checked_sub(1).filter(|_| (-1.0..=cells as f64).contains(&at)) else { continue };
                let at = at.clamp(0.0, last as f64);
                let low = (at as usize).min(last);
                let share = at - low as f64;
                weights[low] += (1.0 - share) / samples as f64;
                if low < last {
                    weights[low + 1] += share / samples as f64;
                }
            }
            weights
        };
        (0..bins).map(of_bin).collect()
    }
}

/// `sum over cells (i, j) of rows[i] columns[j] f_ij`.
fn weighted(grid: Grid, latent: &[f32], rows: &[f64], columns: &[f64]) -> Vec<f64> {
    assert_eq!(latent.len(), grid.numbers(), "numbers of a grid latent");
    let mut out = vec![0.0; grid.dim];
    let cells = rows.iter().flat_map(|y| columns.iter().map(move |x| y * x));
    for (weight, cell) in cells.zip(latent.chunks_exact(grid.dim.max(1))).filter(|(weight, _)| *weight != 0.0) {
        out.iter_mut().zip(cell).for_each(|(out, f)| *out += weight * f64::from(*f));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        grid: [usize; 3],
        boxes: Vec<[f64; 4]>,
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        bins: [usize; 2],
        scale: f64,
        samples: usize,
        pooled: Vec<Vec<f32>>,
    }

    fn values(grid: Grid) -> Vec<f32> {
        let value = |i: usize, j: usize, c: usize| {
            let (i, j, c, w) = (i as f64, j as f64, c as f64, grid.columns as f64);
            ((0.37 * (i * w + j) + 1.1 * c).sin() + 0.5 * (0.9 * i * j + 2.0 * c).cos()) as f32
        };
        let cells = (0..grid.rows).flat_map(|i| (0..grid.columns).map(move |j| (i, j)));
        cells.flat_map(|(i, j)| (0..grid.dim).map(move |c| value(i, j, c))).collect()
    }

    #[test]
    fn it_is_the_one_of_torchvision() {
        let golden: Golden =
            serde_json::from_str(include_str!("../../tests/data/roi.json")).unwrap_or_else(|e| panic!("{e}"));
        let grid = Grid::new(golden.grid);
        let latent = values(grid);
        let (mut compared, mut largest) = (0, 0.0f32);
        for case in &golden.cases {
            let align = RoiAlign { bins: case.bins, samples: case.samples };
            for (rect, expected) in golden.boxes.iter().zip(&case.pooled) {
                let [left, top, right, bottom] = rect.map(|x| x * case.scale);
                let rect = BBox { left, top, right, bottom };
                let found = align.align(grid, &latent, rect);
                assert_eq!(found.len(), expected.len());
                found.iter().zip(expected).for_each(|(a, b)| largest = largest.max((a - b).abs()));
                compared += 1;
                // The mean over the bins, scaled to unit length.
                let mut mean = vec![0.0f32; grid.dim];
                found.chunks_exact(grid.dim).for_each(|bin| mean.iter_mut().zip(bin).for_each(|(m, x)| *m += x));
                let length = normalise(&mut mean);
                match align.pool(grid, &latent, rect) {
                    Some(pooled) => assert!(pooled.iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-4), "{rect:?}"),
                    None => assert!(length < 1e-6, "{rect:?}"),
                }
            }
        }
        assert_eq!(compared, 40);
        assert!(largest < 1e-4, "{largest}");
    }

    #[test]
    fn cells_of_overlapping_patches_lie_where_their_centres_are() {
        // 7 x 7 patches of 64 pixels, 32 apart, in an image of 256.
        let grid = Grid::new([7, 7, 1]);
        let cells = GridGeometry { first: [32.0; 2], step: [32.0; 2] };
        let latent: Vec<f32> = (0..49).map(|i| (i % 7) as f32).collect();
        let one = RoiAlign { bins: [1, 1], samples: 1 };
        // The frame region is twice as wide and high as the input, and starts at pixel (100, 50).
        for column in 0..7 {
            let (x, y) = (100.0 + 2.0 * (32.0 + 32.0 * f64::from(column)), 50.0 + 2.0 * 64.0);
            let rect = BBox { left: x - 3.0, top: y - 3.0, right: x + 3.0, bottom: y + 3.0 };
            let found = one.align(grid, &latent, cells.of(rect, [100.0, 50.0, 512.0, 512.0], Size::square(256)));
            assert!((found[0] - column as f32).abs() < 1e-5, "{column}: {found:?}");
        }
        // An even grid of 4 cells over 256 pixels: the centre of the last cell is at 224.
        let even = GridGeometry::even(Grid::new([4, 4, 1]), Size::square(256));
        assert_eq!((even.first, even.step), ([32.0; 2], [64.0; 2]));
        let latent: Vec<f32> = (0..16).map(|i| (i / 4) as f32).collect();
        let rect = BBox { left: 10.0, top: 222.0, right: 14.0, bottom: 226.0 };
        let found =
            one.align(Grid::new([4, 4, 1]), &latent, even.of(rect, [0.0, 0.0, 256.0, 256.0], Size::square(256)));
        assert!((found[0] - 3.0).abs() < 1e-5);
    }

    #[test]
    fn what_has_no_direction_is_none() {
        let grid = Grid::new([2, 2, 3]);
        let rect = BBox { left: 0.0, top: 0.0, right: 2.0, bottom: 2.0 };
        assert_eq!(RoiAlign::POOL.pool(grid, &[0.0; 12], rect), None);
        let far = BBox { left: 40.0, top: 40.0, right: 50.0, bottom: 50.0 };
        assert_eq!(RoiAlign::POOL.pool(grid, &[1.0; 12], far), None);
    }
}
