//! Labelled images, if the user has some: they must agree with the label-free gate, and they choose among the heads
//! that pass it.
//!
//! They reveal what the gate cannot see: a head that follows the background if every segment has its own. To show this,
//! the images of a class must come from several visits or places, and must not be frames of the stream.
use ndarray::{Array2, ArrayView2, s};
use serde::Serialize;

use super::decide::{PairedBootstrap, compare};
use crate::config::Promotion;
use crate::error::{Error, Result};
use crate::head::Head;
use crate::linalg::{dot, product, slices};

/// Minimum number of images per class: with two, a single lucky pair decides.
pub const LEAST_IMAGES: usize = 3;
/// Minimum number of classes in a probe.
pub const LEAST_CLASSES: usize = 2;
/// Maximum number of images. An evaluation costs `images^2 * k`, so more would make each one slow.
pub const MOST_IMAGES: usize = 4096;

/// Labelled latents.
#[derive(Debug, Clone)]
pub struct Probe {
    latents: Array2<f32>,
    labels: Vec<usize>,
    classes: usize,
}

/// The probe's decision, with the values behind it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProbeResult {
    /// Whether the candidate may replace the reference.
    pub passed: bool,
    /// Number of compared classes.
    pub classes: usize,
    /// Number of compared images.
    pub images: usize,
    /// Mean reciprocal rank: the mean of the class means.
    pub rank: PairedBootstrap,
    /// The reason, in one line.
    pub reason: String,
}

impl Probe {
    /// Creates a probe. `latents: [n, d]` has unit rows; `labels` gives each row's class as an index into `classes`
    /// (names).
    ///
    /// # Errors
    /// Fewer than two classes, a class with fewer than three images, more than 4096 images, or parts that do not fit
    /// together.
    pub fn new(latents: Array2<f32>, labels: Vec<usize>, classes: &[String]) -> Result<Self> {
        let images = latents.nrows();
        let mut counts = vec![0usize; classes.len()];
        for &label in &labels {
            match counts.get_mut(label) {
                Some(count) => *count += 1,
                None => return Err(Error::config(format!("probe: label {label} of {} classes", classes.len()))),
            }
        }
        let few: Vec<String> = classes
            .iter()
            .zip(&counts)
            .filter(|(_, n)| **n < LEAST_IMAGES)
            .map(|(name, n)| format!("{name} has {n}"))
            .collect();
        let problem = if labels.len() != images {
            format!("{images} images and {} labels", labels.len())
        } else if images > MOST_IMAGES {
            format!("{images} images; at most {MOST_IMAGES}, or each fit takes too long")
        } else if classes.len() < LEAST_CLASSES {
            format!("{} classes; at least {LEAST_CLASSES} are needed to tell one from another", classes.len())
        } else if !few.is_empty() {
            format!("every class needs at least {LEAST_IMAGES} images, of several visits or places: {}", few.join(", "))
        } else {
            return Ok(Self { latents: latents.as_standard_layout().into_owned(), labels, classes: classes.len() });
        };
        Err(Error::config(format!("labelled images of promotion.probe: {problem}")))
    }

    /// The same images with new latents; `latents` computes them from the current ones.
    #[must_use]
    pub fn mapped(self, latents: impl FnOnce(ArrayView2<f32>) -> Array2<f32>) -> Self {
        Self { latents: latents(self.latents.view()), ..self }
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// For every image, the reciprocal rank of the first image of its class among all other images: `1 / (1 + #{j of
    /// another class: e_j . e_i >= max over p of the class, p /= i, of e_p . e_i})`.
    ///
    /// Ties count against the head. All scores are NaN if an embedding is not finite or not of unit length, or if
    /// `head` expects latents of another length.
    pub fn scores(&self, head: &Head) -> Vec<f64> {
        let unknown = vec![f64::NAN; self.images()];
        if self.latents.ncols() != head.dim_in() {
            return unknown;
        }
        let rows = head.embed_rows(self.latents.view()).as_standard_layout().into_owned();
        if !slices(&rows).all(|row| (dot(row, row) - 1.0).abs() < 1e-3) {
            return unknown;
        }
        let mut out = Vec::with_capacity(self.images());
        for begin in (0..rows.nrows()).step_by(64) {
            let cosines = product(rows.slice(s![begin..(begin + 64).min(rows.nrows()), ..]), rows.t());
            for (k, row) in slices(&cosines).enumerate() {
                let (image, class) = (begin + k, self.labels[begin + k]);
                let others = || row.iter().zip(&self.labels).enumerate().filter(|(j, _)| *j != image);
                let best = others()
                    .filter(|(_, (_, label))| **label == class)
                    .fold(f32::NEG_INFINITY, |best, (_, (cosine, _))| best.max(*cosine));
                let beaten = others().filter(|(_, (c, label))| **label != class && **c >= best).count();
                out.push(1.0 / (1 + beaten) as f64);
            }
        }
        out
    }

    /// Compares two heads: averages the scores over the images of each class, and resamples the classes as
    /// [`super::gate`] resamples blocks. Given the comparison, `agrees` returns whether the candidate may replace the
    /// reference and, if not, what speaks against it.
    pub fn compare(
        &self,
        candidate: &[f64],
        reference: &[f64],
        config: &Promotion,
        seed: u64,
        agrees: fn(&PairedBootstrap) -> (bool, &'static str),
    ) -> ProbeResult {
        let compared = compare(&self.by_class(candidate), &self.by_class(reference), config, seed, 2);
        let (agreed, objection) = agrees(&compared.side);
        let passed = compared.fault.is_none() && agreed;
        let (images, classes) = (self.images(), self.classes);
        let figures = format!("labelled images {}, {images} of {classes} classes", compared.side.figures());
        let reason = match compared.fault {
            Some(fault) => format!("labelled images: {fault}"),
            None if passed => figures,
            None => format!("{figures}: {objection}"),
        };
        ProbeResult { passed, classes, images, rank: compared.side, reason }
    }

    /// The mean of the class means of `scores`.
    pub fn mean(&self, scores: &[f64]) -> f64 {
        let means = self.by_class(scores);
        means.iter().sum::<f64>() / means.len() as f64
    }

    /// Mean score of each class. Infinite, and therefore rejected, if the scores do not belong to these images.
    fn by_class(&self, scores: &[f64]) -> Vec<f64> {
        if scores.len() != self.images() || scores.iter().any(|x| !x.is_finite()) {
            return vec![f64::INFINITY; self.classes];
        }
        let (mut sums, mut counts) = (vec![0.0; self.classes], vec![0.0; self.classes]);
        for (score, &label) in scores.iter().zip(&self.labels) {
            sums[label] += score;
            counts[label] += 1.0;
        }
        sums.iter().zip(&counts).map(|(sum, n)| sum / n).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::Array1;

    use super::*;
    use crate::head::{EmbeddingKind, HeadParams};

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("class {i}")).collect()
    }

    /// A head that keeps the coordinates with a non-zero weight.
    fn weighted(weights: &[f32]) -> Head {
        let slow = Array2::from_diag(&Array1::from_vec(weights.to_vec()));
        Head::Learned(HeadParams {
            mean: Array1::zeros(weights.len()),
            slow,
            mlp: None,
            alpha: 0.0,
            form: EmbeddingKind::Single,
        })
    }

    /// The class is in the first two coordinates (an angle); the visit (a nuisance) is in the last two and is stronger.
    fn probe(classes: usize) -> Probe {
        let mut rows = Vec::new();
        let mut labels = Vec::new();
        for class in 0..classes {
            for visit in 0..3 {
                let (a, b) = (class as f32 * 6.0 / classes as f32, visit as f32 * 2.0 + 0.01 * class as f32);
                rows.extend([0.5 * a.cos(), 0.5 * a.sin(), 0.75f32.sqrt() * b.cos(), 0.75f32.sqrt() * b.sin()]);
                labels.push(class);
            }
        }
        Probe::new(Array2::from_shape_vec((labels.len(), 4), rows).unwrap(), labels, &names(classes)).unwrap()
    }

    /// Requires the candidate to be significantly better.
    fn significantly(probe: &Probe, candidate: &[f64], reference: &[f64]) -> ProbeResult {
        probe.compare(candidate, reference, &Promotion::default(), 1, |side| {
            (side.lower_bound > 0.0, "not significantly better")
        })
    }

    #[test]
    fn ranks_by_hand() {
        // Angles on a circle, in degrees: class 0 at 0, 12, 100; class 1 at 20, 106, 110. For 12, class 0 is 12 degrees
        // away and 20 is 8 degrees away; for 100 and 20, all three images of the other class are nearer than the first
        // of their own.
        let degrees = [0f32, 12.0, 100.0, 20.0, 106.0, 110.0];
        let rows: Vec<f32> = degrees.iter().flat_map(|d| [d.to_radians().cos(), d.to_radians().sin()]).collect();
        let latents = Array2::from_shape_vec((6, 2), rows).unwrap();
        let probe = Probe::new(latents, vec![0, 0, 0, 1, 1, 1], &names(2)).unwrap();
        assert_eq!(probe.scores(&Head::Identity { dim: 2 }), [1.0, 0.5, 0.25, 0.25, 1.0, 1.0]);
        let same = Probe::new(Array2::ones((6, 1)), vec![0, 0, 0, 1, 1, 1], &names(2)).unwrap();
        assert_eq!(same.scores(&Head::Identity { dim: 1 }), vec![0.25; 6], "ties count against the head");
    }

    #[test]
    fn a_head_that_ignores_the_visit_wins_and_one_that_follows_it_loses() {
        let probe = probe(12);
        let frozen = probe.scores(&Head::Identity { dim: 4 });
        let good = probe.scores(&weighted(&[1.0, 1.0, 0.1, 0.1]));
        let bad = probe.scores(&weighted(&[0.3, 0.3, 1.0, 1.0]));
        let verdict = significantly(&probe, &good, &frozen);
        assert!(verdict.passed && verdict.rank.candidate > 0.9 && verdict.rank.reference < 0.5, "{verdict:?}");
        assert_eq!((verdict.classes, verdict.images), (12, 36));
        let verdict = significantly(&probe, &bad, &frozen);
        assert!(!verdict.passed && verdict.reason.ends_with("not significantly better"), "{verdict:?}");
        assert!(!significantly(&probe, &frozen, &frozen).passed);
        // The mean of the class means is what heads are chosen by.
        assert!((probe.mean(&good) - significantly(&probe, &good, &frozen).rank.candidate).abs() < 1e-12);
    }

    #[test]
    fn broken_scores_never_pass() {
        let probe = probe(4);
        let fine = vec![0.1; 12];
        let broken = probe.scores(&weighted(&[f32::NAN; 4]));
        assert!(broken.iter().all(|x| x.is_nan()) && probe.scores(&weighted(&[1.0; 5])).iter().all(|x| x.is_nan()));
        for (candidate, reference) in [(&broken, &fine), (&fine, &broken), (&broken, &broken), (&vec![1.0; 3], &fine)] {
            let verdict = significantly(&probe, candidate, reference);
            assert!(!verdict.passed && verdict.reason == "labelled images: scores that are not finite", "{verdict:?}");
        }
        assert!(significantly(&probe, &[0.2; 12], &fine).passed);
    }

    #[test]
    fn what_is_no_probe_is_refused() {
        let refused = |n: usize, labels: Vec<usize>, classes: usize| {
            Probe::new(Array2::ones((n, 2)), labels, &names(classes)).unwrap_err().chain()
        };
        let text = refused(5, vec![0, 0, 0, 1, 1], 2);
        assert!(text.contains("at least 3 images") && text.ends_with("class 1 has 2"), "{text}");
        assert!(refused(3, vec![0, 0, 0], 1).contains("1 classes; at least 2"));
        assert!(refused(3, vec![0, 0, 7], 2).contains("label 7 of 2 classes"));
        assert!(refused(4, vec![0, 0, 0], 2).contains("4 images and 3 labels"));
        assert!(refused(5000, vec![0; 5000], 2).contains("at most 4096"));
    }
}
