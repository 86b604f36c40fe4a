//! Linear probe: how well labels can be read off frozen embeddings by a linear map. Deterministic, closed form.
use ndarray::{Array2, ArrayView2};

use crate::error::Result;
use crate::linalg::{generalised_eigen, product};

/// Strengths of the ridge that are tried, as multiples of the mean eigenvalue of the kernel.
const STRENGTHS: [f64; 9] = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0];

/// Share of queries whose class gets the largest value of a ridge regression from gallery embeddings to classes.
///
/// With `x = [embedding, 1]`, `K = X X'` over the gallery and `Y: [g, classes]` one-hot, the class values of a query are
/// `x_q X' (K + lambda I)^-1 Y` (regularised least-squares classification: Rifkin, Yeo, Poggio 2003; in place of the
/// logistic regression of the usual protocol, which needs a step size and a stop). `lambda` is the strength, of 1e-4 to 1
/// times the mean eigenvalue of `K`, with the least squared leave-one-out error: `((K + lambda I)^-1 Y)_ic / ((K + lambda
/// I)^-1)_ii`, exact (Rifkin, Lippert 2007, section 2). No query is looked at for that.
///
/// `gallery: [g, d]`, `queries: [q, d]`, unit rows; labels are numbers below `classes`. Higher is better, 0 to 1; the
/// first label wins a tie. 0 when there are no queries or no gallery. Costs `g^3`, and memory for six `[g, g]` of `f64`.
///
/// # Errors
/// Embeddings that are not finite.
pub fn accuracy(
    gallery: ArrayView2<f32>,
    gallery_labels: &[usize],
    queries: ArrayView2<f32>,
    query_labels: &[usize],
    classes: usize,
) -> Result<f64> {
    if query_labels.is_empty() || gallery_labels.is_empty() {
        return Ok(0.0);
    }
    let kernel = |rows: ArrayView2<f32>| product(rows, gallery.t()).mapv(|x| f64::from(x) + 1.0);
    let weights = fit(kernel(gallery), gallery_labels, classes)?;
    let values = product(kernel(queries).view(), weights.view());
    let right = values.rows().into_iter().zip(query_labels).filter(|(row, label)| {
        let best = row.iter().enumerate().fold(0, |best, (class, value)| if *value > row[best] { class } else { best });
        best == **label
    });
    Ok(right.count() as f64 / query_labels.len() as f64)
}

/// `(K + lambda I)^-1 Y: [g, classes]` of the best strength.
fn fit(kernel: Array2<f64>, labels: &[usize], classes: usize) -> Result<Array2<f64>> {
    let g = labels.len();
    let (values, vectors) = generalised_eigen(kernel.view(), Array2::eye(g).view(), g)?;
    let one_hot = Array2::from_shape_fn((g, classes), |(i, class)| f64::from(u8::from(labels[i] == class)));
    let turned = product(vectors.t(), one_hot.view());
    let mean = values.sum() / g as f64;
    let mut best: Option<(f64, Array2<f64>)> = None;
    for strength in STRENGTHS {
        let inverse = values.mapv(|value| 1.0 / (value.max(0.0) + strength * mean));
        let scaled = &vectors * &inverse;
        let weights = product(scaled.view(), turned.view());
        let mut error = 0.0;
        for (i, row) in weights.rows().into_iter().enumerate() {
            let diagonal: f64 = scaled.row(i).iter().zip(vectors.row(i)).map(|(a, b)| a * b).sum();
            error += row.iter().map(|weight| (weight / diagonal).powi(2)).sum::<f64>();
        }
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, weights));
        }
    }
    Ok(best.map_or_else(|| Array2::zeros((g, classes)), |(_, weights)| weights))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::{Axis, s};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::linalg::random::uniform;
    use crate::linalg::unit_rows;

    /// `each` rows of 3 classes: a small mark of the class in the first three numbers, loud noise in the others.
    fn made(each: usize, mark: f32, seed: u64) -> (Array2<f32>, Vec<usize>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let labels: Vec<usize> = (0..3 * each).map(|i| i % 3).collect();
        let rows = Array2::from_shape_fn((labels.len(), 12), |(i, j)| {
            if j < 3 { mark * f32::from(u8::from(labels[i] == j)) } else { uniform(&mut rng) as f32 - 0.5 }
        });
        (unit_rows(&rows).0, labels)
    }

    #[test]
    fn reads_a_small_mark_that_neighbours_do_not_see() {
        let ((gallery, g), (queries, q)) = (made(40, 0.25, 1), made(40, 0.25, 2));
        let linear = accuracy(gallery.view(), &g, queries.view(), &q, 3).unwrap();
        let knn = crate::knn::accuracy(gallery.view(), &g, queries.view(), &q, 3, 1);
        assert!(linear > 0.95 && knn < 0.75, "linear {linear}, 1-NN {knn}");
        // Without a mark: chance.
        let ((gallery, g), (queries, q)) = (made(40, 0.0, 3), made(40, 0.0, 4));
        let chance = accuracy(gallery.view(), &g, queries.view(), &q, 3).unwrap();
        assert!((chance - 1.0 / 3.0).abs() < 0.15, "{chance}");
    }

    #[test]
    fn the_strength_is_the_best_when_each_row_is_left_out() {
        let (rows, labels) = made(5, 0.3, 5);
        let n = labels.len();
        let kernel = product(rows.view(), rows.t()).mapv(|x| f64::from(x) + 1.0);
        let mean = kernel.diag().sum() / n as f64;
        let one_hot = Array2::from_shape_fn((n, 3), |(i, c)| f64::from(u8::from(labels[i] == c)));
        // By definition: n fits for each strength, each on the other rows.
        let solve = |k: &Array2<f64>, y: &Array2<f64>, lambda: f64| {
            let (values, v) = generalised_eigen(k.view(), Array2::eye(k.nrows()).view(), k.nrows()).unwrap();
            (&v / &values.mapv(|x| x.max(0.0) + lambda)).dot(&v.t()).dot(y)
        };
        let mut best = (f64::INFINITY, 0.0);
        for strength in STRENGTHS {
            let mut error = 0.0;
            for i in 0..n {
                let others: Vec<usize> = (0..n).filter(|j| *j != i).collect();
                let k = kernel.select(Axis(0), &others).select(Axis(1), &others);
                let weights = solve(&k, &one_hot.select(Axis(0), &others), strength * mean);
                let value = kernel.select(Axis(1), &others).slice(s![i, ..]).dot(&weights);
                error += (&value - &one_hot.row(i)).mapv(|x| x * x).sum();
            }
            if error < best.0 {
                best = (error, strength);
            }
        }
        let right = solve(&kernel, &one_hot, best.1 * mean);
        let found = fit(kernel, &labels, 3).unwrap();
        assert!((&found - &right).iter().all(|x| x.abs() < 1e-6), "strength {}", best.1);
    }

    #[test]
    fn nothing_gives_nothing_and_what_is_not_finite_is_refused() {
        let (rows, labels) = made(2, 1.0, 6);
        let none = Array2::zeros((0, 12));
        assert_eq!(accuracy(rows.view(), &labels, none.view(), &[], 3).unwrap(), 0.0);
        assert_eq!(accuracy(none.view(), &[], rows.view(), &labels, 3).unwrap(), 0.0);
        let mut broken = rows.clone();
        broken[[1, 2]] = f32::NAN;
        assert!(accuracy(broken.view(), &labels, rows.view(), &labels, 3).is_err());
    }
}
