//! Nearest neighbours by cosine, for `eval` and the contact sheet.
use ndarray::{Array2, ArrayView2};

use crate::linalg::product;

/// Temperature of the votes: a neighbour of cosine `s` votes with weight `exp(s / 0.07)`.
const TEMPERATURE: f32 = 0.07;

/// Share of queries whose label wins the vote of their `k` nearest gallery rows, each weighted by `exp(s / 0.07)`
/// (Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination", section 3.4).
///
/// `gallery: [g, d]`, `queries: [q, d]`, unit rows; labels are numbers below `classes`. Higher is better, 0 to 1; the
/// first label wins a tie. 0 when there are no queries or no gallery.
pub fn accuracy(
    gallery: ArrayView2<f32>,
    gallery_labels: &[usize],
    queries: ArrayView2<f32>,
    query_labels: &[usize],
    classes: usize,
    k: usize,
) -> f64 {
    if query_labels.is_empty() || gallery_labels.is_empty() {
        return 0.0;
    }
    let similar = product(queries, gallery.t());
    let mut right = 0_usize;
    let mut votes = vec![0.0_f32; classes];
    for (row, label) in similar.rows().into_iter().zip(query_labels) {
        votes.fill(0.0);
        for i in nearest(row.as_slice().unwrap_or_default(), k, |_| true) {
            votes[gallery_labels[i]] += (row[i] / TEMPERATURE).exp();
        }
        let best = votes.iter().enumerate().fold(0, |best, (c, v)| if *v > votes[best] { c } else { best });
        right += usize::from(best == *label);
    }
    right as f64 / query_labels.len() as f64
}

/// Positions of the `k` largest similarities among those that `allowed` lets through, largest first.
pub fn nearest(similar: &[f32], k: usize, allowed: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..similar.len()).filter(|i| allowed(*i)).collect();
    order.sort_by(|a, b| similar[*b].total_cmp(&similar[*a]).then(a.cmp(b)));
    order.truncate(k);
    order
}

/// Rows of several `[1, d]` embeddings as one `[n, d]`.
pub fn rows(list: &[Vec<f32>], dim: usize) -> Array2<f32> {
    let mut out = Array2::zeros((list.len(), dim));
    for (mut row, values) in out.rows_mut().into_iter().zip(list) {
        for (to, from) in row.iter_mut().zip(values) {
            *to = *from;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn votes_are_weighted_by_similarity() {
        let gallery = array![[1.0_f32, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]];
        let labels = [0, 1, 1, 1];
        let queries = array![[1.0_f32, 0.0], [0.0, 1.0]];
        // The nearest one is right for both; at k = 3 its vote exp(1 / .07) outweighs two votes of at most exp(.8 / .07).
        for k in [1, 3] {
            assert!((accuracy(gallery.view(), &labels, queries.view(), &[0, 1], 2, k) - 1.0).abs() < 1e-12);
        }
        assert!((accuracy(gallery.view(), &labels, queries.view(), &[1, 0], 2, 1)).abs() < 1e-12);
        assert!(accuracy(gallery.view(), &[], queries.view(), &[], 2, 1).abs() < 1e-12);
    }

    #[test]
    fn nearest_goes_by_similarity_then_position_and_may_be_filtered() {
        let similar = [0.1, 0.9, 0.9, 0.5];
        assert_eq!(nearest(&similar, 3, |_| true), [1, 2, 3]);
        assert_eq!(nearest(&similar, 3, |i| i != 1), [2, 3, 0]);
    }
}
