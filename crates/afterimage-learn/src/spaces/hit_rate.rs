//! How often the nearest neighbours show the same thing, within one space and across two.
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use crate::knn::nearest;
use crate::linalg::product;
use crate::sampling::Block;

/// Number of neighbours per query.
const NEIGHBOURS: usize = 5;

/// A gallery and queries; the label of each row says what it shows: a class, or the block of the frame.
#[derive(Debug, Clone, Default)]
pub struct RetrievalSplit {
    /// Gallery rows, `[g, d]`.
    pub gallery: Array2<f32>,
    /// Gallery labels, `[g]`.
    pub gallery_labels: Vec<u64>,
    /// Query rows, `[q, d]`.
    pub queries: Array2<f32>,
    /// Query labels, `[q]`.
    pub query_labels: Vec<u64>,
}

impl RetrievalSplit {
    /// Splits blocks of frames: the first third of each block is the gallery, the last third the queries. The third in
    /// between keeps a query from finding its own neighbour in time. Blocks with fewer than two frames are left out.
    /// Returns `None` for fewer than two blocks.
    pub fn of<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Option<Self> {
        let long: Vec<&Block> = blocks.into_iter().filter(|block| block.latents.nrows() >= 2).collect();
        if long.len() < 2 {
            return None;
        }
        let third = |block: &Block| (block.latents.nrows() / 3).max(1);
        let labels = || long.iter().flat_map(|block| std::iter::repeat_n(block.number, third(block))).collect();
        let first: Vec<_> = long.iter().map(|block| block.latents.slice(s![..third(block), ..])).collect();
        let last: Vec<_> =
            long.iter().map(|block| block.latents.slice(s![block.latents.nrows() - third(block).., ..])).collect();
        Some(Self {
            gallery: concatenate(Axis(0), &first).ok()?,
            gallery_labels: labels(),
            queries: concatenate(Axis(0), &last).ok()?,
            query_labels: labels(),
        })
    }
}

/// Hit rates within the new space and across the map to it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct HitRate {
    /// Queries and gallery both embedded by the new head.
    pub within: f64,
    /// Queries embedded by the new head, gallery embedded by the old one and mapped.
    pub across: f64,
}

impl HitRate {
    /// The ratio of across to within: 1 if nothing is lost, 0 if nothing is found within.
    pub fn rate(&self) -> f64 {
        if self.within > 0.0 { self.across / self.within } else { 0.0 }
    }
}

/// Share of hits among the `k` nearest gallery rows (by inner product) of each query, averaged over the queries. A hit
/// has the query's label. Takes unit rows `[g, d]` and `[q, d]`; uses all gallery rows if there are fewer than `k`.
/// Returns 0 without queries or a gallery.
pub fn hits(
    gallery: ArrayView2<f32>,
    gallery_labels: &[u64],
    queries: ArrayView2<f32>,
    query_labels: &[u64],
    k: usize,
) -> f64 {
    let k = k.min(gallery_labels.len());
    if k == 0 || query_labels.is_empty() {
        return 0.0;
    }
    let similar = product(queries, gallery.t());
    let of = |(row, label): (ndarray::ArrayView1<f32>, &u64)| {
        nearest(row.as_slice().unwrap_or_default(), k, |_| true)
            .iter()
            .filter(|i| gallery_labels[**i] == *label)
            .count()
    };
    let found: usize = similar.rows().into_iter().zip(query_labels).map(of).sum();
    found as f64 / (k * query_labels.len()) as f64
}

impl RetrievalSplit {
    /// [`hits`] for embeddings of the gallery and the queries, with five neighbours.
    pub(super) fn hits(&self, gallery: ArrayView2<f32>, queries: ArrayView2<f32>) -> f64 {
        hits(gallery, &self.gallery_labels, queries, &self.query_labels, NEIGHBOURS)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn hits_are_counted_by_hand() {
        let gallery = array![[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]];
        let (labels, queries) = ([7, 8, 7, 9], array![[1.0, 0.0], [0.0, 1.0]]);
        let at = |asked: &[u64], k| hits(gallery.view(), &labels, queries.view(), asked, k);
        // Gallery labels by distance, for the first query: 7, 8, 7, 9; for the second also 7, 8, 7, 9.
        assert_eq!((at(&[7, 7], 1), at(&[8, 7], 1), at(&[8, 8], 2), at(&[9, 9], 9)), (1.0, 0.5, 0.5, 0.25));
        assert_eq!(hits(gallery.view(), &labels, queries.slice(s![..0, ..]), &[], 1), 0.0);
        assert_eq!(HitRate { within: 0.5, across: 0.25 }.rate(), 0.5);
        assert_eq!(HitRate { within: 0.0, across: 0.25 }.rate(), 0.0);
    }

    #[test]
    fn blocks_are_halved_with_a_third_between() {
        let block = |number: u64, rows: usize| Block {
            number,
            latents: Array2::from_shape_fn((rows, 2), |(i, _)| number as f32 * 10.0 + i as f32),
            ..Block::default()
        };
        assert!(RetrievalSplit::of(&[block(1, 9), block(2, 1)]).is_none());
        let halves = RetrievalSplit::of(&[block(1, 9), block(2, 1), block(3, 2)]).unwrap();
        assert_eq!(halves.gallery.column(0).to_vec(), [10.0, 11.0, 12.0, 30.0]);
        assert_eq!(halves.queries.column(0).to_vec(), [16.0, 17.0, 18.0, 31.0]);
        assert_eq!((halves.gallery_labels, halves.query_labels), (vec![1, 1, 1, 3], vec![1, 1, 1, 3]));
    }
}
